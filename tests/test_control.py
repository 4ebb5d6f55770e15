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


@pytest.mark.parametrize("line", [b"hello\n", b"{}\n", b"\xff\xfe\n", b"[" * 5000 + b"\n"])
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
