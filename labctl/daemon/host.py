"""The laboratory around one instrument: its chamber, and the world that markers are told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labctl.errors import InstrumentError
from labctl.stream.events import MarkerSet
from labctl.stream.topics import Marker, encode, marker_topic

if TYPE_CHECKING:
    from labctl.daemon.node import Node


class Host:
    """Fulfils :class:`labctl.engine.hostwork.HostWork` for the runs on one instrument."""

    def __init__(self, node: Node, instrument: str) -> None:
        self._node = node
        self._instrument = instrument

    async def set_temperature(self, temperature_degC: float) -> None:
        """Set the chamber that the instrument's cells are in.

        Raises:
            InstrumentError: there is none, or it refuses.
            LinkError: it does not answer.
        """
        chamber = self._node.chamber_of(self._instrument)
        if chamber is None:
            raise InstrumentError(
                f"the cells of {self._instrument} are in no chamber that answers: name one in the "
                f"configuration with 'chamber' under [instruments.{self._instrument}]",
                instrument=self._instrument,
            )
        await chamber.set_temperature(temperature_degC)

    async def temperature(self) -> float | None:
        """What the chamber measures, in degC; None where there is none that answers."""
        chamber = self._node.chamber_of(self._instrument)
        return None if chamber is None else await chamber.temperature()

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
