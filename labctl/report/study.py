"""The reference study beside what an archive holds: every figure, measured and published.

Each row is one statement of the study. It has the figure that the archive gives, the one that was
published, whether they agree within a tolerance, and the runs that it was taken from. A row that no
run answers says which recipe would. Only cycles are read of long runs, and single cycles of others.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from labctl.report.runs_of_study import Measured, StudyRun, StudyRuns

HEADINGS = ("row", "what", "measured", "published", "difference", "agrees", "runs", "remark")
_FROM_WIDTH = {"difference": 90, "runs": 130}
"""Columns that a narrow terminal does not get, and from which width on it does."""
MOST_RUNS_SHOWN = 2
"""In a row of the table; a pipe gets all of them."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a figure should be: ``value`` within ``tolerance``, or at least, or at most a bound.

    text: as it was published, '' to make it of the figures. chosen: the bound is not the study's.
    """

    value: float
    tolerance: float | None = None
    at_least: bool = True
    text: str = ""
    chosen: bool = False

    def holds(self, measured: float) -> bool:
        """Whether a measured figure is as expected; one that is not a number is not."""
        if self.tolerance is not None:
            return abs(measured - self.value) <= self.tolerance
        return measured >= self.value if self.at_least else measured <= self.value


@dataclass(frozen=True, slots=True)
class Row:
    """One statement of the study.

    number: of the measurement in the study's list. measured: None where no run answers.
    runs: that the figure was taken from. remark: what is to be known about it.
    """

    number: int
    what: str
    unit: str
    measured: float | None
    expected: Expected
    runs: tuple[str, ...] = ()
    remark: str = ""
    digits: int = 1

    @property
    def holds(self) -> bool | None:
        """Whether it agrees; None where no run answers."""
        return None if self.measured is None else self.expected.holds(self.measured)

    @property
    def difference(self) -> float | None:
        """Measured minus published; None for a bound, and where no run answers."""
        if self.measured is None or self.expected.tolerance is None:
            return None
        return self.measured - self.expected.value

    def published(self) -> str:
        """What was published, for people."""
        expected = self.expected
        if expected.text:
            return expected.text
        value = f"{expected.value:.{self.digits}f}"
        if expected.tolerance is not None:
            return f"{value} ± {expected.tolerance:g}"
        return f"{'at least' if expected.at_least else 'at most'} {value}"

    def said(self) -> tuple[str, ...]:
        """The row in words, for :data:`HEADINGS`."""
        runs = ", ".join(self.runs)
        figure, by, agrees = "", "", "no run"
        if self.measured is not None:
            known = math.isfinite(self.measured)
            figure = f"{self.measured:.{self.digits}f}" if known else "unknown"
            figure += f" {self.unit}" if self.unit and known else ""
            if self.difference is not None and known:
                by = f"{round(self.difference, self.digits) + 0.0:+.{self.digits}f}"
            agrees = "yes" if self.holds else "NO"
        return (
            str(self.number), self.what, figure, self.published(), by, agrees, runs, self.remark
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Study:
    """All rows, in the order of the study; ``left_out`` are runs that an alarm speaks against."""

    rows: tuple[Row, ...]
    left_out: tuple[StudyRun, ...]

    @property
    def disagreeing(self) -> tuple[Row, ...]:
        """The rows that were measured and do not agree."""
        return tuple(row for row in self.rows if row.holds is False)

    @property
    def answered(self) -> int:
        """How many rows were measured."""
        return sum(row.measured is not None for row in self.rows)

    def runs_by_row(self) -> str:
        """Which runs the figures of each measurement come from, in one line."""
        by_number: dict[int, dict[str, None]] = {}
        for row in self.rows:
            if row.runs:
                by_number.setdefault(row.number, {}).update(dict.fromkeys(row.runs))
        return "; ".join(f"{number}: {', '.join(runs)}" for number, runs in by_number.items())

    def summary(self) -> str:
        """One or two sentences about all of it."""
        agreeing = self.answered - len(self.disagreeing)
        text = (
            f"{agreeing} of {self.answered} measured figures agree with the study; "
            f"{len(self.rows) - self.answered} of {len(self.rows)} have no run yet."
        )
        if self.left_out:
            named = ", ".join(f"{run.run} of cell {run.cell}" for run in self.left_out)
            text += f" Left out because of an alarm: {named}."
        return text


Answers = Callable[[StudyRuns], Iterable[Row]]


def read_study(archive: Measured, *, runs: Collection[str] | None = None) -> Study:
    """What the runs of an archive say about the study.

    Runs are known by the name of their recipe and the material of their cell.

    Args:
        runs: these alone, where an archive holds others as well; None for all.

    Raises:
        ArchiveError: the archive cannot be read.
    """
    from labctl.report import study_capacity, study_full_cells, study_kinetics

    chosen = StudyRuns.read(archive, runs)
    answers: tuple[Answers, ...] = (
        *study_capacity.ANSWERS,
        *study_kinetics.ANSWERS,
        *study_full_cells.ANSWERS,
    )
    rows = [row for answer in answers for row in answer(chosen)]
    return Study(tuple(sorted(rows, key=lambda row: row.number)), chosen.left_out)


def study_table(study: Study, *, width: int = 120) -> Table:
    """The rows as a table for a terminal; one that is narrow gets fewer columns."""
    table = Table(
        title="The reference study, measured", title_justify="left", title_style="bold",
        header_style="bold", box=box.SIMPLE_HEAD, caption=study.summary(), caption_justify="left",
        padding=(0, 1),
    )  # fmt: skip
    if width < _FROM_WIDTH["runs"] and study.answered:
        table.caption = f"{study.summary()} Runs: {study.runs_by_row()}."
    columns = [name for name in HEADINGS if width >= _FROM_WIDTH.get(name, 0)]
    columns.remove("remark")
    for heading in columns:
        table.add_column(
            heading,
            justify="right" if heading in ("measured", "difference") else "left",
            no_wrap=heading in ("measured", "difference", "agrees"),
            overflow="fold",
            ratio=None if heading in ("row", "measured", "difference", "agrees") else 2,
        )
    number_before, remark_before = 0, ""
    for row in study.rows:
        words: dict[str, str | Text] = dict(zip(HEADINGS, row.said(), strict=True))
        told = Text(row.what)
        if row.number == number_before:
            words["row"] = ""
        if row.remark and (row.number, row.remark) != (number_before, remark_before):
            told.append(f"\n{row.remark}", style="italic dim")
        words["what"] = told
        if len(row.runs) > MOST_RUNS_SHOWN:
            some = ", ".join(row.runs[: MOST_RUNS_SHOWN - 1])
            words["runs"] = f"{some} and {len(row.runs) - MOST_RUNS_SHOWN + 1} more"
        style = {True: "green", False: "bold red", None: "dim"}[row.holds]
        words["agrees"] = Text(str(words["agrees"]), style=style)
        table.add_row(*(words[name] for name in columns), style="dim" if row.holds is None else "")
        number_before, remark_before = row.number, row.remark
    return table


def study_lines(study: Study) -> str:
    """The same as text: a heading and a line a row, tabs between; nothing cut off."""
    lines = ["\t".join(HEADINGS), *("\t".join(row.said()) for row in study.rows)]
    return "\n".join(lines) + "\n"


def study_text(study: Study, *, width: int = 120) -> str:
    """The table as plain text of a width, for files and mail."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(study_table(study, width=width))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def print_study(study: Study, console: Console) -> None:
    """A table on a terminal; into a pipe or a file the lines."""
    if console.is_terminal:
        console.print(study_table(study, width=console.width))
    else:
        console.file.write(study_lines(study))
