"""A small laboratory without instruments: simulated cells go through the study's recipes, and what
they do is written into an archive as a node would send it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from labctl.archive import open_archive
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.queries import Archive
from labctl.model import RECORD_COLUMNS, Cell, Records, Spectrum
from labctl.program import (
    ConstantCurrent,
    Limits,
    Program,
    RecordRule,
    RetentionAlarm,
    Step,
    encode_program,
)
from labctl.simulators.cells import Anode, CellSpec, build_cell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until
from labctl.stream.batches import encode_events, encode_samples
from labctl.stream.events import (
    CellRegistered,
    CycleEnded,
    Event,
    MarkerSet,
    RunCreated,
    RunEnded,
    SpectrumMeasured,
    StepEnded,
)

MASS_G = 2e-3
CARBON_G = 1.25 * MASS_G
START_UNIX_S = 1_750_000_000.0
ROWS_A_BATCH = 2000
NEVER_V = 1e9


def blank_program(cell: str, alarms: tuple[RetentionAlarm, ...]) -> Program:
    """Something that can be read as a program; nothing here runs it."""
    step = Step(0, "charge", ConstantCurrent(1e-4), (), RecordRule())
    limits = Limits(1.0, 4.4, -1e-2, 1e-2, 1.0, 1e9)
    return Program(
        name="x", recipe_sha256="ab" * 32, cell=cell, body=(step,), limits=limits,
        alarms=alarms,
    )  # fmt: skip


class Lab:
    """Journal and archive of one node."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._number = 0
        self._engine = open_engine(url)
        upgrade(self._engine)
        self._ingest = Ingest(self._engine)
        self._payloads: list[bytes] = []

    def register(self, name: str, material: str, mass_g: float = MASS_G, *parents: str) -> None:
        """Make a cell known."""
        cell = Cell(
            name=name, material=material, active_mass_g=mass_g, one_C_mA_per_g=100.0,
            safe_voltage_min_V=-0.1, safe_voltage_max_V=4.5, parents=parents,
        )  # fmt: skip
        self.events("", CellRegistered(cell=cell, actor="mia", unix_time_s=START_UNIX_S))

    def run(
        self,
        run: str,
        cell: str,
        recipe: str,
        model: Any,
        mass_g: float = MASS_G,
        alarms: tuple[RetentionAlarm, ...] = (),
    ) -> Run:
        """Begin a run of a recipe."""
        self.events(
            run,
            RunCreated(
                run=run, cell=cell, instrument="rack1", channel="1", recipe_name=recipe,
                recipe_text="", recipe_sha256="ab" * 32,
                program=encode_program(blank_program(cell, alarms)), active_mass_g=mass_g,
                one_C_mA_per_g=100.0, actor="mia", labctl_version="0.1.0",
                unix_time_s=START_UNIX_S + self._number,
            ),
        )  # fmt: skip
        return Run(self, run, model, 0.1 * mass_g)

    def events(self, run: str, *events: Event) -> None:
        self._number += 1
        self._payloads.append(encode_events("node-1f", self._number, run, events))

    def samples(self, run: str, records: Records) -> None:
        for first in range(0, len(records), ROWS_A_BATCH):
            self._number += 1
            block = records[first : first + ROWS_A_BATCH]
            self._payloads.append(encode_samples("node-1f", self._number, run, block))

    def commit(self) -> None:
        """Take in everything so far."""
        self._ingest.commit(self._payloads, ["node"] * len(self._payloads))
        self._payloads = []

    def close(self) -> None:
        self.commit()
        self._engine.dispose()


