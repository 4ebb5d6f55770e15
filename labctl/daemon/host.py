"""The laboratory around one instrument: its chamber, and the world that markers are told to.

Several instruments may have their cells in one chamber. It is asked once for all who want to know
at the same time; where it lives in virtual time, that is moved on to the time of whoever asks.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from labctl.drivers.base import Chamber
from labctl.errors import InstrumentError, LinkError
from labctl.stream.events import MarkerSet
from labctl.stream.topics import Marker, encode, marker_topic
from labctl.wire.timelink import SteppedClock

if TYPE_CHECKING:
    from labctl.daemon.node import Instrument, Node

log = logging.getLogger("labctl.daemon")


@dataclass(slots=True)
class _Asked:
    """What was asked of a chamber: how often, and the last answer, or why there was none.

    ``time_s`` is what time it was then for a chamber that lives in virtual time.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    times: int = 0
    time_s: float = -math.inf
    answer: float | LinkError | InstrumentError = math.nan


_ASKED: WeakKeyDictionary[Chamber, _Asked] = WeakKeyDictionary()
"""Of each chamber, whichever instrument's runs ask it."""


class Host:
    """Fulfils :class:`labctl.engine.hostwork.HostWork` for the runs on one instrument."""

    def __init__(self, node: Node, instrument: str) -> None:
        self._node = node
        self._instrument = instrument

    async def set_temperature(self, temperature_degC: float) -> None:
        """Set the chamber that the instrument's cells are in.

        Raises:
            InstrumentError: there is none, or it refuses, or it stands in alarm.
            LinkError: it does not answer.
        """
        found = self._chamber()
        if found is None:
            raise InstrumentError(
                f"the cells of {self._instrument} are in no chamber: name one in the "
                f"configuration with 'chamber' under [instruments.{self._instrument}]",
                instrument=self._instrument,
            )
        place, chamber = found
        asked = _ASKED.setdefault(chamber, _Asked())
        async with asked.turn:
            await self._bring_to_now(place)
            await chamber.set_temperature(temperature_degC)

    async def temperature(self) -> float | None:
        """What the chamber measures, in degC; None where there is none.

        Raises:
            InstrumentError: it refuses; ChamberAlarmError where it stands in alarm.
            LinkError: it does not answer.
        """
        found = self._chamber()
        if found is None:
            return None
        place, chamber = found
        asked = _ASKED.setdefault(chamber, _Asked())
        before = asked.times
        async with asked.turn:
            if asked.times == before or asked.time_s < self._time_of(place):
                await self._bring_to_now(place)
                try:
                    asked.answer = await _measured(place, chamber)
                except (LinkError, InstrumentError) as error:
                    asked.answer = error
                asked.times += 1
                asked.time_s = self._time_of(place)
        if isinstance(asked.answer, LinkError | InstrumentError):
            raise asked.answer
        return asked.answer

    def publish_marker(self, marker: MarkerSet, visit: int) -> None:
        """On MQTT, for whoever listens; the archive has it from the journal in any case."""
        told = Marker(
            run=marker.run,
            marker=marker.marker,
            direction=marker.direction,
            visit=visit,
            seq=marker.seq,
            cycle=marker.cycle,
            test_time_s=marker.test_time_s,
            unix_time_s=marker.unix_time_s,
            actor=marker.actor,
        )
        topic = marker_topic(self._node.settings.node.name, marker.run, marker.marker)
        self._node.publisher.publish_live(topic, encode(told), retain=False)

    def _chamber(self) -> tuple[Instrument, Chamber] | None:
        """The chamber that the cells are in, None where the configuration names none."""
        own = self._node.instruments.get(self._instrument)
        place = self._node.instruments.get(own.chamber) if own and own.chamber else None
        if place is None:
            return None
        chamber = self._node.chamber_of(self._instrument)
        if chamber is not None:
            return place, chamber
        if place.ready.is_set():
            raise InstrumentError(
                f"{place.name}, where the cells of {self._instrument} are said to be, is no "
                "chamber",
                instrument=place.name,
            )
        raise LinkError(f"the chamber {place.name} does not answer: {place.problem}")

    def _time_of(self, place: Instrument) -> float:
        """What time it should be in the chamber, as far as that is not the wall's to say."""
        own = self._node.instruments[self._instrument].clock
        return own.monotonic_s() if isinstance(place.clock, SteppedClock) else -math.inf

    async def _bring_to_now(self, place: Instrument) -> None:
        behind_s = self._time_of(place) - place.clock.monotonic_s()
        if behind_s > 0:
            await place.clock.sleep(behind_s)


async def _measured(place: Instrument, chamber: Chamber) -> float:
    """Ask a chamber; what is wrong with it is shown as its own trouble."""
    problem = ""
    try:
        answer = await chamber.temperature()
        problem = chamber.problem
    except (LinkError, InstrumentError) as error:
        problem = str(error)
        raise
    finally:
        if problem != place.problem:
            log.warning("chamber %s: %s", place.name, problem or "is well again")
        place.problem = problem
    return answer
