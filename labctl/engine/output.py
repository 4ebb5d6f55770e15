"""The output of an instrument that is driven from here: off, for certain, and in good time."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from labctl.drivers.base import ChannelState, Source
from labctl.engine.bench import Bench
from labctl.engine.waiting import let_go
from labctl.errors import InstrumentError, LinkError

log = logging.getLogger(__name__)

_LAST_WORDS_S: Final = 3.0
"""So long switching off may take when everything else has gone wrong."""


class Output:
    """``drives`` is false where nothing is ever switched on from here, and so nothing off."""

    def __init__(self, bench: Bench, source: Source, *, drives: bool) -> None:
        self._bench = bench
        self._source = source
        self._drives = drives
        self.is_off = not drives
        """Whether it was switched off since anything was last begun."""

    def may_be_on(self) -> None:
        """Something is about to be begun."""
        self.is_off = not self._drives

    async def off(self) -> None:
        """Open circuit.

        Raises:
            LinkError: it may still be on.
            InstrumentError: the instrument did not do it.
        """
        if self._drives:
            await self._source.off(self._bench.channel)
            self.is_off = True

    async def off_for_certain(self) -> None:
        """Open circuit, and the instrument says that it is; errors as of :meth:`off`."""
        if not self._drives:
            return
        self.is_off = False
        await self._source.off(self._bench.channel)
        status = await self._source.status(self._bench.channel)
        if status.state is ChannelState.RUNNING:
            raise InstrumentError(
                f"channel {self._bench.channel} was told to switch its output off and says that it "
                "is on",
                command="off",
            )
        self.is_off = True

    async def off_whatever_happens(self) -> None:
        """Open circuit if it can be done now; what hinders it is logged."""
        if self.is_off:
            return
        switching = asyncio.create_task(self.off())
        try:
            if await self._bench.waiting.at_most(switching, _LAST_WORDS_S):
                switching.result()
            else:
                log.warning("channel %s: its output may be on: no answer", self._bench.channel)
        except (LinkError, InstrumentError) as error:
            log.warning("channel %s: its output may be on: %s", self._bench.channel, error)
        finally:
            await let_go(switching)
