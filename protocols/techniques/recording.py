"""When readings are kept: what the recipe says, and for what it does not say, by technique.

A step's own ``record`` comes before the recipe's. Where either says anything, only the changes that
they name count, and ``every`` is the technique's if neither says it. Where neither says anything,
the technique's whole rule holds. Its times follow how long the step is expected to last, so that
a half cycle of a minute is drawn as well as one of five hours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from labctl.program import INFINITY, RecordRule
from labctl.protocols.source import Problems
from labctl.protocols.written import RecordFields, Written, note
from labctl.units import Amount

FASTEST_S = 0.1
"""No default is faster: every instrument that is known can do this."""
RECORDS_OF_A_CURRENT = 150
RECORDS_OF_A_REST = 120
RECORDS_OF_A_PULSE = 100


@dataclass(frozen=True, slots=True)
class Recording:
    """What was written, the innermost of each; ``base`` is for a technique without a default."""

    base: RecordRule
    every: Written[float] | None = None
    voltage_change: Written[float] | None = None
    current_change: Written[float] | None = None
    charge_change: Written[Amount] | None = None

    @property
    def written(self) -> tuple[Written[float] | Written[Amount], ...]:
        """What was written."""
        each = (self.every, self.voltage_change, self.current_change, self.charge_change)
        return tuple(one for one in each if one is not None)

    def changed_by(self, fields: RecordFields | None, problems: Problems) -> Recording:
        """With what ``fields`` say; noted if nothing would be recorded then."""
        said = {
            name: value
            for name in RecordFields.model_fields
            if (value := getattr(fields, name, None)) is not None
        }
        changed = replace(self, **said)
        if changed.every is not None and all(_is_off(one) for one in changed.written):
            text = next(iter(said.values()), changed.every).text
            note(problems, text, "nothing would be recorded", "write 'every: 30 s'")
            return self
        return changed

    def rule(
        self, default: RecordRule | None, ampere_hours: Callable[[Written[Amount]], float]
    ) -> RecordRule:
        """The rule of one step of a technique whose own is ``default``."""
        default = default or self.base
        if not self.written:
            return default
        return RecordRule(
            default.every_s if self.every is None else self.every.value,
            INFINITY if self.voltage_change is None else self.voltage_change.value,
            INFINITY if self.current_change is None else self.current_change.value,
            INFINITY if self.charge_change is None else ampere_hours(self.charge_change),
        )


def _is_off(written: Written[float] | Written[Amount]) -> bool:
    value = written.value
    return (value.value if isinstance(value, Amount) else value) == INFINITY


def of_a_rest(seconds: float) -> RecordRule:
    """Fine in a short rest and coarse in a long one; what relaxes quickly is drawn by its volts."""
    return RecordRule(_every_s(seconds / RECORDS_OF_A_REST, 1.0, 300.0), voltage_change_V=2e-3)


def of_a_current(expected_s: float) -> RecordRule:
    """A charge or discharge: 100 readings and more of any, whatever its rate."""
    every_s = _every_s(expected_s / RECORDS_OF_A_CURRENT, FASTEST_S, 30.0)
    return RecordRule(every_s, voltage_change_V=10e-3)


def of_a_hold(expected_s: float, max_current_A: float, end_A: float = 0.0) -> RecordRule:
    """A constant voltage: by the current that falls, and by time at its tail."""
    every_s = _every_s(expected_s / RECORDS_OF_A_CURRENT, 1.0, 30.0)
    return RecordRule(every_s, current_change_A=max(max_current_A / 100.0, end_A))


def of_a_sweep(window_V: float, rate_V_per_s: float) -> RecordRule:
    """Every 1 mV, or 2 mV in a window of more than 1 V."""
    change_V = 2e-3 if window_V > 1.0 else 1e-3
    every_s = _every_s(10.0 * change_V / rate_V_per_s, FASTEST_S, 60.0)
    return RecordRule(every_s, voltage_change_V=change_V)


def of_a_pulse(seconds: float) -> RecordRule:
    """A pulse of seconds, and the rest behind it."""
    return RecordRule(_every_s(seconds / RECORDS_OF_A_PULSE, FASTEST_S, 1.0))


def of_a_titration(seconds: float) -> RecordRule:
    """A pulse of minutes whose slope over the root of time is looked at."""
    every_s = _every_s(seconds / RECORDS_OF_A_REST, FASTEST_S, 30.0)
    return RecordRule(every_s, voltage_change_V=1e-3)


WATCHING = RecordRule(every_s=60.0, voltage_change_V=5e-3)
"""While something else than the cell is waited for."""


def _every_s(seconds: float, least_s: float, most_s: float) -> float:
    """Rounded down to one digit, within the two."""
    seconds = min(max(seconds, least_s), most_s)
    size = 10.0 ** math.floor(math.log10(seconds) + 1e-9)
    return float(f"{math.floor(seconds / size + 1e-9) * size:.9g}")
