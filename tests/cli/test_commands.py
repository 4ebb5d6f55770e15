"""What a person types wrong is answered with what, where and what to do; never with a traceback."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from labctl.cli import main as main_module
from labctl.cli import runs
from labctl.control import Answer, Command, Done, RunStatus, serve_control
from labctl.demo.bench import Wanted, set_up_bench
from labctl.demo.study import Study
from labctl.errors import CommandError
from labctl.supervisor import hold_folder


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a person types; without a daemon."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "labctl.toml").write_text("")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long.yaml").write_text("#" * 2_000_000)
    (tmp_path / "bad.toml").write_text("[node]\nnam = 1\n")
    return tmp_path


def typed(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["labctl", *line.split(" ")])
    with pytest.raises(SystemExit) as ended:
        main_module.main()
    return int(ended.value.code or 0)


NOTHING = Study((), (), whole=False)
CELL = "cell add A --material X --mass"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("status", 1, "start it with 'labctl daemon' or 'labctl up'"),
        ("status -c nothing.toml", 1, "nothing.toml: cannot be read: No such file or directory"),
        ("status -c .", 1, "cannot be read: Is a directory"),
        ("daemon -c bad.toml", 1, "did you mean 'name'?"),
        ("up -c bad.toml", 1, "bad.toml:2:1: unknown key 'nam'"),
        ("run start nope --cell a --channel r/1", 2, "no shipped recipe of that name: there are"),
        ("run start binary.yaml --cell a --channel r/1", 1, "binary.yaml: is not text in UTF-8"),
        ("run start long.yaml --cell a --channel r/1", 1, "is it the right file?"),
        ("run start capacity-0.2C --cell a --channel r1", 2, "is not INSTRUMENT/CHANNEL"),
        ("run start capacity-0.2C --cell a --channel /1", 2, "is not INSTRUMENT/CHANNEL"),
        ("run start capacity-0.2C --cell a --channel r/1 --set x", 2, "'x' is not NAME=VALUE"),
        ("run release x", 2, "Missing option '--reason'"),
        ("run stop a b", 1, "no daemon answers"),
        (f"{CELL} 2", 2, "'2' has no unit"),
        (f"{CELL} 2V", 2, "is a voltage; a mass is needed here; write for example '2.0 mg'"),
        (f"{CELL} -2mg", 2, "active_mass_g must be a finite number above 0"),
        (f"{CELL} 2mg --window 4V..1V", 2, "its lower end must come first; write"),
        (f"{CELL} 2mg --one-c 3V", 2, "--one-c"),
        ("init a/b", 1, "cannot stand in a topic because of '/'"),
        ("init lab1", 1, "is there already and was not touched"),
        ("demo --speed abc", 2, "neither 'virtual' nor a number"),
        ("demo --folder .", 1, "is not empty and holds no demo"),
        ("demo --folder labctl.toml/x", 1, "cannot be made"),
        ("nonsense", 2, "No such command"),
    ],
)
def test_a_wrong_command_says_what_where_and_what_to_do(
    lab: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    code: int,
    said: str,
) -> None:
    assert typed(line, monkeypatch) == code
    words = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert said in words


def test_a_second_up_in_the_same_folder_is_refused(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hold_folder(lab / "logs"):
        assert typed("up", monkeypatch) == 1
    assert "end that one first" in capsys.readouterr().err


def test_a_folder_in_which_labctl_runs_is_not_cleared_for_a_new_demo(tmp_path: Path) -> None:
    with set_up_bench(tmp_path / "demo", NOTHING, Wanted()) as bench:
        bench.finish()
    kept = tmp_path / "demo" / "data"
    kept.mkdir()
    with hold_folder(tmp_path / "demo" / "logs"), pytest.raises(CommandError, match="already"):
        with set_up_bench(tmp_path / "demo", NOTHING, Wanted()):
            pass
    assert kept.is_dir()


def test_a_demo_that_goes_on_gets_ports_that_are_free_now(tmp_path: Path) -> None:
    with set_up_bench(tmp_path / "demo", NOTHING, Wanted()) as bench:
        first = bench.config.read_text()
    with set_up_bench(tmp_path / "demo", NOTHING, Wanted()) as bench:
        assert bench.resumed
        assert bench.config.read_text() != first


RUN = RunStatus(
    run="lab-abcdef-00001",
    cell="HEV-1",
    instrument="rack1",
    channel="21-1-1",
    recipe="A recipe with quite a long name [draft]",
    state="held",
    reason="looked at [/] it (anna)",
    ended=False,
    cycle=1,
    cycle_count=3,
    visit=1,
    visit_count=7,
    step=1,
    label="charge",
    seq=123_456,
    test_time_s=3600.0,
    voltage_V=3.4,
    current_A=None,
    link_error="",
)


@pytest.mark.parametrize(("width", "terminal"), [(30, True), (80, True), (200, True), (80, False)])
def test_no_name_of_a_run_is_cut_however_narrow_the_terminal_is(
    monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool
) -> None:
    written = io.StringIO()
    console = Console(file=written, width=width, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(runs, "out", console)
    runs.show_runs([RUN])
    for words in ("lab-abcdef-00001", "HEV-1", "rack1/21-1-1", "looked at [/] it", "[draft]"):
        assert words in written.getvalue()


async def test_stopping_several_runs_goes_on_after_one_that_is_not_there(tmp_path: Path) -> None:
    asked: list[str] = []

    async def handler(command: Command, actor: str) -> Answer:
        run = str(getattr(command.request, "run", ""))
        asked.append(run)
        if run == "a":
            raise CommandError("no run 'a' on this node")
        return Done(run=run, message=f"run {run} is stopping")

    (tmp_path / "labctl.toml").write_text("")
    async with serve_control(tmp_path / "data" / "control.sock", handler):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "labctl", "run", "stop", "a", "b", cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        said, complained = await process.communicate()
    assert (process.returncode, asked) == (1, ["a", "b"])
    assert b"run b is stopping" in said
    assert b"no run 'a'" in complained


def test_output_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "labctl", "init", "lab1"],
        cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(writing)
    assert b"Traceback" not in process.stderr
    assert b"Broken" not in process.stderr


SERVICE = """
import asyncio, os, sys, threading
import labctl.cli.service as service
service.LAST_MOMENT_S = 0.2

async def serve():
    print("here", flush=True)
    await asyncio.to_thread(threading.Event().wait)

service.run_service(serve)
"""


def test_a_service_with_a_thread_that_hangs_ends_all_the_same() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 1
