"""The status registers of a SourceMeter: what happened, what is let through, and their summary.

Source: reference manual 2450-901-01 Rev. B, appendices B and C, and STATus in section 6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from labctl.simulators.keithley.errors import ERROR

OPERATION_COMPLETE: Final = 1
QUERY_ERROR: Final = 4
DEVICE_ERROR: Final = 8
EXECUTION_ERROR: Final = 16
COMMAND_ERROR: Final = 32
POWER_ON: Final = 128

ERROR_AVAILABLE: Final = 4
QUESTIONABLE: Final = 8
STANDARD: Final = 32
SUMMARY: Final = 64
OPERATION: Final = 128

BITS: Final = 15
"""How many bits of a programmable register can be mapped."""


@dataclass(slots=True)
class Register:
    """Operation or questionable: bits that events of the log set and clear, as they are mapped."""

    condition: int = 0
    events: int = 0
    enabled: int = 0
    mapped: dict[int, tuple[int, int]] = field(default_factory=dict)

    def heard(self, code: int) -> None:
        for bit, (sets, clears) in self.mapped.items():
            if code == clears:
                self.condition &= ~(1 << bit)
            if code == sets:
                self.condition |= 1 << bit
                self.events |= 1 << bit

    def take(self) -> int:
        """The event register, which reading clears."""
        events, self.events = self.events, 0
        return events


class Status:
    """All registers. ``heard`` is told every event of the log."""

    def __init__(self) -> None:
        self.standard = POWER_ON
        self.standard_enabled = 0
        self.service_enabled = 0
        self.registers = {"OPER": Register(), "QUES": Register()}
        self.awaits_completion = False

    def heard(self, code: int, kind: int) -> None:
        for register in self.registers.values():
            register.heard(code)
        if kind & ERROR:
            self.standard |= _standard_bit(code)

    def clear(self) -> None:
        """``*CLS``, but for the log: the event registers."""
        self.standard = 0
        self.awaits_completion = False
        self.clear_events()

    def clear_events(self) -> None:
        for register in self.registers.values():
            register.events = 0

    def preset(self) -> None:
        """``:STATus:PRESet``: nothing of the programmable registers is let through."""
        for register in self.registers.values():
            register.enabled = 0

    def take_standard(self) -> int:
        """The standard event register, which reading clears."""
        events, self.standard = self.standard, 0
        return events

    def byte(self, *, errors: bool) -> int:
        """The status byte; ``errors``: there are some in the log."""
        operation, questionable = self.registers["OPER"], self.registers["QUES"]
        summary = ERROR_AVAILABLE * errors
        summary |= STANDARD * bool(self.standard & self.standard_enabled)
        summary |= OPERATION * bool(operation.events & operation.enabled)
        summary |= QUESTIONABLE * bool(questionable.events & questionable.enabled)
        return summary | SUMMARY * bool(summary & self.service_enabled)


def _standard_bit(code: int) -> int:
    """SCPI-1999 vol. 2, 21.8: the hundreds of an error say which bit it sets."""
    hundreds = {-1: COMMAND_ERROR, -2: EXECUTION_ERROR, -4: QUERY_ERROR}
    return hundreds.get(-(-code // 100), DEVICE_ERROR) if code < 0 else DEVICE_ERROR
