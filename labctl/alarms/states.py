"""The states of an alarm, as one table. An illegal pair raises; documents draw it from here.

After ISA-18.2-2016, clause 5.2. Latched, shelved, suppressed and out of service have their place
in the standard: each is one more state and its rows in the table.
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


class AlarmTrigger(enum.StrEnum):
    RAISE = "raise"
    """The condition holds now, or holds for another reason than before."""
    CLEAR = "clear"
    """The condition is over."""
    ACKNOWLEDGE = "acknowledge"
    """A person knows."""


_S, _T = AlarmState, AlarmTrigger

TRANSITIONS: dict[tuple[AlarmState, AlarmTrigger], AlarmState] = {
    (_S.NORMAL, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.UNACKNOWLEDGED, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.UNACKNOWLEDGED, _T.ACKNOWLEDGE): _S.ACKNOWLEDGED,
    (_S.UNACKNOWLEDGED, _T.CLEAR): _S.RETURNED_UNACKNOWLEDGED,
    (_S.ACKNOWLEDGED, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.ACKNOWLEDGED, _T.CLEAR): _S.NORMAL,
    (_S.RETURNED_UNACKNOWLEDGED, _T.RAISE): _S.UNACKNOWLEDGED,
    (_S.RETURNED_UNACKNOWLEDGED, _T.ACKNOWLEDGE): _S.NORMAL,
}


def next_state(state: AlarmState, trigger: AlarmTrigger) -> AlarmState:
    """Where ``trigger`` leads from ``state``.

    Raises:
        CommandError: the trigger means nothing in that state.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise CommandError(f"an alarm that is {state} cannot take {trigger.value!r}") from None


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    names = {state: state.value.replace("-", "_") for state in AlarmState}
    lines = ["stateDiagram-v2", f"    [*] --> {names[AlarmState.NORMAL]}"]
    lines += [f"    {names[a]} --> {names[b]}: {t.value}" for (a, t), b in TRANSITIONS.items()]
    return "\n".join(lines)
