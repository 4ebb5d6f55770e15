"""The BTS host: each command of its API as a call. No meaning is given to the answers here.

Every call raises LinkError where the wire failed, and InstrumentError for a reply that cannot be;
the connection that such a reply came on is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from labctl.clock import Clock
from labctl.drivers.base import ChannelState
from labctl.drivers.neware_bts import messages
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.messages import FRAMING, Address, Inquiry, Reply, TestSummary
from labctl.drivers.neware_bts.rows import (
    MAX_ROWS,
    Rows,
    check_ranges,
    measurable_A,
    measurable_V,
    read_download,
)
from labctl.wire.link import Exchange, Greeting, Link
from labctl.wire.pool import LinkPool
from labctl.wire.tcp import TcpLink

Answer = TypeVar("Answer")
OpenLink: TypeAlias = Callable[[Greeting], Link]


class Host:
    """One host behind ``config.connections`` links, each of which logs in when it connects.

    ``open_link`` makes a link that greets by its argument; TCP unless a test says otherwise.
    meetings: how many connections were made.
    """

    def __init__(
        self, config: NewareConfig, *, name: str, clock: Clock, open_link: OpenLink | None = None
    ) -> None:
        self._config = config
        self._name = name
        self._clock = clock
        self._capabilities = config.capabilities
        self.meetings = 0
        open_link = open_link or self._tcp_link
        self._links = LinkPool([open_link(self._log_in) for _ in range(config.connections)])

    async def open(self) -> None:
        await self._links.open()

    async def close(self) -> None:
        await self._links.close()

    async def addresses(self) -> tuple[Address, ...]:
        """Every channel of the host, in its order."""
        return await self._ask(
            messages.devinfo_request(),
            "getdevinfo",
            partial(messages.read_devinfo, instrument=self._name),
        )

    async def states(
        self, addresses: Sequence[Address], *, urgent: bool = False
    ) -> tuple[ChannelState, ...]:
        read = partial(messages.read_status, channels=addresses, instrument=self._name)
        request = messages.status_request(addresses)
        return await self._ask(request, "getchlstatus", read, urgent=urgent)

    async def inquiries(self, addresses: Sequence[Address]) -> tuple[Inquiry, ...]:
        def read(data: bytes) -> tuple[Inquiry, ...]:
            found = messages.read_inquire(data, channels=addresses, instrument=self._name)
            reply = Reply(data, "inquire", self._name)
            for inquiry in found:
                self._check(reply, inquiry)
            return found

        return await self._ask(messages.inquire_request(addresses), "inquire", read)

    async def summaries(self, addresses: Sequence[Address]) -> tuple[TestSummary, ...]:
        read = partial(messages.read_inquiredf, channels=addresses, instrument=self._name)
        return await self._ask(messages.inquiredf_request(addresses), "inquiredf", read)

    async def download(self, address: Address, start: int) -> Rows:
        """Readings of the last test from ``start`` on, as many as one answer holds."""

        def read(data: bytes) -> Rows:
            rows = read_download(data, address, start=start, count=MAX_ROWS, instrument=self._name)
            check_ranges(Reply(data, "download", self._name), rows, self._capabilities)
            return rows

        request = messages.download_request(address, start, MAX_ROWS)
        return await self._ask(request, "download", read)

    async def start(self, address: Address, step_file: str, barcode: str, backup_dir: str) -> bool:
        """Whether the host says that it started the channel."""
        read = partial(messages.read_start, channel=address, instrument=self._name)
        request = messages.start_request(address, step_file, barcode, backup_dir)
        return await self._ask(request, "start", read)

    async def stop(self, address: Address) -> bool:
        """Whether the host says that it stopped the channel. Goes before all other requests."""
        read = partial(messages.read_stop, channel=address, instrument=self._name)
        return await self._ask(messages.stop_request(address), "stop", read, urgent=True)

    async def go_on(self, address: Address) -> bool:
        """Whether the host says that the channel goes on with its test."""
        read = partial(messages.read_continue, channel=address, instrument=self._name)
        return await self._ask(messages.continue_request(address), "continue", read)

    async def go_to(self, address: Address, step: int) -> bool:
        """Whether the host says that the channel has left its step for ``step``."""
        read = partial(messages.read_goto, channel=address, instrument=self._name)
        return await self._ask(messages.goto_request(address, step), "goto", read)

    async def _ask(
        self,
        request: bytes,
        command: str,
        read: Callable[[bytes], Answer],
        *,
        urgent: bool = False,
    ) -> Answer:
        answers: list[Answer] = []
        await self._links.ask(
            request,
            command=command,
            check=lambda reply: answers.append(read(reply)),
            urgent=urgent,
        )
        return answers[0]

    def _check(self, reply: Reply, inquiry: Inquiry) -> None:
        low_V, high_V = measurable_V(self._capabilities)
        largest_A = measurable_A(self._capabilities)
        if inquiry.voltage_V < low_V or inquiry.voltage_V > high_V:
            raise reply.refused(
                f"the voltage is {inquiry.voltage_V:g} V, and the channel measures {low_V:g} V to "
                f"{high_V:g} V"
            )
        if abs(inquiry.current_A) > largest_A:
            raise reply.refused(
                f"the current is {inquiry.current_A:g} A, and the channel measures up to "
                f"{largest_A:g} A"
            )

    async def _log_in(self, exchange: Exchange) -> None:
        reply = await exchange(
            messages.connect_request(self._config.username, self._config.password)
        )
        messages.read_connect(reply, instrument=self._name)
        self.meetings += 1

    def _tcp_link(self, greeting: Greeting) -> Link:
        return TcpLink(
            self._config.host,
            self._config.port,
            framing=FRAMING,
            clock=self._clock,
            reply_timeout_s=self._config.reply_timeout_s,
            connect_timeout_s=self._config.connect_timeout_s,
            greeting=greeting,
        )