@dataclass
class Run:
    """One run: steps are lived through one after the other."""

    lab: Lab
    name: str
    model: Any
    one_C_A: float
    noise_V: float = 1e-4
    cycle: int = 0
    counted: int = 0
    visit: int = 0
    step: int = 0
    spectra: int = 0
    time_s: float = 0.0
    charge_Ah: float = 0.0
    energy_Wh: float = 0.0
    seq: int = 0
    cycle_class: str = ""
    cycle_seq: int = 0
    _blocks: list[np.ndarray] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)

    def begin_cycle(self, cycle_class: str = "cycle") -> None:
        self.counted += 1
        self.cycle, self.cycle_class, self.cycle_seq = self.counted, cycle_class, self.seq + 1

    def end_cycle(self, *, complete: bool = True) -> None:
        self._events.append(
            CycleEnded(
                run=self.name, cycle=self.cycle, cycle_class=self.cycle_class,
                first_seq=self.cycle_seq, last_seq=self.seq, complete=complete, interrupted=False,
            )
        )  # fmt: skip
        self.cycle = 0

    def flow(
        self,
        rate: float,
        until_V: float = NEVER_V,
        *,
        seconds: float = 1e7,
        every_s: float = 120.0,
        every_V: float = 8e-3,
        step: int | None = None,
    ) -> None:
        """Constant current at ``rate`` in C, positive for charging, until a voltage or a time."""
        until = Until()
        if until_V != NEVER_V:
            until = (
                Until(voltage_at_least_V=until_V) if rate > 0 else Until(voltage_at_most_V=until_V)
            )
        recorder = Recorder(every_s=every_s, voltage_change_V=every_V)
        current_A = rate * self.one_C_A
        trace = self.model.advance(
            Control.CURRENT, current_A, seconds, until=until, recorder=recorder
        )
        self._lived(trace, "constant_current", step or (1 if rate > 0 else 2))

    def rest(self, seconds: float, every_s: float = 600.0) -> None:
        trace = self.model.advance(
            Control.REST, 0.0, seconds, until=Until(), recorder=Recorder(every_s=every_s)
        )
        self._lived(trace, "rest", 9)

    def sweep(self, from_V: float, to_V: float, rate_V_per_s: float) -> None:
        trace = self.model.sweep(
            from_V, to_V, rate_V_per_s, recorder=Recorder(voltage_change_V=3e-3)
        )
        self._lived(trace, "voltage_sweep", 3 if to_V > from_V else 4)

    def spectrum(self) -> None:
        frequency_Hz = np.logspace(5, -2, 71)
        z = self.model.impedance(frequency_Hz)
        rng = np.random.default_rng(self.spectra)
        z *= 1 + 2e-3 * (rng.normal(size=len(z)) + 1j * rng.normal(size=len(z)))
        self.rest(600.0)
        self.spectra += 1
        self._events.append(
            SpectrumMeasured(
                run=self.name, number=self.spectra, visit=self.visit, step=self.step,
                cycle=self.cycle, after_seq=self.seq, test_time_s=self.time_s,
                spectrum=Spectrum(
                    frequency_Hz=tuple(frequency_Hz.tolist()),
                    impedance_real_ohm=tuple(z.real.tolist()),
                    impedance_imag_ohm=tuple(z.imag.tolist()),
                    voltage_V=self.model.voltage_V(), unix_time_s=START_UNIX_S + self.time_s,
                ),
            )
        )  # fmt: skip

    def marker(self, name: str, direction: str) -> None:
        self._events.append(
            MarkerSet(
                run=self.name, marker=name, direction=direction, seq=self.seq, cycle=self.cycle,
                test_time_s=self.time_s, unix_time_s=START_UNIX_S + self.time_s,
            )
        )  # fmt: skip

    def full_cycle(
        self, rate: float, cycle_class: str = "cycle", *, low_V: float = 1.5, high_V: float = 4.1,
        every_s: float = 120.0, every_V: float = 8e-3,
    ) -> None:  # fmt: skip
        """A charge and a discharge."""
        self.begin_cycle(cycle_class)
        self.flow(rate, high_V, every_s=every_s, every_V=every_V)
        self.flow(-rate, low_V, every_s=every_s, every_V=every_V)
        self.end_cycle()

    def end(self, outcome: str = "completed") -> None:
        """Hand everything over to the archive."""
        table = np.concatenate(self._blocks) if self._blocks else np.empty((0, len(RECORD_COLUMNS)))
        records = Records(
            **{
                name: np.ascontiguousarray(table[:, place], dtype=kind)
                for place, (name, kind) in enumerate(RECORD_COLUMNS.items())
            }
        )
        self.lab.samples(self.name, records)
        if outcome:
            self._events.append(
                RunEnded(
                    run=self.name, outcome=outcome, reason="", last_seq=self.seq,
                    unix_time_s=START_UNIX_S + self.time_s,
                )
            )  # fmt: skip
        self.lab.events(self.name, *self._events)
        self.lab.commit()

    def _lived(self, trace: Trace, technique: str, step: int) -> None:
        """Its records and one at its very end, in their place in the run."""
        self.visit += 1
        self.step = step
        count = len(trace.time_s) + 1
        columns = [
            np.append(trace.time_s, trace.elapsed_s),
            np.append(trace.voltage_V, trace.end_voltage_V),
            np.append(trace.current_A, trace.end_current_A),
            np.append(trace.charge_Ah, trace.end_charge_Ah),
            np.append(trace.energy_Wh, trace.end_energy_Wh),
        ]
        rng = np.random.default_rng(self.visit)
        rows = np.empty((count, len(RECORD_COLUMNS)))
        rows[:, 0] = self.seq + 1 + np.arange(count)
        rows[:, 1] = self.time_s + columns[0]
        rows[:, 2] = START_UNIX_S + rows[:, 1]
        rows[:, 3:6] = self.cycle, step, self.visit
        rows[:, 6] = columns[1] + rng.normal(0.0, self.noise_V, count)
        rows[:, 7] = columns[2]
        rows[:, 8] = self.charge_Ah + columns[3]
        rows[:, 9] = self.energy_Wh + columns[4]
        rows[:, 10] = 25.0
        self._blocks.append(rows)
        up_Ah, down_Ah = max(trace.end_charge_Ah, 0.0), max(-trace.end_charge_Ah, 0.0)
        self._events.append(
            StepEnded(
                run=self.name, visit=self.visit, step=step, cycle=self.cycle, label=technique,
                technique=technique, first_seq=self.seq + 1, last_seq=self.seq + count,
                start_test_time_s=self.time_s, end_test_time_s=self.time_s + trace.elapsed_s,
                end_voltage_V=trace.end_voltage_V, end_current_A=trace.end_current_A,
                ended_by="complete", charge_Ah=up_Ah, discharge_Ah=down_Ah,
                charge_Wh=math.nan, discharge_Wh=math.nan,
            )
        )  # fmt: skip
        self.seq += count
        self.time_s += trace.elapsed_s
        self.charge_Ah += trace.end_charge_Ah
        self.energy_Wh += trace.end_energy_Wh


