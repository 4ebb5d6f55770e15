"""What a node does when it is told to: each command checked, journalled with who gave it, done."""

from __future__ import annotations

import asyncio
import hashlib
import logging

import msgspec

from labctl import __version__
from labctl.control import (
    AbandonRun,
    Answer,
    Cells,
    Command,
    Done,
    GetCells,
    GetStatus,
    RegisterCell,
    ReleaseRun,
    StartRun,
    StopRun,
)
from labctl.daemon.node import Instrument, Node
from labctl.daemon.status import status_of
from labctl.engine.journal import Entry
from labctl.engine.placement import Place
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState
from labctl.errors import CommandError, PlanError
from labctl.model import Cell
from labctl.program import Program, encode_program
from labctl.protocols.recipe import compile_recipe, read_recipe
from labctl.stream.events import CellRegistered, CommandTaken, RunCreated
from labctl.stream.topics import check_name

log = logging.getLogger("labctl.daemon")


class Commands:
    """The commands of one node, carried out one after the other; a stop waits for none of them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._one_at_a_time = asyncio.Lock()

    async def obey(self, command: Command, actor: str) -> Answer:
        """Carry out a command for ``actor``; one that was done before gives its answer again.

        Raises:
            RecipeError, PlanError, CommandError: it cannot be done, and nothing was.
            JournalError: it cannot be kept, and nothing was done.
        """
        request = command.request
        if isinstance(request, GetStatus):
            return await status_of(self._node)
        if isinstance(request, GetCells):
            return Cells(cells=tuple(self._node.cells.values()))
        if isinstance(request, StopRun):
            if (known := await self._node.journal.answer_to(command.id)) is not None:
                return msgspec.json.decode(known, type=Done)
            return await self._stop(command, request, actor)
        async with self._one_at_a_time:
            if (known := await self._node.journal.answer_to(command.id)) is not None:
                return msgspec.json.decode(known, type=Done)
            match request:
                case RegisterCell():
                    return await self._register(command, request.cell, actor)
                case StartRun():
                    return await self._start(command, request, actor)
                case ReleaseRun():
                    return await self._release(command, request, actor)
                case AbandonRun():
                    return await self._abandon(command, request, actor)

    async def _register(self, command: Command, cell: Cell, actor: str) -> Done:
        check_name(cell.name, "cell")
        done = Done(message=f"cell {cell.name} is registered")
        note = self._audit(command, "register cell", actor, cell.name)
        registered = CellRegistered(cell=cell, actor=actor, unix_time_s=note.unix_time_s)
        await self._node.journal.commit(
            Entry(events=(registered, note), cell=cell, command=_kept(command, done))
        )
        self._node.cells[cell.name] = cell
        self._node.journal.damaged.pop(f"cell {cell.name}", None)
        return done

    async def _start(self, command: Command, request: StartRun, actor: str) -> Done:
        instrument = self._instrument(request)
        cell = self._node.cells.get(request.cell)
        if cell is None:
            raise CommandError(
                f"no cell {request.cell!r} is registered: register it with 'labctl cell add'"
            )
        recipe = await asyncio.to_thread(read_recipe, request.recipe_text, file=request.recipe_file)
        program = await asyncio.to_thread(compile_recipe, recipe, cell, request.parameters)
        if refusals := instrument.driver.refusals(program):
            raise PlanError([f"{instrument.name}: {refusal}" for refusal in refusals])
        self._check_free(request, program)
        if request.dry:
            return Done(message="everything fits; nothing was started")
        charter = self._charter(request, cell, program, actor)
        checkpoint = Checkpoint(state=RunState.CREATED, place=Place(run=charter.run))
        done = Done(run=charter.run, message=f"run {charter.run} is queued")
        note = self._audit(command, "start run", actor, charter.run)
        await self._node.journal.commit(
            Entry(
                run=charter.run,
                charter=charter,
                checkpoint=checkpoint,
                events=(_run_created(charter), note),
                command=_kept(command, done),
            )
        )
        self._node.begin(charter, checkpoint)
        log.info(
            "run %s: %s on cell %s, channel %s of %s, asked for by %s",
            charter.run,
            charter.recipe_name,
            charter.cell,
            charter.channel,
            charter.instrument,
            actor,
        )
        return done

    async def _stop(self, command: Command, request: StopRun, actor: str) -> Done:
        runner = self._node.runner(request.run)
        if runner.checkpoint.state.ended:
            return Done(run=request.run, message=f"run {request.run} has ended already")
        done = Done(run=request.run, message=f"run {request.run} is stopping")
        note = self._audit(command, "stop run", actor, request.run)
        await runner.stop(f"{request.reason} ({actor})", _kept(command, done), note)
        return done

    async def _release(self, command: Command, request: ReleaseRun, actor: str) -> Done:
        runner = self._node.runner(request.run)
        done = Done(run=request.run, message=f"run {request.run} goes on")
        note = self._audit(command, "release run", actor, request.run)
        await runner.release(f"{request.reason} ({actor})", _kept(command, done), note)
        return done

    async def _abandon(self, command: Command, request: AbandonRun, actor: str) -> Done:
        runner = self._node.runner(request.run)
        done = Done(run=request.run, message=f"run {request.run} is given up where it stood")
        note = self._audit(command, "abandon run", actor, request.run)
        await runner.abandon(f"{request.reason} ({actor})", _kept(command, done), note)
        return done

    def _instrument(self, request: StartRun) -> Instrument:
        instrument = self._node.instruments.get(request.instrument)
        if instrument is None:
            known = ", ".join(sorted(self._node.instruments)) or "none"
            raise CommandError(f"no instrument {request.instrument!r}; configured are: {known}")
        if not instrument.ready.is_set():
            raise CommandError(f"instrument {instrument.name} is away: {instrument.problem}")
        if request.channel not in instrument.channels:
            raise CommandError(
                f"instrument {instrument.name} has no channel {request.channel!r}; "
                f"it has {', '.join(instrument.channels)}"
            )
        return instrument

    def _check_free(self, request: StartRun, program: Program) -> None:
        for runner in self._node.runners.values():
            charter = runner.charter
            if runner.checkpoint.state.ended:
                continue
            if (charter.instrument, charter.channel) == (request.instrument, request.channel):
                raise CommandError(
                    f"channel {request.channel} of {request.instrument} is taken by run "
                    f"{charter.run} ({runner.checkpoint.state}): stop it first, or wait for its end"
                )
            if charter.cell == program.cell:
                raise CommandError(
                    f"cell {program.cell} is in run {charter.run} on channel {charter.channel}: "
                    "a cell can only be in one place"
                )

    def _charter(self, request: StartRun, cell: Cell, program: Program, actor: str) -> Charter:
        return Charter(
            run=self._node.next_run(),
            cell=cell.name,
            instrument=request.instrument,
            channel=request.channel,
            recipe_name=program.name,
            recipe_text=request.recipe_text,
            program=program,
            active_mass_g=cell.active_mass_g,
            one_C_mA_per_g=cell.one_C_mA_per_g,
            actor=actor,
            created_unix_s=self._node.clock.unix_time_s(),
        )

    def _audit(self, command: Command, verb: str, actor: str, detail: str) -> CommandTaken:
        return CommandTaken(
            command=command.id,
            verb=verb,
            actor=actor,
            detail=detail,
            outcome="done",
            unix_time_s=self._node.clock.unix_time_s(),
        )


def _kept(command: Command, done: Done) -> tuple[str, bytes]:
    return command.id, msgspec.json.encode(done)


def _run_created(charter: Charter) -> RunCreated:
    return RunCreated(
        run=charter.run,
        cell=charter.cell,
        instrument=charter.instrument,
        channel=charter.channel,
        recipe_name=charter.recipe_name,
        recipe_text=charter.recipe_text,
        recipe_sha256=hashlib.sha256(charter.recipe_text.encode()).hexdigest(),
        program=encode_program(charter.program),
        active_mass_g=charter.active_mass_g,
        one_C_mA_per_g=charter.one_C_mA_per_g,
        actor=charter.actor,
        labctl_version=__version__,
        unix_time_s=charter.created_unix_s,
    )
