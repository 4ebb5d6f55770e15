"""The states of an alarm, as one table. An illegal pair raises; documents draw it from here.

After ISA-18.2-2016, clause 5.2. Whether the condition holds is known in every state (``active``).
Three states set an alarm aside: *shelved* by a person and for a time, *suppressed* by design (the
node above it is gone), *out of service* by a person until further notice. Leaving one of them leads
to normal; where the condition holds it is raised anew from there, in the same moment.
"""

from __future__ import annotations

import enum

from labctl.errors import CommandError


class AlarmState(enum.StrEnum):
    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    """The condition holds and nobody has said that he knows."""
    ACKNOWLEDGED = "acknowledged"
    """The condition holds and somebody knows."""
    RETURNED_UNACKNOWLEDGED = "returned-unacknowledged"
    """The condition held, is over, and nobody has said that he knows."""
    LATCHED = "latched"
    """The condition is over; somebody has to say what was done about it before it goes."""
    SHELVED = "shelved"
    """A person does not want to hear of it until a certain time."""
    SUPPRESSED = "suppressed"
    """Something above it is the cause, and is an alarm of its own."""
    OUT_OF_SERVICE = "out-of-service"
    """A person does not want to hear of it until he says otherwise."""


class AlarmTrigger(enum.StrEnum):
    RAISE = "raise"
    """The condition holds now, or holds for another reason than before."""
    CLEAR = "clear"
    """The condition is over."""
    LATCH = "latch"
    """The condition is over, of an alarm that does not go by itself."""
    ACKNOWLEDGE = "acknowledge"
    """A person knows."""
    RESET = "reset"
    """A person says what was done about what latched."""
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    """A person takes it back, or its time is over."""
    SUPPRESS = "suppress"
    UNSUPPRESS = "unsuppress"
    TAKE_OUT = "take-out-of-service"
    PUT_BACK = "put-back-in-service"


_S, _T = AlarmState, AlarmTrigger

TRANSITIONS: dict[tuple[AlarmState, AlarmTrigger], AlarmState] = {
    (_S.NORMAL, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.NORMAL, _T.TAKE_OUT): _S.OUT_OF_SERVICE,
    (_S.UNACKNOWLEDGED, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.UNACKNOWLEDGED, _T.ACKNOWLEDGE): _S.ACKNOWLEDGED,
    (_S.UNACKNOWLEDGED, _T.CLEAR): _S.RETURNED_UNACKNOWLEDGED,
    (_S.UNACKNOWLEDGED, _T.LATCH): _S.LATCHED,
    (_S.UNACKNOWLEDGED, _T.SHELVE): _S.SHELVED,
    (_S.UNACKNOWLEDGED, _T.SUPPRESS): _S.SUPPRESSED,
    (_S.UNACKNOWLEDGED, _T.TAKE_OUT): _S.OUT_OF_SERVICE,
    (_S.ACKNOWLEDGED, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.ACKNOWLEDGED, _T.CLEAR): _S.NORMAL,
    (_S.ACKNOWLEDGED, _T.LATCH): _S.LATCHED,
    (_S.ACKNOWLEDGED, _T.SHELVE): _S.SHELVED,
    (_S.ACKNOWLEDGED, _T.SUPPRESS): _S.SUPPRESSED,
    (_S.ACKNOWLEDGED, _T.TAKE_OUT): _S.OUT_OF_SERVICE,
    (_S.RETURNED_UNACKNOWLEDGED, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.RETURNED_UNACKNOWLEDGED, _T.ACKNOWLEDGE): _S.NORMAL,
    (_S.RETURNED_UNACKNOWLEDGED, _T.SHELVE): _S.SHELVED,
    (_S.RETURNED_UNACKNOWLEDGED, _T.TAKE_OUT): _S.OUT_OF_SERVICE,
    (_S.LATCHED, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.LATCHED, _T.RESET): _S.NORMAL,
    (_S.SHELVED, _T.RAISE): _S.SHELVED,
    (_S.SHELVED, _T.CLEAR): _S.SHELVED,
    (_S.SHELVED, _T.LATCH): _S.SHELVED,
    (_S.SHELVED, _T.SHELVE): _S.SHELVED,
    (_S.SHELVED, _T.UNSHELVE): _S.NORMAL,
    (_S.SHELVED, _T.TAKE_OUT): _S.OUT_OF_SERVICE,
    (_S.SUPPRESSED, _T.RAISE): _S.SUPPRESSED,
    (_S.SUPPRESSED, _T.CLEAR): _S.SUPPRESSED,
    (_S.SUPPRESSED, _T.LATCH): _S.SUPPRESSED,
    (_S.SUPPRESSED, _T.UNSUPPRESS): _S.NORMAL,
    (_S.SUPPRESSED, _T.TAKE_OUT): _S.OUT_OF_SERVICE,
    (_S.OUT_OF_SERVICE, _T.RAISE): _S.OUT_OF_SERVICE,
    (_S.OUT_OF_SERVICE, _T.CLEAR): _S.OUT_OF_SERVICE,
    (_S.OUT_OF_SERVICE, _T.LATCH): _S.OUT_OF_SERVICE,
    (_S.OUT_OF_SERVICE, _T.PUT_BACK): _S.NORMAL,
}

SET_ASIDE = frozenset({_S.SHELVED, _S.SUPPRESSED, _S.OUT_OF_SERVICE})
"""Nobody is told of an alarm in these states."""
WANTS_A_PERSON = frozenset({_S.UNACKNOWLEDGED, _S.RETURNED_UNACKNOWLEDGED, _S.LATCHED})
"""Somebody has yet to say something."""


def next_state(state: AlarmState, trigger: AlarmTrigger) -> AlarmState:
    """Where ``trigger`` leads from ``state``.

    Raises:
        CommandError: the trigger means nothing in that state; says which ones do.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        known = [each.value for each in _BY_PERSONS if (state, each) in TRANSITIONS]
        hint = f"; it can take {', '.join(map(repr, known))}" if known else ""
        raise CommandError(
            f"an alarm that is {state} cannot take {trigger.value!r}{hint}"
        ) from None


_BY_PERSONS = (_T.ACKNOWLEDGE, _T.RESET, _T.SHELVE, _T.UNSHELVE, _T.TAKE_OUT, _T.PUT_BACK)


def path(
    state: AlarmState, trigger: AlarmTrigger, *, active: bool
) -> list[tuple[AlarmTrigger, AlarmState]]:
    """The steps that ``trigger`` leads through from ``state``: one, or two where an alarm that was
    set aside comes back while its condition holds.

    Raises:
        CommandError: the trigger means nothing in that state.
    """
    steps = [(trigger, next_state(state, trigger))]
    if state in SET_ASIDE and steps[0][1] is _S.NORMAL and active:
        steps.append((_T.RAISE, next_state(_S.NORMAL, _T.RAISE)))
    return steps


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    names = {state: state.value.replace("-", "_") for state in AlarmState}
    lines = ["stateDiagram-v2", f"    [*] --> {names[AlarmState.NORMAL]}"]
    lines += [f"    {names[a]} --> {names[b]}: {t.value}" for (a, t), b in TRANSITIONS.items()]
    return "\n".join(lines)
