"""A climate chamber unplugged in the middle of a step, many times, and what became of the run.

A cell on a SourceMeter, in an Espec chamber behind a real socket; both in virtual time. The recipe
warms the chamber, charges, rests and discharges, half of the times with limits of temperature. At a
moment drawn by the seed the chamber's socket is closed and refuses. It stays away for 30 s, for
five minutes or for ever, and comes back as it was, switched off, or as another one. Then

- a run with limits of temperature must end as tripped once nothing was known for a minute: a cell
  is not left without the watch that its recipe asks for;
- one without goes on, with no temperature in its readings; a step that waits for the chamber waits;
- in each case the status has to say so, and no reading may carry a temperature older than a minute.

    .venv/bin/python benchmarks/unplug_chamber.py [--times 12] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from laboratory import INSTRUMENT, Laboratory, keithley, laboratory, until

from labctl.daemon.status import status_of
from labctl.engine.runner import Runner
from labctl.simulators.espec.config import ChamberConfig
from labctl.simulators.espec.server import SimulatedChamber, serve_chamber

RECIPE = """
recipe: In a chamber
limits: {{voltage: 1.0 V .. 4.4 V, current: 6 mA, {limits}duration: 1 d}}
record: {{every: 5 s}}
steps:
  - temperature: {{to: 32 degC, within: 0.5 K, settle: 3 min, at_most: 1 h, record: {{every: 5 s}}}}
  - charge: {{at: 0.5C, for: 8 min}}
  - rest: 8 min
  - discharge: {{at: 0.5C, for: 8 min}}
"""
LIMITS = "temperature: 5 degC .. 60 degC, "
STEPS = ("temperature", "charge", "rest", "discharge")
STEP_S = 120.0
"""Moments are drawn from so much of a step: each lasts longer."""
AWAY_S = {"short": 30.0, "long": 300.0}
STALE_S = 60.0
"""A run may carry the last temperature for so long."""
NEVER_S = 15.0
"""By the wall: how long a run is watched whose chamber does not come back."""
STANDS_STILL_S = 12.0
"""By the wall: how long at the most it is away while a step waits for it, which takes no time."""
LATEST_S = 60.0
ROM, OTHER_ROM = "PR3J VER1.10", "PR3J VER9.99"

Absence = Literal["short", "long", "never"]
Return = Literal["running", "off", "another"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done. ``limits``: whether the recipe has limits of temperature."""

    step: str
    share: float
    absence: Absence
    back: Return
    limits: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; times by the wall, ``unknown``: readings without a temperature."""

    plan: Plan
    ended: str
    why: str
    said_s: float
    readings: int
    unknown: int
    lost: int
    problems: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether it is one of the things that may become of a run."""
        away_long = self.plan.absence != "short" or self.plan.back == "another"
        waits = self.plan.step == "temperature"
        tripped = self.ended == "tripped" and "temperature" in self.why
        if self.plan.limits and away_long and not waits:
            as_it_must = tripped
        elif self.plan.absence == "never" or self.plan.back == "another":
            as_it_must = self.ended in {"running", "completed"} or (self.plan.limits and tripped)
        else:
            as_it_must = self.ended == "completed" or (self.plan.limits and tripped)
        said = self.said_s >= 0 or self.plan.absence == "short"
        return as_it_must and said and not self.lost and not self.problems


