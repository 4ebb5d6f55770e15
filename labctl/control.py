"""The one door to the instruments: commands to the daemon over a Unix socket.

One JSON object a line each way. Who asks is what the kernel says of the other end of the socket
(SO_PEERCRED), not what the message says; the socket is readable and writable to the daemon's user
and group alone. A command carries an id, so that a repeated one does nothing twice, and a time
after which it is not carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import socket
import struct
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from labctl.errors import CommandError, LabctlError, LinkError, Problem, ProblemsError
from labctl.model import Cell

log = logging.getLogger("labctl.daemon")

LONGEST_LINE_B: Final = 4 * 1024 * 1024
EXPIRES_AFTER_S: Final = 60.0
MOST_CONNECTIONS: Final = 64
_ANSWER_TIMEOUT_S: Final = 60.0
_IDLE_S: Final = 120.0
"""A client that says or reads nothing for so long is hung up on."""


class GetStatus(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """What the daemon does now. Changes nothing."""


class GetCells(msgspec.Struct, frozen=True, kw_only=True, tag="cells"):
    """Every registered cell. Changes nothing."""


class RegisterCell(msgspec.Struct, frozen=True, kw_only=True, tag="register_cell"):
    """Register a cell; one with the same name is corrected, for runs that begin after this."""

    cell: Cell


class StartRun(msgspec.Struct, frozen=True, kw_only=True, tag="start_run"):
    """Run a recipe on a cell on a channel. With ``dry`` everything is checked and nothing begun.

    included: the texts of the recipes that it includes, by the names that it includes them by.
    queue: begin when what is on the channel, or has the cell, has run to its end; without it, that
        is a refusal.
    not_before_unix_s: the earliest moment at which it begins.
    """

    recipe_text: str
    recipe_file: str
    cell: str
    instrument: str
    channel: str
    parameters: dict[str, str] = {}
    included: dict[str, str] = {}
    queue: bool = False
    not_before_unix_s: float = 0.0
    dry: bool = False


class StopRun(msgspec.Struct, frozen=True, kw_only=True, tag="stop_run"):
    """Output off and the run ended, now or at the end of the present step or cycle. Always allowed;
    asking twice does no harm, and a later 'now' counts."""

    run: str
    reason: str = "stopped by hand"
    at: Literal["now", "step", "cycle"] = "now"


class PauseRun(msgspec.Struct, frozen=True, kw_only=True, tag="pause_run"):
    """Open circuit until ResumeRun; the run stays in its step."""

    run: str
    reason: str = "paused by hand"


class ResumeRun(msgspec.Struct, frozen=True, kw_only=True, tag="resume_run"):
    """Go on after PauseRun."""

    run: str
    reason: str = "resumed by hand"


class SkipStep(msgspec.Struct, frozen=True, kw_only=True, tag="skip_step"):
    """Leave the present step for the next one. ``step``: which one is meant, as a person counts; 0
    is whichever it is when the command arrives."""

    run: str
    reason: str = "skipped by hand"
    step: int = 0


class HoldRun(msgspec.Struct, frozen=True, kw_only=True, tag="hold_run"):
    """Open circuit until somebody releases the run with a reason."""

    run: str
    reason: str


class SendSignal(msgspec.Struct, frozen=True, kw_only=True, tag="send_signal"):
    """Something outside has happened, for the run that waits for it; ``run`` '' is every run whose
    recipe waits for that name. An operator confirms with the name 'confirm', to one run."""

    name: str
    run: str = ""


class ReleaseRun(msgspec.Struct, frozen=True, kw_only=True, tag="release_run"):
    """Let a held run go on."""

    run: str
    reason: str


class AbandonRun(msgspec.Struct, frozen=True, kw_only=True, tag="abandon_run"):
    """End the record of a run that is held or does not come to its stop; nothing is sent to its
    instrument. Whoever asks has seen to it that the output is off."""

    run: str
    reason: str


Request: TypeAlias = (
    GetStatus
    | GetCells
    | RegisterCell
    | StartRun
    | StopRun
    | PauseRun
    | ResumeRun
    | SkipStep
    | HoldRun
    | SendSignal
    | ReleaseRun
    | AbandonRun
)


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way."""

    id: str
    expires_unix_s: float
    request: Request


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as the node sees it."""

    run: str
    cell: str
    instrument: str
    channel: str
    recipe: str
    state: str
    reason: str
    ended: bool
    cycle: int
    cycle_count: int
    visit: int
    visit_count: int
    step: int
    label: str
    seq: int
    test_time_s: float
    voltage_V: float | None
    current_A: float | None
    link_error: str
    waits_for: str = ""
    """Why a run that was made has not begun, or what a step waits for."""


class InstrumentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument, as the node sees it."""

    name: str
    driver: str
    connected: bool
    problem: str
    serial: str
    channels: tuple[str, ...]


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """Answer to GetStatus."""

    node: str
    source: str
    version: str
    unix_time_s: float
    instruments: tuple[InstrumentStatus, ...]
    runs: tuple[RunStatus, ...]
    unconfirmed_batches: int
    unconfirmed_bytes: int
    stream_problem: str


