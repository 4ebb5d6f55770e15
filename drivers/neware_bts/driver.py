"""Neware BTS 8 multichannel cyclers (CT-4000 to CT-9000), XML over TCP port 502 of the BTS host.

Sign: current is positive when it charges, in BTS as in labctl.
A channel is named ``devid-subdevid-chlid``, such as ``21-1-3``.

The channel runs the whole step file by itself, with its protections; the host only looks on. The
API has no command that tells what a channel has armed. The limits in Armed are therefore read back
from the step file, on the disk that the BTS host reads it from: they show that the file says what
was meant, not that the channel understood it. A watch of the readings on this side remains needed.

A pause is a stop of the test that can be gone on with: BTS reserves a pause for the end of a step
(``setpause``) and has none for now. A paused channel therefore says that it is stopped, and its
test that it is complete; only who paused it knows better.

Sources: see :mod:`labctl.drivers.neware_bts.messages` and ``stepfile``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import uuid
from pathlib import Path

from labctl.clock import Clock
from labctl.drivers.base import (
    Armed,
    Capabilities,
    ChannelState,
    ChannelStatus,
    Followed,
    Identity,
    Started,
)
from labctl.drivers.neware_bts.channels import Channels, name_of_test
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.files import (
    is_plain_name,
    path_on_host,
    written_and_read_back,
)
from labctl.drivers.neware_bts.host import Host, OpenLink
from labctl.drivers.neware_bts.messages import Address
from labctl.drivers.neware_bts.readings import readings_of
from labctl.drivers.neware_bts.stepfile import StepFile, read_step_file, write_step_file
from labctl.drivers.neware_bts.translate import limits_of, refusals, step_numbers, translate
from labctl.errors import InstrumentError, LinkError, PlanError
from labctl.model import Readings
from labctl.program import Program

ENDED = frozenset({ChannelState.FINISHED, ChannelState.STOPPED, ChannelState.TRIPPED})
"""States in which no current flows; BTS starts a test only from these."""

_OPEN = ENDED | {ChannelState.PAUSED}
_GOES_ON = frozenset({ChannelState.RUNNING, ChannelState.FINISHED})

LOOK_AGAIN_S = 0.5
"""Between two looks at a channel that was told to start or to stop."""

REFRESH_S = 1.5
"""After this long, what BTS answers is newer than what happened before."""


class NewareBts:
    """A :class:`labctl.drivers.base.Sequencer` for every channel of one BTS host.

    Tasks may call it at the same time; no more than ``config.connections`` requests are under way.
    ``open_link``: see :class:`labctl.drivers.neware_bts.host.Host`.
    """

    Config = NewareConfig

    def __init__(
        self,
        config: NewareConfig,
        *,
        name: str,
        clock: Clock,
        open_link: OpenLink | None = None,
    ) -> None:
        self._config = config
        self._name = name
        self._clock = clock
        self._capabilities = config.capabilities
        self._host = Host(config, name=name, clock=clock, open_link=open_link)
        self._folder_on_host = config.step_file_dir_on_host or config.step_file_dir
        self._channels = Channels(self._host, name)
        self._seen_at: dict[str, int] = {}
        """By the tag of a test, after how many meetings with the host it is known to be there."""

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self) -> Identity:
        """See :class:`labctl.drivers.base.Sequencer`. BTS tells no serial number: the units do."""
        addresses = await self._channels.open()
        units = sorted({(address.devtype, address.devid) for address in addresses})
        return Identity(
            manufacturer="Neware",
            model="BTS 8 device type "
            + ", ".join(str(kind) for kind in sorted({k for k, _ in units})),
            serial=", ".join(f"{kind}-{unit}" for kind, unit in units),
            unique=False,
        )

    async def close(self) -> None:
        await self._host.close()

    async def channels(self) -> tuple[str, ...]:
        """See :class:`labctl.drivers.base.Sequencer`."""
        return tuple(await self._channels.listed())

    async def status(self, channel: str) -> ChannelStatus:
        """See :class:`labctl.drivers.base.Sequencer`."""
        (status,) = await self._channels.statuses([await self._channels.address(channel)])
        return status

    async def status_all(self) -> dict[str, ChannelStatus]:
        """One look at every channel, with as many requests as a look at one takes."""
        addresses = await self._channels.listed()
        statuses = await self._channels.statuses(list(addresses.values()))
        return dict(zip(addresses, statuses, strict=True))

    def refusals(self, program: Program) -> tuple[str, ...]:
        """See :class:`labctl.drivers.base.Sequencer`.

        Steps and choices that are the host's are none of the channel's business.
        """
        return refusals(
            program,
            self._capabilities,
            temperature_watched_elsewhere=self._config.temperature_watched_elsewhere,
        )

    async def arm(self, channel: str, program: Program, tag: str) -> Armed:
        """Write the step file ``TAG.xml`` where the BTS host reads it, and read it back.

        ``tag`` becomes the barcode of the test, by which :meth:`find` knows it again. The limits
        come from the file as it was read back; see the module on what that shows. Temperatures are
        not armed, and ``duration_max_s`` is the longest that the file can run.

        Raises:
            PlanError: the program is one that :meth:`refusals` refuses.
            LinkError: the folder could not be written or read, or the wire failed.
            InstrumentError: the channel is busy, or the file does not say what was meant.
        """
        address = await self._channels.address(channel)
        file = self._translated(program, tag)
        if not is_plain_name(tag):
            raise PlanError(
                [f"the tag {tag!r} cannot name a file: letters, digits, '.', '_' and '-' can"]
            )
        state = await self._channels.state(address)
        if state not in ENDED:
            raise self._channels.error(
                f"channel {channel} is {state}, nothing can be armed on it", "arm"
            )
        summary = await self._channels.summary(address)
        read_back = await self._write_and_read_back(file, tag)
        return Armed(
            channel=channel,
            tag=tag,
            program_ref=path_on_host(self._folder_on_host, f"{tag}.xml"),
            limits=limits_of(read_back),
            test_before=name_of_test(summary),
        )

    async def start(self, armed: Armed) -> Started:
        """See :class:`labctl.drivers.base.Sequencer`.

        Raises:
            InstrumentError: nothing was begun: BTS refused, or another test was run since
                ``armed``.
            LinkError: no or no clear answer; unless the message says that nothing was sent, the
                test may have begun, and :meth:`find` tells.
        """
        address = await self._channels.address(armed.channel)
        summary = await self._channels.summary(address)
        if name_of_test(summary) != armed.test_before:
            raise self._channels.error(
                f"channel {armed.channel} has run test {summary.test} since it was armed", "start"
            )
        backup_dir = self._config.backup_dir_on_host or self._folder_on_host
        try:
            accepted = await self._host.start(address, armed.program_ref, armed.tag, backup_dir)
        except InstrumentError as error:
            raise self._unclear(armed, str(error)) from error
        if not accepted:
            raise self._channels.error(
                f"channel {armed.channel} refused to start {armed.program_ref}: it is busy, or BTS "
                "cannot read that file",
                "start",
            )
        deadline_s = self._clock.monotonic_s() + self._config.start_timeout_s
        while True:
            try:
                started, doubt = await self._look(armed)
            except InstrumentError as error:
                started, doubt = None, str(error)
            if started is not None:
                return started
            if self._clock.monotonic_s() >= deadline_s:
                waited = f"after {self._config.start_timeout_s:g} s"
                raise self._unclear(armed, f"{waited} {doubt or 'it has begun no test'}")
            await self._clock.sleep(LOOK_AGAIN_S)

    async def find(self, armed: Armed) -> Started | None:
        """See :class:`labctl.drivers.base.Sequencer`.

        Goes by the number of the last test and its barcode. A channel that works or is unavailable
        while it shows no new test is in doubt, and so is a new test with another barcode; BTS
        brings its answers up to date each second, so that a doubt is looked at twice.
        """
        started, doubt = await self._look(armed)
        if doubt:
            await self._clock.sleep(REFRESH_S)
            started, doubt = await self._look(armed)
        if doubt:
            raise self._channels.error(f"on channel {armed.channel}, {doubt}", "inquire")
        return started

    async def follow(self, started: Started, program: Program, next_index: int) -> Followed:
        """See :class:`labctl.drivers.base.Sequencer`.

        Whether the test has ended is asked before the readings are: what is recorded in between
        then comes with the next look. A channel that is unavailable has no readings for now.

        Raises:
            InstrumentError: also if the connection was made anew and the barcode is another: BTS
                has no serial number, and another rack may have a test of the same number.
        """
        address = await self._channels.address(started.channel)
        state = await self._channels.state(address)
        if state is ChannelState.UNAVAILABLE:
            return Followed(Readings(), next_index, state, complete=False)
        await self._see_that_it_is_the_same(address, started)
        count: int | None = None
        if state in ENDED:
            summary = await self._channels.summary(address)
            self._channels.check_test(started, summary.test, "inquiredf")
            count = summary.count if summary.complete else None
            if count is not None and next_index > count + 1:
                raise self._channels.error(
                    f"test {started.test} on channel {started.channel} is complete with {count} "
                    f"readings, and {next_index - 1} were read of it",
                    "inquiredf",
                    str(summary).encode(),
                )
        if count is not None and next_index > count:
            return Followed(Readings(), next_index, state, complete=True)
        rows = await self._host.download(address, next_index)
        self._channels.check_test(started, rows.test, "download")
        await self._see_that_it_is_the_same(address, started)
        if len(rows):
            next_index = int(rows.seqid[-1]) + 1
        elif count is not None:
            raise self._channels.error(
                f"test {started.test} on channel {started.channel} has {count} readings, "
                f"but none from {next_index} on",
                "download",
            )
        if count is not None and next_index > count + 1:
            raise self._channels.error(
                f"test {started.test} on channel {started.channel} is complete with {count} "
                f"readings, and shows reading {next_index - 1}",
                "download",
                f"seqid={next_index - 1}".encode(),
            )
        readings = readings_of(
            rows, program, utc_offset_s=self._config.utc_offset_s, instrument=self._name
        )
        complete = count is not None and next_index > count
        return Followed(readings, next_index, state, complete=complete)

    async def stop(self, channel: str) -> None:
        """Stop the channel and see that it stopped; overtakes whatever else waits for BTS.

        Raises:
            LinkError: twice without an answer; the channel may run on.
            InstrumentError: the channel says that it runs on, or says nothing of itself.
        """
        address = await self._channels.address(channel)
        try:
            await self._host.stop(address)
        except LinkError:
            await self._host.stop(address)
        deadline_s = self._clock.monotonic_s() + self._config.stop_timeout_s
        while (state := await self._channels.state(address, urgent=True)) not in ENDED:
            if self._clock.monotonic_s() >= deadline_s:
                raise self._channels.error(
                    f"channel {channel} was told to stop and is still {state} after "
                    f"{self._config.stop_timeout_s:g} s",
                    "stop",
                )
            await self._clock.sleep(LOOK_AGAIN_S)

    async def pause(self, channel: str) -> None:
        """See :class:`labctl.drivers.base.Sequencer`: a :meth:`stop`, which raises as that does.

        A channel whose output is open already is left as it is, whatever opened it.
        """
        if await self._channels.state(await self._channels.address(channel)) not in _OPEN:
            await self.stop(channel)

    async def resume(self, channel: str) -> None:
        """See :class:`labctl.drivers.base.Sequencer`. A test that has finished stays so.

        Raises:
            LinkError: no clear answer; the channel may have gone on. Asking again is safe.
            InstrumentError: BTS refused, as it does after a protection, or the channel does not
                show that it goes on.
        """
        address = await self._channels.address(channel)
        state = await self._channels.state(address)
        if state in _GOES_ON:
            return
        if state not in {ChannelState.STOPPED, ChannelState.PAUSED}:
            raise self._channels.error(f"channel {channel} is {state} and cannot go on", "continue")
        if not await self._host.go_on(address):
            raise self._channels.error(
                f"channel {channel} refused to go on with its test", "continue"
            )
        deadline_s = self._clock.monotonic_s() + self._config.start_timeout_s
        while (state := await self._channels.state(address)) not in _GOES_ON:
            if self._clock.monotonic_s() >= deadline_s:
                raise self._channels.error(
                    f"channel {channel} was told to go on and is still {state} after "
                    f"{self._config.start_timeout_s:g} s",
                    "continue",
                )
            await self._clock.sleep(LOOK_AGAIN_S)

    async def skip(self, started: Started, program: Program, step: int) -> None:
        """See :class:`labctl.drivers.base.Sequencer`.

        The last step of a loop is left for the loop's own line, which counts the pass. Between the
        look and the command the channel may enter the next step by itself, which then begins anew.

        Raises:
            LinkError: no clear answer; the step may have been left.
            InstrumentError: the channel runs another test, is paused, or refused.
        """
        address = await self._channels.address(started.channel)
        self._channels.check_test(
            started, (await self._channels.summary(address)).test, "inquiredf"
        )
        shown = await self._channels.inquiry(address)
        if shown.state in {ChannelState.FINISHED, ChannelState.TRIPPED}:
            return
        if shown.state is not ChannelState.RUNNING:
            raise self._channels.error(
                f"channel {started.channel} is {shown.state}: only a running step can be skipped",
                "goto",
            )
        if step_numbers(program).get(shown.step) != step:
            return
        if not await self._host.go_to(address, shown.step + 1):
            raise self._channels.error(
                f"channel {started.channel} refused to leave step {shown.step} of its file", "goto"
            )

    async def _see_that_it_is_the_same(self, address: Address, started: Started) -> None:
        """Look at the barcode, once after each connection that was lost and made again."""
        self._seen_at.setdefault(started.tag, self._host.meetings)
        while self._seen_at[started.tag] != self._host.meetings:
            meeting = self._host.meetings
            barcode = (await self._channels.inquiry(address)).barcode
            if barcode not in {"", started.tag}:
                raise self._channels.error(
                    f"test {started.test} on channel {started.channel} has the barcode "
                    f"{barcode!r}, not {started.tag!r}: this is another rack, or another test",
                    "inquire",
                )
            self._seen_at[started.tag] = meeting

    async def _look(self, armed: Armed) -> tuple[Started | None, str]:
        """The test, or None; and why it is neither there nor certainly not there, '' if it is."""
        (status,) = await self._channels.statuses([await self._channels.address(armed.channel)])
        test, before = int(status.test or 0), int(armed.test_before or 0)
        if test == before:
            ended = status.state in ENDED
            return None, "" if ended else f"it is {status.state}, and shows no test after {before}"
        if test < before or status.tag != armed.tag:
            return None, (
                f"the last test is {test} with barcode {status.tag!r}, where one after {before} "
                f"with barcode {armed.tag!r} should be"
            )
        return (
            Started(
                channel=armed.channel,
                tag=armed.tag,
                test=status.test,
                program_ref=armed.program_ref,
            ),
            "",
        )

    def _translated(self, program: Program, tag: str) -> StepFile:
        return translate(
            program,
            self._capabilities,
            temperature_watched_elsewhere=self._config.temperature_watched_elsewhere,
            remark=tag,
        ).file

    async def _write_and_read_back(self, file: StepFile, tag: str) -> StepFile:
        host_time = dt.datetime.fromtimestamp(
            self._clock.unix_time_s() + self._config.utc_offset_s, tz=dt.UTC
        )
        file = dataclasses.replace(
            file,
            date=host_time.strftime("%Y%m%d%H%M%S"),
            guid=str(uuid.uuid5(uuid.NAMESPACE_URL, tag)),
        )
        path = Path(self._config.step_file_dir) / f"{tag}.xml"
        try:
            data = await asyncio.to_thread(written_and_read_back, path, write_step_file(file))
        except OSError as error:
            raise LinkError(
                f"{self._name}: the step file {path} could not be written and read back ({error}): "
                "step_file_dir must be a folder that exists and is shared with the BTS host",
                address=str(path),
                command="arm",
            ) from error
        try:
            read_back = read_step_file(data, name=str(path))
        except InstrumentError as error:
            raise self._channels.error(
                f"what was written as a step file is none when it is read back: {error}",
                "arm",
                data,
            ) from error
        if read_back != file:
            raise self._channels.error(
                f"the step file {path} does not say what was written into it", "arm", data
            )
        return read_back

    def _unclear(self, armed: Armed, why: str) -> LinkError:
        return LinkError(
            f"{self._name}: channel {armed.channel} was told to start {armed.tag} and may run: "
            f"{why}",
            address=self._config.host,
            command="start",
        )
