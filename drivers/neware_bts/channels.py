"""What the channels of one BTS host are called, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labctl.drivers.base import ChannelState, ChannelStatus, Started
from labctl.drivers.neware_bts.host import Host
from labctl.drivers.neware_bts.messages import Address, Inquiry, TestSummary
from labctl.errors import InstrumentError


class Channels:
    """The channels of a host, by labctl's names, once they have been :meth:`listed`.

    ``name`` is the instrument's, for errors. What the host is asked raises LinkError where the wire
    failed and InstrumentError for what cannot be.
    """

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name
        self._addresses: dict[str, Address] = {}

    async def open(self) -> tuple[Address, ...]:
        """Ask the host which channels it has."""
        await self._host.open()
        addresses = await self._host.addresses()
        self._addresses = {str(address): address for address in addresses}
        return addresses

    async def listed(self) -> Mapping[str, Address]:
        """Every channel, in the host's order."""
        if not self._addresses:
            await self.open()
        return self._addresses

    async def address(self, channel: str) -> Address:
        """A channel that is not in the list is looked for in a new one.

        Raises:
            InstrumentError: there is no channel of that name.
        """
        addresses = await self.listed()
        if channel not in addresses:
            await self.open()
            addresses = await self.listed()
        if channel not in addresses:
            raise self.error(
                f"there is no channel {channel!r}; there are {', '.join(addresses)}", "getdevinfo"
            )
        return addresses[channel]

    async def statuses(self, addresses: Sequence[Address]) -> list[ChannelStatus]:
        states = await self._host.states(addresses)
        inquiries = await self._host.inquiries(addresses)
        summaries = await self._host.summaries(addresses)
        return [
            ChannelStatus(
                state=state,
                test=name_of_test(summary),
                tag=inquiry.barcode,
                voltage_V=inquiry.voltage_V,
                current_A=inquiry.current_A,
            )
            for state, inquiry, summary in zip(states, inquiries, summaries, strict=True)
        ]

    async def state(self, address: Address, *, urgent: bool = False) -> ChannelState:
        (state,) = await self._host.states([address], urgent=urgent)
        return state

    async def summary(self, address: Address) -> TestSummary:
        (summary,) = await self._host.summaries([address])
        return summary

    async def inquiry(self, address: Address) -> Inquiry:
        (inquiry,) = await self._host.inquiries([address])
        return inquiry

    def check_test(self, started: Started, test: int, command: str) -> None:
        """
        Raises:
            InstrumentError: ``test`` is not the one that was started.
        """
        if str(test) != started.test:
            raise self.error(
                f"the last test on channel {started.channel} is {test}, not {started.test}: "
                "another one was started on it",
                command,
            )

    def error(self, message: str, command: str, reply: bytes = b"") -> InstrumentError:
        return InstrumentError(
            f"{self._name}: {message}",
            instrument=self._name,
            command=command,
            reply=reply[:2000].decode("utf-8", "backslashreplace"),
        )


def name_of_test(summary: TestSummary) -> str:
    """labctl's name of the last test on a channel; '' if there was none."""
    return str(summary.test) if summary.test else ""
