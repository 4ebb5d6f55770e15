"""The door to the daemon: who may come in, what is answered, and what is not done twice."""

from __future__ import annotations

import asyncio
import getpass
import stat
import time
from pathlib import Path

import msgspec
import pytest

from labctl.control import (
    LONGEST_LINE_B,
    Answer,
    Command,
    Done,
    GetStatus,
    RegisterCell,
    Status,
    StopRun,
    ask,
    serve_control,
)
from labctl.errors import CommandError, LinkError, Problem, ProblemsError, RecipeError
from labctl.model import Cell

STOP = StopRun(run="r")


class Heard:
    """A handler that remembers who asked for what."""

    def __init__(self, answer: Answer | Exception) -> None:
        self.answer = answer
        self.commands: list[tuple[Command, str]] = []

    async def __call__(self, command: Command, actor: str) -> Answer:
        self.commands.append((command, actor))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_command_is_carried_out_for_whom_the_kernel_names(tmp_path: Path) -> None:
    heard = Heard(Done(run="r", message="stopping"))
    async with serve_control(tmp_path / "s", heard):
        done = await ask(tmp_path / "s", STOP, Done)
    [(command, actor)] = heard.commands
    assert done.message == "stopping"
    assert command.request == STOP
    assert actor == getpass.getuser()


async def test_a_cell_arrives_as_it_was_registered(tmp_path: Path) -> None:
    heard = Heard(Done())
    cell = Cell(
        name="HEV-1",
        material="HE-V",
        active_mass_g=2e-3,
        one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0,
        safe_voltage_max_V=4.5,
        parents=("HC-1",),
    )
    async with serve_control(tmp_path / "s", heard):
        await ask(tmp_path / "s", RegisterCell(cell=cell), Done)
    assert heard.commands[0][0].request == RegisterCell(cell=cell)


async def test_a_refusal_comes_back_as_an_error(tmp_path: Path) -> None:
    async with serve_control(tmp_path / "s", Heard(CommandError("the channel is taken"))):
        with pytest.raises(CommandError, match="the channel is taken"):
            await ask(tmp_path / "s", STOP, Done)


async def test_the_mistakes_in_a_recipe_come_back_with_their_places(tmp_path: Path) -> None:
    problem = Problem("unknown key 'untl'", "a.yaml", 3, 7, "  untl: 4 V", 4, "did you mean?")
    async with serve_control(tmp_path / "s", Heard(RecipeError([problem]))):
        with pytest.raises(ProblemsError) as caught:
            await ask(tmp_path / "s", STOP, Done)
    assert caught.value.problems == (problem,)


async def test_without_a_daemon_the_error_says_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="labctl up"):
        await ask(tmp_path / "s", GetStatus(), Status)


async def test_the_socket_is_for_the_owner_and_the_group_alone(tmp_path: Path) -> None:
    async with serve_control(tmp_path / "s", Heard(Done())):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
    assert not (tmp_path / "s").exists()


async def test_a_folder_too_deep_for_a_socket_works_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 80) / ("y" * 80)
    async with serve_control(deep / "control.sock", Heard(Done(message="here"))):
        assert (await ask(deep / "control.sock", STOP, Done)).message == "here"


async def say(path: Path, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_command_that_comes_too_late_is_not_done(tmp_path: Path) -> None:
    heard = Heard(Done())
    late = Command(id="1", expires_unix_s=time.time() - 1, request=STOP)
    async with serve_control(tmp_path / "s", heard):
        answer = await say(tmp_path / "s", msgspec.json.encode(late) + b"\n")
    assert b"too late" in answer
    assert heard.commands == []


@pytest.mark.parametrize(
    "line",
    [b"hello\n", b"{}\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b'{"x":' + b"[" * 100_000 + b"\n"],
)
async def test_nonsense_is_refused_and_the_door_stays_open(tmp_path: Path, line: bytes) -> None:
    async with serve_control(tmp_path / "s", Heard(Done(message="still here"))):
        assert b"not a command" in await say(tmp_path / "s", line)
        assert (await ask(tmp_path / "s", STOP, Done)).message == "still here"


async def test_half_a_command_is_no_command(tmp_path: Path) -> None:
    heard = Heard(Done())
    whole = msgspec.json.encode(Command(id="1", expires_unix_s=9e9, request=STOP))
    async with serve_control(tmp_path / "s", heard):
        assert await say(tmp_path / "s", whole[:-5]) == b""
        assert await say(tmp_path / "s", whole) == b""
    assert heard.commands == []


async def test_a_client_that_never_reads_does_not_keep_the_door_from_closing(
    tmp_path: Path,
) -> None:
    heard = Heard(Done(message="x" * 3_000_000))
    command = msgspec.json.encode(Command(id="1", expires_unix_s=9e9, request=STOP)) + b"\n"
    async with asyncio.timeout(5.0):
        async with serve_control(tmp_path / "s", heard):
            _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"), limit=1)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(command)
            while not heard.commands:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
    writer.transport.abort()


async def test_a_client_that_says_half_a_word_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.control._IDLE_S", 0.05)
    async with serve_control(tmp_path / "s", Heard(Done())):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b'{"id": "1')
        async with asyncio.timeout(5.0):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_of_many_clients_those_too_many_are_told_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.control.MOST_CONNECTIONS", 3)
    async with serve_control(tmp_path / "s", Heard(Done(message="here"))):
        idle = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(3)]
        with pytest.raises((CommandError, LinkError), match=r"3 connections open|did not answer"):
            await ask(tmp_path / "s", STOP, Done)
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(5.0):
            while True:
                try:
                    assert (await ask(tmp_path / "s", STOP, Done)).message == "here"
                    break
                except (CommandError, LinkError):
                    await asyncio.sleep(0.01)


async def test_a_command_that_is_too_long_is_told_so(tmp_path: Path) -> None:
    heard = Heard(Done())
    async with serve_control(tmp_path / "s", heard):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"x" * (LONGEST_LINE_B + 10) + b"\n")
        assert b"more than 4 MiB" in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert heard.commands == []


async def test_a_mistake_inside_the_daemon_is_an_answer_and_not_silence(tmp_path: Path) -> None:
    async with serve_control(tmp_path / "s", Heard(ZeroDivisionError("x / 0"))):
        with pytest.raises(CommandError, match=r"internal error.*ZeroDivisionError"):
            await ask(tmp_path / "s", STOP, Done)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b'{"type": "song"}\n', "of one version"), (b"", "hung up"), (b"x" * 100, "hung up")],
)
async def test_an_answer_that_is_none_is_an_error_that_says_what_to_do(
    tmp_path: Path, answer: bytes, said: str
) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(odd, tmp_path / "s")
    async with server:
        with pytest.raises(LinkError, match=said):
            await ask(tmp_path / "s", STOP, Done)


async def test_a_daemon_that_does_not_answer_in_time_may_still_do_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.control._ANSWER_TIMEOUT_S", 0.05)
    asked = asyncio.Event()

    async def slow(command: Command, actor: str) -> Answer:
        asked.set()
        await asyncio.sleep(3600)
        return Done()

    async with serve_control(tmp_path / "s", slow):
        with pytest.raises(LinkError, match=r"may still do .* 'labctl status'"):
            await ask(tmp_path / "s", STOP, Done)
        assert asked.is_set()
