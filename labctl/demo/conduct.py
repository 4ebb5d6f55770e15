"""Conducting the demo: the commands that a technician types, and a look at what comes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import aiomqtt

from labctl.control import (
    Done,
    GetStatus,
    RegisterCell,
    SendSignal,
    StartRun,
    Status,
    ask,
)
from labctl.demo.study import Study
from labctl.errors import CommandError, LinkError, StreamError
from labctl.protocols.recipe import file_loader, read_recipe, shipped_recipes
from labctl.settings import Settings
from labctl.stream.topics import ALL_ALARMS, ALL_CYCLES, AlarmState, CycleSummary, decode

_AGAIN_S: Final = 0.25
_DEAF_S: Final = 60.0
READY: Final = "diffractometer-ready"
CONFIRM: Final = "confirm"
PROMPT: Final = "waits for an operator"
OPERANDO: Final = "Operando at 0.1C"


@dataclass(slots=True)
class Heard:
    """What MQTT said while the demo ran."""

    alarms: dict[tuple[str, str], AlarmState] = field(default_factory=dict)
    cycles: dict[tuple[str, int], CycleSummary] = field(default_factory=dict)


Result = TypeVar("Result")
Look = Callable[[Status, Heard], None]


async def conduct(
    settings: Settings,
    study: Study,
    look: Look,
    *,
    look_every_s: float = 0.25,
) -> Heard:
    """Register the cells, start the recipes, be the operator and the diffractometer, and watch
    until the archive has everything.

    Done again after an interruption, it starts nothing twice.
    """
    heard = Heard()
    async with _listening(settings, heard):
        await _patiently(lambda: _register(settings, study))
        await _patiently(lambda: _start(settings, study))
        while True:
            status = await _patiently(lambda: ask(settings.socket, GetStatus(), Status))
            look(status, heard)
            if all(run.ended for run in status.runs) and not status.unconfirmed_batches:
                break
            await _lend_a_hand(settings, study, status)
            await asyncio.sleep(look_every_s)
        # The archive says what it found after it has confirmed what it committed.
        await asyncio.sleep(2 * _AGAIN_S)
        look(status, heard)
    return heard


async def _register(settings: Settings, study: Study) -> None:
    for each in study.cells:
        await ask(settings.socket, RegisterCell(cell=each.cell), Done)


async def _start(settings: Settings, study: Study) -> None:
    status = await ask(settings.socket, GetStatus(), Status)
    away = [each for each in status.instruments if not each.connected]
    if away:
        raise LinkError(f"instrument {away[0].name} is away: {away[0].problem}")
    begun = {(run.cell, run.recipe) for run in status.runs}
    shipped = shipped_recipes()
    for work in study.works:
        path = shipped[work.recipe]
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        recipe = await asyncio.to_thread(read_recipe, text, file=path.name, load=file_loader(path))
        if (work.cell.cell.name, recipe.name) in begun:
            continue
        request = StartRun(
            recipe_text=text,
            recipe_file=path.name,
            included=dict(recipe.included),
            cell=work.cell.cell.name,
            instrument=work.cell.instrument,
            channel=work.cell.channel,
            parameters=work.parameters,
            queue=True,
        )
        await ask(settings.socket, request, Done)


async def _lend_a_hand(settings: Settings, study: Study, status: Status) -> None:
    """What a person and a diffractometer do in the laboratory while the recipes run."""
    ended = {run.cell for run in status.runs if run.ended}
    built_from = {each.cell.name: each.built_from for each in study.cells}
    for run in status.runs:
        name = ""
        if READY in run.waits_for:
            name = READY
        elif PROMPT in run.waits_for and built_from.get(run.cell, "") in {"", *ended}:
            name = CONFIRM
        elif run.recipe == OPERANDO and run.cycle and run.state == "running":
            name = f"pattern-{run.seq:05d}"
        if name and not run.ended:
            with suppress(LinkError, CommandError):
                await ask(settings.socket, SendSignal(name=name, run=run.run), Done)


async def _patiently(work: Callable[[], Awaitable[Result]]) -> Result:
    """Try again while a process is still starting, or was killed and starts again."""
    deadline_s = time.monotonic() + _DEAF_S
    while True:
        try:
            return await work()
        except LinkError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def _listening(settings: Settings, heard: Heard) -> AsyncIterator[None]:
    """Hear cycles and alarms as any other MQTT client would."""
    listening = asyncio.create_task(_listen(settings, heard), name="listen")
    try:
        yield
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


async def _listen(settings: Settings, heard: Heard) -> None:
    while True:
        with suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(
                settings.mqtt.host,
                settings.mqtt.port,
                protocol=aiomqtt.ProtocolVersion.V311,
            ) as client:
                for topics in (ALL_CYCLES, ALL_ALARMS):
                    await client.subscribe(topics, qos=1)
                async for message in client.messages:
                    _hear(message, heard)
        await asyncio.sleep(_AGAIN_S)


def _hear(message: aiomqtt.Message, heard: Heard) -> None:
    with suppress(StreamError):
        if message.topic.matches(ALL_ALARMS):
            alarm = decode(message.payload, AlarmState)
            heard.alarms[alarm.run, alarm.rule] = alarm
        else:
            cycle = decode(message.payload, CycleSummary)
            heard.cycles[cycle.run, cycle.cycle] = cycle
