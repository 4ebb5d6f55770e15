"""Which runs are packed, and when; what the policy deletes; and the commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from packed_shelf import DAY_S, RUN, SAMPLES, Shelf, on_sqlite
from sqlalchemy import Engine, text
from typer.testing import CliRunner

import labctl
from labctl.archive import packing_steps
from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.archive.packing import Packing
from labctl.archive.packing_policy import PolicyError, policy_of
from labctl.archive.queries import Archive
from labctl.cli import archive as commands
from labctl.errors import ArchiveError, ConfigError
from labctl.settings import load_settings
from labctl.stream.batches import decode_batch
from labctl.stream.events import CycleEnded, RunEnded


@on_sqlite
def test_a_run_is_packed_only_when_nothing_of_it_can_be_missing(
    engine: Engine, archive_url: str, tmp_path: Path, lab: Any
) -> None:
    def committed(name: str, keep: Callable[[Any], bool] = lambda _: True, **spec: Any) -> None:
        journal = lab.Journal(source=f"node-{name}")
        lab.write_run(journal, [lab.CycleSpec()] * 3, run=f"run-{name}", **spec)
        kept = [one for one in journal.payloads if keep(decode_batch(one))]
        Ingest(engine).commit(kept)

    def has(batch: Any, kind: type) -> bool:
        return any(isinstance(event, kind) for event in getattr(batch, "events", ()))

    committed("whole")
    committed("running", ended=False)
    committed("short", lambda batch: getattr(batch, "first_seq", 0) != 8)
    committed("untold", lambda batch: not has(batch, CycleEnded))
    committed("unsaid", lambda batch: batch.number != 1)
    committed("bare", lambda batch: has(batch, RunEnded) or not hasattr(batch, "first_seq"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET quarantined_seq='1-30' WHERE run_id='run-whole'"))
    said = {
        "whole": "all its samples are in quarantine",
        "running": "has not ended",
        "short": "it ended with sample 30 and is complete through 7",
        "untold": "batch [0-9]+ of the journal node-untold has not come",
        "unsaid": "batch 1 of the journal node-unsaid has not come",
        "bare": "complete through 0",
    }
    with Packing(archive_url, actor="mia", folder=tmp_path / "packed") as at_work:
        for name, reason in said.items():
            with pytest.raises(ArchiveError, match=f"run-{name} is not packed: .*{reason}"):
                at_work.pack(f"run-{name}")
        with pytest.raises(ArchiveError, match="no run 'run-0'"):
            at_work.pack("run-0")
        with engine.begin() as connection:
            connection.execute(text("UPDATE runs SET quarantined_seq='' WHERE run_id='run-whole'"))
            connection.execute(text("UPDATE cycles SET judged=false WHERE cycle = 2"))
        with pytest.raises(ArchiveError, match="cycle 2 has not been judged"):
            at_work.pack("run-whole")
        with engine.begin() as connection:
            connection.execute(text("UPDATE cycles SET judged=true"))
            connection.execute(text('UPDATE cycles SET "charge_Ah"=1 WHERE cycle=2'))
        with pytest.raises(ArchiveError, match="verify says"):
            at_work.pack("run-whole")
    assert {path.name for path in (tmp_path / "packed").iterdir()} == {packing_steps.LOCK}


@on_sqlite
def test_one_packing_works_in_a_folder_at_a_time(shelf: Shelf) -> None:
    with shelf.packing(), pytest.raises(ArchiveError, match="another packing is at work"):
        shelf.packing().__enter__()
    shelf.pack()


def test_an_archive_in_postgresql_needs_a_folder_and_then_knows_it(
    postgresql_url: str, tmp_path: Path, lab: Any
) -> None:
    engine = open_engine(postgresql_url)
    upgrade(engine)
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 2)
    Ingest(engine).commit(journal.payloads)
    with pytest.raises(ArchiveError, match="packed_dir under"):
        Packing(postgresql_url, actor="mia").__enter__()
    with Packing(postgresql_url, actor="mia", folder=tmp_path / "share") as at_work:
        at_work.pack(RUN)
    with Packing(postgresql_url, actor="mia") as at_work:
        at_work.unpack(RUN)
    engine.dispose()


def test_the_policy_packs_after_a_while_and_deletes_raw_data_after_years(
    shelf: Shelf, lab: Any
) -> None:
    policy = policy_of("90 d", "5 years")
    end_s = lab.START_UNIX_S + 10 * 7200.0
    with shelf.packing(now=lambda: end_s + 30 * DAY_S) as at_work:
        assert list(at_work.tidy(policy)) == []
    with shelf.packing(now=lambda: end_s + 91 * DAY_S) as at_work:
        told = [str(done) for done in at_work.tidy(policy, dry_run=True)]
        assert "run-1: 100 samples would be packed" in told
        assert shelf.rows() == SAMPLES
        assert len(list(at_work.tidy(policy))) == 2
        assert list(at_work.tidy(policy)) == []
    assert (shelf.state(), shelf.rows()) == ("packed", 0)
    with labctl.open(shelf.url) as opened:
        before = {ask.__name__: ask(opened, RUN) for ask in (Archive.cycles, Archive.steps)}
        alarms = opened.alarms()
    with shelf.packing(now=lambda: end_s + 5.1 * 365.25 * DAY_S) as at_work:
        assert "would be deleted" in str(next(at_work.tidy(policy, dry_run=True)))
        assert len(shelf.files()) == 2
        assert len(list(at_work.tidy(policy))) == 2
        assert list(at_work.tidy(policy)) == []
        with pytest.raises(ArchiveError, match="cannot be unpacked"):
            at_work.unpack(RUN)
    assert shelf.files() == set()
    with labctl.open(shelf.url) as opened:
        said = str(opened.verify(RUN))
        assert opened.verify(RUN).ok
        assert "100 samples were removed on 2030-07-" in said
        assert "by policy, which keeps raw data for 5 years" in said
        with pytest.raises(ArchiveError, match="run run-1 has no samples any more: its 100"):
            opened.samples(RUN)
        for ask, frame in before.items():
            pd.testing.assert_frame_equal(getattr(opened, ask)(RUN), frame)
        pd.testing.assert_frame_equal(opened.alarms(), alarms)
        assert len(opened.markers("run-3")) == 4
    again = Ingest(shelf.engine).commit(shelf.journal.payloads)
    assert again.duplicates == len(shelf.journal.payloads)


@on_sqlite
def test_a_removal_that_was_broken_off_is_finished(shelf: Shelf) -> None:
    path = shelf.pack()
    whole = path.read_bytes()
    policy = policy_of("1 d", "2 d")
    with shelf.packing() as at_work:
        assert list(at_work.tidy(policy))
    path.write_bytes(whole)
    with shelf.packing():
        assert not path.exists()


def test_a_policy_that_cannot_be_meant_is_refused() -> None:
    assert policy_of("", "").raw_kept_for_s is None
    assert policy_of("90 d", "").pack_after_s == 90 * DAY_S
    assert policy_of("12 weeks", "1.5 years").raw_kept_for_s == 1.5 * 365.25 * DAY_S
    for wrong in (("", "5 years"), ("90 d", "3 weeks"), ("soon", ""), ("0 d", ""), ("-3 d", "")):
        with pytest.raises(PolicyError):
            policy_of(*wrong)


runner = CliRunner()


def typed(line: str, code: int = 0) -> str:
    done = runner.invoke(commands.app, shlex.split(line))
    assert done.exit_code == code, done.output
    return done.output.replace("\n", " ")


@on_sqlite
def test_runs_are_packed_and_unpacked_by_command(
    shelf: Shelf, archive_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "labctl.toml"
    config.write_text(
        f"""[archive]
        url = "{archive_url}"
        packed_dir = "old"
        pack_after = "90 d"
        """
    )
    of_it = f"--config {config}"
    assert "run-1: 100 samples would be packed" in typed(f"{of_it} pack run-1 --dry-run")
    assert not list((tmp_path / "old").glob("*.parquet"))
    assert "100 samples packed into" in typed(f"{of_it} pack run-1")
    assert "packed already" in typed(f"{of_it} pack run-1", code=1)
    assert "not packed: it is packed already" in typed(f"{of_it} pack run-1 --dry-run", code=1)
    assert "run-3: 22 samples packed" in typed(f"{of_it} pack --older-than '90 d' --vacuum")
    assert len(list((tmp_path / "old").glob("*.parquet"))) == 2
    assert "complete and consistent" in typed(f"{of_it} verify run-1")
    assert "are in the table again" in typed(f"{of_it} unpack run-1 run-3")
    assert "would be packed" in typed(f"{of_it} tidy --dry-run")
    assert "run-1: 100 samples packed" in typed(f"{of_it} tidy")
    assert "complete and consistent" in typed(f"{of_it} verify")
    with pytest.raises(ArchiveError, match="name the runs"):
        runner.invoke(commands.app, ["pack", "--url", archive_url], catch_exceptions=False)


def test_an_sqlite_file_shrinks_when_its_free_pages_are_given_back(
    tmp_path: Path, lab: Any
) -> None:
    path = tmp_path / "archive.db"
    engine = open_engine(f"sqlite:///{path}")
    upgrade(engine)
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 10, samples_per_half=100, rows_per_batch=500)
    Ingest(engine).commit(journal.payloads)
    engine.dispose()
    before_B = path.stat().st_size
    with Packing(f"sqlite:///{path}", actor="mia") as at_work:
        at_work.pack(RUN)
        at_work.vacuum()
    assert path.stat().st_size < before_B - 100_000
    assert [file.suffix for file in Path(f"{path}.packed").iterdir()].count(".parquet") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('raw_kept_for = "5 years"', "raw_kept_for must be longer than pack_after"),
        ('pack_after = "soon"', "pack_after: 'soon' is no time"),
    ],
)
def test_a_wrong_policy_in_the_configuration_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "labctl.toml"
    path.write_text(f"[archive]\n{text}\n")
    with pytest.raises(ConfigError, match=rf"{path}: \[archive\] {said}"):
        load_settings(path)