class Cells(msgspec.Struct, frozen=True, kw_only=True, tag="cells"):
    """Answer to GetCells."""

    cells: tuple[Cell, ...]


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Answer to a command that was carried out; ``run`` is the run that it made or changed."""

    run: str = ""
    message: str = ""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """Answer to a command that was not carried out."""

    kind: str
    message: str
    problems: tuple[tuple[str, str, int, int, str, int, str], ...] = ()


Answer: TypeAlias = Status | Cells | Done | Refused
Handler: TypeAlias = Callable[[Command, str], Awaitable[Answer]]
"""Carries out a command for an actor; LabctlErrors become Refused."""

_commands = msgspec.json.Decoder(Command)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Status | Cells | Done | Refused)
Wanted = TypeVar("Wanted", Status, Cells, Done)


def refusal(error: LabctlError) -> Refused:
    """An error in words that travel."""
    problems = error.problems if isinstance(error, ProblemsError) else ()
    return Refused(
        kind=type(error).__name__,
        message=str(error),
        problems=tuple(
            (p.message, p.file, p.line, p.column, p.source_line, p.width, p.suggestion)
            for p in problems
        ),
    )


@asynccontextmanager
async def serve_control(path: Path, handler: Handler) -> AsyncIterator[None]:
    """Take commands at the socket ``path`` inside the block.

    Raises:
        CommandError: the path is too long for a socket, or cannot be made.
    """
    sock = _listen(path)
    open_connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_connections) >= MOST_CONNECTIONS:
            busy = f"the daemon has {MOST_CONNECTIONS} connections open already: try again"
            writer.write(_line(Refused(kind="CommandError", message=busy)))
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(_serve_one(reader, writer, handler))
        open_connections.add(task)
        task.add_done_callback(open_connections.discard)

    server = await asyncio.start_unix_server(connected, sock=sock, limit=LONGEST_LINE_B)
    try:
        yield
    finally:
        server.close()
        for task in open_connections:
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)
        _remove(path)


async def ask(path: Path, request: Request, wanted: type[Wanted]) -> Wanted:
    """Send one request to the daemon at ``path`` and return its answer.

    Raises:
        LinkError: no daemon is there, or it did not answer.
        ProblemsError: the daemon found mistakes in what was sent.
        CommandError: the daemon refused.
    """
    command = Command(
        id=uuid.uuid4().hex, expires_unix_s=time.time() + EXPIRES_AFTER_S, request=request
    )
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            with _short(path) as address:
                reader, writer = await asyncio.open_unix_connection(address, limit=LONGEST_LINE_B)
            try:
                writer.write(msgspec.json.encode(command) + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (FileNotFoundError, ConnectionRefusedError):
        raise LinkError(
            f"no daemon answers at {path}: start it with 'labctl daemon' or 'labctl up', "
            "or name its configuration with --config",
            address=str(path),
        ) from None
    except PermissionError:
        raise LinkError(
            f"this user may not talk to the daemon at {path}: join the daemon's group",
            address=str(path),
        ) from None
    except TimeoutError as error:
        raise LinkError(
            f"the daemon at {path} did not answer within {_ANSWER_TIMEOUT_S:g} s: it may still do "
            "what it was asked; look with 'labctl status' before you ask again",
            address=str(path),
        ) from error
    except (OSError, ValueError) as error:
        raise LinkError(
            f"the daemon at {path} did not answer: {error}", address=str(path)
        ) from error
    if not line.endswith(b"\n"):
        raise LinkError(
            f"the daemon at {path} hung up before it answered: look with 'labctl status' whether "
            "it did what it was asked",
            address=str(path),
        )
    try:
        answer = _answers.decode(line)
    except msgspec.MsgspecError as error:
        raise LinkError(
            f"the daemon at {path} answered what this labctl does not understand ({error}): are "
            "both of one version?",
            address=str(path),
        ) from error
    if isinstance(answer, Refused):
        if answer.problems:
            raise ProblemsError([Problem(*problem) for problem in answer.problems])
        raise CommandError(answer.message)
    if not isinstance(answer, wanted):
        raise LinkError(f"the daemon at {path} gave another answer than was asked for")
    return answer


async def _serve_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler
) -> None:
    try:
        actor = _actor(writer)
        while True:
            async with asyncio.timeout(_IDLE_S):
                try:
                    line = await reader.readline()
                except ValueError:
                    long = f"a command of more than {LONGEST_LINE_B >> 20} MiB is not read"
                    writer.write(_line(Refused(kind="CommandError", message=long)))
                    await writer.drain()
                    return
            if not line.endswith(b"\n"):
                return
            writer.write(_line(await _answer(line, actor, handler)))
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()
    except (OSError, TimeoutError):
        return
    finally:
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()  # what a client does not read is not waited for
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _line(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


async def _answer(line: bytes, actor: str, handler: Handler) -> Answer:
    try:
        command = _commands.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return Refused(kind="CommandError", message=f"this is not a command: {error}")
    if command.expires_unix_s < time.time():
        return Refused(kind="CommandError", message="the command came too late and was not done")
    try:
        return await handler(command, actor)
    except LabctlError as error:
        return refusal(error)
    except Exception as error:
        log.exception("a command failed: %r", command.request)
        return Refused(
            kind="CommandError",
            message=f"an internal error, see the daemon's log: {error!r}; 'labctl status' shows "
            "what was done",
        )


def _actor(writer: asyncio.StreamWriter) -> str:
    sock: socket.socket = writer.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _listen(path: Path) -> socket.socket:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(path)
    except OSError as error:
        raise CommandError(f"the control socket {path} cannot be made: {error}") from error
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        with _short(path) as address:
            sock.bind(address)
    except OSError as error:
        sock.close()
        raise CommandError(f"the control socket {path} cannot be made: {error}") from error
    finally:
        os.umask(before)
    return sock


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path in a form that fits the 107 bytes of a socket's address, however deep it lies."""
    if len(os.fsencode(path)) <= 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
