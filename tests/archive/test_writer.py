"""Groups are committed in a thread or in a process; what dies in between is asked again."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from writer_work import die, find_it_locked, own_pid, refuse

from labctl.archive import open_archive
from labctl.archive.arrivals import look_over
from labctl.archive.database import open_engine, upgrade
from labctl.archive.writer import ProcessWriter, ThreadWriter, Writer, WriterGoneError
from labctl.errors import CommandError


@pytest.fixture
def url(tmp_path: Path) -> str:
    made = f"sqlite:///{tmp_path / 'archive.db'}"
    engine = open_engine(made)
    upgrade(engine)
    engine.dispose()
    return made


@pytest.fixture(params=["thread", "process"])
async def writer(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Writer]:
    engine = open_engine(url)
    made: Writer = ThreadWriter(engine) if request.param == "thread" else ProcessWriter(url)
    yield made
    await made.close()
    engine.dispose()


def payloads_of(lab: Any, cycles: int = 8) -> list[bytes]:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec(discharge_h=1.0) for _ in range(cycles)])
    return list(journal.payloads)


async def test_groups_that_are_given_at_once_are_all_committed_and_each_once(
    writer: Writer, url: str, lab: Any
) -> None:
    payloads = payloads_of(lab)
    groups = [payloads[at : at + 3] for at in range(0, len(payloads), 3)]
    done = await asyncio.gather(
        *(writer.commit(group, ["node-a"] * len(group)) for group in [*groups, groups[0]])
    )
    assert sum(each.batches for each in done) == len(payloads)
    assert done[-1].duplicates == len(groups[0])
    with open_archive(url) as archive:
        assert all(archive.verify(run).ok for run in archive.runs().index)
        assert len(archive.cycles(archive.runs().index[0])) == 8


async def test_what_cannot_be_understood_goes_to_quarantine_and_into_the_log(
    writer: Writer, lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    done = await writer.commit([*payloads_of(lab, 1), b"noise"], ())
    assert done.quarantined == 1
    assert "to quarantine: " in caplog.text


async def test_work_is_done_between_the_groups_and_its_errors_come_back(writer: Writer) -> None:
    pid = await writer.do(own_pid)
    assert (pid == os.getpid()) == isinstance(writer, ThreadWriter)
    with pytest.raises(CommandError, match="not now"):
        await writer.do(functools.partial(refuse, why="not now"))
    with pytest.raises(OperationalError, match="locked") as caught:
        await writer.do(find_it_locked)
    assert "locked" in str(caught.value.orig)


async def test_a_process_that_is_killed_is_replaced_and_nothing_is_lost(
    url: str, lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    payloads = payloads_of(lab)
    writer = ProcessWriter(url)
    try:
        await writer.commit(payloads[:5], ())
        with pytest.raises(WriterGoneError):
            await writer.do(die)
        done = await writer.commit(payloads, ())
        assert done.duplicates == 5
        assert done.batches == len(payloads) - 5
    finally:
        await writer.close()
    with open_archive(url) as archive:
        assert all(archive.verify(run).ok for run in archive.runs().index)


async def test_a_process_ends_with_the_one_that_made_it_and_not_with_a_signal_to_both(
    url: str, lab: Any
) -> None:
    writer = ProcessWriter(url)
    pid = await writer.do(own_pid)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert await writer.do(own_pid) == pid, "the last commit is finished first"
    await writer.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_commit_is_finished_although_nobody_waits_for_it_any_more(
    writer: Writer, url: str, lab: Any
) -> None:
    payloads = payloads_of(lab)
    task = asyncio.create_task(writer.commit(payloads, ()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with open_archive(url) as archive:
        assert len(archive.runs()) == 1


def test_a_group_counts_as_good_only_if_nothing_is_to_be_refused_or_mended(lab: Any) -> None:
    payloads = payloads_of(lab)
    assert look_over(payloads)
    assert not look_over([*payloads, payloads[0]])
    assert not look_over([*payloads, b"noise"])
    spoiled = bytearray(payloads[1])
    spoiled[-1] ^= 1
    assert not look_over([payloads[0], bytes(spoiled)])
