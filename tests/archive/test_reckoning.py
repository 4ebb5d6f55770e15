"""Cycles reckoned before they are committed are those that the archive would have reckoned."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from labctl.archive import folding
from labctl.archive.arrivals import laid_out, look_over
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Committed, Ingest
from labctl.archive.reckoning import ReckonsAhead
from labctl.archive.verify import verify_run
from labctl.stream.batches import EventsBatch, SamplesBatch, decode_batch, encode_samples
from labctl.stream.events import CycleEnded, Event, StepEnded


@pytest.fixture
def journal(lab: Any) -> Any:
    """A cell that fades, one that does not, and visits of every kind."""
    made = lab.Journal()
    lab.write_run(made, [lab.CycleSpec(discharge_h=1.0 if n < 7 else 0.7) for n in range(12)])
    lab.write_run(made, [lab.CycleSpec()] * 2, run="run-2", cell="NVP-1", rows_per_batch=4)
    lab.write_visits(made)
    return made


def given_ahead(ingest: Ingest, ahead: ReckonsAhead, group: list[bytes]) -> Committed:
    """As the process that hears the broker gives a group to the one that commits."""
    arrived = look_over(group)
    if arrived is None:
        return ingest.commit(group)
    sqlite = ingest._engine.dialect.name == "sqlite"
    samples = laid_out(arrived) if sqlite else None
    return ingest.commit(group, checked=True, samples=samples, reckoned=ahead.look(arrived))


def archive_of(payloads: list[bytes], folder: Any, lab: Any) -> Any:
    engine = open_engine(f"sqlite:///{folder / 'as-it-should-be.db'}")
    upgrade(engine)
    for payload in payloads:
        Ingest(engine).commit([payload])
    found = lab.dump(engine)
    engine.dispose()
    return found


@pytest.mark.parametrize("size", [1, 4, 50])
def test_cycles_that_pass_through_in_order_need_no_look_at_their_samples(
    engine: Engine, journal: Any, tmp_path: Any, lab: Any, monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:  # fmt: skip
    reckoned_here: list[int] = []
    reckon = folding.reckon_cycles

    def counted(rows: Any, *more: Any) -> None:
        reckoned_here.append(len(rows))
        reckon(rows, *more)

    monkeypatch.setattr(folding, "reckon_cycles", counted)
    ingest, ahead = Ingest(engine), ReckonsAhead()
    for first in range(0, len(journal.payloads), size):
        given_ahead(ingest, ahead, journal.payloads[first : first + size])
    assert reckoned_here == []
    assert lab.dump(engine) == archive_of(journal.payloads, tmp_path, lab)


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order_and_twice_the_archive_is_the_same(
    engine: Engine, journal: Any, tmp_path: Any, lab: Any, seed: int
) -> None:
    chance = random.Random(seed)
    arriving = journal.payloads + chance.choices(journal.payloads, k=10)
    chance.shuffle(arriving)
    ingest, ahead = Ingest(engine), ReckonsAhead()
    while arriving:
        group = [arriving.pop() for _ in range(min(len(arriving), chance.choice([1, 3, 20])))]
        given_ahead(ingest, ahead, group)
        if chance.random() < 0.2:
            ingest = Ingest(engine)  # the one that commits died and another began
    assert lab.dump(engine) == archive_of(journal.payloads, tmp_path, lab)


def test_what_was_reckoned_from_samples_that_are_refused_is_not_believed(
    engine: Engine, journal: Any
) -> None:
    """A journal that tells the same samples twice, and not the same the second time."""
    place, batch = next(
        (place, batch)
        for place, payload in enumerate(journal.payloads)
        if isinstance(batch := decode_batch(payload), SamplesBatch) and batch.run == "run-1"
    )
    records = batch.records()
    changed = type(records)(
        *(
            getattr(records, name) * 2 if name == "charge_Ah" else getattr(records, name)
            for name in type(records).__slots__
        )
    )
    again = encode_samples(batch.source, 900, batch.run, changed)
    ingest, ahead = Ingest(engine), ReckonsAhead()
    given_ahead(ingest, ahead, journal.payloads[: place + 1])
    assert given_ahead(ingest, ahead, [again]).quarantined == 1
    given_ahead(ingest, ahead, journal.payloads[place + 1 :])
    with engine.begin() as connection:
        assert verify_run(connection, "run-1").problems == ()


@pytest.mark.parametrize("told", [CycleEnded, StepEnded])
@pytest.mark.parametrize("together", [True, False])
def test_the_ends_of_a_step_and_of_a_cycle_that_are_told_twice_count_once(
    engine: Engine, journal: Any, tmp_path: Any, lab: Any, together: bool, told: type[Event]
) -> None:
    ends = [
        event
        for payload in journal.payloads
        if isinstance(batch := decode_batch(payload), EventsBatch) and batch.run == "run-1"
        for event in batch.events
        if isinstance(event, told)
    ]
    once = archive_of(journal.payloads, tmp_path, lab)
    journal.events("run-1", ends[0])
    ingest, ahead = Ingest(engine), ReckonsAhead()
    groups = [journal.payloads] if together else [journal.payloads[:-1], journal.payloads[-1:]]
    done = [given_ahead(ingest, ahead, group) for group in groups]
    assert sum(one.quarantined for one in done) == 0
    assert sum(one.batches for one in done) == len(journal.payloads)
    found = lab.dump(engine)
    for table in ("cycles", "steps", "alarms", "samples", "retention_references", "runs"):
        assert found[table] == once[table]


def test_cycles_that_wait_for_samples_are_kept_and_reckoned_when_these_come(
    engine: Engine, lab: Any
) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 2)
    late = next(
        payload
        for payload in journal.payloads
        if isinstance(batch := decode_batch(payload), SamplesBatch) and batch.first_seq > 1
    )
    ingest, ahead = Ingest(engine), ReckonsAhead()
    given_ahead(ingest, ahead, [payload for payload in journal.payloads if payload is not late])
    with engine.begin() as connection:
        waits = connection.execute(
            text('SELECT "charge_Ah", judged FROM cycles ORDER BY cycle')
        ).all()
    assert [row[0] for row in waits] == [None, None]
    assert not any(row[1] for row in waits)
    given_ahead(ingest, ahead, [late])
    with engine.begin() as connection:
        assert verify_run(connection, "run-1").problems == ()
        charges = connection.execute(text('SELECT "charge_Ah" FROM cycles')).scalars().all()
    np.testing.assert_allclose(charges, lab.CURRENT_A)
