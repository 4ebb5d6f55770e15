"""What happens, besides readings: the events that travel from a node to the archive.

Each is a value with a tag; a new kind of event is one new class here. Times are labels (UTC), order
comes from the batch number and from sequence numbers.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from labctl.model import Cell, Spectrum


class CellRegistered(msgspec.Struct, frozen=True, kw_only=True, tag="cell_registered"):
    """A cell was registered, or its registration corrected; the last one counts."""

    cell: Cell
    actor: str
    unix_time_s: float


class InstrumentSeen(msgspec.Struct, frozen=True, kw_only=True, tag="instrument_seen"):
    """An instrument was identified at start or after a reconnect."""

    instrument: str
    driver: str
    manufacturer: str
    model: str
    serial: str
    channels: tuple[str, ...]
    unix_time_s: float


class RunCreated(msgspec.Struct, frozen=True, kw_only=True, tag="run_created"):
    """A Program was bound to a Cell and a Channel. ``program`` is encode_program's MessagePack.

    The mass and the meaning of 1C are those that the Program was compiled with: what later
    figures are divided by.
    """

    run: str
    cell: str
    instrument: str
    channel: str
    recipe_name: str
    recipe_text: str
    recipe_sha256: str
    program: bytes
    active_mass_g: float
    one_C_mA_per_g: float
    actor: str
    labctl_version: str
    unix_time_s: float


class RunStateChanged(msgspec.Struct, frozen=True, kw_only=True, tag="run_state_changed"):
    """``state`` is a name from labctl.engine.states; ``reason`` is for people."""

    run: str
    state: str
    reason: str
    unix_time_s: float


class StepEnded(msgspec.Struct, frozen=True, kw_only=True, tag="step_ended"):
    """One visit to a step is over. Records ``first_seq`` to ``last_seq`` belong to it.

    ``ended_by`` is the end condition that won, as text, or ``limit``, ``stop``, ``unknown``.
    The charges integrate current of one sign each; all four are at or above 0.
    """

    run: str
    visit: int
    step: int
    cycle: int
    label: str
    technique: str
    first_seq: int
    last_seq: int
    start_test_time_s: float
    end_test_time_s: float
    end_voltage_V: float
    end_current_A: float
    ended_by: str
    charge_Ah: float
    discharge_Ah: float
    charge_Wh: float
    discharge_Wh: float


class CycleEnded(msgspec.Struct, frozen=True, kw_only=True, tag="cycle_ended"):
    """A cycle is over: records ``first_seq`` to ``last_seq``.

    ``complete`` is false when the run ended inside it; ``interrupted`` is true when readings are
    missing from it. Neither takes part in efficiency, retention or alarms.
    """

    run: str
    cycle: int
    cycle_class: str
    first_seq: int
    last_seq: int
    complete: bool
    interrupted: bool


class RunEnded(msgspec.Struct, frozen=True, kw_only=True, tag="run_ended"):
    """The last event of a run: it has exactly the records 1 to ``last_seq``.

    ``outcome``: ``completed``, ``stopped``, ``tripped`` or ``failed``.
    """

    run: str
    outcome: str
    reason: str
    last_seq: int
    unix_time_s: float


class GapRecorded(msgspec.Struct, frozen=True, kw_only=True, tag="gap_recorded"):
    """The instrument went on but readings between ``after_seq`` and the next one are lost."""

    run: str
    after_seq: int
    reason: str
    unix_time_s: float


class SpectrumMeasured(msgspec.Struct, frozen=True, kw_only=True, tag="spectrum_measured"):
    """An impedance spectrum was measured in a visit, after record ``after_seq``.

    ``number`` counts the spectra of the run from 1.
    """

    run: str
    number: int
    visit: int
    step: int
    cycle: int
    after_seq: int
    test_time_s: float
    spectrum: Spectrum


class MarkerSet(msgspec.Struct, frozen=True, kw_only=True, tag="marker_set"):
    """Something outside was told, or told us, at record ``seq`` of a run: ``direction`` is ``sent``
    or ``received``; ``marker`` names it, ``actor`` who sent what was received."""

    run: str
    marker: str
    direction: str
    seq: int
    cycle: int
    test_time_s: float
    unix_time_s: float
    actor: str = ""


class BranchTaken(msgspec.Struct, frozen=True, kw_only=True, tag="branch_taken"):
    """Where the program had a choice, what it went by: ``reason`` is for people."""

    run: str
    line: int
    after_seq: int
    held: bool
    reason: str


class CommandTaken(msgspec.Struct, frozen=True, kw_only=True, tag="command_taken"):
    """Audit: who asked for what, and what became of it."""

    command: str
    verb: str
    actor: str
    detail: str
    outcome: str
    unix_time_s: float


class ConditionChanged(msgspec.Struct, frozen=True, kw_only=True, tag="condition_changed"):
    """Something that a node watches while readings come began to hold, or holds no longer.

    ``condition`` is a name of labctl.alarms.conditions; ``run`` is '' where it is about the node
    itself. ``message`` is for people, with the figures; ``value`` and ``limit`` are finite.
    """

    run: str
    condition: str
    holds: bool
    message: str
    unix_time_s: float
    value: float | None = None
    limit: float | None = None
    unit: str = ""


Event: TypeAlias = (
    CellRegistered
    | InstrumentSeen
    | RunCreated
    | RunStateChanged
    | StepEnded
    | CycleEnded
    | RunEnded
    | GapRecorded
    | SpectrumMeasured
    | MarkerSet
    | BranchTaken
    | CommandTaken
    | ConditionChanged
)
