"""The archive ends up the same whatever happens to the batches on their way."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import Engine, text

from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.verify import verify_run
from labctl.model import Records
from labctl.program import RetentionAlarm
from labctl.stream.batches import (
    EventsBatch,
    SamplesBatch,
    decode_batch,
    encode_events,
    encode_samples,
)
from labctl.stream.events import CellRegistered, CycleEnded, GapRecorded, RunStateChanged


def count(engine: Engine, table: str) -> int:
    with engine.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def one(engine: Engine, query: str) -> Any:
    with engine.begin() as connection:
        return connection.execute(text(query)).one()


def two_runs(lab: Any) -> Any:
    """A run of twelve cycles that loses a quarter of its capacity, and a second, short run."""
    journal = lab.Journal()
    fading = [lab.CycleSpec(discharge_h=1.0 if n < 7 else 0.7) for n in range(12)]
    lab.write_run(journal, fading)
    lab.write_run(journal, [lab.CycleSpec()] * 2, run="run-2", cell="NVP-1", rows_per_batch=4)
    return journal


@pytest.fixture
def journal(lab: Any) -> Any:
    """See :func:`two_runs`; a test may change it."""
    return two_runs(lab)


def everything(lab: Any) -> Any:
    """The two runs, and a third with spectra, markers, branches and steps of every kind."""
    journal = two_runs(lab)
    lab.write_visits(journal)
    return journal


@pytest.fixture(scope="module")
def expected(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The archive after the two runs came once and in order, batch by batch."""
    return _in_order(lab, two_runs(lab), tmp_path_factory.mktemp("expected"))