def drawn(times: int, seed: int) -> list[Plan]:
    """So many plans, the same for a seed; every step, return and absence comes in turn."""
    dice = random.Random(seed)
    backs: tuple[Return, ...] = ("running", "off", "another")
    plans: list[Plan] = []
    for place in range(times):
        absence: Absence = "never" if place % 12 == 11 else ("short", "long")[place % 2]
        plans.append(
            Plan(
                STEPS[place % 4], dice.random(), absence, backs[place // 4 % 3],
                limits=place // 2 % 2 == 0,
            )
        )  # fmt: skip
    return plans


async def carried_out(plan: Plan, folder: Path) -> Outcome:
    """Carry out a plan in ``folder``."""
    config = ChamberConfig(port=0, time_port=0, speed="virtual", rom=ROM)
    async with serve_chamber(config) as oven:
        kind = keithley()
        options = {**kind.options, "chamber": "oven", "temperature_watched_elsewhere": True}
        more = f"""
[instruments.oven]
driver = "espec"
host = "127.0.0.1"
port = {oven.port}
time = "127.0.0.1:{oven.time_port}"
rom = "{ROM}"
monitor_pause_s = 0.0
setting_pause_s = 0.0
reply_timeout_s = 1.0
"""
        with_chamber = dataclasses.replace(kind, options=options)
        async with laboratory(folder, with_chamber, more=more) as lab:
            return await _unplug(lab, oven, plan)


async def _unplug(lab: Laboratory, oven: SimulatedChamber, plan: Plan) -> Outcome:
    await lab.node.instruments["oven"].ready.wait()
    text = RECIPE.format(limits=LIMITS if plan.limits else "")
    run = await lab.start("chamber", text=text)
    clock = lab.node.instruments[INSTRUMENT].clock
    visit = 1 + STEPS.index(plan.step)
    await until(
        lambda: run.checkpoint.place.visit >= visit or run.checkpoint.state.ended,
        at_most_s=LATEST_S,
        every_s=0.001,
    )
    at_s = clock.monotonic_s() + plan.share * STEP_S
    await until(lambda: clock.monotonic_s() >= at_s, at_most_s=LATEST_S, every_s=0.001)
    await oven.unplug()
    pulled_s = time.monotonic()
    said = asyncio.create_task(_said(lab, run, pulled_s))
    if plan.absence != "never":
        # The run moves the time; to sleep on its clock would move it past the source's watchdog.
        back_s = clock.monotonic_s() + AWAY_S[plan.absence]
        with contextlib.suppress(TimeoutError):
            await until(
                lambda: clock.monotonic_s() >= back_s or run.checkpoint.state.ended,
                at_most_s=STANDS_STILL_S,
                every_s=0.001,
            )
        if plan.back == "off":
            await oven.power_cut()
        if plan.back == "another":
            chamber = oven.chamber
            chamber.config = msgspec.structs.replace(chamber.config, rom=OTHER_ROM)
        await oven.plug()
    gone = plan.absence == "never" or plan.back == "another"
    with contextlib.suppress(TimeoutError):
        await until(lambda: run.checkpoint.state.ended, at_most_s=NEVER_S if gone else LATEST_S)
    said.cancel()
    said_s = (await asyncio.gather(said, return_exceptions=True))[0]
    name = run.charter.run
    with await lab.archive() as archive:
        samples = archive.samples(name)
        problems = archive.verify(name).problems if run.checkpoint.state.ended else ()
    lost = int(run.checkpoint.place.seq) - len(np.unique(samples.index.to_numpy()))
    return Outcome(
        plan=plan,
        ended=str(run.checkpoint.state),
        why=run.checkpoint.reason or run.link_error,
        said_s=said_s if isinstance(said_s, float) else -1.0,
        readings=len(samples),
        unknown=int(samples["temperature_degC"].isna().sum()),
        lost=lost,
        problems=tuple(str(problem) for problem in problems),
    )


async def _said(lab: Laboratory, run: Runner, pulled_s: float) -> float:
    """How long after the pull somebody who looks could see it."""
    while True:
        status = await status_of(lab.node)
        chamber = next(one for one in status.instruments if one.name == "oven")
        if chamber.problem or run.link_error or run.checkpoint.state.ended:
            return time.monotonic() - pulled_s
        await asyncio.sleep(0.02)


def say(outcomes: list[Outcome]) -> None:
    """The table."""
    print(
        f"{'came back':12}{'limits':>8}{'times':>7}{'completed':>11}{'tripped':>9}{'running':>9}"
        f"{'readings lost':>15}{'without temperature':>21}{'said in':>9}"
    )
    groups: dict[tuple[str, bool], list[Outcome]] = {}
    for each in outcomes:
        how: str = "never" if each.plan.absence == "never" else each.plan.back
        groups.setdefault((how, each.plan.limits), []).append(each)
    for (how, limits), some in groups.items():
        ended = Counter(each.ended for each in some)
        print(
            f"{how:12}{'yes' if limits else 'no':>8}{len(some):7}{ended['completed']:11}"
            f"{ended['tripped']:9}{ended['running']:9}{sum(each.lost for each in some):15}"
            f"{sum(each.unknown for each in some):12} of {sum(each.readings for each in some):5}"
            f"{max(each.said_s for each in some):7.1f} s"
        )
    bad = [each for each in outcomes if not each.well]
    print(f"{len(outcomes)} times unplugged, {len(bad)} times not well")
    for each in bad:
        print(f"  {each}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["running", "off", "another"])
    wanted = parser.parse_args()
    logging.disable(logging.CRITICAL)
    outcomes = []
    for plan in drawn(wanted.times, wanted.seed):
        if wanted.only and (plan.back != wanted.only or plan.absence == "never"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LABCTL_LOCK_DIR"] = str(Path(folder) / "locks")
            outcomes.append(asyncio.run(carried_out(plan, Path(folder) / "lab")))
        last = outcomes[-1]
        print(f"{plan}: {last.ended} {last.why}", file=sys.stderr, flush=True)
    say(outcomes)


if __name__ == "__main__":
    main()
