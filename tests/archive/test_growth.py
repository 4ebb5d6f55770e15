"""The work of taking in a batch does not grow with what the archive holds already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest

GROWING = {"samples", "cycles", "steps", "batches", "runs", "events", "alarms", "quarantine",
           "packed_runs"}  # fmt: skip
WHAT_WAITS = "cycles_not_judged"
"""An index of the cycles that nobody has judged yet: a handful, however many there were."""


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'archive.db'}")
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("started_anew", [False, True])
def test_no_statement_of_a_commit_reads_through_a_table_that_grows(
    sqlite: Engine, lab: Any, started_anew: bool
) -> None:
    journal = lab.Journal()
    fading = [lab.CycleSpec(discharge_h=1.0 if n < 7 else 0.7) for n in range(12)]
    lab.write_run(journal, fading)
    statements: dict[str, None] = {}
    connection: Any = None

    @event.listens_for(sqlite, "begin")
    def _trace(begun: Any) -> None:
        nonlocal connection
        connection = begun.connection.driver_connection
        connection.set_trace_callback(statements.setdefault)

    ingest = Ingest(sqlite)
    for payload in journal.payloads:
        if started_anew:
            ingest = Ingest(sqlite)
        ingest.commit([payload])
    assert any("packed_runs" in sql for sql in statements) == started_anew
    connection.set_trace_callback(None)
    looked_at = 0
    for sql in statements:
        if not re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)", sql) or "?1" in sql:
            continue
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        for line in plan:
            looked_at += 1
            scanned = re.match(r"SCAN (\w+)", line)
            if scanned and scanned[1] in GROWING and WHAT_WAITS not in line:
                pytest.fail(f"{line}\n{sql}")
    assert looked_at > 10
