"""Plots of how fast a cell is: titrations, voltammograms and impedance spectra.

Each function takes what the analysis found and returns a matplotlib Figure. Cells are told apart by
colour and by mark or line, in the order in which they are given.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from labctl.analysis.gitt import diffusivity_by_voltage
from labctl.analysis.impedance import Circuit
from labctl.analysis.voltammetry import Leg, couples, main_couple
from labctl.report.plots import COLOURS, GREY, STYLES, dress
from labctl.report.plots_of_cycles import MARKS


def plot_titrations(
    cells: Mapping[str, pd.DataFrame], *, width_V: float = 0.1, least_change_V: float = 2e-3
) -> Figure:
    """Equilibrium voltages over the charge at the left, diffusion coefficients at the right.

    Each pulse is a small mark, the median of each ``width_V`` a large one; where it is hollow with
    an arrow, the pulses were so long that the coefficient is a lower bound.

    Args:
        cells: by name: the pulses as :func:`labctl.analysis.gitt.titration` gives them.

    Raises:
        ValueError: no pulse at all.
    """
    if not any(len(pulses) for pulses in cells.values()):
        raise ValueError("there is no pulse to draw")
    figure = Figure(figsize=(11.5, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    looks = itertools.cycle(zip(COLOURS, itertools.cycle(MARKS), strict=False))
    for (name, pulses), (colour, mark) in zip(cells.items(), looks, strict=False):
        for charging in (True, False):
            part = pulses[pulses["charging"] == charging]
            if not len(part):
                continue
            charge = part["charge_mAh_g"].to_numpy(dtype=np.float64)
            left.plot(
                np.abs(charge - charge[0]), part["after_V"], color=colour, linewidth=1.3,
                linestyle="-" if charging else (0, (4, 1.5)),
                label=f"{name}, {'charge' if charging else 'discharge'}",
            )  # fmt: skip
        steps = pulses[pulses["steady_change_V"].abs() >= least_change_V]
        right.plot(
            steps["equilibrium_V"], steps["diffusivity_m2_per_s"], linestyle="none", marker=mark,
            markersize=2.5, color=colour, alpha=0.35,
        )  # fmt: skip
        medians = diffusivity_by_voltage(pulses, width_V, least_change_V=least_change_V)
        for bound, some in medians.groupby("lower_bound"):
            values = some["diffusivity_m2_per_s"]
            right.plot(
                values.index, values, linestyle="none", marker=mark, markersize=7, color=colour,
                markerfacecolor="white" if bound else colour, markeredgewidth=1.4,
            )  # fmt: skip
            if bound:
                right.errorbar(
                    values.index, values, yerr=0.35 * values, lolims=True, linestyle="none",
                    color=colour, elinewidth=1.0, capsize=2.5,
                )  # fmt: skip
    left.set_xlabel("charge passed (mAh g$^{-1}$)")
    left.set_ylabel("voltage at the end of the rests (V)")
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    right.set_yscale("log")
    right.set_xlabel("voltage (V)")
    right.set_ylabel("diffusion coefficient (m$^2$ s$^{-1}$)")
    right.text(
        0.98, 0.03, "hollow, with an arrow: at least so much", transform=right.transAxes,
        fontsize=8, color=GREY, ha="right",
    )  # fmt: skip
    for axes in (left, right):
        dress(axes)
    right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    right.yaxis.set_minor_locator(NullLocator())
    return figure


def plot_voltammograms(cells: Mapping[str, tuple[Leg, Leg, float]]) -> Figure:
    """Current per gram over voltage, the main couple of each cell marked.

    Args:
        cells: by name: the anodic leg, the cathodic one, and the active mass in g.

    Raises:
        ValueError: no cell.
    """
    if not cells:
        raise ValueError("there is no voltammogram to draw")
    figure = Figure(figsize=(8.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    rates = []
    for (name, (up, down, mass_g)), colour, style in zip(
        cells.items(), itertools.cycle(COLOURS), itertools.cycle(STYLES), strict=False
    ):
        rates.append(up.rate_V_per_s)
        main = main_couple(couples(up, down))
        label = name
        if main is not None:
            label += (
                f": {main.anodic.current_A * 1e3 / mass_g:.0f} and "
                f"−{abs(main.cathodic.current_A) * 1e3 / mass_g:.0f} mA g$^{{-1}}$, "
                f"{1e3 * main.separation_V:.0f} mV apart"
            )
            for peak in (main.anodic, main.cathodic):
                axes.plot(
                    peak.voltage_V, peak.current_A * 1e3 / mass_g, marker="o", markersize=6,
                    markerfacecolor="white", markeredgecolor=colour, zorder=4,
                )  # fmt: skip
        for leg in (up, down):
            axes.plot(
                leg.voltage_V, leg.current_A * 1e3 / mass_g, color=colour, linestyle=style,
                linewidth=1.6, label=label if leg is up else None,
            )  # fmt: skip
    axes.axhline(0, color=GREY, linewidth=0.8)
    dress(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))
    axes.set_xlabel("voltage (V)")
    axes.set_ylabel(f"current at {1e3 * float(np.mean(rates)):.2g} mV s$^{{-1}}$ (mA g$^{{-1}}$)")
    axes.legend(loc="upper left", frameon=False, fontsize=9, handlelength=2.6)
    return figure


def plot_nyquist(cells: Mapping[str, Sequence[tuple[pd.DataFrame, Circuit]]]) -> Figure:
    """Impedance in the plane, the spectrum in the middle of each cell bold with its fitted circuit.

    The axes end a little beyond the widest arcs of the bold spectra.

    Args:
        cells: by name: spectra (columns frequency_Hz, impedance_real_ohm, impedance_imag_ohm,
            voltage_V) in order, each with its circuit.

    Raises:
        ValueError: no spectrum.
    """
    if not any(cells.values()):
        raise ValueError("there is no spectrum to draw")
    figure = Figure(figsize=(8.6, 5.0), layout="constrained")
    axes = figure.add_subplot()
    widest = 0.0
    named: list[tuple[pd.DataFrame, str, str]] = []
    looks = itertools.cycle(zip(COLOURS, itertools.cycle(MARKS), strict=False))
    for (name, spectra), (colour, mark) in zip(cells.items(), looks, strict=False):
        if not spectra:
            continue
        ordered = sorted(spectra, key=lambda pair: pair[1].charge_transfer_ohm)
        shown, circuit = ordered[(len(ordered) - 1) // 2]
        widest = max(widest, circuit.series_ohm + circuit.charge_transfer_ohm)
        for spectrum, _ in spectra:
            if spectrum is not shown:
                axes.plot(
                    spectrum["impedance_real_ohm"], -spectrum["impedance_imag_ohm"], color=colour,
                    linewidth=0.8, alpha=0.3,
                )  # fmt: skip
        frequency = shown["frequency_Hz"].to_numpy(dtype=np.float64)
        axes.plot(
            shown["impedance_real_ohm"], -shown["impedance_imag_ohm"], linestyle="none",
            marker=mark, markersize=4.5, color=colour, markerfacecolor="white",
            label=(
                f"{name} at {float(shown['voltage_V'].iloc[0]):.2f} V: charge transfer "
                f"{circuit.charge_transfer_ohm:.1f} ± {circuit.charge_transfer_error_ohm:.1g} Ω"
            ),
        )  # fmt: skip
        fine = np.geomspace(frequency.min(), frequency.max(), 400)
        fitted = circuit.impedance_ohm(fine)
        axes.plot(fitted.real, -fitted.imag, color=colour, linewidth=1.3)
        named.append((shown, colour, mark))
    _name_decades(axes, named, widest)
    dress(axes)
    axes.set_xlim(0, 1.2 * widest)
    axes.set_ylim(0, 0.62 * widest)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel("Re Z (Ω)")
    axes.set_ylabel("−Im Z (Ω)")
    axes.legend(loc="upper left", fontsize=9, edgecolor="none", framealpha=0.85)
    return figure


def _name_decades(
    axes: Axes, spectra: Sequence[tuple[pd.DataFrame, str, str]], widest: float
) -> None:
    """Fill the marks of whole decades and write their frequency, where there is room for it."""
    taken: list[complex] = []
    for spectrum, colour, mark in spectra:
        frequency = spectrum["frequency_Hz"].to_numpy(dtype=np.float64)
        for decade in (1000.0, 100.0, 10.0, 1.0):
            nearest = int(np.argmin(np.abs(np.log(frequency / decade))))
            real = float(spectrum["impedance_real_ohm"].iloc[nearest])
            imag = -float(spectrum["impedance_imag_ohm"].iloc[nearest])
            axes.plot(real, imag, marker=mark, markersize=5.5, color=colour)
            near = any(abs(complex(real, imag) - one) < 0.1 * widest for one in taken)
            if imag < 0.05 * widest or near:
                continue
            taken.append(complex(real, imag))
            axes.annotate(
                f"{decade:g} Hz", (real, imag), xytext=(0, 8), textcoords="offset points",
                fontsize=8, color=colour, ha="center",
            )  # fmt: skip
