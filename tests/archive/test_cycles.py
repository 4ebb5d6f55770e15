"""Cycles that were reckoned as batches came equal those reckoned from the table afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from labctl.archive import folding
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.verify import recompute_cycles, verify_run

SPECS = st.lists(
    st.tuples(
        st.floats(0.1, 2.0),
        st.floats(0.1, 2.0),
        st.sampled_from(["cycle", "cycle", "fast", "formation", "diagnostic"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=9,
)


@pytest.fixture(scope="module")
def empty() -> Iterator[Path]:
    """An empty archive to copy: migrating for every example would be slow."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        engine = open_engine(f"sqlite:///{path}")
        upgrade(engine)
        with engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
            connection.exec_driver_sql("BEGIN")
        engine.dispose()
        yield path


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(specs=SPECS, data=st.data())
def test_cycles_reckoned_on_the_way_equal_a_recomputation_from_scratch(
    empty: Path, lab: Any, specs: list[tuple[float, float, str, bool]], data: st.DataObject
) -> None:
    journal = lab.Journal()
    lab.write_run(
        journal,
        [
            lab.CycleSpec(charge, discharge, cycle_class=kind, interrupted=interrupted)
            for charge, discharge, kind, interrupted in specs
        ],
        samples_per_half=data.draw(st.integers(1, 6)),
        rows_per_batch=data.draw(st.integers(1, 25)),
    )
    arriving = data.draw(st.permutations(journal.payloads))
    size = data.draw(st.integers(1, 12))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        path.write_bytes(empty.read_bytes())
        engine = open_engine(f"sqlite:///{path}")
        ingest = Ingest(engine)
        for first in range(0, len(arriving), size):
            ingest.commit(arriving[first : first + size])
            if data.draw(st.booleans()):
                ingest = Ingest(engine)
        with engine.begin() as connection:
            assert verify_run(connection, "run-1").problems == ()
            kept = connection.execute(
                text('SELECT "charge_Ah", "discharge_Ah", judged FROM cycles ORDER BY cycle')
            ).all()
        engine.dispose()
    for (charge_h, discharge_h, _, _), row in zip(specs, kept, strict=True):
        assert row[0] == pytest.approx(charge_h * lab.CURRENT_A)
        assert row[1] == pytest.approx(discharge_h * lab.CURRENT_A)
        assert row[2]


def test_a_restarted_archive_reads_what_it_needs_from_the_database(
    engine: Engine, lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    read = folding.read_records

    def counted(connection: Any, run: int, first: int, last: int, cycles: Any = None) -> Any:
        asked.append((first, last))
        return read(connection, run, first, last, cycles)

    monkeypatch.setattr(folding, "read_records", counted)
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 4)
    ingest = Ingest(engine)
    for payload in journal.payloads:
        ingest.commit([payload])
    assert asked == []
    other = lab.Journal(source="node-b-2e")
    lab.write_run(other, [lab.CycleSpec()] * 4, run="run-2")
    for payload in other.payloads:
        Ingest(engine).commit([payload])
    assert asked
    with engine.begin() as connection:
        assert [r["charge_Ah"] for r in recompute_cycles(connection, "run-1")] == [
            r["charge_Ah"] for r in recompute_cycles(connection, "run-2")
        ]
        assert verify_run(connection, "run-2").ok
