"""Groups that are committed side by side leave what they would leave one after the other."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from labctl.archive.arrivals import look_over
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Committed, Ingest
from labctl.archive.reckoning import ReckonsAhead
from labctl.archive.turns import OutOfTurnError, Turn, Turns
from labctl.stream.batches import (
    EventsBatch,
    SamplesBatch,
    decode_batch,
    encode_events,
    encode_samples,
)
from labctl.stream.events import CycleEnded

PATIENCE_S = 60.0


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    made = open_engine(postgresql_url)
    upgrade(made)
    yield made
    made.dispose()


@pytest.fixture
def journal(lab: Any) -> Any:
    made = lab.Journal()
    lab.write_run(made, [lab.CycleSpec(discharge_h=1.0 if n < 7 else 0.7) for n in range(12)])
    lab.write_run(made, [lab.CycleSpec()] * 2, run="run-2", cell="NVP-1", rows_per_batch=4)
    lab.write_visits(made)
    return made


def as_it_should_be(payloads: list[bytes], folder: Path, lab: Any) -> Any:
    engine = open_engine(f"sqlite:///{folder / 'one-after-the-other.db'}")
    upgrade(engine)
    ingest = Ingest(engine)
    for payload in payloads:
        ingest.commit([payload])
    found = lab.dump(engine)
    engine.dispose()
    return found


def commit_two_at_once(engine: Engine, groups: list[list[bytes]]) -> list[Committed]:
    ingest, turns, ahead = Ingest(engine), Turns(), ReckonsAhead()

    def commit(group: list[bytes], turn: Turn) -> Committed:
        with turn:
            return ingest.commit(group, turn=turn)

    def commit_checked(group: list[bytes], reckoned: Any, turn: Turn) -> Committed:
        with turn:
            return ingest.commit(group, checked=True, reckoned=reckoned, turn=turn)

    with ThreadPoolExecutor(2) as threads:
        futures = []
        for group in groups:
            arrived = look_over(group)
            if arrived is None:
                futures.append(threads.submit(commit, group, turns.draw()))
            else:
                reckoned = ahead.look(arrived)
                futures.append(threads.submit(commit_checked, group, reckoned, turns.draw()))
        return [future.result(timeout=PATIENCE_S) for future in futures]


@pytest.mark.parametrize("seed", range(6))
def test_reordered_and_repeated_batches_two_groups_at_a_time_leave_the_same_archive(
    engine: Engine, journal: Any, tmp_path: Path, lab: Any, seed: int
) -> None:
    chance = random.Random(seed)
    arriving = journal.payloads + chance.choices(journal.payloads, k=40)
    if seed:
        chance.shuffle(arriving)
    groups = []
    while arriving:
        groups.append(
            [arriving.pop(0) for _ in range(min(len(arriving), chance.choice([1, 2, 9])))]
        )
    done = commit_two_at_once(engine, groups)
    assert sum(one.batches for one in done) == len(journal.payloads)
    assert sum(one.duplicates for one in done) == 40
    assert lab.dump(engine) == as_it_should_be(journal.payloads, tmp_path, lab)


@pytest.mark.parametrize("size", [1, 3])
def test_a_group_in_trouble_is_tried_again_before_the_one_behind_it_is_committed(
    engine: Engine, journal: Any, tmp_path: Path, lab: Any, size: int
) -> None:
    """Every end of a cycle is told twice, and the samples of one batch come again with others."""
    ends, samples = [], []
    for payload in journal.payloads:
        batch = decode_batch(payload)
        if isinstance(batch, SamplesBatch):
            samples.append(batch)
        elif isinstance(batch, EventsBatch):
            ends += [(batch.run, one) for one in batch.events if isinstance(one, CycleEnded)]
    once = as_it_should_be(journal.payloads, tmp_path, lab)
    first = samples[0]
    again = [encode_events(first.source, 800 + n, run, (end,)) for n, (run, end) in enumerate(ends)]
    again.append(encode_samples(first.source, 900, first.run, first.records()))
    arriving = [*journal.payloads, *again, *again]
    groups = [arriving[at : at + size] for at in range(0, len(arriving), size)]
    done = commit_two_at_once(engine, groups)
    assert sum(one.quarantined for one in done) == 1
    found = lab.dump(engine)
    for table in ("samples", "cycles", "steps", "alarms", "retention_references", "runs"):
        assert found[table] == once[table], table


class Order:
    """What threads did, in its order."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def then(self, name: str, wait: Callable[[], None]) -> threading.Thread:
        """Do ``wait`` in a thread, and note the name after it, or the name of what it raised."""

        def work() -> None:
            try:
                wait()
            except OutOfTurnError:
                name_of_it = f"{name} out of turn"
            else:
                name_of_it = name
            self.done.append(name_of_it)

        thread = threading.Thread(target=work)
        thread.start()
        return thread


def test_the_second_enters_when_the_first_is_past_the_ledger_and_its_turn_comes_after_it() -> None:
    turns, order = Turns(), Order()
    first, second = turns.draw(), turns.draw()
    with first:
        first.enter()
        entering = order.then("second entered", second.enter)
        order.done.append("first entered")
        first.past_ledger()
        entering.join(PATIENCE_S)
        first.come()
        coming = order.then("second came", second.come)
        order.done.append("first committed")
    coming.join(PATIENCE_S)
    assert order.done == ["first entered", "second entered", "first committed", "second came"]
    assert second.has_come


def test_one_that_is_tried_again_alone_holds_off_the_one_behind_it() -> None:
    turns, order = Turns(), Order()
    first, second, third = turns.draw(), turns.draw(), turns.draw()
    with first:
        first.enter()
        first.past_ledger()
        second.enter()
        second.past_ledger()
        first.come_alone()
        order.then("second", second.come).join(PATIENCE_S)
        waiting = order.then("second alone", second.come_alone)
        order.done.append("first committed")
    waiting.join(PATIENCE_S)
    with second:
        assert not third.has_come
    order.then("third", third.come).join(PATIENCE_S)
    assert order.done == ["second out of turn", "first committed", "second alone", "third"]


def test_a_turn_that_ends_before_it_came_still_waits_for_those_before_it() -> None:
    """The database is away: the group is given again, and comes in the order of its new turn."""
    turns, order = Turns(), Order()
    first, second, third = turns.draw(), turns.draw(), turns.draw()

    def give_up() -> None:
        with pytest.raises(OSError, match="away"), second:
            raise OSError("away")

    ending = order.then("second", give_up)
    with first:
        order.done.append("first")
    ending.join(PATIENCE_S)
    order.then("third", third.come).join(PATIENCE_S)
    assert order.done == ["first", "second", "third"]
