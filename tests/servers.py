"""Real servers for tests: Mosquitto, the embedded broker and PostgreSQL, each ended at the end.

A server that is not installed skips the tests that need it and says what to install; where
``CI=true`` they fail instead, so that nothing is skipped unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest

from labctl.errors import ConfigError, LabctlError
from labctl.stream.embedded import embedded_broker
from labctl.stream.mosquitto import Mosquitto, MosquittoOptions, find_mosquitto, free_port

MORE_PORTS = 4
"""So many others are tried where a port is taken between the look at it and its use."""
STARTS_S = 60.0
"""How long a server may take to start on a machine that is busy."""


def not_installed(what: str, packages: str) -> NoReturn:
    """Skip the test loudly; fail it in CI."""
    message = f"{what} IS NOT INSTALLED: apt-get install {packages}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(message)
    pytest.skip(message)


class BrokerServer:
    """A broker that a test can kill and start again on the same port."""

    kind: str
    host = "127.0.0.1"
    port: int

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    async def start(self) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def kill(self) -> None:
        """End it without warning; what it had not saved is lost."""
        raise NotImplementedError

    async def lose_sessions(self) -> None:
        """While it is down: forget every session, queue and retained message."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class MosquittoServer(BrokerServer):
    kind = "mosquitto"

    def __init__(self, directory: Path) -> None:
        if find_mosquitto() is None:
            not_installed("MOSQUITTO", "mosquitto")
        self.port = free_port(self.host)
        self.directory = directory
        self.process = Mosquitto(MosquittoOptions(host=self.host, port=self.port), directory)
        self._began = False

    async def start(self) -> None:
        """The first time on any port: another program may have taken the one that was free."""
        for more in range(0 if self._began else MORE_PORTS, -1, -1):
            try:
                await self.process.start(timeout_s=STARTS_S)
            except ConfigError:
                if not more:
                    raise
                self.port = free_port(self.host)
                options = MosquittoOptions(host=self.host, port=self.port)
                self.process = Mosquitto(options, self.directory)
            else:
                self._began = True
                return

    async def stop(self) -> None:
        await self.process.stop()

    async def kill(self) -> None:
        await self.process.kill()

    async def lose_sessions(self) -> None:
        (self.directory / "mosquitto.db").unlink(missing_ok=True)

    def freeze(self) -> None:
        """Stop its process without ending it: connections stay open and nothing answers."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)


class EmbeddedServer(BrokerServer):
    """The embedded broker in the test's own loop. It saves nothing, so a stop is a kill."""

    kind = "amqtt"

    def __init__(self) -> None:
        self.port = free_port(self.host)
        self._running: AbstractAsyncContextManager[Any] | None = None
        self._began = False

    async def start(self) -> None:
        """As that of :class:`MosquittoServer`."""
        for more in range(0 if self._began else MORE_PORTS, -1, -1):
            running = embedded_broker(self.host, self.port)
            try:
                await running.__aenter__()
            except (OSError, LabctlError):
                if not more:
                    raise
                self.port = free_port(self.host)
            else:
                self._running, self._began = running, True
                return

    async def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await running.__aexit__(None, None, None)

    async def kill(self) -> None:
        await self.stop()

    async def lose_sessions(self) -> None:
        pass


def server_of_kind(kind: str, directory: Path) -> BrokerServer:
    """``mosquitto`` or ``amqtt``, not started yet."""
    return MosquittoServer(directory) if kind == "mosquitto" else EmbeddedServer()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder directly below the temporary one: its path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="labctl-", ignore_cleanup_errors=True) as name:
        yield Path(name)


class LoopThread:
    """An event loop in a thread of its own, for servers that outlive one test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=2 * STARTS_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()


class PostgresqlServer:
    """A PostgreSQL cluster of its own in a folder, on loopback, without fsync."""

    user = "labctl"

    def __init__(self, directory: Path) -> None:
        self.binaries = _postgresql_binaries()
        if self.binaries is None:
            not_installed("POSTGRESQL", "postgresql")
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{self.user}@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """initdb, once."""
        if os.geteuid() == 0:
            shutil.chown(self.directory, _unprivileged_user())
        self._run(
            "initdb", "-D", str(self.data), "-U", self.user, "-A", "trust", "-E", "UTF8",
            "--no-locale", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        """Start it and return when it answers."""
        assert self.binaries is not None
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": "50",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (self.directory / "log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *_as_unprivileged(), str(self.binaries / "postgres"), "-D", str(self.data),
                    "-p", str(self.port), *options,
                ],
                stdout=output, stderr=output, cwd=self.directory, start_new_session=True,
            )  # fmt: skip
        until_s = time.monotonic() + STARTS_S
        while self._process.poll() is None and time.monotonic() < until_s:
            if self._is_ready() and self._process.poll() is None:
                return
            time.sleep(0.05)
        raise RuntimeError((self.directory / "log").read_text(errors="replace")[-2000:])

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT breaks off every session, SIGQUIT is a crash."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                os.kill(self._postmaster(), how)
            process.wait(timeout=20)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        self._count += 1
        name = f"test_{self._count}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, name)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        self._run(
            "dropdb", "--force", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user,
            url.rsplit("/", 1)[1],
        )  # fmt: skip

    def _is_ready(self) -> bool:
        """Whether it answers, and it is this one that does: its pid file says when it is ready."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        says_so = len(lines) >= 8 and lines[3] == str(self.port) and lines[7].strip() == "ready"
        return says_so and not self._run(
            "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), check=False
        )

    def _postmaster(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        assert self.binaries is not None
        done = subprocess.run(
            [*_as_unprivileged(), str(self.binaries / program), *arguments],
            capture_output=True, check=False, cwd=self.directory, timeout=60,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.decode(errors='replace')}")
        return done.returncode


def _postgresql_binaries() -> Path | None:
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: float(path.parent.parent.name),
    )
    return versions[-1].parent if versions else None


def _unprivileged_user() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _as_unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", _unprivileged_user(), "--"] if os.geteuid() == 0 else []
