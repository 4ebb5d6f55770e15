"""``labctl up``: broker, simulators, archive and daemon of one PC, each a process of its own.

A child that dies is started again, sooner the first time and later each time after. The children
die with the supervisor, whatever kills it (see labctl.orphans), so that nothing is left behind to
hold a port or a journal. Each child's words go to its own file in the log folder, which is cut when
it grows long. One supervisor a folder: two would fight for the ports.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from labctl.clock import Clock, RealClock
from labctl.errors import CommandError, ConfigError, Problem
from labctl.orphans import die_with_parent

log = logging.getLogger(__name__)

_GRACE_S: Final = 10.0
_FIRST_RESTART_S: Final = 0.2
_LONGEST_RESTART_S: Final = 10.0
_GOOD_LIFE_S: Final = 30.0
_LONGEST_LOG_B: Final = 8 * 1024 * 1024
_TEND_LOGS_S: Final = 60.0


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
            try:
                child.problem = f"ended with {_explain(await self._run_once(child))}"
            except OSError as error:
                child.problem = f"could not be started ({error})"
            child.running.clear()
            if self._clock.monotonic_s() - began_s > _GOOD_LIFE_S:
                wait_s = _FIRST_RESTART_S
            log.warning(
                "%s %s; starting it again in %.1f s. Its last words in %s: %s",
                name,
                child.problem,
                wait_s,
                self._log_of(name),
                _last_words(self._log_of(name)),
            )
            await self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_RESTART_S)

    async def tend_logs(self) -> None:
        """Cut every log that has grown long, until cancelled; what it held is in ``….log.1``."""
        while True:
            for name in self._order:
                try:
                    await asyncio.to_thread(_cut_if_long, self._log_of(name))
                except OSError as error:
                    log.warning("the log %s cannot be cut: %s", self._log_of(name), error)
            await self._clock.sleep(_TEND_LOGS_S)

    def _log_of(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    async def _run_once(self, child: Child) -> int:
        with _open_log(self._log_of(child.service.name)) as words:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "labctl",
                *child.service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                preexec_fn=die_with_parent(),
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
    """Keep ``services`` alive inside the block; end them at its end, the last one first.

    Raises:
        ConfigError: the log folder cannot be made or written.
        CommandError: another supervisor does this already.
    """
    with hold_folder(logs):
        supervisor = Supervisor(services, logs, clock or RealClock())
        tasks = [asyncio.create_task(supervisor.tend_logs(), name="logs")]
        try:
            for service in services:
                _check_log(logs / f"{service.name}.log")
                tasks.append(asyncio.create_task(supervisor.keep(service.name), name=service.name))
                await supervisor.children[service.name].running.wait()
            yield supervisor
        finally:
            for task in reversed(tasks):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@contextmanager
def hold_folder(logs: Path) -> Iterator[None]:
    """Be the one supervisor of the folder that ``logs`` lies in.

    Raises:
        ConfigError: the folder cannot be made or written.
        CommandError: another process is that already.
    """
    try:
        _make_folder(logs)
        lock = logs.with_name("up.lock").open("ab")
    except OSError as error:
        raise _unusable(logs, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(
                f"'labctl up' or 'labctl demo' runs in {logs.parent} already: end that one first, "
                "or use another folder"
            ) from None
        yield


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


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _open_log(path: Path) -> IO[bytes]:
    return path.open("ab")


def _check_log(path: Path) -> None:
    try:
        _open_log(path).close()
    except OSError as error:
        raise _unusable(path.parent, error) from error


def _explain(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _last_words(path: Path) -> str:
    """The last lines of a log, cut to what a person reads at a glance."""
    try:
        with path.open("rb") as log_file:
            log_file.seek(max(0, path.stat().st_size - 2000))
            lines = log_file.read().decode(errors="replace").split("\n")
    except OSError:
        return "none"
    said = [line.strip() for line in lines if line.strip()]
    return " | ".join(said[-3:])[-600:] or "none"


def _cut_if_long(path: Path) -> None:
    """Copy and cut, because the child goes on writing to the end of the same file."""
    if path.exists() and path.stat().st_size > _LONGEST_LOG_B:
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)


def _unusable(logs: Path, error: OSError) -> ConfigError:
    return ConfigError([Problem(f"the log folder cannot be used: {error}", file=str(logs))])
