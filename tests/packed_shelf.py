"""An archive with two runs for tests of packing, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, text

import labctl
from labctl.archive import packing_steps
from labctl.archive.packing import Packing
from labctl.model import RECORD_COLUMNS, Records
from labctl.stream.events import CycleEnded

RUN = "run-1"
SAMPLES = 100
SET_ASIDE = (1, 47, SAMPLES)
DAY_S = 86400.0
on_sqlite = pytest.mark.parametrize("archive_url", ["sqlite"], indirect=True)
"""What is the same with every database is tried with one."""


@dataclass
class Shelf:
    """An archive with two runs, and the folder that its packed runs go to."""

    url: str
    engine: Engine
    folder: Path
    journal: Any

    def packing(self, **options: Any) -> Packing:
        given: dict[str, Any] = {"actor": "mia", "folder": self.folder, "pause": lambda _: None}
        return Packing(self.url, **(given | options))

    def pack(self, run: str = RUN) -> Path:
        with self.packing() as at_work:
            at_work.pack(run)
        return self.file(run)

    def file(self, run: str = RUN) -> Path:
        [found] = self.folder.glob(f"{run}-*.parquet")
        return found

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {packing_steps.LOCK}

    def rows(self, run: str = RUN) -> int:
        """How many samples of a run the table has."""
        with self.engine.begin() as connection:
            return int(
                connection.execute(
                    text(
                        "SELECT count(*) FROM samples WHERE run_number = "
                        "(SELECT run_number FROM runs WHERE run_id = :run)"
                    ),
                    {"run": run},
                ).scalar_one()
            )

    def state(self) -> str | None:
        with self.engine.begin() as connection:
            found = connection.execute(text("SELECT state FROM packed_runs")).scalar()
        return None if found is None else str(found)


QUESTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "one cycle": {"cycle": 3},
    "some cycles": {"cycle": [1, 5, 40]},
    "the last cycle": {"cycle": -1},
    "outside any cycle": {"cycle": 0},
    "no cycle": {"cycle": ()},
    "very many cycles": {"cycle": range(2, 10**12)},
    "a step": {"step": 2},
    "a visit": {"visit": [7, 8]},
    "hours": {"test_time_s": (7200.0, 20_000.0)},
    "times of day": {"between": (1_750_000_100.0, 1_750_010_000.0)},
    "the last hour": {"last_s": 3600.0},
    "every third": {"every": 3, "columns": ["voltage_V"]},
    "few columns": {"columns": ["time_utc", "temperature_degC"], "cycle": [2]},
    "mixed": {"cycle": range(2, 6), "step": 1, "every": 2, "test_time_s": (None, 30_000.0)},
}


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, right[name], check_exact=True, obj=name)
        else:
            assert str(value) == str(right[name]), name


def more_of_it(shelf: Shelf) -> list[bytes]:
    """Another cycle of a run that has ended: ten samples and the end of the cycle."""
    had = len(shelf.journal.payloads)
    with labctl.open(shelf.url) as lab:
        last = lab.samples(RUN).reset_index().tail(10)
    late = last.assign(
        seq=range(SAMPLES + 1, SAMPLES + 11), cycle=11, charge_Ah=last["charge_Ah"] + 1e-4,
        test_time_s=last["test_time_s"] + 7200.0, unix_time_s=last["unix_time_s"] + 7200.0,
    )  # fmt: skip
    records = Records(**{name: late[name].to_numpy(kind) for name, kind in RECORD_COLUMNS.items()})
    shelf.journal.samples(RUN, records)
    shelf.journal.events(
        RUN,
        CycleEnded(
            run=RUN, cycle=11, cycle_class="cycle", first_seq=101, last_seq=110, complete=True,
            interrupted=False,
        ),
    )  # fmt: skip
    return list(shelf.journal.payloads[had:])
