"""Signal: a marker in the record and on the stream, and a pulse on an output of the instrument.

It takes no time of the program. Its bound is what reaching the instrument may take.
"""

from __future__ import annotations

from pydantic import Field

from labctl.program import Node, RecordRule
from labctl.program import Signal as SignalControl
from labctl.protocols.techniques.base import Bench, Sheet, Show, Technique, time_end
from labctl.protocols.techniques.leaves import SignalName
from labctl.protocols.written import Fields, Record

LONGEST_S = 60.0
_RECORD = RecordRule(every_s=60.0)


class SignalFields(Fields):
    """A marker in the record that other programs hear of, and a pulse on an output."""

    marker: SignalName = Field(description="The name of the marker.")
    output: SignalName | None = Field(
        default=None,
        description="A digital output of the instrument, by its name there: it gets a pulse.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def _check(fields: SignalFields, sheet: Sheet) -> None:
    """A name that could be read is right."""


def _build(fields: SignalFields, bench: Bench) -> tuple[Node, ...]:
    output = "" if fields.output is None else fields.output.value
    label = f"signal {fields.marker}" + (f" on {output}" if output else "")
    control = SignalControl(fields.marker.value, output)
    return bench.step(label, control, [time_end(LONGEST_S)], fields.record, _RECORD)


def _tell(fields: SignalFields, show: Show) -> str:
    text = f"Set the marker {show(fields.marker)}"
    return text if fields.output is None else f"{text}, with a pulse on {show(fields.output)}"


SIGNAL = Technique(
    word="signal",
    fields=SignalFields,
    about="Set a marker in the record, and give a pulse on an output.",
    check=_check,
    build=_build,
    tell=_tell,
    short="marker",
    example="signal: pattern-1",
)
