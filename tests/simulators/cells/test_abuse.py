"""Whatever an instrument does to a cell, the answers stay finite and physical."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.simulators.cells import Anode, CellSpec, Faults, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until

MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G
Make = Callable[..., ModelCell]
ANODE = Anode(active_mass_g=1.25 * MASS_G, sodium_mAh_per_g=200.0, film_mAh_per_g=61.0)
KINDS = {
    "HE-V": ("HE-V", None),
    "NVP": ("NVP", None),
    "HC": ("HC", None),
    "full": ("HE-V", ANODE),
}


def finite(trace: Trace) -> bool:
    columns = (trace.voltage_V, trace.current_A, trace.charge_Ah, trace.energy_Wh,
               trace.temperature_degC, trace.time_s)  # fmt: skip
    ends = (trace.end_voltage_V, trace.end_current_A, trace.end_charge_Ah,
            trace.end_energy_Wh, trace.end_temperature_degC, trace.elapsed_s)  # fmt: skip
    return all(bool(np.isfinite(column).all()) for column in columns) and all(
        math.isfinite(end) for end in ends
    )


def rest(cell: ModelCell, duration_s: float = 3600.0) -> Trace:
    return cell.advance(
        Control.REST, 0.0, duration_s, until=Until(), recorder=Recorder(every_s=60.0)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [-100.0, -5.0, -0.2, 0.2, 5.0, 100.0])
def test_overcharge_and_overdischarge_give_finite_answers_and_the_cell_comes_back(
    make: Make, kind: str, rate: float
) -> None:
    material, anode = KINDS[kind]
    cell = make(material, anode=anode)
    hours = 12.0 / abs(rate)
    trace = cell.advance(
        Control.CURRENT, rate * ONE_C_A, 3600.0 * hours,
        until=Until(), recorder=Recorder(every_s=36.0 * hours),
    )  # fmt: skip
    assert finite(trace)
    assert trace.end_charge_Ah == pytest.approx(rate * ONE_C_A * hours, rel=1e-9)
    assert -8.0 < trace.end_voltage_V < 12.0
    assert finite(rest(cell))
    for electrode in (cell.inventory().positive, cell.inventory().negative):
        assert -0.01 <= electrode.occupancy <= 1.01


def test_an_overcharged_cathode_oxidises_electrolyte_and_an_overdischarged_one_is_plated(
    make: Make,
) -> None:
    over = make("HE-V")
    over.advance(Control.CURRENT, ONE_C_A, 10 * 3600.0, until=Until(), recorder=Recorder())
    assert 4.4 < over.voltage_V(ONE_C_A) < 5.2
    assert over.inventory().positive.oxidised_Ah > 7 * ONE_C_A
    under = make("HE-V")
    under.advance(Control.CURRENT, -ONE_C_A, 10 * 3600.0, until=Until(), recorder=Recorder())
    assert -0.5 < under.voltage_V(-ONE_C_A) < 0.0
    assert under.inventory().positive.plated_Ah > 5 * ONE_C_A


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_short_empties_a_cell_and_an_open_circuit_does_nothing(
    make: Make, kind: str
) -> None:
    material, anode = KINDS[kind]
    cell = make(material, anode=anode)
    cell.advance(
        Control.CURRENT, ONE_C_A, 7200.0,
        until=Until(voltage_at_least_V=4.1), recorder=Recorder(),
    )  # fmt: skip
    rest(cell)
    before = cell.voltage_V()
    still = cell.advance(Control.REST, 0.0, 60.0, until=Until(), recorder=Recorder())
    assert still.end_voltage_V == pytest.approx(before, abs=1e-3)
    assert still.end_charge_Ah == 0.0
    short = cell.advance(
        Control.RESISTANCE, 0.0, 1e5, until=Until(), recorder=Recorder(every_s=10.0)
    )
    assert finite(short)
    assert np.all(np.abs(short.voltage_V) < 1e-9)
    assert np.all(short.current_A < 1e-12)
    assert short.end_charge_Ah < 0.0
    assert abs(short.end_current_A) < 0.01 * abs(short.current_A[0])


@pytest.mark.parametrize("kind", KINDS)
def test_reversed_polarity_is_survived(make: Make, kind: str) -> None:
    material, anode = KINDS[kind]
    cell = make(material, anode=anode)
    trace = cell.advance(
        Control.VOLTAGE, -3.0, 3600.0,
        until=Until(), recorder=Recorder(every_s=60.0), max_current_A=ONE_C_A,
    )  # fmt: skip
    assert finite(trace)
    assert np.all(trace.current_A >= -ONE_C_A)
    assert finite(rest(cell))


@pytest.mark.parametrize("current_A", [1e3, -1e3, 1.0, -1.0])
def test_absurd_currents_give_finite_answers(make: Make, current_A: float) -> None:
    for material, anode in KINDS.values():
        cell = make(material, anode=anode)
        trace = cell.advance(
            Control.CURRENT, current_A, 10.0, until=Until(), recorder=Recorder(every_s=1.0)
        )
        assert finite(trace)
        assert finite(rest(cell))


@pytest.mark.parametrize("power_W", [10.0, -10.0])
def test_more_power_than_a_cell_can_give_is_not_given(make: Make, power_W: float) -> None:
    cell = make("HE-V")
    trace = cell.advance(
        Control.POWER, power_W, 10.0, until=Until(), recorder=Recorder(every_s=0.5)
    )
    assert finite(trace)
    if power_W < 0.0:
        assert np.all(trace.voltage_V * trace.current_A > -1.0)
    assert finite(rest(cell))


ORDERS = st.one_of(
    st.tuples(st.just(Control.REST), st.just(0.0)),
    st.tuples(st.just(Control.CURRENT), st.floats(-100.0, 100.0).map(lambda c: c * ONE_C_A)),
    st.tuples(st.just(Control.VOLTAGE), st.floats(-1.0, 6.0)),
    st.tuples(st.just(Control.POWER), st.floats(-0.05, 0.05)),
    st.tuples(st.just(Control.RESISTANCE), st.floats(0.0, 1e6)),
)
STEPS = st.lists(
    st.tuples(ORDERS, st.floats(0.0, 4000.0), st.sampled_from([-20.0, 25.0, 60.0])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 2**31),
    short_ohm=st.sampled_from([math.inf, 1e4, 50.0]),
    steps=STEPS,
)
def test_random_programs_keep_charge_and_never_give_energy_from_nothing(
    kind: str,
    seed: int,
    short_ohm: float,
    steps: list[tuple[tuple[Control, float], float, float]],
) -> None:
    material, anode = KINDS[kind]
    cell = build_cell(
        CellSpec(
            name="r", material=material, active_mass_g=MASS_G, seed=seed, anode=anode,
            faults=Faults(short_ohm=short_ohm, fade_per_cycle=1e-3),
        )
    )  # fmt: skip
    begun = cell.inventory()
    net_Ah = scale_Ah = 0.0
    for (control, setpoint), duration_s, ambient_degC in steps:
        trace = cell.advance(
            control, setpoint, duration_s,
            until=Until(), recorder=Recorder(every_s=100.0, voltage_change_V=0.1),
            max_records=100_000, ambient_degC=ambient_degC,
        )  # fmt: skip
        assert finite(trace)
        assert trace.elapsed_s == duration_s
        assert np.all(np.diff(trace.time_s) >= 0.0)
        net_Ah += trace.end_charge_Ah
        scale_Ah += abs(trace.end_charge_Ah) + 1e-7
    ended = cell.inventory()
    through = ended.through_terminals_Ah - begun.through_terminals_Ah
    assert through == pytest.approx(net_Ah, abs=1e-9 * scale_Ah)
    passed = ended.through_cell_Ah - begun.through_cell_Ah
    moved = ended.positive.oxidation_Ah - begun.positive.oxidation_Ah
    scale_Ah += abs(passed)
    assert moved == pytest.approx(passed, abs=1e-9 * scale_Ah)
    if anode is not None:
        other = ended.negative.oxidation_Ah - begun.negative.oxidation_Ah
        assert other == pytest.approx(-passed, abs=1e-9 * scale_Ah)
    kept = cell.state()
    here = rest(cell, 100.0).end_voltage_V
    cell.restore(kept)
    assert rest(cell, 100.0).end_voltage_V == here


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["HE-V", "NVP", "full"]),
    rates=st.lists(st.floats(0.2, 60.0), min_size=1, max_size=6),
    window=st.tuples(st.floats(1.5, 3.0), st.floats(3.2, 4.1)),
    ambient_degC=st.sampled_from([0.0, 25.0, 50.0]),
)
def test_a_closed_cycle_never_gives_more_energy_than_it_took(
    kind: str, rates: list[float], window: tuple[float, float], ambient_degC: float
) -> None:
    """Closed in charge: the discharge takes out exactly what the charge put in."""
    material, anode = KINDS[kind]
    cell = build_cell(
        CellSpec(name="e", material=material, active_mass_g=MASS_G, scatter=0.0, anode=anode)
    )
    low_V, high_V = window
    for rate in rates:
        cell.advance(
            Control.CURRENT, -rate * ONE_C_A, 1e6, ambient_degC=ambient_degC,
            until=Until(voltage_at_most_V=low_V), recorder=Recorder(),
        )  # fmt: skip
        rest(cell, 20_000.0)
        charge = cell.advance(
            Control.CURRENT, rate * ONE_C_A, 1e6, ambient_degC=ambient_degC,
            until=Until(voltage_at_least_V=high_V), recorder=Recorder(),
        )  # fmt: skip
        if charge.end_charge_Ah == 0.0:
            continue
        discharge = cell.advance(
            Control.CURRENT, -rate * ONE_C_A, 1e6, ambient_degC=ambient_degC,
            until=Until(charge_magnitude_at_least_Ah=charge.end_charge_Ah), recorder=Recorder(),
        )  # fmt: skip
        assert discharge.end_charge_Ah == pytest.approx(-charge.end_charge_Ah, rel=1e-9)
        assert charge.end_energy_Wh + discharge.end_energy_Wh > 0.0
