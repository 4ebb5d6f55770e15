"""Whether a program fits an instrument, and what of it the instrument runs by itself. Pure."""

from __future__ import annotations

from labctl.drivers.base import Failsafe, Sequencer, Source, is_source
from labctl.engine.refusing import refusals_of_host
from labctl.engine.segments import stretches
from labctl.program import Program

_UNGUARDED = (
    "every step is made from this computer; nothing in the instrument ends a step if the computer "
    "stops"
)


def refusals_of(program: Program, driver: Sequencer | Source, *, chamber: bool) -> tuple[str, ...]:
    """Why ``driver`` cannot run ``program``, one sentence each, none twice; empty if it can.

    A sequencer is asked about every stretch that it would run in one go, a source about the whole.
    ``chamber`` says whether the cells are in one.
    """
    found = list(
        refusals_of_host(program, driver.capabilities, source=is_source(driver), chamber=chamber)
    )
    if is_source(driver):
        found += driver.refusals(program)
    else:
        for stretch in stretches(program, driver.capabilities):
            found += driver.refusals(stretch.program)
    return tuple(dict.fromkeys(found))


def stretches_told(program: Program, driver: Sequencer | Source) -> tuple[str, ...]:
    """What runs where, for a person who plans."""
    if is_source(driver):
        if driver.capabilities.failsafe is Failsafe.NONE:
            return (_UNGUARDED,)
        return ("every step is made from this computer, with its limits in the instrument",)
    most: dict[str, int] = {}
    for stretch in stretches(program, driver.capabilities):
        first, last = min(stretch.steps) + 1, max(stretch.steps) + 1
        which = f"step {first} runs" if first == last else f"steps {first} to {last} run"
        most[which] = max(stretch.program.visit_count, most.get(which, 0))
    return tuple(
        f"{which} in the instrument in one go"
        + ("" if visits == 1 else f", {visits:,} visits to steps")
        for which, visits in most.items()
    )
