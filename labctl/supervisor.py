"""``labctl up``: broker, simulators, archive and daemon of one PC, each a process of its own.

A child that dies is started again, sooner the first time and later each time after. The children
die with the supervisor, whatever kills it (Linux: PR_SET_PDEATHSIG), so that nothing is left behind
to hold a port or a journal. Each child's words go to its own file in the log folder.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from labctl.clock import Clock, RealClock

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_GRACE_S: Final = 10.0
_FIRST_RESTART_S: Final = 0.2
_LONGEST_RESTART_S: Final = 10.0
_GOOD_LIFE_S: Final = 30.0
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep alive. ``command`` follows ``python -m labctl``."""

    name: str
    command: tuple[str, ...]


@dataclass(slots=True)
class Child:
    """A service and the process that is it now."""

    service: Service
    pid: int = 0
    starts: int = 0
    problem: str = ""
    running: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Keeps services alive until told to stop. Use :func:`supervise`."""

    def __init__(self, services: Sequence[Service], logs: Path, clock: Clock) -> None:
        self.children = {service.name: Child(service) for service in services}
        self._order = [service.name for service in services]
        self._logs = logs
        self._clock = clock

    async def keep(self, name: str) -> None:
        """Start the service again whenever it ends; ended itself by cancellation."""
        child = self.children[name]
        wait_s = _FIRST_RESTART_S
        while True:
            began_s = self._clock.monotonic_s()
            code = await self._run_once(child)
            child.running.clear()
            if self._clock.monotonic_s() - began_s > _GOOD_LIFE_S:
                wait_s = _FIRST_RESTART_S
            child.problem = f"ended with {_explain(code)}"
            log.warning(
                "%s %s; starting it again in %.1f s (its words are in %s)",
                name,
                child.problem,
                wait_s,
                self._logs / f"{name}.log",
            )
            await self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_RESTART_S)

    async def _run_once(self, child: Child) -> int:
        with _open_log(self._logs / f"{child.service.name}.log") as words:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "labctl",
                *child.service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )
        child.pid = process.pid
        child.starts += 1
        child.running.set()
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise


@asynccontextmanager
async def supervise(
    services: Sequence[Service], logs: Path, clock: Clock | None = None
) -> AsyncIterator[Supervisor]:
    """Keep ``services`` alive inside the block; end them at its end, the last one first."""
    _make_folder(logs)
    supervisor = Supervisor(services, logs, clock or RealClock())
    tasks: list[asyncio.Task[None]] = []
    try:
        for service in services:
            tasks.append(asyncio.create_task(supervisor.keep(service.name), name=service.name))
            await supervisor.children[service.name].running.wait()
        yield supervisor
    finally:
        for task in reversed(tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def notify_systemd(state: str) -> None:
    """Tell systemd (``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``); nothing where it is not there.

    See sd_notify(3): a datagram to the socket named in NOTIFY_SOCKET.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.sendto(state.encode(), address)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_GRACE_S):
            await process.wait()
    except TimeoutError:
        log.warning("process %d did not end within %.0f s: killed", process.pid, _GRACE_S)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _open_log(path: Path) -> IO[bytes]:
    return path.open("ab")


def _explain(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
