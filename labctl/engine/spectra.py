"""Impedance spectra find the visits that they are of. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from labctl.engine.place import Place
from labctl.engine.walk import Walk
from labctl.errors import InstrumentError
from labctl.model import Spectrum
from labctl.program import Impedance
from labctl.stream.events import Event, SpectrumMeasured


class SpectraToPlace:
    """Spectra on their way to the visits that they are of."""

    def __init__(self, walk: Walk, spectra: Iterable[Spectrum]) -> None:
        self._walk = walk
        self._left = list(spectra)
        self._last: Place | None = None

    def of_visit_before(self, place: Place, next_unix_s: float) -> tuple[Place, list[Event]]:
        """Those of the visit that is over, which another one follows at ``next_unix_s``."""
        if not self._left or not self._is_impedance(place):
            return place, []
        now = [each for each in self._left if each.unix_time_s <= next_unix_s]
        self._left = [each for each in self._left if each.unix_time_s > next_unix_s]
        place, events = self._put(place, place, now)
        self._last = place
        return place, events

    def rest(self, place: Place) -> tuple[Place, list[Event]]:
        """All that are left, when no more readings are."""
        at = place if self._last is None or self._is_impedance(place) else self._last
        place, events = self._put(place, at, self._left)
        self._left = []
        return place, events

    def _is_impedance(self, place: Place) -> bool:
        return place.visit > 0 and isinstance(self._walk.step(place.position).control, Impedance)

    def _put(self, place: Place, at: Place, spectra: list[Spectrum]) -> tuple[Place, list[Event]]:
        if not spectra:
            return place, []
        if at.visit == 0:
            raise InstrumentError(f"in run {place.run}, a spectrum came before any visit")
        events: list[Event] = [
            SpectrumMeasured(
                run=at.run,
                number=place.spectra + count,
                visit=at.visit,
                step=self._walk.step(at.position).index + 1,
                cycle=at.position.cycle,
                after_seq=at.seq,
                test_time_s=at.test_time_s,
                spectrum=spectrum,
            )
            for count, spectrum in enumerate(spectra, start=1)
        ]
        return msgspec.structs.replace(place, spectra=place.spectra + len(spectra)), events