def new_cell(material: str, mass_g: float = MASS_G, **options: Any) -> Any:
    """A simulated cell without scatter."""
    return build_cell(
        CellSpec(name=material, material=material, active_mass_g=mass_g, scatter=0.0, **options)
    )


def capacity(
    lab: Lab, cell: str, material: str, run: str, model: Any = None, *, mass_g: float = MASS_G
) -> None:
    """Recipe 'Capacity at 0.2C'; ``mass_g`` as it was registered."""
    alarm = RetentionAlarm(reference_first=1, reference_last=1, over_cycles=1)
    one = lab.run(
        run, cell, "Capacity at 0.2C", model or new_cell(material), mass_g, alarms=(alarm,)
    )
    one.rest(600.0)
    for _ in range(3):
        one.full_cycle(0.2)
    one.end()


def rate_ladder(lab: Lab, cell: str, material: str, run: str) -> None:
    """Recipe 'Rate ladder', with two cycles a rate."""
    one = lab.run(run, cell, "Rate ladder", new_cell(material))
    one.full_cycle(0.2, "0.2C")
    for rate in (0.2, 1.0, 5.0, 10.0, 20.0, 50.0, 0.2):
        for _ in range(2):
            one.full_cycle(rate, f"{rate:g}C", every_s=30.0, every_V=20e-3)
    one.end()


def gitt(lab: Lab, cell: str, material: str, run: str) -> None:
    """Recipe 'GITT' with pulses of a minute at 1C, short enough for these materials."""
    one = lab.run(run, cell, "GITT", new_cell(material))
    one.rest(600.0)
    one.full_cycle(0.2, "preparation")
    one.begin_cycle("titration")
    for sign, end_V in ((1, 4.1), (-1, 1.5)):
        for _ in range(110):
            one.flow(
                sign * 1.0, end_V, seconds=60.0, every_s=0.5, every_V=1e-3,
                step=3 if sign > 0 else 5,
            )  # fmt: skip
            if (one.model.voltage_V(sign * one.one_C_A) - end_V) * sign >= -1e-6:
                break
            one.rest(7200.0)
    one.end_cycle()
    one.end()


