"""Sweeps and impedance come from the same model as everything else."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, StopReason, Trace, Until

MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G
Make = Callable[..., ModelCell]


def half_charged(make: Make, material: str) -> ModelCell:
    cell = make(material)
    cell.advance(
        Control.CURRENT, ONE_C_A, 1e5,
        until=Until(charge_magnitude_at_least_Ah=0.05 * MASS_G), recorder=Recorder(),
    )  # fmt: skip
    cell.advance(Control.REST, 0.0, 1e5, until=Until(), recorder=Recorder())
    return cell


@pytest.mark.parametrize("frequency_Hz", [10.0, 0.1, 0.01])
def test_a_small_sine_of_current_answers_with_the_impedance(
    make: Make, frequency_Hz: float
) -> None:
    cell = half_charged(make, "HE-V")
    expected = cell.impedance(np.array([frequency_Hz]))[0]
    steps, periods, amplitude_A = 120, 6, 1e-4
    phase = 2 * math.pi * (np.arange(steps * periods) + 0.5) / steps
    rest_V = cell.voltage_V()
    answers = []
    for current_A in amplitude_A * np.sin(phase):
        piece_s = 1 / frequency_Hz / steps
        half = cell.advance(
            Control.CURRENT, current_A, 0.5 * piece_s, until=Until(), recorder=Recorder()
        )
        answers.append(half.end_voltage_V - rest_V)
        cell.advance(Control.CURRENT, current_A, 0.5 * piece_s, until=Until(), recorder=Recorder())
    last = slice(-2 * steps, None)
    t = phase[last]
    shapes = np.column_stack([np.ones_like(t), t, np.sin(t), np.cos(t)])
    fit = np.linalg.lstsq(shapes, np.array(answers)[last], rcond=None)[0]
    measured = complex(fit[2], fit[3]) / amplitude_A
    assert abs(measured - expected) < 0.04 * abs(expected)


def test_the_high_frequency_end_is_the_series_resistance(make: Make) -> None:
    cell = half_charged(make, "HE-V")
    highest = cell.impedance(np.array([1e7]))[0]
    assert highest.real == pytest.approx(6.0, abs=0.05)
    assert highest.imag == pytest.approx(0.0, abs=0.05)


def test_he_v_has_the_smaller_charge_transfer_resistance(make: Make) -> None:
    width = {}
    for material in ("HE-V", "NVP"):
        z = half_charged(make, material).impedance(np.logspace(5, -3, 161))
        arc = np.flatnonzero(np.diff(np.sign(np.diff(-z.imag))) > 0)[-1]
        width[material] = float(z.real[arc] - z.real[0])
        assert np.all(z.real > 0.0)
        assert np.all(np.diff(z.real) > 0.0)
    assert width["NVP"] > 1.5 * width["HE-V"]


def test_impedance_leaves_the_cell_as_it_was_and_refuses_impossible_frequencies(
    make: Make,
) -> None:
    cell = half_charged(make, "HE-V")
    before = cell.state()
    cell.impedance(np.logspace(-3, 5, 10))
    assert cell.state() == before
    with pytest.raises(ValueError, match="frequency"):
        cell.impedance(np.array([0.0]))


def voltammogram(cell: ModelCell) -> tuple[Trace, Trace]:
    cell.sweep(3.0, 4.1, 1e-4, recorder=Recorder())
    cell.sweep(4.1, 1.5, 1e-4, recorder=Recorder())
    up = cell.sweep(1.5, 4.1, 1e-4, recorder=Recorder(every_s=10.0))
    down = cell.sweep(4.1, 1.5, 1e-4, recorder=Recorder(every_s=10.0))
    return up, down


def test_he_v_has_larger_peaks_closer_together_in_a_voltammogram(make: Make) -> None:
    height, area, apart = {}, {}, {}
    for material in ("HE-V", "NVP"):
        up, down = voltammogram(make(material))
        assert up.voltage_V == pytest.approx(1.5 + 1e-4 * up.time_s, abs=1e-9)
        window = (up.voltage_V > 3.0) & (up.voltage_V < 3.9)
        back = (down.voltage_V > 3.0) & (down.voltage_V < 3.9)
        top = up.current_A[window].argmax()
        bottom = down.current_A[back].argmin()
        height[material] = up.current_A[window][top]
        apart[material] = up.voltage_V[window][top] - down.voltage_V[back][bottom]
        area[material] = up.end_charge_Ah
    assert height["HE-V"] > height["NVP"]
    assert area["HE-V"] > area["NVP"]
    assert 0.0 < apart["HE-V"] < apart["NVP"]


def test_a_sweep_in_pieces_is_the_same_sweep(make: Make) -> None:
    one, two = make("HE-V"), make("HE-V")
    whole = one.sweep(3.0, 3.6, 1e-3, recorder=Recorder(every_s=1.0))
    recorder = Recorder(every_s=1.0)
    at_V, charge_Ah = 3.0, 0.0
    while at_V < 3.6 - 1e-9:
        part = two.sweep(at_V, 3.6, 1e-3, recorder=recorder, duration_s=12.5)
        charge_Ah += part.end_charge_Ah
        at_V = part.end_voltage_V
    assert charge_Ah == pytest.approx(whole.end_charge_Ah, rel=1e-9)
    assert two.voltage_V() == pytest.approx(one.voltage_V(), abs=1e-9)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_sweep_without_a_rate_is_refused(make: Make, rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        make().sweep(3.0, 4.0, rate, recorder=Recorder())


def diffusivities(cell: ModelCell) -> tuple[np.ndarray, np.ndarray]:
    """Titration in pulses of a minute, short beside R^2/D, evaluated after Weppner and Huggins,
    J. Electrochem. Soc. 124 (1977) 1569; for a sphere the length is a third of the radius."""
    radius_m, pulse_s = 1.25e-6, 60.0
    cell.advance(
        Control.CURRENT, -0.2 * ONE_C_A, 1e6,
        until=Until(voltage_at_most_V=1.5), recorder=Recorder(),
    )  # fmt: skip
    cell.advance(Control.REST, 0.0, 7200.0, until=Until(), recorder=Recorder())
    volts, found = [], []
    before_V = cell.voltage_V()
    while True:
        pulse = cell.advance(
            Control.CURRENT, 0.5 * ONE_C_A, pulse_s,
            until=Until(voltage_at_least_V=4.1), recorder=Recorder(every_s=0.1),
        )  # fmt: skip
        if pulse.reason is StopReason.VOLTAGE_HIGH:
            return np.array(volts), np.array(found)
        after = cell.advance(Control.REST, 0.0, 600.0, until=Until(), recorder=Recorder())
        steady = after.end_voltage_V - before_V
        transient = pulse.end_voltage_V - pulse.voltage_V[0]
        found.append(4.0 / (math.pi * pulse_s) * (radius_m / 3.0 * steady / transient) ** 2)
        before_V = after.end_voltage_V
        volts.append(before_V)


def test_sodium_diffuses_faster_in_he_v_over_the_whole_range_of_a_titration(make: Make) -> None:
    he_v_volts, he_v = diffusivities(make("HE-V"))
    nvp_volts, nvp = diffusivities(make("NVP"))
    assert len(he_v) * 60.0 * 0.5 * 100.0 / 3600.0 == pytest.approx(170.0, abs=3.0)
    for low, high in ((1.5, 1.65), (1.65, 1.8), (1.8, 3.3), (3.3, 3.45), (3.45, 3.6), (3.6, 3.9)):
        upper = np.median(he_v[(he_v_volts >= low) & (he_v_volts < high)])
        lower = np.median(nvp[(nvp_volts >= low) & (nvp_volts < high)])
        assert upper > 1.1 * lower
    assert 1e-15 < np.median(he_v) < 1e-13
    plateaus = [np.abs(he_v_volts - plateau).min() for plateau in (1.67, 3.43, 4.03)]
    assert max(plateaus) < 0.01
