"""Whose turn it is: channels, cells, times are waited for, and nobody begins behind a failure."""

from __future__ import annotations

from labctl.daemon.turns import in_the_way, waits_for
from labctl.engine.placement import Place
from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState
from labctl.program import Limits, Program

NOW_S = 1_800_000_000.0
PROGRAM = Program(
    name="p",
    recipe_sha256="0",
    cell="a",
    body=(),
    limits=Limits(0.0, 5.0, -1.0, 1.0, 1.0, 1e9),
)
Known = tuple[Charter, Checkpoint]


def a_run(
    name: str,
    state: RunState = RunState.RUNNING,
    *,
    cell: str = "a",
    channel: str = "1",
    after: str = "",
    not_before_unix_s: float = 0.0,
) -> Known:
    charter = Charter(
        run=name,
        cell=cell,
        instrument="rack",
        channel=channel,
        recipe_name="p",
        recipe_text="",
        program=PROGRAM,
        active_mass_g=2e-3,
        one_C_mA_per_g=100.0,
        actor="anna",
        created_unix_s=0.0,
        after_run=after,
        not_before_unix_s=not_before_unix_s,
    )
    return charter, Checkpoint(state=state, place=Place(run=name))


def why(mine: Known, *before: Known, released: frozenset[str] = frozenset()) -> str:
    waiting = waits_for(mine[0], before, NOW_S, released)
    return "" if waiting is None else waiting.why


def test_a_free_channel_is_not_waited_for() -> None:
    assert why(a_run("2", RunState.CREATED)) == ""
    assert why(a_run("2", RunState.CREATED), a_run("1", cell="b", channel="2")) == ""


def test_a_channel_and_a_cell_are_waited_for_until_their_run_has_ended() -> None:
    mine = a_run("2", RunState.CREATED, after="1")
    assert "waits for run 1, which is running" in why(mine, a_run("1", cell="b"))
    assert "waits for run 1" in why(mine, a_run("1", channel="9"))
    assert why(mine, a_run("1", RunState.COMPLETED)) == ""


def test_behind_a_run_that_did_not_end_well_somebody_looks_first() -> None:
    mine = a_run("2", RunState.CREATED, after="1")
    assert "release this run or stop it" in why(mine, a_run("1", RunState.TRIPPED))
    assert why(mine, a_run("1", RunState.TRIPPED), released=frozenset({"2"})) == ""


def test_a_start_time_is_waited_for_no_longer_than_needed() -> None:
    charter, _ = a_run("2", RunState.CREATED, not_before_unix_s=NOW_S + 90.0)
    waiting = waits_for(charter, [], NOW_S, frozenset())
    assert waiting is not None
    assert waiting.for_s == 90.0
    assert "begins at" in waiting.why
    assert waits_for(charter, [], NOW_S + 90.0, frozenset()) is None


def test_a_run_is_not_in_its_own_way() -> None:
    mine = a_run("2", RunState.CREATED)
    assert in_the_way(mine[0], [mine, a_run("1", RunState.STOPPED)]) == []