def voltammetry(lab: Lab, cell: str, material: str, run: str) -> None:
    """Recipe 'Cyclic voltammetry', without its faster rates."""
    one = lab.run(run, cell, "Cyclic voltammetry", new_cell(material))
    one.rest(600.0)
    from_V = one.model.voltage_V()
    for _ in range(2):
        one.begin_cycle("0.1 mV/s")
        one.sweep(from_V, 4.1, 1e-4)
        one.sweep(4.1, 1.5, 1e-4)
        one.end_cycle()
        from_V = 1.5
    one.begin_cycle("0.5 mV/s")
    one.sweep(1.5, 4.1, 5e-4)
    one.sweep(4.1, 1.5, 5e-4)
    one.end_cycle()
    one.end()


def impedance(lab: Lab, cell: str, material: str, run: str) -> None:
    """Recipe 'Impedance'."""
    one = lab.run(run, cell, "Impedance", new_cell(material))
    one.full_cycle(0.2)
    one.flow(0.2, 4.1)
    one.rest(3600.0)
    one.spectrum()
    for _ in range(4):
        one.flow(-0.2, 1.5, seconds=0.34 / 0.2 * 3600.0)
        one.rest(3600.0)
        one.spectrum()
    one.end()


def carbon(lab: Lab, cell: str, run: str) -> None:
    """Recipe 'Hard carbon precycle'."""
    one = lab.run(run, cell, "Hard carbon precycle", new_cell("HC", CARBON_G), CARBON_G)
    one.rest(600.0)
    for _ in range(5):
        one.begin_cycle()
        one.flow(-0.25, 0.01, every_V=5e-3)
        one.flow(0.25, 2.0, every_V=5e-3)
        one.end_cycle()
    one.flow(-0.25, 0.01, seconds=200 / 25 * 3600.0)
    one.end()


def full_cell(lab: Lab, cell: str, run: str, *, long_cycles: int = 12) -> None:
    """Recipe 'Pre-sodiated full cell'."""
    anode = Anode(active_mass_g=CARBON_G, sodium_mAh_per_g=200.0, film_mAh_per_g=61.0)
    one = lab.run(run, cell, "Pre-sodiated full cell", new_cell("HE-V", anode=anode))
    one.rest(3600.0)
    for _ in range(3):
        one.full_cycle(0.2, "0.2C")
    for rate in (0.2, 0.5, 1.0, 2.0, 5.0, 0.2):
        for _ in range(2):
            one.full_cycle(rate, f"{rate:g}C", every_s=30.0)
    for _ in range(long_cycles):
        one.full_cycle(1.0, "long 1C")
    one.end()


def endurance(
    lab: Lab, cell: str, run: str, *, blocks: int = 20, outcome: str = "completed"
) -> None:
    """Recipe 'Endurance at 50C', with few samples a cycle."""
    one = lab.run(run, cell, "Endurance at 50C", new_cell("HE-V"))
    one.full_cycle(0.1, "formation")
    one.full_cycle(0.2, "check")
    for _ in range(blocks):
        for _ in range(500):
            one.full_cycle(50.0, "endurance", every_s=1e6, every_V=1.0)
        one.full_cycle(0.2, "check")
    one.end(outcome)


