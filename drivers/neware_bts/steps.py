"""What a Neware step file says, as values: steps, ends, jumps, protections, record conditions.

SI and Ah; currents, powers and resistances in a step are magnitudes, its type says the direction.
No vendor document of the format is public. What a file saved by BTS, or one that BTS is known to
take, shows is used as it stands. These facts are less certain, and each stands here by a name:

- type numbers 8, 9 and 10: one public writer of step files and every public reader of BTS's data
  files agree on them; ``Pow`` in mW: one public editor of step files.
- ``RESISTANCE_TAG`` and ``RESISTANCE_PER_OHM``: nothing public names the element of a resistance.
- ``SWEEP_TYPE``, and that the voltages in its slope are in the unit of all others: one public
  description. That ``Curr`` cuts its current off, as it does in a voltage hold, and that a sweep
  without a start value begins at the cell's own voltage: assumed.
- :class:`Jump` and the codes of conditions: one public writer, which has 6535 for ``FINISH``, taken
  for a misprint. That ``Jump_Line`` may also be the number of a step is read from its name.
- The expressions by which charge and energy are watched: one public writer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from labctl.program import Comparison, Quantity

RESISTANCE_TAG: Final = "Res"
RESISTANCE_PER_OHM: Final = 1_000
SWEEP_TYPE: Final = 25


class StepType(enum.IntEnum):
    CC_CHARGE = 1
    CC_DISCHARGE = 2
    CV_CHARGE = 3
    REST = 4
    CYCLE = 5
    END = 6
    CCCV_CHARGE = 7
    CP_DISCHARGE = 8
    CP_CHARGE = 9
    CR_DISCHARGE = 10
    PAUSE = 13
    CV_DISCHARGE = 19
    CCCV_DISCHARGE = 20
    SWEEP = SWEEP_TYPE


class Jump(enum.IntEnum):
    """Where a condition leads, other than to a step by its number."""

    NEXT = 65_526
    STOP = 65_533
    PROTECT = 65_534
    FINISH = 65_535


@dataclass(frozen=True, slots=True)
class Protection:
    """Passing any of these ends the test in state ``protect``; None is off. Currents signed."""

    voltage_upper_V: float | None = None
    voltage_lower_V: float | None = None
    current_upper_A: float | None = None
    current_lower_A: float | None = None
    capacity_upper_Ah: float | None = None
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class RecordConditions:
    """A record is made when any is reached; None is off."""

    time_s: float | None = None
    voltage_change_V: float | None = None
    current_change_A: float | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The voltage moves to ``to_V``; from where the cell stands if ``from_V`` is None."""

    from_V: float | None
    to_V: float
    rate_V_per_s: float


@dataclass(frozen=True, slots=True)
class Condition:
    """One more end of a step, beside those that its type has.

    ``quantity`` is the voltage, the current (its magnitude), or the time, charge or energy since
    the step began (magnitudes). ``jump`` is a Jump or the number of a step.
    """

    quantity: Quantity
    comparison: Comparison
    value: float
    jump: int = Jump.NEXT


@dataclass(frozen=True, slots=True)
class FileStep:
    """One ``<StepN>``; ``number`` counts from 1. Only what its type uses is not None.

    A CYCLE step goes back to ``start_step`` until the block has run ``cycle_count`` times in all.
    """

    number: int
    type: StepType
    current_A: float | None = None
    voltage_V: float | None = None
    time_s: float | None = None
    stop_voltage_V: float | None = None
    stop_current_A: float | None = None
    stop_capacity_Ah: float | None = None
    start_step: int | None = None
    cycle_count: int | None = None
    record: RecordConditions | None = None
    protection: Protection | None = None
    power_W: float | None = None
    resistance_ohm: float | None = None
    sweep: Sweep | None = None
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class StepFile:
    """A whole file. ``remark`` carries labctl's run id.

    ``date`` is ``YYYYMMDDHHMMSS`` in the host's time; ``guid`` tells two files apart to BTS.
    """

    steps: tuple[FileStep, ...]
    protection: Protection
    record: RecordConditions
    creator: str = "labctl"
    remark: str = ""
    date: str = ""
    guid: str = ""
