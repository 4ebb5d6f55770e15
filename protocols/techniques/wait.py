"""Wait: at open circuit until a person confirms, a signal comes, or a moment is reached.

A wait is bounded like every step. What happens when its time is over before what it waits for is
what ``then`` says; if it says nothing the run ends, for nobody knows what would be measured next.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from labctl.program import Node, Then
from labctl.program import Wait as WaitControl
from labctl.protocols.techniques.base import Bench, Sheet, Show, Technique, time_end
from labctl.protocols.techniques.ends import check_time
from labctl.protocols.techniques.leaves import Afterwards, Moment, Prompt, SignalName
from labctl.protocols.techniques.recording import WATCHING
from labctl.protocols.written import Duration, Fields, Record, mistake

USUAL_AT_MOST = {
    "for_operator": ("7 d", 7 * 86400.0),
    "for_signal": ("1 d", 86400.0),
    "until": ("31 d", 31 * 86400.0),
}
"""The longest wait for each, where nothing is written."""


class WaitFields(Fields):
    """No current flows until something outside has happened."""

    for_operator: Prompt | None = Field(
        default=None,
        alias="for operator",
        description="What a person is asked to do, and then to confirm. In quotes where it holds "
        "': ', ' #' or a comma.",
    )
    for_signal: SignalName | None = Field(
        default=None,
        alias="for signal",
        description="The name of a signal that a program, an instrument or a person sends.",
    )
    until: Moment | None = Field(
        default=None,
        description="A date and a time with its zone: '2026-01-05 09:00 +01:00', '… UTC'.",
    )
    at_most: Duration | None = Field(
        default=None,
        description="The longest wait. If not written: 7 d for an operator, 1 d for a signal, "
        "31 d until a moment.",
    )
    then: Afterwards | None = Field(
        default=None,
        description="What happens when 'at_most' is over: stop (if not written) or go on.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")

    @model_validator(mode="after")
    def _one_thing(self) -> WaitFields:
        written = [name for name in USUAL_AT_MOST if getattr(self, name) is not None]
        if len(written) == 1:
            return self
        if written:
            names = " and ".join(f"'{name.replace('_', ' ')}'" for name in written)
            raise mistake(f"a wait has one end, not {names}", "write one 'wait' after the other")
        raise mistake(
            "'wait' does not say what for",
            "write 'for operator: …', 'for signal: …' or 'until: …'; for a time write 'rest: 1 h'",
        )


def _usual(fields: WaitFields) -> tuple[str, float]:
    return next(usual for name, usual in USUAL_AT_MOST.items() if getattr(fields, name) is not None)


def then_of(then: Afterwards | None) -> Then:
    """Where the program goes when the time is over."""
    return Then.END_RUN if then is None else then.value


def said_of_timeout(then: Afterwards | None, time: str) -> str:
    """', for at most 2 h; …'."""
    after = "the run ends" if then_of(then) is Then.END_RUN else "the run goes on"
    return f", for at most {time}, after which {after}"


def _check(fields: WaitFields, sheet: Sheet) -> None:
    if fields.at_most is not None:
        check_time(fields.at_most.text, fields.at_most.value, sheet)


def _build(fields: WaitFields, bench: Bench) -> tuple[Node, ...]:
    if fields.for_operator is not None:
        control = WaitControl(prompt=fields.for_operator.value)
        label = f"wait for the operator: {fields.for_operator.value}"
    elif fields.for_signal is not None:
        control = WaitControl(signal=fields.for_signal.value)
        label = f"wait for the signal {fields.for_signal}"
    else:
        assert fields.until is not None  # noqa: S101
        control = WaitControl(until_unix_s=fields.until.value)
        label = f"wait until {fields.until}"
    seconds = _usual(fields)[1] if fields.at_most is None else fields.at_most.value
    ends = [time_end(seconds, then_of(fields.then))]
    return bench.step(label, control, ends, fields.record, WATCHING)


def _tell(fields: WaitFields, show: Show) -> str:
    if fields.for_operator is not None:
        text = f'Wait until the operator has confirmed: "{show(fields.for_operator)}"'
    elif fields.for_signal is not None:
        text = f"Wait for the signal {show(fields.for_signal)}"
    else:
        assert fields.until is not None  # noqa: S101
        text = f"Wait until {show(fields.until)}"
    time = _usual(fields)[0] if fields.at_most is None else show(fields.at_most)
    return text + said_of_timeout(fields.then, time)


WAIT = Technique(
    word="wait",
    fields=WaitFields,
    about="Wait without current for a person, for a signal or until a moment.",
    check=_check,
    build=_build,
    tell=_tell,
    short="until",
    example="wait: {for operator: Open the gas valve}",
)
