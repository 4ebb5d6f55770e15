"""A Mosquitto broker as a child process: found, configured, started, and ended.

Mosquitto keeps 1,000 queued messages and drops the rest in silence, and saves its state every
30 minutes, unless told otherwise; the configuration written here bounds queues by bytes and saves
while messages come. mosquitto.conf(5), Mosquitto 2.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from labctl.errors import ConfigError, Problem
from labctl.orphans import die_with_parent

_ELSEWHERE = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")
INSTALL_HINT = "install it, for example with: apt-get install mosquitto"


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoOptions:
    """What a laboratory wants of its Mosquitto.

    queue_bytes: for one client that is away or slow; what is beyond it is dropped by the broker
        and sent again by the journals.
    largest_packet_bytes: clients that send a larger one are thrown out.
    password_file, acl_file: as made by mosquitto_passwd and described in mosquitto.conf. Without a
        password file the broker lets everybody in, and therefore only listens on loopback.
    certificate_file, key_file: PEM; with both the listener speaks TLS.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    queue_bytes: int = 256 * 1024 * 1024
    largest_packet_bytes: int = 16 * 1024 * 1024
    in_flight: int = 100
    password_file: Path | None = None
    acl_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def at(self, host: str, port: int) -> MosquittoOptions:
        """The same, listening elsewhere."""
        return replace(self, host=host, port=port)


