"""Ten thousand cycles at 50C: the study's retention, no charge lost, no energy from nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labctl.simulators.cells import CellSpec, Faults, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until

MASS_G = 2e-3
Make = Callable[..., ModelCell]
Run = Callable[..., Trace]


def test_he_v_keeps_the_study_s_share_over_ten_thousand_cycles_and_no_charge_is_lost(
    make: Make, constant_current: Run
) -> None:
    cell = make("HE-V")
    for _ in range(3):
        constant_current(cell, 0.2, 4.1)
        constant_current(cell, -0.2, 1.5)
    begun = cell.inventory()
    net_Ah = throughput_Ah = net_Wh = 0.0
    capacities = []
    for _ in range(10_000):
        charge = constant_current(cell, 50.0, 4.1)
        discharge = constant_current(cell, -50.0, 1.5)
        net_Ah += charge.end_charge_Ah + discharge.end_charge_Ah
        net_Wh += charge.end_energy_Wh + discharge.end_energy_Wh
        throughput_Ah += charge.end_charge_Ah - discharge.end_charge_Ah
        assert charge.end_energy_Wh + discharge.end_energy_Wh > 0.0
        capacities.append(-discharge.end_charge_Ah)
    first, middle, last = capacities[0], capacities[4999], capacities[-1]
    assert middle / first == pytest.approx(0.952, abs=0.005)
    assert last / middle == pytest.approx(0.933, abs=0.005)
    assert last / first == pytest.approx(0.888, abs=0.005)
    ended = cell.inventory()
    through = ended.through_terminals_Ah - begun.through_terminals_Ah
    assert through == pytest.approx(net_Ah, abs=1e-9 * throughput_Ah)
    held = ended.positive.oxidation_Ah - begun.positive.oxidation_Ah
    assert held == pytest.approx(through, abs=1e-9 * throughput_Ah)
    slow = [constant_current(cell, rate, end) for rate, end in ((0.2, 4.1), (-0.2, 1.5))]
    assert 140.0 < -slow[1].end_charge_Ah / MASS_G * 1e3 < 170.0


def test_a_fault_fades_a_cell_faster_by_the_share_it_names(constant_current: Run) -> None:
    cells = [
        build_cell(
            CellSpec(
                name="f", material="HE-V", active_mass_g=MASS_G, scatter=0.0,
                faults=Faults(fade_per_cycle=fade),
            )
        )
        for fade in (0.0, 2e-3)
    ]  # fmt: skip
    for cell in cells:
        for _ in range(50):
            constant_current(cell, 1.0, 4.1)
            constant_current(cell, -1.0, 1.5)
    sound, faulty = (cell.inventory().positive.active_share for cell in cells)
    assert 1.0 - faulty / sound == pytest.approx(50 * 2e-3 * 0.965, rel=0.1)


def test_a_cell_ages_on_the_shelf_and_faster_when_warm(make: Make) -> None:
    left = []
    for ambient in (25.0, 55.0):
        cell = make("NVP")
        cell.advance(
            Control.REST, 0.0, 100 * 86400.0,
            until=Until(), recorder=Recorder(), ambient_degC=ambient,
        )  # fmt: skip
        left.append(1.0 - cell.inventory().positive.active_share)
    assert 1e-3 < left[0] < 2e-2
    assert 4.0 < left[1] / left[0] < 8.0


def test_a_charged_cell_discharges_itself_slowly_and_a_short_empties_it(
    make: Make, constant_current: Run
) -> None:
    month_s = 30 * 86400.0
    cell = make("HE-V")
    constant_current(cell, 0.2, 4.1)
    before = cell.inventory().positive.occupancy
    cell.advance(Control.REST, 0.0, month_s, until=Until(), recorder=Recorder())
    lost = (cell.inventory().positive.occupancy - before) * 176.2
    assert 0.05 < lost < 10.0
    shorted = build_cell(
        CellSpec(
            name="s", material="HE-V", active_mass_g=MASS_G, scatter=0.0,
            faults=Faults(short_ohm=1e4),
        )
    )  # fmt: skip
    shorted.advance(Control.REST, 0.0, 86400.0, until=Until(), recorder=Recorder())
    now = shorted.inventory()
    assert shorted.voltage_V() < 1.7
    assert now.through_terminals_Ah == 0.0
    assert now.through_cell_Ah < -0.05 * MASS_G
    moved = now.positive.oxidation_Ah - make("HE-V").inventory().positive.oxidation_Ah
    assert moved == pytest.approx(now.through_cell_Ah, rel=1e-9)


def test_fast_cycling_warms_the_cell_and_rest_cools_it(make: Make, constant_current: Run) -> None:
    cell = make("HE-V")
    for _ in range(5):
        constant_current(cell, 50.0, 4.1)
        constant_current(cell, -50.0, 1.5)
    now = cell.advance(Control.REST, 0.0, 0.0, until=Until(), recorder=Recorder())
    warm = now.end_temperature_degC
    assert 25.05 < warm < 26.0
    rest = cell.advance(Control.REST, 0.0, 3600.0, until=Until(), recorder=Recorder(every_s=10))
    assert rest.end_temperature_degC == pytest.approx(25.0, abs=0.01)
    assert np.all(np.diff(rest.temperature_degC) <= 0.0)


def test_the_heat_that_leaves_is_the_work_less_what_is_stored(
    make: Make, constant_current: Run
) -> None:
    cell = make("NVP")
    for rate, end in ((20.0, 4.1), (-20.0, 1.5)) * 5:
        constant_current(cell, rate, end)
    now = cell.advance(Control.REST, 0.0, 0.0, until=Until(), recorder=Recorder())
    begun_degC = ended_degC = now.end_temperature_degC
    work_Wh = kelvin_s = 0.0
    for rate, end in ((20.0, 4.1), (-20.0, 1.5)) * 10:
        trace = constant_current(cell, rate, end, every_s=0.1)
        work_Wh += trace.end_energy_Wh
        ended_degC = trace.end_temperature_degC
        kelvin_s += 0.1 * float((trace.temperature_degC - 25.0).sum())
    cooled_Wh = 0.02 * kelvin_s / 3600.0
    left_Wh = 1.8 * (ended_degC - begun_degC) / 3600.0
    assert work_Wh > 0.0
    assert cooled_Wh + left_Wh == pytest.approx(work_Wh, rel=0.05)