def fading(lab: Lab, cell: str, run: str, capacities_mAh_g: np.ndarray) -> None:
    """Recipe 'Endurance at 50C' as its figures alone: two samples a cycle, each giving so much."""
    one = lab.run(run, cell, "Endurance at 50C", None)
    count = len(capacities_mAh_g)
    seq = np.arange(1, 2 * count + 1)
    charging = seq % 2 == 1
    given_Ah = np.repeat(capacities_mAh_g, 2) * 1e-3 * MASS_G
    table = np.zeros((2 * count, len(RECORD_COLUMNS)))
    table[:, 0] = seq
    table[:, 1] = 60.0 * seq
    table[:, 2] = START_UNIX_S + table[:, 1]
    table[:, 3] = (seq + 1) // 2
    table[:, 4] = np.where(charging, 1, 2)
    table[:, 5] = seq
    table[:, 6] = np.where(charging, 4.1, 1.5)
    table[:, 7] = np.where(charging, 50.0, -50.0) * one.one_C_A
    table[:, 8] = np.where(charging, given_Ah, 0.0)
    table[:, 9] = 3.0 * table[:, 8]
    one._blocks.append(table)
    one.seq = 2 * count
    one._events += [
        CycleEnded(
            run=run, cycle=n, cycle_class="endurance", first_seq=2 * n - 1, last_seq=2 * n,
            complete=True, interrupted=False,
        )
        for n in range(1, count + 1)
    ]  # fmt: skip
    one.end("")


def operando(lab: Lab, cell: str, run: str) -> None:
    """Recipe 'Operando at 0.1C', with a pattern every tenth of an hour."""
    one = lab.run(run, cell, "Operando at 0.1C", new_cell("HE-V"))
    one.rest(300.0)
    one.marker("diffractometer-ready", "received")
    one.marker("cycle-begins", "sent")
    one.begin_cycle()
    for sign, end_V in ((1, 4.1), (-1, 1.5)):
        for number in range(30):
            one.flow(sign * 0.1, end_V, seconds=2400.0)
            one.marker(f"pattern-{number + 1:04}", "received")
            if (one.model.voltage_V(sign * 0.1 * one.one_C_A) - end_V) * sign >= -1e-6:
                break
    one.end_cycle()
    one.marker("cycle-is-over", "sent")
    one.end()


def cycling(lab: Lab, cell: str, run: str, cycles: int = 20) -> None:
    """Recipe 'Cycling at 0.2C'."""
    one = lab.run(run, cell, "Cycling at 0.2C", new_cell("HE-V"))
    for number in range(cycles + 2):
        one.full_cycle(0.2, "formation" if number < 2 else "cycle", every_s=300.0, every_V=20e-3)
    one.end()


def whole_study(lab: Lab, *, blocks: int = 20) -> None:
    """Every measurement of the study."""
    for name, material in (("HEV-1", "HE-V"), ("NVP-1", "NVP")):
        lab.register(name, material)
        kind = material.lower()
        capacity(lab, name, material, f"capacity-{kind}")
        rate_ladder(lab, name, material, f"ladder-{kind}")
        gitt(lab, name, material, f"gitt-{kind}")
        voltammetry(lab, name, material, f"cv-{kind}")
        impedance(lab, name, material, f"eis-{kind}")
    cycling(lab, "HEV-1", "cycling-he-v")
    endurance(lab, "HEV-1", "endurance-he-v", blocks=blocks)
    operando(lab, "HEV-1", "operando-he-v")
    lab.register("HC-1", "HC", CARBON_G)
    carbon(lab, "HC-1", "carbon")
    lab.register("FULL-1", "HC||HE-V", MASS_G, "HC-1")
    lab.register("FULL-2", "HC||HE-V", MASS_G)
    full_cell(lab, "FULL-1", "full")
    as_made = new_cell("HE-V", anode=Anode(active_mass_g=CARBON_G))
    capacity(lab, "FULL-2", "HE-V", "full-as-made", as_made)


class Builders:
    """What tests need of this file, without importing it."""

    Lab = Lab
    MASS_G = MASS_G
    new_cell = staticmethod(new_cell)
    capacity = staticmethod(capacity)
    rate_ladder = staticmethod(rate_ladder)
    fading = staticmethod(fading)
    whole_study = staticmethod(whole_study)


@pytest.fixture(scope="session")
def builders() -> Builders:
    """Recipes of the study on simulated cells."""
    return Builders()


@pytest.fixture(scope="session")
def study_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The archive of a laboratory that measured everything, but only 1,000 fast cycles."""
    url = f"sqlite:///{tmp_path_factory.mktemp('study') / 'archive.db'}"
    lab = Lab(url)
    whole_study(lab, blocks=2)
    lab.close()
    return url


@pytest.fixture(scope="session")
def study_archive(study_url: str) -> Iterator[Archive]:
    """That archive, opened."""
    with open_archive(study_url) as archive:
        yield archive