@pytest.fixture(scope="module")
def expected_of_everything(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same of all three runs."""
    return _in_order(lab, everything(lab), tmp_path_factory.mktemp("expected"))


def _in_order(lab: Any, journal: Any, folder: Path) -> Any:
    engine = open_engine(f"sqlite:///{folder / 'a.db'}")
    upgrade(engine)
    ingest = Ingest(engine)
    for payload in journal.payloads:
        ingest.commit([payload])
    found = lab.dump(engine)
    engine.dispose()
    return found


def test_every_reading_of_a_run_is_in_the_archive_once_and_as_it_was_sent(
    engine: Engine, journal: Any
) -> None:
    committed = Ingest(engine).commit(journal.payloads, ["node-a"] * len(journal.payloads))
    assert committed.batches == len(journal.payloads)
    assert committed.readings == count(engine, "samples") == 140
    sent = [
        decoded.records()
        for payload in journal.payloads
        if isinstance(decoded := decode_batch(payload), SamplesBatch) and decoded.run == "run-1"
    ]
    with engine.begin() as connection:
        rows = connection.execute(
            text(
                'SELECT seq, test_time_s, unix_time_s, cycle, step, visit, "voltage_V", '
                '"current_A", "charge_Ah", "energy_Wh", "temperature_degC" '
                "FROM samples_named WHERE run_id = 'run-1' ORDER BY seq"
            )
        ).all()
    columns = [np.array(column, dtype=float) for column in zip(*rows, strict=True)]
    for place, name in enumerate(Records.__slots__):
        want = np.concatenate([np.asarray(getattr(block, name), float) for block in sent])
        np.testing.assert_array_equal(columns[place], want, err_msg=name)
    assert one(engine, 'SELECT count(*) FROM samples WHERE "temperature_degC" IS NULL')[0] > 0
    ack = committed.acks["node-a-1f"]
    assert (ack.node, ack.ack.watermark, ack.ack.ranges) == ("node-a", len(journal.payloads), ())
    with engine.begin() as connection:
        for run in ("run-1", "run-2"):
            assert verify_run(connection, run).problems == ()


@pytest.mark.parametrize("seed", range(3))
def test_duplicated_reordered_and_delayed_batches_leave_the_same_archive(
    engine: Engine, expected_of_everything: Any, lab: Any, seed: int
) -> None:
    chance = random.Random(seed)
    journal = everything(lab)
    arriving = journal.payloads * 2 + chance.choices(journal.payloads, k=10)
    chance.shuffle(arriving)
    ingest = Ingest(engine)
    while arriving:
        group = [arriving.pop() for _ in range(min(len(arriving), chance.choice([1, 3, 20])))]
        ingest.commit(group)
        if chance.random() < 0.2:
            ingest = Ingest(engine)  # the process died and another began
    assert lab.dump(engine) == expected_of_everything
    assert len(expected_of_everything["spectra"]) == 9
    assert len(expected_of_everything["markers"]) == 4


def test_the_order_of_the_journal_backwards_gives_the_same_cycles_and_alarms(
    engine: Engine, expected_of_everything: Any, lab: Any
) -> None:
    ingest = Ingest(engine)
    for payload in reversed(everything(lab).payloads):
        ingest.commit([payload])
    assert lab.dump(engine) == expected_of_everything
    assert len(expected_of_everything["alarms"]) == 1


def test_cycles_whose_ends_become_known_in_any_order_are_judged_in_their_own(
    engine: Engine, journal: Any, expected: Any, lab: Any
) -> None:
    decoded = [(decode_batch(payload), payload) for payload in journal.payloads]
    ends = [
        payload
        for batch, payload in decoded
        if isinstance(batch, EventsBatch)
        and any(isinstance(event, CycleEnded) for event in batch.events)
    ]
    ingest = Ingest(engine)
    ingest.commit([payload for payload in journal.payloads if payload not in ends])
    told = [
        (done.summary.run, done.summary.cycle)
        for payload in reversed(ends)
        for done in ingest.commit([payload]).cycles
    ]
    assert told == [("run-2", 1), ("run-2", 2), *(("run-1", n) for n in range(9, 13))]
    assert lab.dump(engine) == expected


def test_the_state_of_a_run_is_its_last_one_even_if_an_earlier_one_comes_later(
    engine: Engine,
) -> None:
    states = [
        encode_events(
            "node", n, "run-1",
            (RunStateChanged(run="run-1", state=state, reason="", unix_time_s=1000.0 - n),),
        )
        for n, state in enumerate(["arming", "running", "stopping"], start=1)
    ]  # fmt: skip
    ingest = Ingest(engine)
    for place in (2, 0, 1):
        ingest.commit([states[place]])
    assert one(engine, "SELECT state FROM runs")[0] == "stopping"


def test_a_correction_of_a_cell_replaces_its_registration_and_both_are_audited(
    engine: Engine, journal: Any
) -> None:
    first = decode_batch(journal.payloads[0])
    assert isinstance(first, EventsBatch)
    event = first.events[0]
    assert isinstance(event, CellRegistered)
    better = msgspec.structs.replace(
        event, cell=msgspec.structs.replace(event.cell, active_mass_g=0.0021, parents=("a", "b"))
    )
    ingest = Ingest(engine)
    ingest.commit([encode_events("node-a-1f", 900, "", (better,))])
    ingest.commit(journal.payloads)
    assert one(engine, "SELECT active_mass_g FROM cells WHERE cell = 'HEV-1'")[0] == 0.0021
    assert count(engine, "cell_parents") == 2 + 1
    assert (
        one(
            engine,
            "SELECT count(*) FROM events WHERE kind = 'cell_registered' AND subject = 'HEV-1'",
        )[0]
        == 2
    )


def test_acks_say_what_is_committed_with_its_holes(engine: Engine, journal: Any) -> None:
    ingest = Ingest(engine)
    ingest.commit([journal.payloads[n - 1] for n in (1, 2, 4, 5, 9)])
    committed = ingest.commit([journal.payloads[3]])
    assert committed.duplicates == 1
    assert committed.batches == 0
    ack = committed.acks["node-a-1f"].ack
    assert (ack.watermark, ack.ranges) == (2, ((4, 5), (9, 9)))
    ack = ingest.commit([journal.payloads[2]]).acks["node-a-1f"].ack
    assert (ack.watermark, ack.ranges) == (5, ((9, 9),))


def test_a_cycle_is_reckoned_only_when_all_its_samples_are_here(
    engine: Engine, journal: Any
) -> None:
    payloads = journal.payloads
    told = next(
        n
        for n, payload in enumerate(payloads)
        if isinstance(batch := decode_batch(payload), EventsBatch)
        and any(isinstance(event, CycleEnded) for event in batch.events)
    )
    ingest = Ingest(engine)
    ingest.commit([payloads[told], *payloads[:2], *payloads[3:told]])
    assert one(engine, 'SELECT "charge_Ah", judged FROM cycles')[0] is None
    done = ingest.commit([payloads[2]]).cycles
    assert [cycle.summary.cycle for cycle in done] == [1]
    row = one(engine, 'SELECT "charge_Ah", "discharge_Ah", coulombic_efficiency FROM cycles')
    assert row == pytest.approx((2e-4, 2e-4, 1.0))
    assert done[0].summary.discharge_mAh_g == pytest.approx(100.0)


def test_of_a_backlog_of_cycles_the_last_few_of_each_run_are_told(
    engine: Engine, journal: Any
) -> None:
    done = Ingest(engine).commit(journal.payloads).cycles
    told = [(one.summary.run, one.summary.cycle) for one in done]
    assert told == [*(("run-1", n) for n in range(9, 13)), ("run-2", 1), ("run-2", 2)]


def test_an_alarm_is_raised_at_the_cycle_at_which_the_median_falls_below_the_limit(
    engine: Engine, journal: Any
) -> None:
    committed = Ingest(engine).commit(journal.payloads)
    assert committed.alarms_changed
    row = one(
        engine,
        "SELECT run_id, state, active, value, limit_value, reference, cycles, reference_cycles, "
        "cycle, message FROM alarms_named",
    )
    assert row[:3] == ("run-1", "unacknowledged", True)
    assert row[3:6] == pytest.approx((0.7, 0.8, 2e-4))
    assert row[6:9] == ("6-10", "3-7", 10)
    assert "retention 70.0%" in row[9]
    assert one(
        engine,
        'SELECT retention, "discharge_mAh_g", reference_cycles FROM cycles_named '
        "WHERE run_id = 'run-1' AND cycle = 12",
    ) == (pytest.approx(0.7), pytest.approx(70.0), "3-7")


def test_an_alarm_clears_when_the_capacity_comes_back(engine: Engine, lab: Any) -> None:
    journal = lab.Journal()
    hours = [1.0] * 7 + [0.7] * 5 + [0.9] * 5
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours])
    Ingest(engine).commit(journal.payloads)
    with engine.begin() as connection:
        rows = connection.execute(
            text('SELECT "trigger", to_state, cycle FROM alarm_events ORDER BY cycle')
        ).all()
    assert [tuple(row) for row in rows] == [
        ("raise", "unacknowledged", 10),
        ("clear", "returned-unacknowledged", 15),
    ]


def test_a_rule_without_a_usable_reference_is_an_alarm(engine: Engine, lab: Any) -> None:
    journal = lab.Journal()
    specs = [lab.CycleSpec(interrupted=3 <= n <= 7) for n in range(1, 10)]
    lab.write_run(journal, specs)
    Ingest(engine).commit(journal.payloads)
    row = one(engine, "SELECT verdict, state, cycle, message FROM alarms")
    assert row[:3] == ("cannot tell", "unacknowledged", 7)
    assert "3 to 7" in row[3]


def test_a_run_whose_program_is_unreadable_raises_an_alarm_instead_of_going_unwatched(
    engine: Engine, journal: Any
) -> None:
    created = decode_batch(journal.payloads[1])
    assert isinstance(created, EventsBatch)
    broken = tuple(
        msgspec.structs.replace(event, program=b"\xc1") if hasattr(event, "program") else event
        for event in created.events
    )
    journal.payloads[1] = encode_events("node-a-1f", 2, "run-1", broken)
    Ingest(engine).commit(journal.payloads)
    row = one(engine, "SELECT rule, verdict, cycle FROM alarms WHERE rule = 'program'")
    assert tuple(row) == ("program", "cannot tell", 1)


def test_a_sample_that_is_not_a_number_goes_to_quarantine_and_the_rest_is_kept(
    engine: Engine, journal: Any, lab: Any
) -> None:
    lab.spoil(journal, "run-1", 3)
    number = next(
        n for n, p in enumerate(journal.payloads, 1) if isinstance(decode_batch(p), SamplesBatch)
    )
    for _ in range(2):
        committed = Ingest(engine).commit(journal.payloads)
    assert committed.acks["node-a-1f"].ack.watermark == len(journal.payloads)
    assert count(engine, "samples") == 139
    row = one(engine, "SELECT part, source, number, payload FROM quarantine")
    assert row[:3] == ("seq 3", "node-a-1f", number)
    assert b'"voltage_V": "nan"' in bytes(row[3])
    first = one(engine, "SELECT interrupted, comparable FROM cycles_named "
                        "WHERE cycle = 1 AND run_id = 'run-1'")  # fmt: skip
    assert tuple(first) == (True, False)
    with engine.begin() as connection:
        report = verify_run(connection, "run-1")
    assert report.problems == ("sample 3 is in quarantine; the table of that name says why",)
    assert (report.ok, report.accounted_for) == (False, True)


@pytest.mark.parametrize(
    "payload",
    [b"", b"LCB1", b"garbage of some length", b"LCB1\x00\x00\x00\x00\x80"],
)
def test_what_cannot_be_understood_is_kept_once_and_blocks_nothing(
    engine: Engine, journal: Any, payload: bytes
) -> None:
    ingest = Ingest(engine)
    for _ in range(3):
        committed = ingest.commit([payload, *journal.payloads[:3]])
    assert committed.quarantined == 1
    assert committed.acks["node-a-1f"].ack.watermark == 3
    assert bytes(one(engine, "SELECT payload FROM quarantine")[0]) == payload


def test_a_batch_that_the_database_cannot_hold_does_not_hold_up_the_others(
    engine: Engine, journal: Any
) -> None:
    poison = encode_events(
        "node-a-1f", len(journal.payloads) + 1, "run-1",
        (GapRecorded(run="run-1", after_seq=1, reason="nul \0 in it", unix_time_s=1.0),),
    )  # fmt: skip
    committed = Ingest(engine).commit([*journal.payloads, poison])
    assert committed.acks["node-a-1f"].ack.watermark == len(journal.payloads) + 1
    assert count(engine, "samples") == 140
    assert count(engine, "quarantine") == 1


def test_a_refusal_by_the_database_itself_isolates_the_one_batch(
    engine: Engine, journal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A constraint that only the database knows of stands for whatever was not foreseen.
    with engine.begin() as connection:
        connection.execute(text("CREATE UNIQUE INDEX odd ON samples (seq, test_time_s)"))
    lonely = decode_batch(journal.payloads[-1])
    run_2_first = next(
        n
        for n, p in enumerate(journal.payloads)
        if isinstance(b := decode_batch(p), SamplesBatch) and b.run == "run-2"
    )
    committed = Ingest(engine).commit(journal.payloads)
    assert committed.acks[lonely.source].ack.watermark == len(journal.payloads)
    assert one(engine, "SELECT kind FROM batches WHERE number = " + str(run_2_first + 1))[0] == (
        "quarantined"
    )
    with engine.begin() as connection:
        assert verify_run(connection, "run-1").ok


def test_the_same_samples_under_another_number_go_to_quarantine(
    engine: Engine, journal: Any
) -> None:
    ingest = Ingest(engine)
    ingest.commit(journal.payloads)
    batch = decode_batch(journal.payloads[2])
    assert isinstance(batch, SamplesBatch)
    ingest.commit([encode_samples(batch.source, 901, batch.run, batch.records())])
    ingest.commit([encode_samples("another-journal", 1, batch.run, batch.records())])
    assert count(engine, "samples") == 140
    with engine.begin() as connection:
        reasons = connection.execute(text("SELECT reason FROM quarantine")).scalars().all()
    assert any("came before" in reason for reason in reasons)
    assert any("belongs to the journal node-a-1f" in reason for reason in reasons)


def test_formation_and_the_cycle_after_a_diagnostic_are_not_compared(
    engine: Engine, lab: Any
) -> None:
    journal = lab.Journal()
    kinds = ["formation"] * 2 + ["cycle"] * 3 + ["diagnostic"] + ["cycle"] * 3
    lab.write_run(
        journal,
        [lab.CycleSpec(cycle_class=kind) for kind in kinds],
        alarms=(RetentionAlarm(reference_first=1, reference_last=2, over_cycles=2),),
    )
    Ingest(engine).commit(journal.payloads)
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT position_in_class, comparable FROM cycles ORDER BY cycle")
        ).all()
    assert [row[0] for row in rows] == [1, 2, 1, 2, 3, 1, 4, 5, 6]
    assert [row[1] for row in rows] == [0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert one(engine, "SELECT reference_cycles FROM retention_references")[0] == "3-4"
    assert count(engine, "alarms") == 0
