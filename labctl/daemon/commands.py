"""What a node does when it is told to: each command checked, journalled with who gave it, done."""

from __future__ import annotations

import asyncio
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
    HoldRun,
    PauseRun,
    RegisterCell,
    ReleaseRun,
    ResumeRun,
    SendSignal,
    SkipStep,
    StartRun,
    StopRun,
)
from labctl.daemon.node import Instrument, Node
from labctl.daemon.status import status_of
from labctl.daemon.turns import in_the_way
from labctl.engine.hostwork import CONFIRM
from labctl.engine.journal import Entry
from labctl.engine.placement import Place
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState
from labctl.errors import CommandError, PlanError
from labctl.model import Cell
from labctl.program import Program, encode_program
from labctl.protocols.recipe import Recipe, bundle, compile_recipe, read_recipe
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
                case PauseRun():
                    return await self._pause(command, request, actor)
                case ResumeRun():
                    return await self._resume(command, request, actor)
                case SkipStep():
                    return await self._skip(command, request, actor)
                case HoldRun():
                    return await self._hold(command, request, actor)
                case SendSignal():
                    return await self._signal(command, request, actor)
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
        if self._node.journal.disk_is_full:
            raise CommandError(
                "the disk of the journal is full: make room before a new run begins (what runs "
                "goes on as long as it can)"
            )
        recipe, program = await asyncio.to_thread(self._compiled, request, cell)
        refusals = self._node.refusals(instrument, program)
        if refusals:
            raise PlanError([f"{instrument.name}: {refusal}" for refusal in refusals])
        charter = self._charter(request, cell, recipe, program, actor)
        self._check_free(request, charter)
        if request.dry:
            return Done(message="everything fits; nothing was started")
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
        when = "" if request.at == "now" else f" at the end of its {request.at}"
        done = Done(run=request.run, message=f"run {request.run} is stopping{when}")
        note = self._audit(command, "stop run", actor, f"{request.run}{when}")
        reason = f"{request.reason} ({actor})"
        await runner.stop(reason, _kept(command, done), note, at=request.at)
        self._node.next_please()
        return done

    async def _pause(self, command: Command, request: PauseRun, actor: str) -> Done:
        runner = self._node.runner(request.run)
        done = Done(run=request.run, message=f"run {request.run} pauses")
        note = self._audit(command, "pause run", actor, request.run)
        await runner.pause(f"{request.reason} ({actor})", _kept(command, done), note)
        return done

    async def _resume(self, command: Command, request: ResumeRun, actor: str) -> Done:
        runner = self._node.runner(request.run)
        done = Done(run=request.run, message=f"run {request.run} goes on")
        note = self._audit(command, "resume run", actor, request.run)
        await runner.resume(f"{request.reason} ({actor})", _kept(command, done), note)
        return done

    async def _skip(self, command: Command, request: SkipStep, actor: str) -> Done:
        runner = self._node.runner(request.run)
        step = runner.step
        if request.step and (step is None or step.index + 1 != request.step):
            at = "no step" if step is None else f"step {step.index + 1} ({step.label})"
            raise CommandError(f"run {request.run} is in {at}, not in step {request.step}")
        done = Done(run=request.run, message=f"run {request.run} goes to its next step")
        note = self._audit(command, "skip step", actor, request.run)
        await runner.skip(f"{request.reason} ({actor})", _kept(command, done), note)
        return done

    async def _hold(self, command: Command, request: HoldRun, actor: str) -> Done:
        runner = self._node.runner(request.run)
        done = Done(run=request.run, message=f"run {request.run} is held until it is released")
        note = self._audit(command, "hold run", actor, request.run)
        await runner.hold_by_hand(f"{request.reason} ({actor})", _kept(command, done), note)
        return done

    async def _signal(self, command: Command, request: SendSignal, actor: str) -> Done:
        """To one run, or to every run that goes on; each keeps it as a marker."""
        check_name(request.name, "signal")
        if request.name == CONFIRM and not request.run:
            raise CommandError("say which run is confirmed: --run RUN")
        told = await self._node.signal(
            request.name,
            actor,
            run=request.run,
            command=lambda runs: _kept(command, _signalled(request.name, runs)),
            note=self._audit(
                command, "send signal", actor, f"{request.name} {request.run}".strip()
            ),
        )
        return _signalled(request.name, told)

    async def _release(self, command: Command, request: ReleaseRun, actor: str) -> Done:
        runner = self._node.runner(request.run)
        done = Done(run=request.run, message=f"run {request.run} goes on")
        note = self._audit(command, "release run", actor, request.run)
        if self._node.waiting(runner) is not None:
            await self._node.journal.commit(Entry(events=(note,), command=_kept(command, done)))
            self._node.let_begin(request.run)
            return done
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

    def _compiled(self, request: StartRun, cell: Cell) -> tuple[Recipe, Program]:
        included = request.included

        def load(name: str) -> str:
            if name not in included:
                raise FileNotFoundError(f"the text of '{name}' was not sent along")
            return included[name]

        recipe = read_recipe(request.recipe_text, file=request.recipe_file, load=load)
        bounds = self._node.settings.bounds_of(cell)
        return recipe, compile_recipe(recipe, cell, request.parameters, bounds=bounds)

    def _check_free(self, request: StartRun, charter: Charter) -> None:
        if request.queue:
            return
        known = [(other.charter, other.checkpoint) for other in self._node.runners.values()]
        for other, checkpoint in in_the_way(charter, known):
            here = (charter.instrument, charter.channel)
            if other.cell == charter.cell and (other.instrument, other.channel) != here:
                raise CommandError(
                    f"cell {charter.cell} is in run {other.run} on channel {other.channel}: "
                    "a cell can only be in one place"
                )
            raise CommandError(
                f"channel {charter.channel} of {charter.instrument} is taken by run "
                f"{other.run} ({checkpoint.state}): stop it first, wait for its end, or start "
                "with --queue"
            )

    def _charter(
        self, request: StartRun, cell: Cell, recipe: Recipe, program: Program, actor: str
    ) -> Charter:
        charter = Charter(
            run=self._node.next_run(),
            cell=cell.name,
            instrument=request.instrument,
            channel=request.channel,
            recipe_name=program.name,
            recipe_text=bundle(recipe),
            program=program,
            active_mass_g=cell.active_mass_g,
            one_C_mA_per_g=cell.one_C_mA_per_g,
            actor=actor,
            created_unix_s=self._node.clock.unix_time_s(),
            not_before_unix_s=request.not_before_unix_s,
        )
        known = [(other.charter, other.checkpoint) for other in self._node.runners.values()]
        ahead = in_the_way(charter, known)
        return msgspec.structs.replace(charter, after_run=ahead[-1][0].run) if ahead else charter

    def _audit(self, command: Command, verb: str, actor: str, detail: str) -> CommandTaken:
        return CommandTaken(
            command=command.id,
            verb=verb,
            actor=actor,
            detail=detail,
            outcome="done",
            unix_time_s=self._node.clock.unix_time_s(),
        )


def _signalled(name: str, runs: tuple[str, ...]) -> Done:
    if not runs:
        return Done(message=f"no run goes on that could hear the signal '{name}'")
    return Done(message=f"signal '{name}' is kept with {', '.join(runs)}")


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
        recipe_sha256=charter.program.recipe_sha256,
        program=encode_program(charter.program),
        active_mass_g=charter.active_mass_g,
        one_C_mA_per_g=charter.one_C_mA_per_g,
        actor=charter.actor,
        labctl_version=__version__,
        unix_time_s=charter.created_unix_s,
    )
