"""What a node says of itself."""

from __future__ import annotations

import math
from typing import Final

from labctl import __version__
from labctl.control import InstrumentStatus, RunStatus, Status
from labctl.daemon.node import Instrument, Node
from labctl.engine.runner import Runner

MOST_ENDED_RUNS: Final = 200
"""Of the runs that have ended, the newest so many are told; the archive knows them all."""


_FULL = (
    "the disk of the journal is full: running runs go on as long as what was kept for this lasts, "
    "and no new one begins; make room"
)


async def status_of(node: Node) -> Status:
    """Everything that a person asks about, at this moment."""
    backlog = await node.journal.backlog()
    return Status(
        node=node.settings.node.name,
        source=node.journal.source,
        version=__version__,
        unix_time_s=node.clock.unix_time_s(),
        instruments=tuple(_instrument(each, node) for each in node.instruments.values()),
        runs=(*_runs(node), *_damaged(node)),
        unconfirmed_batches=backlog.batches,
        unconfirmed_bytes=backlog.size_bytes,
        stream_problem="; ".join(
            problem
            for problem in (
                node.journal.problem,
                _FULL if node.journal.disk_is_full else "",
                node.stream_problem,
                node.publisher.status.problem,
            )
            if problem
        ),
    )


def _instrument(instrument: Instrument, node: Node) -> InstrumentStatus:
    """As it was when it was last spoken to: by any of its runs, else when it was identified."""
    problem = instrument.problem
    for runner in node.runners.values():
        if runner.link_down and runner.charter.instrument == instrument.name:
            problem = problem or runner.link_error
    return InstrumentStatus(
        name=instrument.name,
        driver=instrument.kind,
        connected=instrument.ready.is_set() and not problem,
        problem=problem,
        serial=instrument.identity.serial if instrument.identity else "",
        channels=instrument.channels,
    )


def _runs(node: Node) -> list[RunStatus]:
    ended = [run for run, runner in node.runners.items() if runner.checkpoint.state.ended]
    untold = set(ended[:-MOST_ENDED_RUNS])
    return [_run(runner, node) for run, runner in node.runners.items() if run not in untold]


def _damaged(node: Node) -> list[RunStatus]:
    """Runs of which the journal knows no more than the name; they wait for a person."""
    return [
        RunStatus(
            run=what,
            cell="",
            instrument="",
            channel="",
            recipe="",
            state="damaged",
            reason=f"{problem}; see with your own eyes what its channel does",
            ended=False,
            cycle=0,
            cycle_count=0,
            visit=0,
            visit_count=0,
            step=0,
            label="",
            seq=0,
            test_time_s=0.0,
            voltage_V=None,
            current_A=None,
            link_error="",
        )
        for what, problem in node.journal.damaged.items()
    ]


def _run(runner: Runner, node: Node) -> RunStatus:
    charter, checkpoint, step = runner.charter, runner.checkpoint, runner.step
    place = checkpoint.place
    instrument = node.instruments.get(charter.instrument)
    away = "" if instrument is None or instrument.ready.is_set() else instrument.problem
    return RunStatus(
        run=charter.run,
        cell=charter.cell,
        instrument=charter.instrument,
        channel=charter.channel,
        recipe=charter.recipe_name,
        state=str(checkpoint.state),
        reason=checkpoint.reason,
        ended=checkpoint.state.ended,
        cycle=place.position.cycle,
        cycle_count=charter.program.cycle_count,
        visit=place.visit,
        visit_count=charter.program.visit_count,
        step=0 if step is None else step.index + 1,
        label="" if step is None else step.label,
        seq=place.seq,
        test_time_s=place.test_time_s,
        voltage_V=None if math.isnan(place.voltage_V) else place.voltage_V,
        current_A=None if math.isnan(place.current_A) else place.current_A,
        link_error="" if checkpoint.state.ended else runner.link_error or away,
        waits_for=_waits_for(runner, node),
    )


def _waits_for(runner: Runner, node: Node) -> str:
    waiting = node.waiting(runner)
    if waiting is not None:
        return waiting.why
    return runner.waits_for
