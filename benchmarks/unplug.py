"""Every instrument unplugged in the middle of a step, many times, and what became of the run.

A run of a sweep, a charge, a rest and a discharge; at a moment drawn by the seed the instrument's
socket is closed and refuses, or its terminal is gone. It stays away for a short or a long time, or
for ever, and comes back working on, switched off, or as another of its kind (a rack that calls
itself the same and runs a test of the same number). Then the run must go on with what it missed
recorded, or be held and say why.

    .venv/bin/python benchmarks/unplug.py [--times 12] [--seed 1] [--on keithley] [--jobs 4]

Readings are counted by their numbers: ``lost`` are numbers that are not in the archive, and records
of a rack that are not; ``doubled`` are readings that are there twice. ``silent`` is charge that
passed through the cell, is not in the archive, and of which no gap tells.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from laboratory import (
    Kind,
    Laboratory,
    PotentiostatStand,
    RackStand,
    keithley,
    laboratory,
    neware,
    palmsens,
    until,
)

from labctl.clock import Clock
from labctl.control import ReleaseRun
from labctl.engine.runner import Runner
from labctl.errors import CommandError, LinkError

RECIPE = """
recipe: Unplugged
limits: {voltage: 1.0 V .. 4.4 V, current: 6 mA, duration: 1 d}
record: {every: 10 s, voltage_change: 10 mV}
steps:
  - sweep: {to: 3.3 V, at: 3 mV/s, direction: up, max_current: 5 mA}
  - charge: {at: 5C, until: 4.1 V}
  - rest: 4 min
  - discharge: {at: 5C, until: 1.5 V}
"""
LIMITS_V = (1.0, 4.4)
STEPS = ("sweep", "charge", "rest", "discharge")
BEGINS_S = {"sweep": 0.0, "charge": 250.0, "rest": 1055.0, "discharge": 1295.0}
"""When the cell comes to a step, about."""
LONGEST_STEP_S = 200.0
"""Moments are drawn from so much of a step: each lasts longer."""

Absence = Literal["short", "long", "never", "none"]
Return = Literal["running", "off", "another"]

AWAY_S: dict[str, dict[str, float]] = {
    "neware": {"short": 60.0, "long": 1200.0},
    "keithley": {"short": 4.0, "long": 120.0},
    "palmsens": {"short": 30.0, "long": 1200.0},
    "palmsens-usb": {"short": 30.0, "long": 1200.0},
}
"""By the instrument's time. A SourceMeter's watchdog opens its output after 12 s."""

KINDS: dict[str, tuple[Kind, str]] = {
    "neware": (neware(), "300"),
    "keithley": (keithley(), "virtual"),
    "palmsens": (palmsens(), "300"),
    "palmsens-usb": (palmsens(powered_by_line=True), "300"),
}
"""With the speed of its time. The last one has its power from the cable that is pulled."""

NEVER_S = 20.0
"""How long, by the wall, an instrument that never comes back is waited for here."""
LATEST_S = 120.0
"""By the wall; what has come to nothing by then never will."""
SAME_CHARGE = 2e-3
"""What a reading of charge may be wrong by, over a run, as a share of all that passed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to a run. ``share``: of the step that has passed when the plug is pulled."""

    kind: str
    step: str
    share: float
    absence: Absence
    back: Return
    other_number: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    became: ``resumed``, ``held``, ``ended``, or ``away`` where it never came back. said_s, held_s:
    how long after the pull, by the wall, the status named the trouble and the run was held. ended:
    its last state. unseen_mAh: charge that passed and is not in the archive.
    """

    plan: Plan
    became: str
    why: str
    said_s: float
    held_s: float
    ended: str
    gaps: int
    lost: int
    doubled: int
    unseen_mAh: float
    silent: bool
    highest_V: float
    lowest_V: float
    problems: tuple[str, ...] = ()
    told: tuple[tuple[str, bool], ...] = ()
    """Conditions that were journalled, with whether they began to hold."""

    @property
    def well(self) -> bool:
        """Whether it is one of the things that may become of a run."""
        low_V, high_V = LIMITS_V
        safe = self.lowest_V >= low_V and self.highest_V <= high_V
        known = self.became in {"resumed", "held"} or (self.became == "away" and self.said_s >= 0)
        if self.plan.back == "another" and self.plan.absence != "never":
            known = self.became == "held"
        whole = not (self.lost or self.doubled or self.silent or self.problems)
        return known and safe and whole


