"""Half cells show what the study measured at 0.2C and at high rates."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until

MASS_G = 2e-3
Make = Callable[..., ModelCell]
Run = Callable[..., Trace]


def mAh_per_g(trace: Trace) -> float:
    return abs(trace.end_charge_Ah) / MASS_G * 1e3


def peak_V(trace: Trace, low_V: float, high_V: float) -> tuple[float, float]:
    """Voltage and height (mAh/g/V) of the highest peak of dQ/dV between two voltages."""
    v = trace.voltage_V
    height = np.abs(np.diff(trace.charge_Ah) / np.diff(v)) / MASS_G * 1e3
    middle = 0.5 * (v[1:] + v[:-1])
    height = np.where((middle > low_V) & (middle < high_V), height, 0.0)
    return float(middle[height.argmax()]), float(height.max())


def second_cycle(cell: ModelCell, run: Run) -> tuple[Trace, Trace]:
    run(cell, 0.2, 4.1)
    run(cell, -0.2, 1.5)
    return run(cell, 0.2, 4.1, 1e-3), run(cell, -0.2, 1.5, 1e-3)


@pytest.mark.parametrize(("material", "expected"), [("HE-V", 170.0), ("NVP", 155.2)])
def test_a_slow_discharge_gives_the_capacity_of_the_study(
    make: Make, constant_current: Run, material: str, expected: float
) -> None:
    cell = make(material)
    cell.advance(Control.REST, 0.0, 600.0, until=Until(), recorder=Recorder())
    first_charge = mAh_per_g(constant_current(cell, 0.2, 4.1))
    first = mAh_per_g(constant_current(cell, -0.2, 1.5))
    constant_current(cell, 0.2, 4.1)
    second = mAh_per_g(constant_current(cell, -0.2, 1.5))
    assert first == pytest.approx(expected, abs=0.5)
    assert second == pytest.approx(expected, abs=0.5)
    assert first_charge < 117.5
    assert first_charge < first - 50.0


@pytest.mark.parametrize(("material", "expected"), [("HE-V", 170.0), ("NVP", 155.2)])
def test_four_cells_scatter_about_the_capacity_of_the_study(
    constant_current: Run, material: str, expected: float
) -> None:
    capacities = [0.0] * 24
    for seed in range(24):
        mass_g = 1.8e-3 + 2e-5 * seed
        cell = build_cell(
            CellSpec(name=f"{seed}", material=material, active_mass_g=mass_g, seed=seed)
        )
        for rate, end_V in ((0.2, 4.1), (-0.2, 1.5)):
            trace = constant_current(cell, rate * mass_g / MASS_G, end_V)
            capacities[seed] = abs(trace.end_charge_Ah) / mass_g * 1e3
    spread = float(np.std(capacities)) / expected
    assert 0.001 < spread < 0.005
    for start in range(0, 24, 4):
        assert np.mean(capacities[start : start + 4]) == pytest.approx(expected, abs=2.0)


def test_he_v_has_three_plateaus_with_narrow_symmetric_peaks(
    make: Make, constant_current: Run
) -> None:
    charge, discharge = second_cycle(make("HE-V"), constant_current)
    for expected, low, high in ((1.67, 1.5, 2.2), (3.43, 3.0, 3.6), (4.03, 3.9, 4.1)):
        up, up_height = peak_V(charge, low, high)
        down, down_height = peak_V(discharge, low, high)
        assert 0.5 * (up + down) == pytest.approx(expected, abs=0.01)
        assert 0.0 < up - down < 0.03
        assert up_height == pytest.approx(down_height, rel=0.15)
        assert up_height > 500.0


def test_nvp_lacks_the_upper_plateau_and_its_peaks_lie_wider_apart(
    make: Make, constant_current: Run
) -> None:
    charge, discharge = second_cycle(make("NVP"), constant_current)
    for expected, low, high in ((1.63, 1.5, 2.2), (3.4, 3.0, 3.6)):
        up, _ = peak_V(charge, low, high)
        down, _ = peak_V(discharge, low, high)
        assert 0.5 * (up + down) == pytest.approx(expected, abs=0.02)
        assert up - down > 0.04
    assert peak_V(discharge, 3.91, 4.1)[1] < 5.0
    assert peak_V(charge, 3.91, 4.1)[1] < 5.0


def test_he_v_holds_more_in_both_upper_windows_in_amount_and_in_share(
    make: Make, constant_current: Run
) -> None:
    windows = {}
    for material in ("HE-V", "NVP"):
        _, discharge = second_cycle(make(material), constant_current)
        passed = np.abs(np.diff(discharge.charge_Ah)) / MASS_G * 1e3
        v = discharge.voltage_V[1:]
        windows[material] = np.array(
            [passed[(v >= low) & (v < high)].sum() for low, high in ((0, 3), (3, 3.6), (3.6, 9))]
        )
    shares = {name: held / held.sum() for name, held in windows.items()}
    assert np.all(windows["HE-V"][1:] > windows["NVP"][1:] + 1.0)
    assert np.all(shares["HE-V"][1:] > shares["NVP"][1:] + 0.005)


def test_he_v_leads_at_every_rate_and_the_capacity_returns_with_the_rate(
    make: Make, constant_current: Run
) -> None:
    ladder: dict[str, list[float]] = {}
    for material in ("HE-V", "NVP"):
        cell = make(material)
        ladder[material] = []
        for rate in (0.2, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 0.2):
            for _ in range(2):
                constant_current(cell, rate, 4.1)
                constant_current(cell, -rate, 1.5)
            constant_current(cell, rate, 4.1)
            ladder[material].append(mAh_per_g(constant_current(cell, -rate, 1.5)))
    he_v, nvp = ladder["HE-V"], ladder["NVP"]
    assert all(a > b for a, b in zip(he_v, nvp, strict=True))
    for capacities in (he_v, nvp):
        assert all(a > b for a, b in itertools.pairwise(capacities[:10]))
        assert capacities[10] == pytest.approx(capacities[0], rel=2e-3)
    assert 70.0 < he_v[9] < 100.0


def test_a_slow_cycle_is_stable(make: Make, constant_current: Run) -> None:
    cell = make("HE-V")
    capacities = []
    for _ in range(50):
        constant_current(cell, 0.2, 4.1)
        capacities.append(mAh_per_g(constant_current(cell, -0.2, 1.5)))
    assert capacities[-1] / capacities[0] == pytest.approx(1.0, abs=0.005)
    assert capacities[-1] < capacities[0]
