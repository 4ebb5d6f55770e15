"""Services are kept alive, and nothing outlives the one who keeps them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from labctl.clock import Clock
from labctl.errors import CommandError, ConfigError
from labctl.supervisor import Service, supervise

FOREVER = Service("version", ("simulate", "forever"))


class Hasty:
    """A clock that does not make a test wait for a restart."""

    def unix_time_s(self) -> float:
        return 0.0

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(0)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for ``python``: whatever it is told, it sleeps until it is ended."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr("labctl.supervisor.sys.executable", str(script))
    return script


async def test_a_killed_service_is_started_again(sleeper: Path, tmp_path: Path) -> None:
    clock: Clock = Hasty()
    async with supervise([FOREVER], tmp_path / "logs", clock) as supervisor:
        child = supervisor.children["version"]
        first = child.pid
        os.kill(first, signal.SIGKILL)
        while child.starts < 2:
            await asyncio.sleep(0.01)
        await child.running.wait()
        assert child.pid != first
        assert alive(child.pid)
        assert child.problem == "ended with signal SIGKILL"
    assert not alive(child.pid)


async def test_services_end_with_the_block(sleeper: Path, tmp_path: Path) -> None:
    services = [Service(name, ()) for name in ("a", "b", "c")]
    async with supervise(services, tmp_path / "logs", Hasty()) as supervisor:
        pids = [child.pid for child in supervisor.children.values()]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


PARENT = """
import asyncio, sys
from pathlib import Path
import labctl.supervisor as s
s.sys.executable = sys.argv[1]

async def main():
    async with s.supervise([s.Service("a", ())], Path(sys.argv[2])) as supervisor:
        print(supervisor.children["a"].pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_services_die_with_a_supervisor_that_is_killed(sleeper: Path, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        Path(sys.prefix) / "bin" / "python",
        "-c",
        PARENT,
        str(sleeper),
        str(tmp_path / "logs"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert alive(child)
    parent.kill()
    await parent.wait()
    for _ in range(500):
        if not Path(f"/proc/{child}").exists() or not alive(child):
            break
        await asyncio.sleep(0.01)
    assert not Path(f"/proc/{child}").exists() or not alive(child)


async def test_a_second_supervisor_in_the_same_folder_is_refused(
    sleeper: Path, tmp_path: Path
) -> None:
    async with supervise([FOREVER], tmp_path / "logs", Hasty()) as supervisor:
        pid = supervisor.children["version"].pid
        with pytest.raises(CommandError, match=r"runs in .* already"):
            async with supervise([FOREVER], tmp_path / "logs", Hasty()):
                pass
        assert alive(pid)


async def test_a_folder_for_logs_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match=r"lab/logs: the log folder cannot be used"):
        async with supervise([FOREVER], tmp_path / "lab" / "logs", Hasty()):
            pass


async def test_a_log_that_cannot_be_written_is_named_and_nothing_hangs(
    sleeper: Path, tmp_path: Path
) -> None:
    (tmp_path / "logs" / "b.log").mkdir(parents=True)
    with pytest.raises(ConfigError, match="log folder cannot be used"):
        async with supervise([Service("a", ()), Service("b", ())], tmp_path / "logs", Hasty()):
            pass


class Patient(Hasty):
    """A clock on which everything that waits has still to wait."""

    async def sleep(self, duration_s: float) -> None:
        await asyncio.get_running_loop().create_future()


async def test_the_last_words_of_a_service_that_ended_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho starting\necho error: port 1883 is taken >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr("labctl.supervisor.sys.executable", str(script))
    async with supervise([FOREVER], tmp_path / "logs", Patient()) as supervisor:
        while not supervisor.children["version"].problem:
            await asyncio.sleep(0.01)
        assert supervisor.children["version"].problem == "ended with exit code 3"
    assert "port 1883 is taken" in caplog.text


async def test_a_service_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: Path
) -> None:
    async with supervise([FOREVER], tmp_path / "logs", Hasty()) as supervisor:
        child = supervisor.children["version"]
        sleeper.rename(tmp_path / "elsewhere")
        os.kill(child.pid, signal.SIGKILL)
        while "could not be started" not in child.problem:
            await asyncio.sleep(0.001)
        (tmp_path / "elsewhere").rename(sleeper)
        while child.starts < 2:
            await asyncio.sleep(0.001)


async def test_a_service_that_does_not_listen_is_killed_when_its_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    ready = tmp_path / "ready"
    script.write_text(f"#!/bin/sh\ntrap '' TERM\ntouch {ready}\nwhile :; do sleep 0.05; done\n")
    script.chmod(0o755)
    monkeypatch.setattr("labctl.supervisor.sys.executable", str(script))
    monkeypatch.setattr("labctl.supervisor._GRACE_S", 0.2)
    async with supervise([FOREVER], tmp_path / "logs", Patient()) as supervisor:
        while not ready.exists():
            await asyncio.sleep(0.01)
        pid = supervisor.children["version"].pid
        assert alive(pid)
    assert not alive(pid)


async def test_a_log_that_has_grown_long_is_cut_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.supervisor._LONGEST_LOG_B", 10_000)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nyes a line of the log | head -c 20000\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr("labctl.supervisor.sys.executable", str(script))
    logs = tmp_path / "logs"
    async with supervise([FOREVER], logs, Hasty()), asyncio.timeout(20.0):
        while not (logs / "version.log.1").exists():
            await asyncio.sleep(0.01)
    assert (logs / "version.log.1").stat().st_size > 10_000
    left = (logs / "version.log").read_bytes()
    assert set(left) <= set(b"a line of the log\n"), "a hole where the old part was"
    assert len(left) <= 10_000
