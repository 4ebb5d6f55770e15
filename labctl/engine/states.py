"""The states of a run, as one table. An illegal pair raises; the diagram in docs comes from here.

Rules:
- what will be done is journalled before it is done, so every state that sends something to an
  instrument (ARMING, STARTING, STOPPING) can be entered again after a crash;
- nothing leaves an ended state;
- HELD waits for a person: a run never leaves it by itself;
- PAUSED is open circuit by a person's wish: the run stays in its step until a person resumes it;
- a run comes to ARMING again for every stretch of its program that an instrument runs in one go;
  where the host itself walks the program, it stays RUNNING from visit to visit;
- a run that is STOPPING is told to stop until its output is off, or until a person who saw to it
  abandons the run.
"""

from __future__ import annotations

import enum

from labctl.errors import CommandError


class RunState(enum.StrEnum):
    CREATED = "created"
    ARMING = "arming"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    HELD = "held"
    COMPLETED = "completed"
    STOPPED = "stopped"
    TRIPPED = "tripped"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether the run is over for good."""
        return self in ENDED


ENDED = frozenset({RunState.COMPLETED, RunState.STOPPED, RunState.TRIPPED, RunState.FAILED})


class Trigger(enum.StrEnum):
    ARM = "arm"
    ARMED = "armed"
    REFUSED = "refused"
    """The instrument would not take or begin the program."""
    STARTED = "started"
    BEGIN = "begin"
    """The host itself makes the next visit."""
    ONWARD = "onward"
    """One stretch of the program is done, and the instrument is to run another."""
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    """A person asked, or a limit was passed on the host's side."""
    HOLD = "hold"
    """What was found cannot be explained."""
    RELEASE = "release"
    """A person looked and lets the run go on from where it was found."""
    REARM = "rearm"
    """A person looked and lets the next stretch of the program, of which nothing began, be armed
    anew."""
    READ_TO_END = "read to end"
    """The whole program was run and every reading is here."""
    ENDED_EARLY = "ended early"
    """The run is over before the program's end and every reading is here."""
    ABANDON = "abandon"
    """What is on the channel is no longer this run, or a person gave the run up."""
    TRIP = "trip"
    """A limit ended the run and every reading is here."""


_S, _T = RunState, Trigger

TRANSITIONS: dict[tuple[RunState, Trigger], RunState] = {
    (_S.CREATED, _T.ARM): _S.ARMING,
    (_S.CREATED, _T.STOP): _S.STOPPED,
    (_S.ARMING, _T.ARMED): _S.STARTING,
    (_S.ARMING, _T.BEGIN): _S.RUNNING,
    (_S.ARMING, _T.READ_TO_END): _S.COMPLETED,
    (_S.ARMING, _T.REFUSED): _S.FAILED,
    (_S.ARMING, _T.STOP): _S.STOPPED,
    (_S.ARMING, _T.HOLD): _S.HELD,
    (_S.STARTING, _T.STARTED): _S.RUNNING,
    (_S.STARTING, _T.REFUSED): _S.FAILED,
    (_S.STARTING, _T.HOLD): _S.HELD,
    (_S.STARTING, _T.STOP): _S.STOPPING,
    (_S.RUNNING, _T.ONWARD): _S.ARMING,
    (_S.RUNNING, _T.PAUSE): _S.PAUSED,
    (_S.RUNNING, _T.READ_TO_END): _S.COMPLETED,
    (_S.RUNNING, _T.ENDED_EARLY): _S.STOPPED,
    (_S.RUNNING, _T.TRIP): _S.TRIPPED,
    (_S.RUNNING, _T.STOP): _S.STOPPING,
    (_S.RUNNING, _T.HOLD): _S.HELD,
    (_S.PAUSED, _T.RESUME): _S.RUNNING,
    (_S.PAUSED, _T.STOP): _S.STOPPING,
    (_S.PAUSED, _T.HOLD): _S.HELD,
    (_S.STOPPING, _T.READ_TO_END): _S.COMPLETED,
    (_S.STOPPING, _T.ENDED_EARLY): _S.STOPPED,
    (_S.STOPPING, _T.TRIP): _S.TRIPPED,
    (_S.STOPPING, _T.REFUSED): _S.STOPPED,
    (_S.STOPPING, _T.ABANDON): _S.STOPPED,
    (_S.STOPPING, _T.STOP): _S.STOPPING,
    (_S.STOPPING, _T.HOLD): _S.HELD,
    (_S.HELD, _T.RELEASE): _S.RUNNING,
    (_S.HELD, _T.REARM): _S.ARMING,
    (_S.HELD, _T.STOP): _S.STOPPING,
    (_S.HELD, _T.ABANDON): _S.STOPPED,
    (_S.HELD, _T.HOLD): _S.HELD,
}


def next_state(state: RunState, trigger: Trigger) -> RunState:
    """Where ``trigger`` leads from ``state``.

    Raises:
        CommandError: the trigger means nothing in that state.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise CommandError(f"a run that is {state} cannot take '{trigger}'") from None


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {RunState.CREATED}"]
    lines += [f"    {a} --> {b}: {trigger}" for (a, trigger), b in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in RunState if state.ended]
    return "\n".join(lines)
