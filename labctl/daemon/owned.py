"""What keeps other daemons off one instrument of a node: locks on its place and on its number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from labctl.clock import Clock
from labctl.drivers.base import Identity
from labctl.errors import LabctlError
from labctl.wire.ownership import Ownership
from labctl.wire.places import names_of_options, number_name

log = logging.getLogger("labctl.daemon")

LOOK_AGAIN_S = 10.0
"""How soon it is seen that an instrument's place has got another name."""


class Owned:
    """The place that a driver's ``options`` name, and the instrument that was found there.

    An instrument whose options name no place (one on paper, in a test) is owned by nobody.
    ``who`` is what others are told.
    """

    def __init__(self, options: msgspec.Struct, folder: Path, *, who: str) -> None:
        self._options = msgspec.structs.asdict(options)
        self._ownership = Ownership(folder, who=who)
        self._places: tuple[str, ...] = ()

    @asynccontextmanager
    async def kept_if_well(self) -> AsyncIterator[None]:
        """Own the place inside the block, and after it if it ended well.

        Raises:
            OwnedError: another daemon, or another instrument of this one, has it.
            LinkError: its host's name is not known.
            ConfigError: the folder of the lock files cannot be used.
        """
        well = False
        try:
            await self._take_place()
            yield
            well = True
        finally:
            if not well:
                self.let_go()

    def take_number(self, identity: Identity) -> None:
        """Own the instrument wherever else it can be reached.

        Raises:
            OwnedError, ConfigError: as :meth:`kept_if_well`.
        """
        if not self._places or not identity.unique or not identity.serial:
            return
        self._ownership.take([number_name(identity.manufacturer, identity.serial)])

    async def follow(self, name: str, clock: Clock) -> None:
        """Own the place by the name that it has now, for ever: a port that is plugged in anew gets
        another number, a host another address."""
        told = ""
        while self._places:
            await clock.sleep(LOOK_AGAIN_S)
            try:
                await self._take_place()
            except LabctlError as error:
                if str(error) != told:
                    log.warning("instrument %s: where it is now is %s", name, error)
                told = str(error)
            else:
                told = ""

    def let_go(self) -> None:
        """Own nothing. Idempotent."""
        self._ownership.let_go()
        self._places = ()

    async def _take_place(self) -> None:
        names = await asyncio.to_thread(names_of_options, self._options)
        self._ownership.take(names)
        self._ownership.let_go(set(self._places) - set(names))
        self._places = names
