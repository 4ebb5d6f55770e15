"""One owner an instrument on this PC, by whichever name or address it is reached."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labctl.errors import ConfigError
from labctl.wire.ownership import (
    DEFAULT_FOLDER,
    OwnedError,
    Ownership,
    lock_folder,
    owner_of,
    remember,
    remembered,
)

BENCH_1 = "labctl node bench1, instrument smu"
BENCH_2 = "labctl node bench2, instrument keithley"
PLACE = "tcp 10.0.0.7 5025"
NUMBER = "number keithley instruments 04419969"


def test_a_second_daemon_is_told_who_has_the_instrument_and_since_when(tmp_path: Path) -> None:
    first, second = Ownership(tmp_path, who=BENCH_1), Ownership(tmp_path, who=BENCH_2)
    first.take([PLACE])
    with pytest.raises(OwnedError) as refused:
        second.take([PLACE])
    said = str(refused.value)
    assert BENCH_1 in said
    assert f"process {os.getpid()} on " in said
    assert ", since 20" in said
    assert PLACE in said
    assert second.held == ()
    first.let_go()
    second.take([PLACE])
    assert str(second.held) == f"('{PLACE}',)"
    second.let_go()


def test_all_names_are_owned_or_none(tmp_path: Path) -> None:
    first, second = Ownership(tmp_path, who=BENCH_1), Ownership(tmp_path, who=BENCH_2)
    first.take([NUMBER])
    second.take(["serial /dev/ttyACM0"])
    with pytest.raises(OwnedError):
        second.take([PLACE, NUMBER])
    assert second.held == ("serial /dev/ttyACM0",)
    first.take([NUMBER, PLACE])
    first.let_go([PLACE])
    assert first.held == (NUMBER,)
    second.take([PLACE])
    first.let_go()
    first.let_go()
    second.let_go()


def test_an_owner_that_is_killed_owns_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path;"
        "from labctl.wire.ownership import Ownership;"
        f"ours = Ownership(Path(sys.argv[1]), who={BENCH_1!r}); ours.take([{PLACE!r}]);"
        "print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        ours = Ownership(tmp_path, who=BENCH_2)
        with pytest.raises(OwnedError, match=f"{BENCH_1}, process {other.pid} on"):
            ours.take([PLACE])
        owner = owner_of(tmp_path, ["tcp 10.0.0.8 5025", PLACE])
        assert owner is not None
        assert owner.pid == other.pid
        other.kill()
        other.wait()
        assert owner_of(tmp_path, [PLACE]) is None
        ours.take([PLACE])
        ours.let_go()


def test_a_lock_file_that_names_a_dead_process_does_not_accuse_it(tmp_path: Path) -> None:
    first, second = Ownership(tmp_path, who=BENCH_1), Ownership(tmp_path, who=BENCH_2)
    first.take([PLACE])
    [file] = tmp_path.iterdir()
    for text in ("{", file.read_text().replace(str(os.getpid()), str(2**22 + 1))):
        file.write_text(text)
        with pytest.raises(OwnedError, match="owned by another process: it is not touched"):
            second.take([PLACE])
    first.let_go()


def test_what_is_let_go_leaves_no_file_and_a_killed_owners_file_is_used_again(
    tmp_path: Path,
) -> None:
    first = Ownership(tmp_path, who=BENCH_1)
    first.take([PLACE])
    [file] = tmp_path.iterdir()
    text = file.read_text()
    first.let_go()
    assert list(tmp_path.iterdir()) == []
    file.write_text(text)
    first.take([PLACE])
    with pytest.raises(OwnedError):
        Ownership(tmp_path, who=BENCH_2).take([PLACE])
    first.let_go()


def test_no_two_ever_own_one_name_while_many_take_it_and_let_it_go(tmp_path: Path) -> None:
    inside: list[int] = []
    most = 0
    times = 0

    def work(number: int) -> None:
        nonlocal most, times
        owned = Ownership(tmp_path, who=f"worker {number}")
        for _ in range(150):
            try:
                owned.take([PLACE])
            except OwnedError:
                continue
            inside.append(number)
            most = max(most, len(inside))
            times += 1
            inside.remove(number)
            owned.let_go()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert most == 1
    assert times > 4


def test_no_name_leads_out_of_the_folder_or_to_the_file_of_another(tmp_path: Path) -> None:
    names = ["number x ../../etc/passwd", "number x ..-..-etc-passwd", "a/b", "a_b", "a" * 300]
    owned = Ownership(tmp_path / "locks", who=BENCH_1)
    owned.take(names)
    files = list((tmp_path / "locks").iterdir())
    assert len(files) == len(names)
    assert {file.parent for file in tmp_path.rglob("*.lock")} == {tmp_path / "locks"}
    owned.let_go()


def test_every_user_of_the_pc_can_use_a_folder_that_labctl_made(tmp_path: Path) -> None:
    owned = Ownership(tmp_path / "locks", who=BENCH_1)
    before = os.umask(0o077)
    try:
        owned.take([PLACE])
    finally:
        os.umask(before)
    folder = tmp_path / "locks"
    [file] = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE(file.stat().st_mode) == 0o666
    owned.let_go()


def test_a_folder_that_cannot_be_used_is_the_administrators_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="lock_dir under \\[node\\]"):
        Ownership(tmp_path / "file", who=BENCH_1).take([PLACE])
    (tmp_path / "tcp-10.0.0.7-5025.lock").symlink_to(tmp_path / "file")
    with pytest.raises(ConfigError):
        Ownership(tmp_path, who=BENCH_1).take([PLACE])


def test_the_folder_is_the_given_one_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_LOCK_DIR", "/somewhere")
    assert lock_folder("/given") == Path("/given")
    assert lock_folder() == Path("/somewhere")
    monkeypatch.delenv("LABCTL_LOCK_DIR")
    assert lock_folder() == DEFAULT_FOLDER


def test_what_was_last_at_a_port_is_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    assert remembered(folder, "/dev/ttyACM0") == ""
    remember(folder, "/dev/ttyACM0", "ES4HR20B0008")
    remember(folder, "/dev/ttyACM0", "ES4HR20B0009")
    assert remembered(folder, "/dev/ttyACM0") == "ES4HR20B0009"
    assert remembered(folder, "/dev/ttyACM1") == ""
    [file] = folder.iterdir()
    file.write_text("{")
    assert remembered(folder, "/dev/ttyACM0") == ""
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file", "/dev/ttyACM0", "x")
