"""Services are kept alive, and nothing outlives the one who keeps them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from labctl.clock import Clock
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
