"""Plots of many cycles: a rate ladder, and how long a cell lasts.

Each function takes figures of cycles as the archive gives them and returns a matplotlib Figure.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from labctl.analysis.cycles import retention_over
from labctl.analysis.thinning import rows_to_draw
from labctl.report.plots import COLOURS, GREY, dress

MARKS = ("o", "s", "^", "D", "v")
MOST_POINTS = 1500


def plot_rate_ladder(cells: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """Discharge capacity of each cycle, and the rate of each block above it.

    Args:
        cells: by name: the cycles by number (column discharge_mAh_g), and their blocks as
            :func:`labctl.analysis.rate.rate_blocks` gives them. The rates are those of the first.

    Raises:
        ValueError: no cell.
    """
    if not cells:
        raise ValueError("there is no ladder to draw")
    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    highest = 0.0
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKS), strict=False)
    for (name, (cycles, _)), (colour, mark) in zip(cells.items(), looks, strict=False):
        given = cycles["discharge_mAh_g"].to_numpy(dtype=np.float64)
        highest = max(highest, float(np.nanmax(given, initial=0.0)))
        axes.plot(
            cycles.index.to_numpy(dtype=np.float64), given, linestyle="none", marker=mark,
            markersize=4.5, color=colour, markerfacecolor="white", markeredgewidth=1.4, label=name,
        )  # fmt: skip
    top = 1.16 * highest
    blocks = next(iter(cells.values()))[1]
    table = blocks[["first_cycle", "last_cycle", "rate_C"]].to_numpy(dtype=np.float64)
    for place, (first, last, rate_C) in enumerate(table.tolist()):
        if place % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color="#F2F2F2", zorder=0, linewidth=0)
        axes.text(
            (first + last) / 2, 0.985 * top, f"{rate_C:.2g}C", ha="center", va="top",
            fontsize=9, color="#222222",
        )  # fmt: skip
    dress(axes)
    axes.set_ylim(0, top)
    axes.set_xlim(0.5, float(blocks["last_cycle"].max()) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("cycle")
    axes.set_ylabel("discharge capacity (mAh g$^{-1}$)")
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    return figure


def plot_endurance(
    cycles: pd.DataFrame,
    checks: pd.DataFrame,
    *,
    name: str = "",
    published: Mapping[tuple[int, int], float] | None = None,
) -> Figure:
    """What is left of the capacity over the fast cycles, with the slow check-ups between them.

    Args:
        cycles: the fast cycles in order, by number: columns discharge_mAh_g, coulombic_efficiency.
        checks: the check-ups, by number: column discharge_mAh_g.
        published: retention in per cent from one fast cycle to another, drawn as stars.

    Raises:
        ValueError: no cycle.
    """
    if not len(cycles):
        raise ValueError("there is no cycle to draw")
    given = cycles["discharge_mAh_g"].to_numpy(dtype=np.float64)
    reference = float(np.median(given[:5]))
    kept = 100 * given / reference
    number = np.arange(1, len(cycles) + 1)
    figure = Figure(figsize=(8.6, 5.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3.2, 1.0)})
    rows = rows_to_draw(kept, MOST_POINTS)
    axes.plot(
        number[rows], kept[rows], color=COLOURS[0], linewidth=1.6,
        label=f"{name or 'cell'}, fast cycles: 100 % is {reference:.1f} mAh g$^{{-1}}$",
    )  # fmt: skip
    if len(checks):
        slow = checks["discharge_mAh_g"].to_numpy(dtype=np.float64)
        at = np.searchsorted(cycles.index.to_numpy(), checks.index.to_numpy())
        axes.plot(
            at, 100 * slow / slow[0], linestyle="none", marker="D", markersize=4.5,
            color=COLOURS[1], markerfacecolor="white", markeredgewidth=1.3, clip_on=False, zorder=4,
            label=f"slow check-ups: 100 % is {slow[0]:.1f} mAh g$^{{-1}}$",
        )  # fmt: skip
    _draw_published(axes, given.tolist(), published or {})
    dress(axes)
    lowest = min(float(kept.min()), 100.0)
    axes.set_ylim(lowest - 0.25 * (100 - lowest) - 1.0, 102.5)
    axes.set_ylabel("capacity kept (%)")
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    efficiency = 100 * cycles["coulombic_efficiency"].to_numpy(dtype=np.float64)
    rows = rows_to_draw(efficiency, MOST_POINTS)
    below.plot(
        number[rows], efficiency[rows], linestyle="none", marker=".", markersize=2.5,
        color=COLOURS[2],
    )  # fmt: skip
    middle = float(np.nanmedian(efficiency))
    spread = max(0.3, 3 * float(np.nanpercentile(np.abs(efficiency - middle), 99)))
    below.set_ylim(middle - spread, middle + spread)
    below.ticklabel_format(useOffset=False)
    dress(below)
    below.set_ylabel("efficiency (%)")
    below.set_xlabel("fast cycle")
    below.set_xlim(0, len(cycles))
    return figure


def _draw_published(
    axes: Axes, given: list[float], published: Mapping[tuple[int, int], float]
) -> None:
    """The study's retention over each range that the run has reached, beside what was measured;
    a star where the range begins with the first cycle."""
    told: list[str] = []
    label: str | None = "published"
    for (first, last), percent in published.items():
        if len(given) < last:
            continue
        measured = 100 * retention_over(given, first, last)
        told.append(f"cycles {first:,} to {last:,}: {measured:.1f} % (published {percent:g} %)")
        if first == 1:
            axes.plot(
                last, percent, linestyle="none", marker="*", markersize=13, color=GREY,
                markerfacecolor="white", markeredgewidth=1.3, clip_on=False, zorder=5, label=label,
            )  # fmt: skip
            label = None
    if told:
        axes.text(
            0.985, 0.96, "\n".join(told), transform=axes.transAxes, ha="right", va="top",
            fontsize=9, color="#222222", linespacing=1.5,
        )  # fmt: skip
