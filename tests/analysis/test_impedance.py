"""A circuit fitted to a spectrum gives back what the spectrum was made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.analysis.impedance import Circuit, fit_circuit
from labctl.simulators.cells import CellSpec, build_cell
from labctl.simulators.cells.interface import Control, Recorder, Until

FREQUENCIES_HZ = np.logspace(5, -2, 57)
OMEGA = 2 * np.pi * FREQUENCIES_HZ


def arc(resistance_ohm: float, top_Hz: float, exponent: float) -> np.ndarray:
    return resistance_ohm / (1 + (1j * FREQUENCIES_HZ / top_Hz) ** exponent)


def fitted(z: np.ndarray, noise: float = 0.0, seed: int = 0, **chosen: object) -> Circuit:
    rng = np.random.default_rng(seed)
    size = np.abs(z) * noise
    z = z + size * (rng.normal(size=len(z)) + 1j * rng.normal(size=len(z)))
    return fit_circuit(FREQUENCIES_HZ, z.real, z.imag, **chosen)  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(
    series=st.floats(1.0, 20.0),
    charge_transfer=st.floats(5.0, 500.0),
    top_Hz=st.floats(0.5, 500.0),
    exponent=st.floats(0.7, 1.0),
    warburg=st.floats(0.5, 20.0),
)
def test_a_randles_circuit_gives_back_its_charge_transfer_within_the_error_that_it_states(
    series: float, charge_transfer: float, top_Hz: float, exponent: float, warburg: float
) -> None:
    z = series + arc(charge_transfer, top_Hz, exponent) + warburg * (1 - 1j) / np.sqrt(OMEGA)
    found = fitted(z, 2e-3, arcs=1, diffusion="semi-infinite")
    error = abs(found.charge_transfer_ohm - charge_transfer)
    assert error <= 5 * found.charge_transfer_error_ohm + 1e-6
    assert found.charge_transfer_error_ohm < 0.2 * charge_transfer
    assert found.misfit < 4e-3
    assert np.abs(found.impedance_ohm(FREQUENCIES_HZ) / z - 1).max() < 0.01


def test_of_two_arcs_and_none_the_simplest_circuit_that_fits_is_taken() -> None:
    one = fitted(6.0 + arc(20.0, 10.0, 0.9), 2e-3)
    assert len(one.arcs) == 1
    two = fitted(6.0 + arc(8.0, 300.0, 0.95) + arc(40.0, 3.0, 0.95), 2e-3)
    assert len(two.arcs) == 2
    assert [a.resistance_ohm for a in two.arcs] == pytest.approx([8.0, 40.0], rel=0.03)
    assert [a.frequency_Hz for a in two.arcs] == pytest.approx([300.0, 3.0], rel=0.03)
    assert two.charge_transfer_ohm == pytest.approx(48.0, rel=0.01)
    assert two.charge_transfer_error_ohm < math.hypot(*(a.resistance_error_ohm for a in two.arcs))
    warburg = fitted(6.0 + arc(20.0, 50.0, 0.9) + 3.0 * (1 - 1j) / np.sqrt(OMEGA), 1e-3)
    assert warburg.diffusion == "semi-infinite"
    assert warburg.warburg_ohm_per_sqrt_s == pytest.approx(3.0, rel=0.05)


def test_the_constant_phase_element_of_an_ideal_arc_is_its_capacitance() -> None:
    capacitance_F = 1e-3
    found = fitted(5.0 + 10.0 / (1 + 1j * OMEGA * 10.0 * capacitance_F), arcs=1, diffusion="none")
    (only,) = found.arcs
    assert only.exponent == pytest.approx(1.0, abs=1e-3)
    assert only.cpe_S_s_n == pytest.approx(capacitance_F, rel=1e-2)
    assert found.series_ohm == pytest.approx(5.0, rel=1e-3)


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_more_noise_gives_a_larger_error(share: float) -> None:
    z = 6.0 + arc(20.0, 10.0, 0.9)
    quiet, loud = (
        fitted(z, noise, arcs=1, diffusion="none").charge_transfer_error_ohm
        for noise in (share, 3 * share)
    )
    assert loud == pytest.approx(3 * quiet, rel=0.4)


def test_cables_and_readings_that_are_none_do_not_take_part() -> None:
    z = 6.0 + arc(20.0, 10.0, 0.9) + 1j * OMEGA * 2e-6
    z[30] = complex(math.nan, 1.0)
    found = fit_circuit(FREQUENCIES_HZ[::-1], z.real[::-1], z.imag[::-1], arcs=1, diffusion="none")
    assert found.charge_transfer_ohm == pytest.approx(20.0, rel=0.02)


def test_what_is_no_spectrum_is_refused() -> None:
    z = 6.0 + arc(20.0, 10.0, 0.9)
    with pytest.raises(ValueError, match="at least 8 points"):
        fit_circuit(FREQUENCIES_HZ[:7], z.real[:7], z.imag[:7])
    with pytest.raises(ValueError, match="at least 8 points"):
        fit_circuit(FREQUENCIES_HZ, z.real, -z.imag)
    with pytest.raises(ValueError, match="one arc or two"):
        fit_circuit(FREQUENCIES_HZ, z.real, z.imag, arcs=3)


@pytest.mark.parametrize(("material", "cathode_ohm"), [("HE-V", 13.0), ("NVP", 43.3)])
def test_the_two_interfaces_of_a_simulated_half_cell_are_told_apart(
    material: str, cathode_ohm: float
) -> None:
    """R = RT / (F i0) at half charge; the exchange currents are the model's parameters."""
    cell = build_cell(CellSpec(name="c", material=material, active_mass_g=2e-3, scatter=0.0))
    for current_A, until in (
        (4e-5, Until(voltage_at_least_V=4.1)),
        (-4e-5, Until(voltage_at_most_V=1.5)),
        (4e-5, Until(charge_magnitude_at_least_Ah=1.7e-4)),
    ):
        cell.advance(Control.CURRENT, current_A, 1e6, until=until, recorder=Recorder())
    cell.advance(Control.REST, 0.0, 3600.0, until=Until(), recorder=Recorder())
    z = cell.impedance(FREQUENCIES_HZ)
    found = fitted(z, 2e-3)
    assert found.series_ohm == pytest.approx(6.0, rel=0.02)
    sodium, cathode = found.arcs
    assert sodium.resistance_ohm == pytest.approx(7.5, rel=0.05)
    assert cathode.resistance_ohm == pytest.approx(cathode_ohm, rel=0.06)
