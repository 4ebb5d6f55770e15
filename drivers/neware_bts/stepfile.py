"""Neware step files (type "Step File", version 17): what a channel runs, as XML.

Units in the file: voltage 0.1 mV, current mA, time ms, capacity mA s (mAh * 3600); here SI and Ah.
Currents in a step are magnitudes: the step's type says the direction.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class StepType(enum.IntEnum):
    CC_CHARGE = 1
    CC_DISCHARGE = 2
    CV_CHARGE = 3
    REST = 4
    CYCLE = 5
    END = 6
    CCCV_CHARGE = 7
    PAUSE = 13
    CV_DISCHARGE = 19
    CCCV_DISCHARGE = 20


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


@dataclass(frozen=True, slots=True)
class StepFile:
    """A whole file. ``remark`` carries labctl's run id."""

    steps: tuple[FileStep, ...]
    protection: Protection
    record: RecordConditions
    creator: str = "labctl"
    remark: str = ""