def find_mosquitto() -> Path | None:
    """The Mosquitto broker of this machine: on PATH, or where packages put it."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_ELSEWHERE))
    return Path(found) if found else None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def mosquitto_configuration(options: MosquittoOptions, directory: Path) -> str:
    """The text of a mosquitto.conf that keeps its state in ``directory``.

    Raises:
        ConfigError: it would let everybody in from the network, or a path has a line break in it.
    """
    if options.password_file is None and not is_loopback(options.host):
        raise ConfigError(
            [
                Problem(
                    f"a broker without passwords may only listen on loopback, not {options.host}",
                    suggestion="give a password_file made with mosquitto_passwd",
                )
            ]
        )
    if (options.certificate_file is None) != (options.key_file is None):
        raise ConfigError([Problem("a TLS listener needs certificate_file and key_file")])
    lines = [
        f"listener {options.port} {options.host}",
        f"allow_anonymous {'true' if options.password_file is None else 'false'}",
        "set_tcp_nodelay true",
        "persistence true",
        f"persistence_location {directory}/",
        "persistence_file mosquitto.db",
        "autosave_interval 1000",
        "autosave_on_changes true",
        "max_queued_messages 0",
        f"max_queued_bytes {options.queue_bytes}",
        f"max_inflight_messages {options.in_flight}",
        f"max_packet_size {options.largest_packet_bytes}",
        "persistent_client_expiration 14d",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "connection_messages false",
    ]
    if os.geteuid() == 0:
        lines.append("user root")
    for key, path in (
        ("password_file", options.password_file),
        ("acl_file", options.acl_file),
        ("certfile", options.certificate_file),
        ("keyfile", options.key_file),
    ):
        if path is not None:
            lines.append(f"{key} {path}")
    if any("\n" in line or "\r" in line for line in lines):
        raise ConfigError([Problem("a path in the broker's configuration has a line break in it")])
    return "\n".join(lines) + "\n"


class Mosquitto:
    """A Mosquitto process. Its folder keeps configuration, log and state across restarts."""

    def __init__(
        self, options: MosquittoOptions, directory: Path, program: Path | None = None
    ) -> None:
        self.options = options
        self.directory = directory
        self.log_file = directory / "mosquitto.log"
        self._configuration = directory / "mosquitto.conf"
        self._pid_file = directory / "mosquitto.pid"
        self._program = program
        self._process: asyncio.subprocess.Process | None = None

    @property
    def host(self) -> str:
        return self.options.host

    @property
    def port(self) -> int:
        return self.options.port

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    async def start(self, timeout_s: float = 10.0) -> None:
        """Start it and return when it accepts connections.

        Raises:
            ConfigError: no Mosquitto here, or it ended at once; says what it said.
        """
        program = self._program or find_mosquitto()
        if program is None:
            raise ConfigError([Problem("there is no Mosquitto here", suggestion=INSTALL_HINT)])
        self.directory.mkdir(parents=True, exist_ok=True)
        await self._end_orphan()
        if await _accepts(self.host, self.port):
            raise self._failure("another program listens there")
        self._configuration.write_text(
            mosquitto_configuration(self.options, self.directory), encoding="utf-8"
        )
        with self.log_file.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                str(program),
                "-c",
                str(self._configuration),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self._process = process
        self._pid_file.write_text(f"{process.pid}\n", encoding="ascii")
        ended = asyncio.create_task(process.wait())
        try:
            async with asyncio.timeout(timeout_s):
                # Another program may have taken the port a moment ago, and answer there.
                while not (_may_listen(process.pid) and await _accepts(self.host, self.port)):
                    await asyncio.wait([ended], timeout=0.02)
                    if ended.done():
                        raise self._failure(f"it ended with code {ended.result()}")
        except TimeoutError:
            await self.kill()
            raise self._failure(f"it does not listen after {timeout_s:g} s") from None
        except BaseException:
            await self.kill()
            raise
        finally:
            ended.cancel()
            await asyncio.wait([ended])

    async def stop(self, timeout_s: float = 10.0) -> None:
        """Ask it to save its state and end; kill it if it does not."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError:
                await self.kill()
        self._process = None

    async def kill(self) -> None:
        """End it as a power cut would: nothing more is saved."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
            await process.wait()

    async def wait_ended(self) -> int:
        """Return its exit code once it has ended, whoever ended it."""
        return 0 if self._process is None else await self._process.wait()

    async def _end_orphan(self) -> None:
        """End a Mosquitto of this folder whose parent was killed; it saves its state."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self._is_ours(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            for _ in range(250):
                if not self._is_ours(pid):
                    return
                await asyncio.sleep(0.02)

    def _is_ours(self, pid: int) -> bool:
        """Whether this process is a Mosquitto with our configuration, and not dead already."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self._configuration) in words

    def _failure(self, what: str) -> ConfigError:
        try:
            said = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        except OSError:
            said = []
        return ConfigError(
            [
                Problem(
                    f"Mosquitto on {self.host}:{self.port} did not start: {what}. "
                    + " | ".join(said),
                    file=str(self._configuration),
                    suggestion="is the port taken, or the folder not writable?",
                )
            ]
        )


@contextlib.asynccontextmanager
async def running_mosquitto(options: MosquittoOptions, directory: Path) -> AsyncIterator[Mosquitto]:
    """A Mosquitto that runs as long as the block. ``port`` 0 takes any free port."""
    if options.port == 0:
        options = options.at(options.host, free_port(options.host))
    broker = Mosquitto(options, directory)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


_FIRST_PORT: Final = 10_000
_LAST_PORT: Final = 65_535
_FEWEST_PORTS: Final = 1_000
_GIVEN_OUT: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on now, and that no outgoing connection is given: what was
    killed finds it free when it starts again."""
    ports = ports_kept()
    for _ in range(1000):
        port = random.choice(ports)  # noqa: S311 - two that choose at once should not meet
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            return port
    raise OSError(f"no port of {host} from {ports.start} to {ports.stop} is free")


def ports_kept(given_out: Path = _GIVEN_OUT) -> range:
    """Ports that Linux gives to no outgoing connection: ip(7), ip_local_port_range. Where it gives
    out nearly all, those that it does by default not."""
    first, last = 32_768, 60_999
    with contextlib.suppress(OSError, ValueError):
        first, last = map(int, given_out.read_text(encoding="ascii").split())
    below, above = range(_FIRST_PORT, first), range(max(last + 1, _FIRST_PORT), _LAST_PORT + 1)
    most = max(below, above, key=len)
    return most if len(most) >= _FEWEST_PORTS else range(_FIRST_PORT, 32_768)


_LISTENS: Final = "0A"


def _may_listen(pid: int) -> bool:
    """Whether a process has a TCP socket that listens; True where that is not to be known."""
    try:
        sockets = {
            words[9]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()
            if len(words := line.split()) > 9 and words[3] == _LISTENS
        }
        held = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self/fd").exists()
    except OSError:
        return True
    return any(f"socket:[{inode}]" in held for inode in sockets)


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
