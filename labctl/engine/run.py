"""What the journal keeps of a run: a charter that never changes and a checkpoint that does."""

from __future__ import annotations

import msgspec

from labctl.drivers.base import Armed, Started
from labctl.engine.placement import Place
from labctl.engine.states import RunState
from labctl.program import Program


class Charter(msgspec.Struct, frozen=True, kw_only=True):
    """One Program on one Cell on one Channel: what was agreed when the run was made.

    The program is in amperes: a cell that is registered anew with another mass does not change a
    run that exists.
    """

    run: str
    cell: str
    instrument: str
    channel: str
    recipe_name: str
    recipe_text: str
    program: Program
    active_mass_g: float
    one_C_mA_per_g: float
    actor: str
    created_unix_s: float


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands, written in the same transaction as the readings that it counts.

    ``next_index`` is the instrument's number of the next reading to ask for. ``cause`` names what
    ends the run once it was asked to stop (``stop``, ``limit``).
    """

    state: RunState
    place: Place
    reason: str = ""
    cause: str = ""
    next_index: int = 1
    armed: Armed | None = None
    started: Started | None = None
