"""A simulated rack on a socket with two cells, and drivers to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from labctl.clock import VirtualClock
from labctl.drivers.base import Followed, Started
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.model import Readings
from labctl.program import (
    Comparison,
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    EndCondition,
    Limits,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.neware_bts.rack import CellInChannel, Rack, RackConfig, serve_rack

RULE = RecordRule(every_s=2.0, voltage_change_V=0.05)
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)


def until(quantity: Quantity, comparison: str, value: float) -> tuple[EndCondition, ...]:
    return (EndCondition(quantity, Comparison(comparison), value),)


PROGRAM = Program(
    name="rate test",
    recipe_sha256="0",
    cell="HEV-01",
    body=(
        Step(0, "rest", Rest(), until(Quantity.STEP_TIME_S, ">=", 60.0), RecordRule(10.0)),
        Loop(
            2,
            (
                Loop(
                    2,
                    (
                        Step(
                            1,
                            "charge",
                            ConstantCurrent(2e-3),
                            until(Quantity.VOLTAGE_V, ">=", 4.1),
                            RULE,
                        ),
                        Step(
                            2,
                            "discharge",
                            ConstantCurrent(-2e-3),
                            until(Quantity.VOLTAGE_V, "<=", 1.5),
                            RULE,
                        ),
                    ),
                    counts_cycles=True,
                ),
                Step(
                    3,
                    "full charge",
                    ConstantCurrentConstantVoltage(2e-3, 4.0),
                    until(Quantity.CURRENT_A, "<=", 4e-4),
                    RULE,
                ),
                Step(
                    4,
                    "hold",
                    ConstantVoltage(2.0, 4e-3, charging=False),
                    until(Quantity.STEP_TIME_S, ">=", 30.0),
                    RULE,
                ),
            ),
        ),
    ),
    limits=LIMITS,
)
LONG = msgspec.structs.replace(
    PROGRAM, body=(PROGRAM.body[0], msgspec.structs.replace(PROGRAM.body[1], count=50))
)
VISITS = [0, 1, 2, 1, 2, 3, 4, 1, 2, 1, 2, 3, 4]


def rack_config(*, speed: str = "virtual", **options: object) -> RackConfig:
    return RackConfig(
        port=0,
        speed=speed,
        epoch_unix_s=1_800_000_000.0,
        cells=tuple(
            CellInChannel(
                channel,
                CellSpec(name=f"HEV-0{number}", material="HE-V", active_mass_g=0.002, seed=number),
            )
            for number, channel in enumerate(("1-1", "1-2"), start=1)
        ),
        **options,  # type: ignore[arg-type]
    )


class Lab:
    """A rack, and drivers to it."""

    def __init__(self, rack: Rack, folder: Path) -> None:
        self.rack = rack
        self.folder = folder
        self.drivers: list[NewareBts] = []

    def new_driver(self, **options: object) -> NewareBts:
        config = NewareConfig(
            host="127.0.0.1",
            port=self.rack.port,
            step_file_dir=str(self.folder),
            reply_timeout_s=20.0,
            **options,  # type: ignore[arg-type]
        )
        driver = NewareBts(config, name="rack 1", clock=VirtualClock(1_800_000_000.0))
        self.drivers.append(driver)
        return driver


@contextlib.asynccontextmanager
async def lab_in(folder: Path, **options: Any) -> AsyncIterator[Lab]:
    async with serve_rack(rack_config(**options)) as rack:
        lab = Lab(rack, folder)
        try:
            yield lab
        finally:
            for driver in lab.drivers:
                await driver.close()


async def follow_to_the_end(
    driver: NewareBts, started: Started, program: Program = PROGRAM, next_index: int = 1
) -> tuple[Readings, Followed]:
    blocks = [Readings()]
    async with asyncio.timeout(30):
        while True:
            followed = await driver.follow(started, program, next_index)
            blocks.append(followed.readings)
            next_index = followed.next_index
            if followed.complete:
                return joined(blocks), followed


def joined(blocks: list[Readings]) -> Readings:
    return Readings(
        *(
            np.concatenate([getattr(block, column.name) for block in blocks])
            for column in fields(Readings)
        )
    )


def visits_of(readings: Readings) -> list[tuple[int, int]]:
    marks = zip(readings.step.tolist(), readings.pass_mark.tolist(), strict=True)
    return [mark for mark, _ in itertools.groupby(marks)]


async def begun(driver: NewareBts, program: Program = PROGRAM, channel: str = "21-1-1") -> Started:
    return await driver.start(await driver.arm(channel, program, f"run-{channel}"))
