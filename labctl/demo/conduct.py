"""Conducting the demo: the commands that a technician types, and a look at what comes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import aiomqtt

from labctl.control import (
    Done,
    GetStatus,
    RegisterCell,
    StartRun,
    Status,
    ask,
)
from labctl.demo.bench import RACK
from labctl.demo.cells import DemoCell
from labctl.errors import LinkError, StreamError
from labctl.settings import Settings
from labctl.stream.topics import ALL_ALARMS, ALL_CYCLES, AlarmState, CycleSummary, decode

_AGAIN_S: Final = 0.25
_DEAF_S: Final = 60.0
DEVICE_ID: Final = 21


@dataclass(slots=True)
class Heard:
    """What MQTT said while the demo ran."""

    alarms: dict[tuple[str, str], AlarmState] = field(default_factory=dict)
    cycles: dict[tuple[str, int], CycleSummary] = field(default_factory=dict)


Result = TypeVar("Result")
Look = Callable[[Status, Heard], None]


async def conduct(
    settings: Settings,
    cells: list[DemoCell],
    recipe: Path,
    look: Look,
    *,
    look_every_s: float = 0.25,
) -> Heard:
    """Register the cells, start the recipe on each, and watch until the archive has everything.

    Done again after an interruption, it starts nothing twice.
    """
    heard = Heard()
    async with _listening(settings, heard):
        await _patiently(lambda: _register(settings, cells))
        await _patiently(lambda: _start(settings, cells, recipe))
        while True:
            status = await _patiently(lambda: ask(settings.socket, GetStatus(), Status))
            look(status, heard)
            if all(run.ended for run in status.runs) and not status.unconfirmed_batches:
                break
            await asyncio.sleep(look_every_s)
        # The archive says what it found after it has confirmed what it committed.
        await asyncio.sleep(2 * _AGAIN_S)
        look(status, heard)
    return heard


async def _register(settings: Settings, cells: list[DemoCell]) -> None:
    for each in cells:
        await ask(settings.socket, RegisterCell(cell=each.cell), Done)


async def _start(settings: Settings, cells: list[DemoCell], recipe: Path) -> None:
    status = await ask(settings.socket, GetStatus(), Status)
    running = {run.cell for run in status.runs}
    away = [each for each in status.instruments if not each.connected]
    if away:
        raise LinkError(f"instrument {away[0].name} is away: {away[0].problem}")
    text = await asyncio.to_thread(recipe.read_text, encoding="utf-8")
    for each in cells:
        if each.cell.name in running:
            continue
        request = StartRun(
            recipe_text=text,
            recipe_file=recipe.name,
            cell=each.cell.name,
            instrument=RACK,
            channel=f"{DEVICE_ID}-{each.socket}",
        )
        await ask(settings.socket, request, Done)


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
