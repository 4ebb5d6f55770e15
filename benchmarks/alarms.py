"""What the alarm rules find in 200 cells, and what they say of healthy ones.

    python benchmarks/alarms.py [--cells 100]

100 cells fade to below 80 %: evenly, ever faster or ever slower, with 0.1 % of noise, check-ups of
another class, and cycles that were interrupted. 100 healthy cells go through the cycles of the
shipped recipes; their capacities are those of the simulated cells, with the same noise. More cells
lose capacity at once, lose charge, fade faster from some cycle on or bend. All of it is sent as
batches into an archive in SQLite, and judged there by the rules that every run has. Delays are in
comparable cycles of the class, from the first one whose capacity without the noise is below 80 % of
the reference, or that is changed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Engine, text

from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.model import RECORD_COLUMNS, Records
from labctl.program import ConstantCurrent, Limits, Loop, Program, RecordRule, Step, encode_program
from labctl.protocols.alarms import AlarmsFields, all_alarms
from labctl.simulators.cells import Anode, CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Until
from labctl.stream.batches import encode_events, encode_samples
from labctl.stream.events import CycleEnded, RunCreated

MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G
NOISE = 1e-3
NOISE_OF_EFFICIENCY = 3e-4
HALF_S = 60.0
START_UNIX_S = 1.8e9
CYCLES_A_BATCH = 100
RULES = ("retention", "drop", "efficiency", "fade", "knee")


@dataclass(frozen=True, slots=True)
class Told:
    """One cycle as its instrument would tell it."""

    cycle_class: str
    charge_Ah: float
    discharge_Ah: float
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """The cycles of one cell; ``changes_at`` is the number of the first cycle at which ``rule``
    should see something, 0 for a healthy cell."""

    name: str
    cycles: tuple[Told, ...]
    rule: str = ""
    changes_at: int = 0


@dataclass(slots=True)
class Found:
    """What came of some stories."""

    delays: dict[str, list[int]] = field(default_factory=dict)
    missed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    others: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    healthy_cycles: int = 0


# Cells that fade


def fading(rng: np.random.Generator, number: int) -> Story:
    """To 80 % of its capacity and on, in 120 to 350 cycles."""
    crossing = int(rng.integers(120, 350))
    power = (1.0, 2.5, 0.7)[number % 3]
    size = int(crossing * 1.15) + 10
    true = 1 - 0.2 * (np.arange(size) / crossing) ** power
    kind = ("evenly", "ever faster", "ever slower")[number % 3]
    return _cycled(f"fading {kind}", rng, true, "retention", checks=number % 2 == 0)


def changing(rng: np.random.Generator, rule: str) -> Story:
    """Steady at first, then something happens to it that ``rule`` should tell."""
    at, size = int(rng.integers(120, 220)), 320
    cycle = np.arange(size)
    true = 1 - 5e-5 * cycle
    efficiency = np.ones(size)
    match rule:
        case "drop":
            true[at:] *= 1 - rng.uniform(0.065, 0.2)
        case "efficiency":
            efficiency[at:] -= rng.uniform(0.008, 0.03)
        case "fade":
            true[at:] -= rng.uniform(4e-4, 8e-4) * (cycle[at:] - at)
        case "knee":
            true[at:] -= rng.uniform(6e-4, 1.2e-3) * (cycle[at:] - at)
        case _:
            raise ValueError(rule)
    return _cycled(f"changing, {rule}", rng, true, rule, changes_at=at, efficiency=efficiency)


def _cycled(
    name: str,
    rng: np.random.Generator,
    true: np.ndarray,
    rule: str,
    *,
    changes_at: int | None = None,
    efficiency: np.ndarray | None = None,
    checks: bool = True,
) -> Story:
    """A run at 0.2C of which ``true`` is what is left at each cycle; with a check-up every 50."""
    full_Ah = 1.7e-4 * MASS_G * 1e3 * rng.uniform(0.9, 1.1)
    cycles: list[Told] = [Told("formation", 0.7 * full_Ah, full_Ah) for _ in range(2)]
    numbers: list[int] = []
    measured: list[float] = []
    for place, left in enumerate(true):
        good = 1.0 if efficiency is None else float(efficiency[place])
        cycles.append(_told("cycle", full_Ah * left / good, full_Ah * left, rng))
        numbers.append(len(cycles))
        measured.append(cycles[-1].discharge_Ah)
        if place > 10 and rng.random() < 0.02:
            part = rng.uniform(0.1, 1.0)
            cycles.append(Told("cycle", full_Ah * left, full_Ah * left * part, interrupted=True))
        if checks and place % 50 == 49:
            kind = "diagnostic" if place % 100 == 99 else "check"
            cycles.append(_told(kind, 1.1 * full_Ah * left, 1.2 * full_Ah * left, rng))
    if changes_at is None:
        limit_Ah = 0.8 * np.median(measured[2:7])
        changes_at = int(np.flatnonzero(full_Ah * true < limit_Ah)[0])
    return Story(name, tuple(cycles), rule, numbers[changes_at])


def _told(
    cycle_class: str, charge_Ah: float, discharge_Ah: float, rng: np.random.Generator
) -> Told:
    factor = 1 + NOISE * rng.standard_normal()
    other = factor * (1 + NOISE_OF_EFFICIENCY * rng.standard_normal())
    return Told(cycle_class, charge_Ah * other, discharge_Ah * factor)


# Healthy cells


def healthy(rng: np.random.Generator, number: int) -> Story:
    """A simulated cell through the cycles of a shipped recipe."""
    material = ("HE-V", "NVP")[number % 2]
    kind = number % 10
    if kind < 4:
        pattern = [("formation", 0.2)] * 2 + [("cycle", 0.2)] * 100
        name = f"cycling-0.2C, {material}"
    elif kind < 6:
        block = [("endurance", 50.0)] * 500 + [("check", 0.2)]
        pattern = [("formation", 0.1)] * 3 + [("check", 0.2)] + 3 * block
        name = f"endurance-50C, {material}"
    elif kind < 8:
        rates = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 0.2)
        pattern = [(f"{rate:g}C", rate) for rate in rates for _ in range(5)]
        name = f"rate-ladder, {material}"
    elif kind == 8:
        pattern = [("0.2C", 0.2)] * 3
        pattern += [(f"{rate:g}C", rate) for rate in (0.2, 0.5, 1, 2, 5, 0.2) for _ in range(3)]
        pattern += [("long 1C", 1.0)] * 100
        return _simulated("pre-sodiated-full-cell", "HE-V", pattern, rng, number, full=True)
    else:
        pattern = [("cycle", 0.25)] * 20
        return _simulated("hard-carbon-precycle", "HC", pattern, rng, number)
    return _simulated(name, material, pattern, rng, number)


def _simulated(
    name: str,
    material: str,
    pattern: Sequence[tuple[str, float]],
    rng: np.random.Generator,
    number: int,
    *,
    full: bool = False,
) -> Story:
    anode = Anode(active_mass_g=1.25 * MASS_G, sodium_mAh_per_g=200.0, film_mAh_per_g=61.0)
    cell = build_cell(
        CellSpec(
            name=name,
            material=material,
            active_mass_g=MASS_G,
            seed=number,
            anode=anode if full else None,
        )
    )
    cycles = []
    for cycle_class, rate in pattern:
        if material == "HC":
            discharge_Ah = _flow(cell, -rate, 0.01)
            charge_Ah = _flow(cell, rate, 2.0)
        else:
            charge_Ah = _flow(cell, rate, 4.1)
            discharge_Ah = _flow(cell, -rate, 1.5)
        cycles.append(_told(cycle_class, charge_Ah, discharge_Ah, rng))
        if rng.random() < 0.005:
            half = Told(cycle_class, charge_Ah, 0.5 * discharge_Ah, interrupted=True)
            cycles.append(half)
    return Story(name, tuple(cycles))


def _flow(cell: ModelCell, rate: float, until_V: float) -> float:
    until = Until(voltage_at_least_V=until_V) if rate > 0 else Until(voltage_at_most_V=until_V)
    trace = cell.advance(Control.CURRENT, rate * ONE_C_A, 1e7, until=until, recorder=Recorder())
    return abs(trace.end_charge_Ah)


# Through the archive


def batches(run: str, story: Story) -> Iterator[bytes]:
    """What a node would send of it: a sample at each end of a half cycle."""
    source, number = f"node-{run}", 1
    yield encode_events(source, number, "", (_created(run, len(story.cycles)),))
    seq, charge_Ah = 1, 0.0
    rows = [_row(seq, 0, 0, charge_Ah)]
    ends: list[CycleEnded] = []
    for cycle, told in enumerate(story.cycles, start=1):
        rows.append(_row(seq + 1, cycle, 1, charge_Ah := charge_Ah + told.charge_Ah))
        rows.append(_row(seq + 2, cycle, 2, charge_Ah := charge_Ah - told.discharge_Ah))
        ends.append(
            CycleEnded(
                run=run,
                cycle=cycle,
                cycle_class=told.cycle_class,
                first_seq=seq + 1,
                last_seq=seq + 2,
                complete=True,
                interrupted=told.interrupted,
            )
        )
        seq += 2
        if len(ends) == CYCLES_A_BATCH or cycle == len(story.cycles):
            yield encode_samples(source, number + 1, run, _records(rows))
            yield encode_events(source, number + 2, run, tuple(ends))
            rows, ends, number = [], [], number + 2


def _row(seq: int, cycle: int, step: int, charge_Ah: float) -> tuple[float, ...]:
    time_s = HALF_S * seq
    voltage_V = 4.1 if step == 1 else 1.5
    current_A = ONE_C_A if step == 1 else -ONE_C_A
    return (
        seq, time_s, START_UNIX_S + time_s, cycle, step, seq, voltage_V, current_A, charge_Ah,
        3.0 * charge_Ah, 25.0,
    )  # fmt: skip


def _records(rows: Sequence[tuple[float, ...]]) -> Records:
    columns = zip(RECORD_COLUMNS, zip(*rows, strict=True), strict=True)
    return Records(**{name: np.array(of, dtype=RECORD_COLUMNS[name]) for name, of in columns})


def _created(run: str, cycles: int) -> RunCreated:
    charge = Step(0, "charge", ConstantCurrent(ONE_C_A), (), RecordRule())
    discharge = Step(1, "discharge", ConstantCurrent(-ONE_C_A), (), RecordRule())
    program = Program(
        name="cycling",
        recipe_sha256="00" * 32,
        cell=run,
        body=(Loop(cycles, (charge, discharge), counts_cycles=True),),
        limits=Limits(1.0, 4.4, -1.0, 1.0, 1.0, 1e9),
        alarms=all_alarms(AlarmsFields(), cycles),
    )
    return RunCreated(
        run=run,
        cell=run,
        instrument="rack1",
        channel="1",
        recipe_name="cycling",
        recipe_text="recipe: cycling",
        recipe_sha256="00" * 32,
        program=encode_program(program),
        active_mass_g=MASS_G,
        one_C_mA_per_g=100.0,
        actor="bench",
        labctl_version="0",
        unix_time_s=START_UNIX_S,
    )


_RAISED = """
SELECT r.run_id, a.rule, a.cycle_class, e.cycle, e.message FROM alarm_events e
JOIN alarms a ON a.alarm_number = e.alarm_number JOIN runs r ON r.run_number = a.run_number
WHERE e."trigger" = 'raise' ORDER BY e.alarm_event_number
"""


def judge(engine: Engine, stories: Sequence[Story]) -> Found:
    """Send the stories into an empty archive, and compare its alarms with what is true."""
    ingest = Ingest(engine)
    for number, story in enumerate(stories):
        ingest.commit(list(batches(f"run-{number}", story)))
    raised: dict[int, list[tuple[str, str, int, str]]] = {}
    with engine.begin() as connection:
        for run, rule, cycle_class, cycle, message in connection.execute(text(_RAISED)):
            number = int(run.removeprefix("run-"))
            raised.setdefault(number, []).append((rule, cycle_class, cycle, message))
    found = Found()
    for number, story in enumerate(stories):
        _compare(story, raised.get(number, []), found)
    return found


def _compare(story: Story, raised: Sequence[tuple[str, str, int, str]], found: Found) -> None:
    if not story.rule:
        found.healthy_cycles += len(story.cycles)
        for rule, cycle_class, cycle, message in raised:
            found.false[rule] += 1
            found.messages.append(f"{story.name}, cycle {cycle} of {cycle_class}: {message}")
        return
    at = [cycle for rule, kind, cycle, _ in raised if (rule, kind) == (story.rule, "cycle")]
    for rule, _, cycle, _ in raised:
        if rule != story.rule:
            found.others[story.name, rule if cycle >= story.changes_at else f"{rule}, before"] += 1
    if not at:
        found.missed[story.rule] += 1
        return
    first, last = sorted((story.changes_at, at[0]))
    between = story.cycles[first - 1 : last - 1]
    delay = sum(told.cycle_class == "cycle" and not told.interrupted for told in between)
    sign = 1 if at[0] >= story.changes_at else -1
    found.delays.setdefault(story.rule, []).append(sign * delay)


def stories_of(cells: int, seed: int = 1) -> list[Story]:
    """So many that fade, as many healthy ones, and a fifth of that for each other rule."""
    rng = np.random.default_rng(seed)
    made = [fading(rng, number) for number in range(cells)]
    made += [healthy(rng, number) for number in range(cells)]
    made += [changing(rng, rule) for rule in RULES[1:] for _ in range(max(cells // 5, 1))]
    return made


def judged(stories: Sequence[Story]) -> Found:
    """:func:`judge` in an archive of its own."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'archive.db'}")
        try:
            upgrade(engine)
            return judge(engine, stories)
        finally:
            engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100)
    cells = parser.parse_args().cells
    begun = time.perf_counter()
    stories = stories_of(cells)
    made_s = time.perf_counter() - begun
    found = judged(stories)
    cycles = sum(len(story.cycles) for story in stories)
    took_s = time.perf_counter() - begun - made_s
    print(
        f"{len(stories)} cells, {cycles:,} cycles; made in {made_s:.0f} s, judged in {took_s:.0f}"
    )
    print(f"\n{'rule':12}{'cells':>8}{'found':>8}{'delay in comparable cycles: median, most':>44}")
    for rule in RULES:
        delays = found.delays.get(rule, [])
        said = f"{np.median(delays):.0f} {max(delays)} (least {min(delays)})" if delays else ""
        print(f"{rule:12}{len(delays) + found.missed[rule]:8}{len(delays):8}{said:>44}")
    print(f"\nfalse alarms in 1,000 of {found.healthy_cycles:,} healthy cell-cycles")
    for rule in RULES:
        print(f"{rule:12}{1000 * found.false[rule] / max(found.healthy_cycles, 1):8.3f}")
    for message in found.messages[:20]:
        print("  ", message)
    print("\nother alarms of the cells that something is wrong with")
    for (name, rule), count in sorted(found.others.items()):
        print(f"{name:24}{rule:24}{count:4}")


if __name__ == "__main__":
    main()
