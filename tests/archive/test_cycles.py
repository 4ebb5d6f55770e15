"""Cycles that were reckoned as batches came equal those reckoned from the table afterwards."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from labctl.archive import folding, histories
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.verify import recompute_cycles, verify_run
from labctl.program import (
    DropAlarm,
    EfficiencyAlarm,
    FadeAlarm,
    KneeAlarm,
    Limits,
    RetentionAlarm,
    TemperatureAlarm,
    decode_program,
)

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


def watched_story(lab: Any) -> list[Any]:
    """Cycles at which every rule has something to say, with check-ups and breaks in between."""
    specs = []
    for cycle in range(260):
        left = 1 - 1e-4 * cycle - 2e-3 * max(cycle - 130, 0) - (0.08 if cycle >= 100 else 0)
        good = 0.97 if 80 <= cycle < 86 else 1.0
        specs.append(lab.CycleSpec(left / good, left))
        if cycle % 40 == 39:
            specs.append(lab.CycleSpec(0.5, 1.3, cycle_class="check"))
        if cycle % 55 == 54:
            specs.append(lab.CycleSpec(1.0, 0.3, interrupted=True))
    return specs


EVERY_RULE = (
    RetentionAlarm(by_default=True),
    DropAlarm(),
    EfficiencyAlarm(by_default=True),
    FadeAlarm(),
    KneeAlarm(),
    TemperatureAlarm(above_degC=45.0),
)


def watched_journal(lab: Any) -> Any:
    journal = lab.Journal()
    lab.write_run(
        journal, watched_story(lab), samples_per_half=1, rows_per_batch=60, alarms=EVERY_RULE
    )
    return journal


@pytest.fixture(scope="module")
def watched(empty: Path, lab: Any) -> dict[str, Any]:
    """What one archive makes of the story, batch by batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        path.write_bytes(empty.read_bytes())
        engine = open_engine(f"sqlite:///{path}")
        ingest = Ingest(engine)
        for payload in watched_journal(lab).payloads:
            ingest.commit([payload])
        found: dict[str, Any] = lab.dump(engine)
        engine.dispose()
    return found


def raised_in(engine: Engine) -> dict[str, int]:
    with engine.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT a.rule, e.cycle, a.cycle_class FROM alarm_events AS e JOIN alarms AS a "
                "ON a.alarm_number = e.alarm_number WHERE e.\"trigger\" = 'raise' "
                "ORDER BY e.alarm_event_number DESC"
            )
        ).all()
    assert {row.cycle_class for row in rows} == {"cycle"}
    return {row.rule: row.cycle for row in rows}


def test_every_rule_is_evaluated_and_every_change_kept(engine: Engine, lab: Any) -> None:
    Ingest(engine).commit(watched_journal(lab).payloads)
    specs = watched_story(lab)
    like = [n for n, one in enumerate(specs, 1) if (one.cycle_class, one.interrupted) == CYCLE]
    raised = raised_in(engine)
    assert raised.keys() == {"retention", "drop", "efficiency", "fade", "knee"}
    # The check-up is cycle 80, so that the two after it are not judged.
    assert raised["efficiency"] == like[80 + 2 + 2]
    assert raised["drop"] == like[100 + 2]
    crossing = next(n for n in like[7:] if specs[n - 1].discharge_h < 0.8 * 0.9996)
    assert like.index(raised["retention"]) - like.index(crossing) == 2
    assert like[150] <= raised["knee"] <= like[165]
    assert like[130] < raised["fade"] <= like[175]


CYCLE = ("cycle", False)


def test_two_archives_that_take_turns_judge_as_one_and_read_only_what_is_new(
    engine: Engine, lab: Any, watched: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    add = histories.History.add
    catching_up = False

    def counted(self: Any, *args: Any, **named: Any) -> int:
        if catching_up:
            read[-1] += 1
        return add(self, *args, **named)

    catch_up = histories._catch_up

    def watching(*args: Any) -> None:
        nonlocal catching_up
        read.append(0)
        catching_up = True
        catch_up(*args)
        catching_up = False

    monkeypatch.setattr(histories.History, "add", counted)
    monkeypatch.setattr(histories, "_catch_up", watching)
    both = Ingest(engine), Ingest(engine)
    payloads = watched_journal(lab).payloads
    for number in range(0, len(payloads), 2):
        both[number // 2 % 2].commit(payloads[number : number + 2])
    assert max(read) <= 40
    assert sum(read) <= 300
    for table in ("alarms", "alarm_events", "cycles"):
        assert lab.dump(engine)[table] == watched[table]


def test_alarms_do_not_depend_on_how_the_batches_came(
    engine: Engine, lab: Any, watched: dict[str, Any]
) -> None:
    payloads = watched_journal(lab).payloads * 2
    random.Random(3).shuffle(payloads)
    for first in range(0, len(payloads), 7):
        Ingest(engine).commit(payloads[first : first + 7])
    found = lab.dump(engine)
    for table in ("alarms", "alarm_events", "cycles"):
        assert found[table] == watched[table]


def test_nobody_is_told_of_a_usual_rule_that_has_no_reference(engine: Engine, lab: Any) -> None:
    broken = [lab.CycleSpec(interrupted=cycle < 8) for cycle in range(20)]
    for run, rule in (("run-1", RetentionAlarm(by_default=True)), ("run-2", RetentionAlarm())):
        journal = lab.Journal(source=f"node-{run}")
        lab.write_run(journal, broken, run=run, alarms=(rule,))
        Ingest(engine).commit(journal.payloads)
    with engine.begin() as connection:
        told = connection.execute(
            text("SELECT r.run_id FROM alarms a JOIN runs r ON r.run_number = a.run_number")
        ).all()
    assert [row.run_id for row in told] == ["run-2"]


def test_a_program_of_before_there_were_other_rules_is_still_judged() -> None:
    class RetentionAlarm1(msgspec.Struct, frozen=True, tag="retention"):
        below: float = 0.8
        clears_at: float = 0.81
        reference_first: int = 3
        reference_last: int = 7
        over_cycles: int = 5

    old = msgspec.msgpack.encode(
        {
            "name": "n", "recipe_sha256": "", "cell": "c", "body": [],
            "limits": msgspec.to_builtins(Limits(1.0, 4.4, -1.0, 1.0, 1.0, 1e9)),
            "alarms": [RetentionAlarm1(below=0.7)],
        }
    )  # fmt: skip
    assert decode_program(old).alarms == (RetentionAlarm(below=0.7),)
