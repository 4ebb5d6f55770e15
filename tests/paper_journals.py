"""Journals of small laboratories, as the batches that a node would send of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from labctl.model import RECORD_COLUMNS, Cell, Records, Spectrum
from labctl.program import (
    ConstantCurrent,
    Limits,
    Loop,
    Program,
    RecordRule,
    RetentionAlarm,
    Step,
    encode_program,
)
from labctl.stream.batches import SamplesBatch, decode_batch, encode_events, encode_samples
from labctl.stream.events import (
    BranchTaken,
    CellRegistered,
    CycleEnded,
    Event,
    GapRecorded,
    InstrumentSeen,
    MarkerSet,
    RunCreated,
    RunEnded,
    RunStateChanged,
    SpectrumMeasured,
    StepEnded,
)

MASS_G = 0.002
CURRENT_A = 2e-4
START_UNIX_S = 1_750_000_000.0


@dataclass
class Journal:
    """What a node wrote: numbered batches."""

    source: str = "node-a-1f"
    payloads: list[bytes] = field(default_factory=list)

    def events(self, run: str, *events: Event) -> None:
        self.payloads.append(encode_events(self.source, len(self.payloads) + 1, run, tuple(events)))

    def samples(self, run: str, records: Records) -> None:
        self.payloads.append(encode_samples(self.source, len(self.payloads) + 1, run, records))


@dataclass
class CycleSpec:
    """One cycle of a story: hours of charge and discharge at 0.2 mA."""

    charge_h: float = 1.0
    discharge_h: float = 1.0
    cycle_class: str = "cycle"
    complete: bool = True
    interrupted: bool = False


def program(alarms: tuple[RetentionAlarm, ...]) -> Program:
    step = Step(0, "charge", ConstantCurrent(CURRENT_A), (), RecordRule(), 1)
    back = Step(1, "discharge", ConstantCurrent(-CURRENT_A), (), RecordRule(), 2)
    return Program(
        name="cycling",
        recipe_sha256="ab" * 32,
        cell="HEV-1",
        body=(Loop(count=3, body=(step, back), counts_cycles=True),),
        limits=Limits(1.0, 4.4, -1e-3, 1e-3, 1.0, 1e9),
        alarms=alarms,
    )


def write_run(
    journal: Journal,
    specs: Sequence[CycleSpec],
    *,
    run: str = "run-1",
    cell: str = "HEV-1",
    samples_per_half: int = 5,
    rows_per_batch: int = 7,
    alarms: tuple[RetentionAlarm, ...] = (RetentionAlarm(),),
    ended: bool = True,
    temperature: Callable[[int], float] = lambda seq: 25.0 if seq % 3 else math.nan,
) -> None:
    """A whole run: registered, created, cycled, ended."""
    journal.events(
        "",
        CellRegistered(
            cell=Cell(
                name=cell,
                material="HE-V",
                active_mass_g=MASS_G,
                one_C_mA_per_g=100.0,
                safe_voltage_min_V=1.0,
                safe_voltage_max_V=4.4,
                parents=("sheet-7",),
            ),
            actor="mia",
            unix_time_s=START_UNIX_S - 60,
        ),
        InstrumentSeen(
            instrument="neware-1",
            driver="neware_bts",
            manufacturer="Neware",
            model="BTS",
            serial="42",
            channels=("1", "2"),
            unix_time_s=START_UNIX_S - 50,
        ),
    )
    journal.events(
        run,
        RunCreated(
            run=run,
            cell=cell,
            instrument="neware-1",
            channel="1",
            recipe_name="cycling",
            recipe_text="recipe: cycling",
            recipe_sha256="ab" * 32,
            program=encode_program(program(alarms)),
            active_mass_g=MASS_G,
            one_C_mA_per_g=100.0,
            actor="mia",
            labctl_version="0.1.0",
            unix_time_s=START_UNIX_S - 40,
        ),
        RunStateChanged(run=run, state="arming", reason="", unix_time_s=START_UNIX_S - 40),
        RunStateChanged(run=run, state="running", reason="", unix_time_s=START_UNIX_S),
    )
    columns: dict[str, list[float]] = {name: [] for name in Records.__slots__}
    pending: list[tuple[int, list[Event]]] = []
    seq, visit, time_s, charge_Ah, energy_Wh = 0, 0, 0.0, 0.0, 0.0

    def sample(cycle: int, step: int, voltage_V: float, current_A: float) -> None:
        row = (
            seq, time_s, START_UNIX_S + time_s, cycle, step, visit, voltage_V, current_A,
            charge_Ah, energy_Wh, temperature(seq),
        )  # fmt: skip
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)

    for cycle, spec in enumerate(specs, start=1):
        first_of_cycle = seq + 1
        for step, (hours, sign, mean_V) in enumerate(
            [(spec.charge_h, 1.0, 3.5), (spec.discharge_h, -1.0, 3.3)], start=1
        ):
            visit += 1
            first_of_visit, start_s = seq + 1, time_s
            for place in range(samples_per_half):
                seq += 1
                moved_Ah = sign * CURRENT_A * hours / samples_per_half
                time_s += hours * 3600 / samples_per_half
                charge_Ah += moved_Ah
                energy_Wh += moved_Ah * mean_V
                sample(cycle, step, mean_V + 0.01 * place * sign, sign * CURRENT_A)
            moved = CURRENT_A * hours
            ended_step = StepEnded(
                run=run, visit=visit, step=step, cycle=cycle,
                label="charge" if sign > 0 else "discharge", technique="constant_current",
                first_seq=first_of_visit, last_seq=seq, start_test_time_s=start_s,
                end_test_time_s=time_s, end_voltage_V=mean_V, end_current_A=sign * CURRENT_A,
                ended_by="voltage_V >= 4.1",
                charge_Ah=moved if sign > 0 else 0.0, discharge_Ah=moved if sign < 0 else 0.0,
                charge_Wh=moved * mean_V if sign > 0 else 0.0,
                discharge_Wh=moved * mean_V if sign < 0 else 0.0,
            )  # fmt: skip
            pending.append((seq, [ended_step]))
        pending[-1][1].append(
            CycleEnded(
                run=run,
                cycle=cycle,
                cycle_class=spec.cycle_class,
                first_seq=first_of_cycle,
                last_seq=seq,
                complete=spec.complete,
                interrupted=spec.interrupted,
            )
        )
    records = records_of(list(zip(*columns.values(), strict=True)))
    for first in range(0, len(records), rows_per_batch):
        block = records[first : first + rows_per_batch]
        journal.samples(run, block)
        due = [events for at, events in pending if at <= block.seq[-1]]
        pending = [(at, events) for at, events in pending if at > block.seq[-1]]
        if due:
            journal.events(run, *(event for events in due for event in events))
    if ended:
        journal.events(
            run,
            RunStateChanged(
                run=run, state="completed", reason="", unix_time_s=START_UNIX_S + time_s
            ),
            RunEnded(
                run=run, outcome="completed", reason="read to end", last_seq=seq,
                unix_time_s=START_UNIX_S + time_s,
            ),
        )  # fmt: skip


@dataclass
class Visit:
    """One visit of :func:`write_visits`: so many samples at a current, and what happened at its
    end. ``cycle_ends`` is None, or whether the cycle that ends with it is complete."""

    technique: str
    cycle: int = 0
    samples: int = 1
    current_A: float = 0.0
    ended_by: str = "complete"
    events: tuple[str, ...] = ()
    cycle_ends: bool | None = None


MIXED = (
    Visit("wait", ended_by="signal", events=("received",)),
    Visit("signal", events=("sent", "sent")),
    Visit("constant_current", 1, 4, CURRENT_A, "voltage_V >= 4.1"),
    Visit("impedance", 1, 2, events=("spectrum",)),
    Visit("constant_current", 1, 4, -CURRENT_A, "voltage_V <= 1.5", cycle_ends=True),
    Visit("set_temperature", 2, 1),
    Visit("signal", 2, 1, events=("sent",), cycle_ends=True),
    Visit("voltage_sweep", 3, 3, CURRENT_A),
    Visit("voltage_sweep", 3, 2, -CURRENT_A, "skip", ("branch", "gap"), cycle_ends=True),
    Visit("impedance", 0, 1, events=("spectrum", "spectrum")),
    Visit("constant_current", 4, 2, -CURRENT_A, "stop", cycle_ends=False),
)
"""Steps of every kind: waits, markers and spectra of a sample or two, a cycle that passes no
charge, one whose loop was left early, and one that the run ended in."""


def write_visits(
    journal: Journal,
    visits: Sequence[Visit] = MIXED,
    *,
    run: str = "run-3",
    recipe_name: str = "mixed",
    batch_every: int = 3,
) -> None:
    """A run of these visits, a sample a minute; samples and events go out every few visits."""
    journal.events(
        run,
        RunCreated(
            run=run, cell="HEV-1", instrument="neware-1", channel="2", recipe_name=recipe_name,
            recipe_text="recipe: mixed", recipe_sha256="cd" * 32,
            program=encode_program(program(())), active_mass_g=MASS_G, one_C_mA_per_g=100.0,
            actor="mia", labctl_version="0.2.0", unix_time_s=START_UNIX_S,
        ),
    )  # fmt: skip
    rows: list[list[float]] = []
    waiting: list[Event] = []
    seq, charge_Ah, spectra, first_of_cycle = 0, 0.0, 0, 0
    for number, visit in enumerate(visits, start=1):
        first_seq, moved_Ah = seq + 1, visit.samples * visit.current_A / 60
        if visit.cycle and (number == 1 or visits[number - 2].cycle != visit.cycle):
            first_of_cycle = first_seq
        for _ in range(visit.samples):
            seq += 1
            charge_Ah += visit.current_A / 60
            rows.append(
                [seq, 60.0 * seq, START_UNIX_S + 60.0 * seq, visit.cycle, number, number,
                 3.0 + 0.01 * seq, visit.current_A, charge_Ah, 3.0 * charge_Ah, 25.0]
            )  # fmt: skip
        up_Ah, down_Ah = max(moved_Ah, 0.0), max(-moved_Ah, 0.0)
        waiting.append(
            StepEnded(
                run=run, visit=number, step=number, cycle=visit.cycle, label=visit.technique,
                technique=visit.technique, first_seq=first_seq, last_seq=seq,
                start_test_time_s=60.0 * (first_seq - 1), end_test_time_s=60.0 * seq,
                end_voltage_V=3.0 + 0.01 * seq, end_current_A=visit.current_A,
                ended_by=visit.ended_by, charge_Ah=up_Ah, discharge_Ah=down_Ah,
                charge_Wh=3 * up_Ah, discharge_Wh=3 * down_Ah,
            )
        )  # fmt: skip
        for name in visit.events:
            spectra += name == "spectrum"
            waiting.append(_event_named(name, run, number, visit, seq, spectra))
        if visit.cycle_ends is not None:
            waiting.append(
                CycleEnded(
                    run=run, cycle=visit.cycle, cycle_class="cycle", first_seq=first_of_cycle,
                    last_seq=seq, complete=visit.cycle_ends, interrupted=False,
                )
            )  # fmt: skip
        if number % batch_every == 0 or number == len(visits):
            journal.samples(run, records_of(rows))
            journal.events(run, *waiting)
            rows, waiting = [], []
    journal.events(
        run,
        RunEnded(
            run=run, outcome="stopped", reason="by mia", last_seq=seq,
            unix_time_s=START_UNIX_S + 60.0 * seq,
        ),
    )  # fmt: skip


def _event_named(name: str, run: str, number: int, visit: Visit, seq: int, spectrum: int) -> Event:
    at_s = 60.0 * seq
    if name == "spectrum":
        return SpectrumMeasured(
            run=run, number=spectrum, visit=number, step=number, cycle=visit.cycle, after_seq=seq,
            test_time_s=at_s,
            spectrum=Spectrum(
                frequency_Hz=(1e5, 10.0, 0.1),
                impedance_real_ohm=(6.0, 10.0 + spectrum, math.nan if spectrum == 2 else 30.0),
                impedance_imag_ohm=(-0.1, -5.0, -12.5), voltage_V=3.4,
                unix_time_s=START_UNIX_S + at_s,
            ),
        )  # fmt: skip
    if name == "branch":
        return BranchTaken(run=run, line=12, after_seq=seq, held=True, reason="retention 79 %")
    if name == "gap":
        return GapRecorded(
            run=run, after_seq=seq, reason="the rack was away", unix_time_s=START_UNIX_S + at_s
        )
    return MarkerSet(
        run=run, marker="pattern", direction=name, seq=seq, cycle=visit.cycle, test_time_s=at_s,
        unix_time_s=START_UNIX_S + at_s, actor="diffractometer" if name == "received" else "",
    )  # fmt: skip


def records_of(rows: Sequence[Sequence[float]]) -> Records:
    """Records out of rows of their columns."""
    return Records(
        **{
            name: np.array(values, dtype=RECORD_COLUMNS[name])
            for name, values in zip(RECORD_COLUMNS, zip(*rows, strict=True), strict=True)
        }
    )


def spoil(journal: Journal, run: str, *seqs: int) -> None:
    """Have the journal say that the voltage of some samples was not a number."""
    for place, payload in enumerate(journal.payloads):
        batch = decode_batch(payload)
        if not isinstance(batch, SamplesBatch) or batch.run != run:
            continue
        records = batch.records()
        columns = {name: getattr(records, name).copy() for name in RECORD_COLUMNS}
        columns["voltage_V"][np.isin(records.seq, seqs)] = np.nan
        journal.payloads[place] = encode_samples(
            batch.source, batch.number, batch.run, Records(**columns)
        )
