"""Tables of cycles for people: as many columns as the terminal has room for, tabs into a pipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class _Column:
    """``name`` in the DataFrame, ``heading`` for people, and how wide it is with its padding."""

    name: str
    heading: str
    unit: str
    format: Callable[[float], str]
    width: int


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _capacity(value: float) -> str:
    return f"{value:.1f}"


def _voltage(value: float) -> str:
    return f"{value:.3f}"


_COLUMNS = (
    _Column("discharge_mAh_g", "discharge", "mAh/g", _capacity, 11),
    _Column("coulombic_efficiency", "efficiency", "%", _percent, 12),
    _Column("retention", "retention", "%", _percent, 11),
    _Column("charge_mAh_g", "charge", "mAh/g", _capacity, 9),
    _Column("mean_discharge_voltage_V", "mean\ndischarge", "V", _voltage, 11),
    _Column("mean_charge_voltage_V", "mean\ncharge", "V", _voltage, 9),
)
"""The most important first: a narrow terminal shows fewer, never broken ones."""
_ORDER = (
    "charge_mAh_g",
    "discharge_mAh_g",
    "coulombic_efficiency",
    "retention",
    "mean_charge_voltage_V",
    "mean_discharge_voltage_V",
)
_CYCLE_WIDTH = 8
MOST_ROWS = 40


def cycle_tables(
    cycles: pd.DataFrame, *, width: int = 100, most_rows: int = MOST_ROWS
) -> list[Table]:
    """One table a cell, no wider than ``width`` signs where that is possible.

    Args:
        cycles: columns cell, cycle and any of charge_mAh_g, discharge_mAh_g,
            coulombic_efficiency, retention (of one), mean_charge_voltage_V,
            mean_discharge_voltage_V, material, complete, interrupted.
        most_rows: of a longer cell the first and the last cycles are shown.
    """
    columns = _columns_for(cycles, width)
    tables = []
    for cell, part in cycles.groupby("cell", sort=False):
        ordered = part.sort_values("cycle", kind="stable")
        title = f"Cell {cell}"
        if "material" in ordered:
            title += f" ({ordered['material'].iloc[0]})"
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
        table.add_column("cycle", justify="right", no_wrap=True)
        for column in columns:
            table.add_column(f"{column.heading}\n{column.unit}", justify="right", no_wrap=True)
        table.columns[0].vertical = "bottom"
        for row in _shown_rows(ordered, most_rows):
            if row is None:
                table.add_row("⋮", *["" for _ in columns], style="dim")
                continue
            apart = bool(row.get("interrupted", False)) or not bool(row.get("complete", True))
            table.add_row(
                f"{int(row['cycle'])}{'*' if apart else ''}",
                *[_cell_text(column, row[column.name]) for column in columns],
                style="dim" if apart else "",
            )
        if _has_part(ordered):
            table.caption = "* partial or interrupted"
            table.caption_justify = "left"
        tables.append(table)
    return tables


def print_cycles(cycles: pd.DataFrame, console: Console) -> None:
    """Tables on a terminal; into a pipe or a file, one line a cycle with tabs between, unrounded.

    Nothing is cut off or wrapped in a pipe, so that ``cut`` and ``awk`` can be trusted.
    """
    if cycles.empty:
        console.print("no cycles yet")
    elif console.is_terminal:
        for table in cycle_tables(cycles, width=console.width):
            console.print(table)
    else:
        console.file.write(cycle_lines(cycles))


def cycle_lines(cycles: pd.DataFrame) -> str:
    """The same as text: a heading and a line a cycle, tabs between, empty where not known."""
    known = [
        name
        for name in ("run_id", "run", "cell", "material", "cycle", "cycle_class", *_ORDER)
        if name in cycles.columns
    ]
    return str(cycles[known].to_csv(sep="\t", index=False, lineterminator="\n"))


def _columns_for(cycles: pd.DataFrame, width: int) -> list[_Column]:
    left = width - _CYCLE_WIDTH - 1
    chosen = []
    for column in _COLUMNS:
        if column.name in cycles.columns and column.width + 1 <= left:
            chosen.append(column)
            left -= column.width + 1
    return sorted(chosen, key=lambda column: _ORDER.index(column.name))


def _shown_rows(cycles: pd.DataFrame, most_rows: int) -> list[pd.Series | None]:
    rows: list[pd.Series | None] = [row for _, row in cycles.iterrows()]
    if len(rows) <= most_rows:
        return rows
    head = most_rows // 4
    return [*rows[:head], None, *rows[head - most_rows + 1 :]]


def _cell_text(column: _Column, value: object) -> str:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return column.format(float(value))


def _has_part(cycles: pd.DataFrame) -> bool:
    interrupted = "interrupted" in cycles and bool(cycles["interrupted"].any())
    return interrupted or ("complete" in cycles and not bool(cycles["complete"].all()))
