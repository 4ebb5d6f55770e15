"""Runs on the paper cycler: begun in a journal, found in it again, and what it keeps of them."""

from __future__ import annotations

from paper_cycler import PaperCycler, three_cycles

from labctl.clock import VirtualClock
from labctl.engine.journal import Entry, Journal
from labctl.engine.placement import Place
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.runner import Runner
from labctl.engine.states import RunState
from labctl.model import Records, join_records
from labctl.program import Program
from labctl.stream.batches import SamplesBatch, decode_batch
from labctl.stream.events import Event

PROGRAM = three_cycles()


def charter_of(program: Program) -> Charter:
    return Charter(
        run="r",
        cell="c",
        instrument="rack",
        channel="1",
        recipe_name=program.name,
        recipe_text="",
        program=program,
        active_mass_g=2e-3,
        one_C_mA_per_g=100.0,
        actor="anna",
        created_unix_s=0.0,
    )


async def begin(journal: Journal, program: Program = PROGRAM) -> None:
    created = Checkpoint(state=RunState.CREATED, place=Place(run="r"))
    await journal.commit(Entry(run="r", charter=charter_of(program), checkpoint=created))


async def runner_from(journal: Journal, cycler: PaperCycler) -> Runner:
    """The run as a daemon finds it in the journal when it starts."""
    [(charter, checkpoint)] = await journal.runs()
    clock = VirtualClock(0.0)
    return Runner(charter, checkpoint, cycler, journal, clock, wall=clock)


async def kept(journal: Journal) -> tuple[Records, list[Event]]:
    """Every record and event in the journal."""
    records: list[Records] = []
    events: list[Event] = []
    for _, payload in await journal.pending(0, 10**9):
        batch = decode_batch(payload)
        if isinstance(batch, SamplesBatch):
            records.append(batch.records())
        else:
            events += batch.events
    return (join_records(records) if records else Records()), events


def of_kind(events: list[Event], *kinds: type) -> list[Event]:
    return [event for event in events if isinstance(event, kinds)]
