"""What an administrator says about a PalmSens instrument."""

from __future__ import annotations

from typing import Final

import msgspec

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.drivers.palmsens.models import MODELS, Model

POTENTIOSTAT_TECHNIQUES: Final = frozenset({"rest", "voltage_sweep", "impedance"})
GALVANOSTAT_TECHNIQUES: Final = frozenset(
    {"constant_current", "constant_voltage", "constant_current_constant_voltage"}
)


class PalmSensConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instrument, which is one channel, named ``1``.

    port: its serial port, best by a name that stays (``/dev/serial/by-id/…``), or
        ``socket://host:port`` where a network carries the line.
    model: one of ``EmStat4S LR``, ``EmStat4S HR``, ``EmStat4X LR``, ``EmStat4X HR``, ``Nexus`` and
        ``EmStat Pico``; another one at the port is refused.
    serial: its serial number; another instrument at the port is refused. Left out, the first one
        found is held to.
    lock_dir: folder in which it is kept which instrument was last found at which port; left out,
        $LABCTL_LOCK_DIR or /run/lock/labctl.
    baud: of a UART; a port over USB takes any. 0 is what the model is delivered with.
    rtscts, xonxoff: flow control of a UART.
    mains_Hz: frequency of the mains, whose hum is averaged out.
    slowest_sample_s: how long, at the most, a limit may go unwatched inside the instrument.
    sweep_step_V: the stairs of a voltage sweep.
    voltage_min_V, voltage_max_V: what the instrument is used for; the model's own if left out.
    temperature_watched_elsewhere: accept programs with temperature limits, which a potentiostat
        cannot watch.
    """

    port: str
    model: str
    serial: str = ""
    lock_dir: str = ""
    baud: int = 0
    rtscts: bool = False
    xonxoff: bool = False
    mains_Hz: float = 50.0
    slowest_sample_s: float = 0.1
    sweep_step_V: float = 1e-3
    voltage_min_V: float | None = None
    voltage_max_V: float | None = None
    reply_timeout_s: float = 3.0
    stop_timeout_s: float = 8.0
    temperature_watched_elsewhere: bool = False

    def __post_init__(self) -> None:
        if not self.port.strip():
            raise ValueError("port is empty: it is a serial port such as /dev/ttyACM0")
        if self.model not in MODELS:
            raise ValueError(f"model is {self.model!r}, it must be one of {', '.join(MODELS)}")
        if self.mains_Hz not in {50.0, 60.0}:
            raise ValueError(f"mains_Hz is {self.mains_Hz:g}, it must be 50 or 60")
        kind = self.kind
        for name, low, high in (
            ("baud", 0, 4_000_000),
            ("slowest_sample_s", kind.fastest_sample_s, 60.0),
            ("sweep_step_V", kind.potential_step_V, 0.02),
            ("voltage_min_V", kind.voltage_min_V, kind.voltage_max_V),
            ("voltage_max_V", kind.voltage_min_V, kind.voltage_max_V),
            ("reply_timeout_s", 0.1, 60.0),
            ("stop_timeout_s", 0.5, 15.0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value:g}, it must be {low:g} to {high:g}")
        if not self.lowest_V < self.highest_V:
            raise ValueError("voltage_min_V must be below voltage_max_V")

    @property
    def kind(self) -> Model:
        return MODELS[self.model]

    @property
    def lowest_V(self) -> float:
        return self.kind.voltage_min_V if self.voltage_min_V is None else self.voltage_min_V

    @property
    def highest_V(self) -> float:
        return self.kind.voltage_max_V if self.voltage_max_V is None else self.voltage_max_V

    @property
    def widest_V(self) -> float:
        """The magnitude of voltage that has to be measured."""
        return max(abs(self.lowest_V), abs(self.highest_V))

    @property
    def outputs(self) -> dict[str, int]:
        """Names of the digital outputs and their numbers."""
        return {f"GPIO{number}": number for number in range(self.kind.digital_lines)}

    @property
    def techniques(self) -> frozenset[str]:
        return POTENTIOSTAT_TECHNIQUES | (
            GALVANOSTAT_TECHNIQUES if self.kind.galvanostat else frozenset()
        )

    @property
    def capabilities(self) -> Capabilities:
        kind = self.kind
        return Capabilities(
            techniques=self.techniques,
            voltage_min_V=self.lowest_V,
            voltage_max_V=self.highest_V,
            current_ranges=tuple(
                CurrentRange(
                    min(full_A * kind.over_range, kind.current_max_A),
                    full_A * kind.current_resolution,
                )
                for full_A in kind.current_ranges_A
            ),
            fastest_record_s=kind.fastest_sample_s,
            failsafe=Failsafe.ONBOARD,
            outputs=frozenset(self.outputs),
        )