def drawn(kind: str, times: int, seed: int) -> list[Plan]:
    """So many plans, the same for a seed; every step and every return comes in turn."""
    dice = random.Random(f"{seed} {kind}")
    plans: list[Plan] = []
    absences: tuple[Absence, ...] = ("short", "long")
    backs: tuple[Return, ...] = ("running", "off", "another")
    for place in range(times):
        never = place % 12 == 11
        plan = Plan(
            kind,
            STEPS[place % len(STEPS)],
            dice.random(),
            "never" if never else dice.choice(absences),
            backs[place // len(STEPS) % len(backs)],
            other_number=dice.random() < 0.5,
        )
        plans.append(plan)
    return plans


class Unplugging:
    """One plan, carried out in a laboratory."""

    def __init__(self, lab: Laboratory, plan: Plan, usual_mAh: float) -> None:
        self._lab = lab
        self._usual_Ah = usual_mAh * 1e-3
        self._plan = plan
        self._clock: Clock = next(iter(lab.node.instruments.values())).clock
        self._pulled_s = 0.0
        self.said_s = self.held_s = -1.0

    async def do(self) -> Outcome:
        """Pull the plug, put it back, and see what becomes of the run."""
        lab, plan = self._lab, self._plan
        run = await lab.start("unplugged", text=RECIPE)
        if plan.absence == "none":
            await until(lambda: run.checkpoint.state.ended, at_most_s=LATEST_S)
            return await self._outcome(run, "resumed", "")
        await self._until_moment(run)
        stand = lab.stand
        if plan.other_number and isinstance(stand, PotentiostatStand):
            await stand.unplug()
            stand.take_its_number()
        await stand.unplug()
        self._pulled_s = time.monotonic()
        watching = asyncio.create_task(self._watch(run))
        try:
            if plan.absence == "never":
                await self._lives_on(AWAY_S[plan.kind]["long"])
                await asyncio.sleep(NEVER_S)
                became, why = "away", run.link_error
                if run.checkpoint.state == "held":
                    became, why = "held", run.checkpoint.reason
                await self._put_back()
            else:
                await self._lives_on(AWAY_S[plan.kind][plan.absence])
                if plan.back == "off":
                    await stand.power_cut()
                if plan.back == "another":
                    await stand.become_another()
                await stand.plug()
                became, why = await self._what_becomes(run)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self._to_the_end(run)
        return await self._outcome(run, became, why)

    async def _until_moment(self, run: Runner) -> None:
        """By the laboratory's clock: the journal is some seconds behind."""
        await until(lambda: run.checkpoint.place.visit > 0, at_most_s=LATEST_S, every_s=0.002)
        inside_s = 15.0 + self._plan.share * (LONGEST_STEP_S - 15.0)
        at_s = self._clock.monotonic_s() + BEGINS_S[self._plan.step] + inside_s
        await until(
            lambda: run.checkpoint.state.ended or self._clock.monotonic_s() >= at_s,
            at_most_s=LATEST_S,
            every_s=0.001,
        )
        if run.checkpoint.state.ended:
            raise RuntimeError("the run was over before its cable was pulled")

    async def _lives_on(self, duration_s: float) -> None:
        """Let the laboratory's time pass while nobody hears the instrument."""
        await self._clock.sleep(duration_s)

    async def _put_back(self) -> None:
        await self._lab.stand.become_itself()
        await self._lab.stand.plug()

    async def _watch(self, run: Runner) -> None:
        while True:
            since_s = time.monotonic() - self._pulled_s
            if run.link_error and self.said_s < 0:
                self.said_s = since_s
            if run.checkpoint.state == "held" and self.held_s < 0:
                self.held_s = since_s
            await asyncio.sleep(0.02)

    async def _what_becomes(self, run: Runner) -> tuple[str, str]:
        """How the run takes it that something is there again."""
        before = run.checkpoint.place.seq

        def decided() -> bool:
            checkpoint = run.checkpoint
            goes_on = checkpoint.place.seq > before and not run.link_error
            goes_on = goes_on and self._plan.back != "another"
            return checkpoint.state.ended or checkpoint.state == "held" or goes_on

        await _soon(decided)
        state, reason = run.checkpoint.state, run.checkpoint.reason
        if state == "held":
            if self.held_s < 0:
                self.held_s = time.monotonic() - self._pulled_s
            return "held", reason
        if state.ended and state != "completed":
            return "ended", f"{state}: {reason}"
        if not state.ended and not decided():
            return "stuck", run.link_error
        return "resumed", ""

    async def _to_the_end(self, run: Runner) -> None:
        """A person sees to it: the right instrument is back, and a held run is let go on."""
        if run.checkpoint.state == "held" and self._plan.back == "another":
            await self._lab.stand.unplug()
            await self._put_back()
        for _ in range(5):
            if run.checkpoint.state == "held":
                try:
                    await self._lab.tell(ReleaseRun(run=run.charter.run, reason="it is back"))
                except (CommandError, LinkError):
                    await asyncio.sleep(1.0)
            await _soon(lambda: run.checkpoint.state.ended or run.checkpoint.state == "held")
            if run.checkpoint.state.ended:
                return

    async def _outcome(self, run: Runner, became: str, why: str) -> Outcome:
        name, seen = run.charter.run, self._lab.stand.seen
        with await self._lab.archive() as archive:
            samples = archive.samples(name)
            events = archive.events(name)
            steps = archive.steps(name)
            problems = archive.verify(name).problems
        numbers = samples.index.to_numpy()
        columns = samples[["visit", "test_time_s", "voltage_V", "current_A"]].to_numpy()
        lost = int(run.checkpoint.place.seq) - len(np.unique(numbers))
        doubled = int((np.diff(columns, axis=0) == 0).all(axis=1).sum())
        doubled += int((np.diff(columns[:, 1]) < 0).sum())
        gaps = int((events["kind"] == "gap_recorded").sum())
        watched = events.loc[events["kind"] == "condition_changed", "detail"]
        unseen_Ah = 0.0
        if isinstance(self._lab.stand, RackStand):
            lost += self._lab.stand.records() - len(numbers)
        else:
            unseen_Ah = abs(seen.charged_Ah - float(steps["charge_Ah"].sum()))
            unseen_Ah += abs(seen.discharged_Ah - float(steps["discharge_Ah"].sum()))
        passed_Ah = seen.charged_Ah + seen.discharged_Ah
        more_Ah = unseen_Ah - self._usual_Ah
        silent = more_Ah > SAME_CHARGE * passed_Ah and not gaps and became != "held"
        return Outcome(
            plan=self._plan,
            became=became,
            why=why,
            said_s=self.said_s,
            held_s=self.held_s,
            ended=str(run.checkpoint.state),
            gaps=gaps,
            lost=lost,
            doubled=doubled,
            unseen_mAh=unseen_Ah * 1e3,
            silent=silent,
            highest_V=seen.highest_V,
            lowest_V=seen.lowest_V,
            problems=tuple(str(problem) for problem in problems),
            told=tuple((str(one["condition"]), bool(one["holds"])) for one in watched),
        )


async def unplugged(plan: Plan, folder: Path, usual_mAh: float = 0.0) -> Outcome:
    """Carry out a plan in ``folder``. ``usual_mAh``: what is not seen of an undisturbed run."""
    kind, speed = KINDS[plan.kind]
    async with laboratory(folder, kind, speed=speed, poll_s=5.0) as lab:
        return await Unplugging(lab, plan, usual_mAh).do()


def undisturbed(kind: str) -> Plan:
    """A run that nothing is done to: what is not seen of its charge is what the instrument is
    wrong by, as on the stairs of a sweep."""
    return Plan(kind, STEPS[0], 0.0, "none", "running")


async def _soon(condition: Callable[[], bool]) -> None:
    try:
        await until(condition, at_most_s=LATEST_S)
    except TimeoutError:
        return


def _done(given: tuple[Plan, float]) -> Outcome:
    """In a process of its own."""
    plan, usual_mAh = given
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LABCTL_LOCK_DIR"] = str(Path(folder) / "locks")
        outcome = asyncio.run(unplugged(plan, Path(folder) / "lab", usual_mAh))
    said = f"{plan.kind} {plan.step} {plan.share:.2f} {plan.absence} {plan.back}"
    print(f"{said}: {outcome.became} -> {outcome.ended} gaps {outcome.gaps} "
          f"{outcome.why}{'' if outcome.well else '   NOT WELL'}",
          file=sys.stderr, flush=True)  # fmt: skip
    return outcome


def say(outcomes: list[Outcome]) -> None:
    """The table."""
    print(
        f"{'instrument':14}{'came back':22}{'times':>6}{'resumed':>9}{'held':>6}{'away':>6}"
        f"{'other':>7}{'gaps':>6}{'lost':>6}{'doubled':>9}{'silent':>8}{'unseen':>12}"
        f"{'said in':>9}{'held in':>9}"
    )
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for each in outcomes:
        how: str = "never" if each.plan.absence == "never" else each.plan.back
        groups.setdefault((each.plan.kind, how), []).append(each)
    for (kind, how), some in groups.items():
        became = Counter(each.became for each in some)
        other = len(some) - became["resumed"] - became["held"] - became["away"]
        print(
            f"{kind:14}{how:22}{len(some):6}{became['resumed']:9}{became['held']:6}"
            f"{became['away']:6}{other:7}{sum(each.gaps for each in some):6}"
            f"{sum(each.lost for each in some):6}{sum(each.doubled for each in some):9}"
            f"{sum(each.silent for each in some):8}"
            f"{max(each.unseen_mAh for each in some):8.4f} mAh"
            f"{max(each.said_s for each in some):7.1f} s{max(each.held_s for each in some):7.1f} s"
        )
    print("\nunseen: the most in one run, by the side of the cell's 0.34 mAh")
    highest_V = max(each.highest_V for each in outcomes)
    lowest_V = min(each.lowest_V for each in outcomes)
    print(f"voltages of all cells, ever: {lowest_V:.4f} to {highest_V:.4f} V")
    bad = [each for each in outcomes if not each.well]
    print(f"{len(outcomes)} times unplugged, {len(bad)} times not well")
    for each in bad:
        print(f"  {each}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=12, help="for each instrument")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--on", default="", help=f"of {','.join(KINDS)}")
    parser.add_argument("--jobs", type=int, default=4)
    wanted = parser.parse_args()
    names = [name for name in KINDS if not wanted.on or name in wanted.on.split(",")]
    plans = [plan for name in names for plan in drawn(name, wanted.times, wanted.seed)]
    with ProcessPoolExecutor(wanted.jobs) as pool:
        quiet = pool.map(_done, [(undisturbed(name), 0.0) for name in names])
        usual = {each.plan.kind: each.unseen_mAh for each in quiet}
        outcomes = list(pool.map(_done, [(plan, usual[plan.kind]) for plan in plans]))
    say(outcomes)
    for name, value_mAh in usual.items():
        print(f"{name}, undisturbed: {value_mAh:.4f} mAh that passed are not in the archive")


if __name__ == "__main__":
    main()
