"""What a node says of itself."""

from __future__ import annotations

import math

from labctl import __version__
from labctl.control import InstrumentStatus, RunStatus, Status
from labctl.daemon.node import Instrument, Node
from labctl.engine.runner import Runner


async def status_of(node: Node) -> Status:
    """Everything that a person asks about, at this moment."""
    backlog = await node.journal.backlog()
    return Status(
        node=node.settings.node.name,
        source=node.journal.source,
        version=__version__,
        unix_time_s=node.clock.unix_time_s(),
        instruments=tuple(_instrument(each) for each in node.instruments.values()),
        runs=tuple(_run(runner) for runner in node.runners.values()),
        unconfirmed_batches=backlog.batches,
        unconfirmed_bytes=backlog.size_bytes,
        stream_problem=node.publisher.status.problem,
    )


def _instrument(instrument: Instrument) -> InstrumentStatus:
    return InstrumentStatus(
        name=instrument.name,
        driver=instrument.kind,
        connected=instrument.ready.is_set(),
        problem=instrument.problem,
        serial=instrument.identity.serial if instrument.identity else "",
        channels=instrument.channels,
    )


def _run(runner: Runner) -> RunStatus:
    charter, checkpoint, step = runner.charter, runner.checkpoint, runner.step
    place = checkpoint.place
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
        link_error=runner.link_error,
    )
