"""The plot of a capacity test: voltage against specific capacity, and dQ/dV with its plateaus.

Takes records as the archive gives them, one DataFrame for all cells, and returns a matplotlib
Figure without touching a display. Colours: Okabe and Ito, safe for colour-blind eyes; a second
sign (line style, mark) goes with each, so that a print in grey can be read too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoMinorLocator

from labctl.analysis.dqdv import DqDv, HalfCycle, Plateau, dqdv, half_cycles, plateaus

COLUMNS = (
    "cell",
    "material",
    "cycle",
    "voltage_V",
    "current_A",
    "charge_Ah",
    "active_mass_g",
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LineStyle: TypeAlias = str | tuple[float, tuple[float, ...]]
STYLES: tuple[LineStyle, ...] = ("-", (0, (6, 1.5)), (0, (4, 1.2, 1, 1.2)), (0, (1.2, 1)))
MOST_FAINT_CYCLES = 60
GREY = "#555555"


@dataclass(frozen=True, slots=True)
class CapacityCurves:
    """One cycle of one cell, per gram: what is drawn of it. Charge in mAh/g, dQ/dV in mAh/g/V."""

    cell: str
    material: str
    cycle: int
    charge: HalfCycle | None
    discharge: HalfCycle | None

    def curve(self, half: HalfCycle | None) -> DqDv | None:
        """The dQ/dV curve of a half; None if it is too short for one."""
        if half is None or len(half.voltage_V) < 20 or half.charge_Ah[-1] <= 0:
            return None
        return dqdv(half.voltage_V, half.charge_Ah * (1.0 if half.charging else -1.0))

    def plateaus(self) -> tuple[Plateau, ...]:
        """The plateaus that charge and discharge have in common."""
        charge, discharge = self.curve(self.charge), self.curve(self.discharge)
        if charge is None or discharge is None:
            return ()
        return plateaus(charge, discharge)


def capacity_curves(records: pd.DataFrame) -> list[CapacityCurves]:
    """Every cycle of every cell in ``records``, in order of cell and cycle.

    Args:
        records: columns cell, material, cycle, voltage_V, current_A, charge_Ah, active_mass_g, in
            order of time within a cell. Cycle 0 is outside any cycle and left out.

    Raises:
        ValueError: a column is missing, or a mass is not above 0.
    """
    missing = [name for name in COLUMNS if name not in records.columns]
    if missing:
        raise ValueError(f"the records have no column {', '.join(missing)}")
    found = []
    for (cell, material, cycle), part in records[records["cycle"] > 0].groupby(
        ["cell", "material", "cycle"], sort=True
    ):
        mass_g = float(part["active_mass_g"].iloc[0])
        if not mass_g > 0:
            raise ValueError(f"cell {cell} has an active mass of {mass_g} g")
        charge, discharge = half_cycles(
            part["voltage_V"].to_numpy(dtype=np.float64),
            part["current_A"].to_numpy(dtype=np.float64),
            part["charge_Ah"].to_numpy(dtype=np.float64) * 1000 / mass_g,
        )
        found.append(CapacityCurves(str(cell), str(material), int(str(cycle)), charge, discharge))
    return found


def plot_capacity(
    records: pd.DataFrame,
    *,
    cells: Sequence[str] = (),
    cycle: int | None = None,
    title: str = "",
) -> Figure:
    """Voltage against specific capacity at the left, dQ/dV of each material at the right.

    One cell of each material is drawn in full: one of its cycles bold, the others thin. Further
    cells of a material are faint.

    Args:
        records: see :func:`capacity_curves`.
        cells: the cells to draw in full; by default the first of each material.
        cycle: the cycle to draw bold and to take dQ/dV of; by default the last with both halves.

    Raises:
        ValueError: see :func:`capacity_curves`; or there is no cycle to draw.
    """
    curves = capacity_curves(records)
    by_material: dict[str, list[CapacityCurves]] = {}
    for one in curves:
        by_material.setdefault(one.material, []).append(one)
    if not by_material:
        raise ValueError("there is no cycle to draw: the records are empty or outside any cycle")
    bold = {material: _shown(ones, cells, cycle) for material, ones in sorted(by_material.items())}
    rows = len(bold)
    figure = Figure(figsize=(11.5, 4.3 + 0.75 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2, width_ratios=(1.0, 1.25))
    left = figure.add_subplot(grid[:, 0])
    looks = itertools.cycle(zip(itertools.cycle(COLOURS), itertools.cycle(STYLES), strict=False))
    handles = []
    above: Axes | None = None
    for row, ((material, shown), (colour, style)) in enumerate(
        zip(bold.items(), looks, strict=False)
    ):
        handles.append(_draw_voltage(left, by_material[material], shown, colour, style))
        right = figure.add_subplot(grid[row, 1], sharex=above)
        _draw_dqdv(right, shown, colour, last=row == rows - 1)
        above = right
    dress(left)
    left.set_xlabel("specific capacity (mAh g$^{-1}$ of active material)")
    left.set_ylabel("voltage (V)")
    left.set_xlim(left=0)
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(3, len(handles)),
        frameon=False,
        fontsize=9,
        handlelength=2.6,
        title=title or None,
        title_fontproperties={"size": 12, "weight": "bold"},
        alignment="left",
    )
    return figure


def _shown(curves: list[CapacityCurves], cells: Sequence[str], cycle: int | None) -> CapacityCurves:
    """The one that is drawn bold."""
    wanted = [one for one in curves if one.cell in cells] or [
        one for one in curves if one.cell == curves[0].cell
    ]
    wanted = [one for one in wanted if one.cell == wanted[0].cell]
    if cycle is not None:
        wanted = [one for one in wanted if one.cycle == cycle] or wanted
    whole = [one for one in wanted if one.charge and one.discharge and one.plateaus()]
    halves = [one for one in wanted if one.charge and one.discharge]
    return (whole or halves or wanted)[-1]


def _draw_voltage(
    axes: Axes, curves: list[CapacityCurves], shown: CapacityCurves, colour: str, style: LineStyle
) -> Line2D:
    """Draw one material; returns the line for the legend."""
    same_cell = [one for one in curves if one.cell == shown.cell and one is not shown]
    stride = max(1, len(same_cell) // MOST_FAINT_CYCLES)
    for one in same_cell[::stride]:
        _draw_halves(axes, one, color=colour, linewidth=0.7, alpha=0.35, zorder=2)
    others = {
        one.cell: one for one in curves if one.cell != shown.cell and one.cycle <= shown.cycle
    }
    for one in others.values():
        _draw_halves(axes, one, color=colour, linewidth=0.9, alpha=0.15, zorder=1)
    _draw_halves(axes, shown, color=colour, linewidth=2.0, linestyle=style, zorder=3)
    figures = [
        f"{name} {half.charge_Ah[-1]:.1f}"
        for name, half in (("charge", shown.charge), ("discharge", shown.discharge))
        if half is not None
    ]
    beside = f", {len(others)} more cell{'s' * (len(others) > 1)} faint" if others else ""
    label = (
        f"{shown.material}: cell {shown.cell}, cycle {shown.cycle}{beside}\n"
        f"{', '.join(figures)} mAh g$^{{-1}}$"
    )
    return axes.plot([], [], color=colour, linewidth=2.0, linestyle=style, label=label)[0]


def _draw_halves(axes: Axes, one: CapacityCurves, **look: Any) -> None:  # noqa: ANN401
    for half in (one.charge, one.discharge):
        if half is not None:
            axes.plot(half.charge_Ah, half.voltage_V, solid_capstyle="round", **look)


def _draw_dqdv(axes: Axes, shown: CapacityCurves, colour: str, *, last: bool) -> None:
    """Charge upwards, discharge downwards, a mark at each plateau."""
    tops = [1.0]
    for half, sign in ((shown.charge, 1), (shown.discharge, -1)):
        curve = shown.curve(half)
        if curve is not None:
            height = sign * curve.dqdv_Ah_V
            axes.plot(curve.voltage_V, height, color=colour, linewidth=1.5)
            axes.fill_between(curve.voltage_V, height, color=colour, alpha=0.12, linewidth=0)
            tops.append(float(curve.dqdv_Ah_V.max()))
    axes.axhline(0, color=GREY, linewidth=0.8)
    top = max(tops)
    axes.set_ylim(-1.18 * top, 1.55 * top)
    for plateau in shown.plateaus():
        axes.axvline(plateau.voltage_V, color=GREY, linewidth=0.8, linestyle=":", ymax=0.86)
        axes.plot(
            [plateau.charge.voltage_V, plateau.discharge.voltage_V],
            [plateau.charge.height_Ah_V, -plateau.discharge.height_Ah_V],
            linestyle="none",
            marker="o",
            markersize=4,
            markerfacecolor="white",
            markeredgecolor=colour,
        )
        axes.annotate(
            f"{plateau.voltage_V:.2f} V\nΔ {1000 * plateau.separation_V:.0f} mV",
            (plateau.voltage_V, 1.52 * top),
            ha="center",
            va="top",
            fontsize=8,
            color="#222222",
        )
    axes.text(
        0.012,
        0.05,
        shown.material,
        transform=axes.transAxes,
        color=colour,
        fontweight="bold",
        fontsize=10,
    )
    dress(axes)
    axes.set_ylabel("dQ/dV (mAh g$^{-1}$ V$^{-1}$)")
    axes.yaxis.set_label_position("right")
    axes.yaxis.tick_right()
    axes.spines["right"].set_visible(True)
    axes.spines["left"].set_visible(False)
    if last:
        axes.set_xlabel("voltage (V); charge upwards, discharge downwards")
    else:
        axes.tick_params(labelbottom=False)


def dress(axes: Axes) -> None:
    """What all plots have in common: a light grid, no box, small ticks between."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_minor_locator(AutoMinorLocator())
    axes.tick_params(labelsize=9)
