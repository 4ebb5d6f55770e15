"""Temperature: set the chamber and wait at open circuit until it has settled."""

from __future__ import annotations

from pydantic import Field

from labctl.program import Node, SetTemperature
from labctl.protocols.techniques.base import Bench, Sheet, Show, Technique, time_end
from labctl.protocols.techniques.ends import check_temperature, check_time
from labctl.protocols.techniques.leaves import Afterwards, Temperature, TemperatureDifference
from labctl.protocols.techniques.recording import WATCHING
from labctl.protocols.techniques.wait import said_of_timeout, then_of
from labctl.protocols.written import Duration, Fields, Record

USUAL_WITHIN_DEGC = 0.5
USUAL_SETTLE_S = 600.0
USUAL_AT_MOST_S = 3 * 3600.0
ABSOLUTE_ZERO_DEGC = -273.15


class TemperatureFields(Fields):
    """The chamber is set; the step ends when it has settled."""

    to: Temperature = Field(description="The temperature to set.")
    within: TemperatureDifference | None = Field(
        default=None,
        description="How near the chamber must be, either way. If not written: 0.5 K.",
    )
    settle: Duration | None = Field(
        default=None, description="How long it must be that near. If not written: 10 min."
    )
    at_most: Duration | None = Field(
        default=None, description="The longest that it may take. If not written: 3 h."
    )
    then: Afterwards | None = Field(
        default=None,
        description="What happens when 'at_most' is over: stop (if not written) or go on.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def _settle_s(fields: TemperatureFields) -> float:
    return USUAL_SETTLE_S if fields.settle is None else fields.settle.value


def _at_most_s(fields: TemperatureFields) -> float:
    return USUAL_AT_MOST_S if fields.at_most is None else fields.at_most.value


def _check(fields: TemperatureFields, sheet: Sheet) -> None:
    if fields.to.value.value <= ABSOLUTE_ZERO_DEGC:
        sheet.note(fields.to.text, f"{fields.to} is below absolute zero")
    for time in (fields.settle, fields.at_most):
        if time is not None:
            check_time(time.text, time.value, sheet)
    written = fields.settle or fields.at_most
    if written is not None and _settle_s(fields) >= _at_most_s(fields):
        settle = "10 min" if fields.settle is None else str(fields.settle)
        at_most = "3 h" if fields.at_most is None else str(fields.at_most)
        sheet.note(
            written.text,
            f"it cannot have settled for {settle} when it may take at most {at_most}",
            "write a longer 'at_most'",
        )


def _build(fields: TemperatureFields, bench: Bench) -> tuple[Node, ...]:
    check_temperature(fields.to, bench)
    within_degC = USUAL_WITHIN_DEGC if fields.within is None else fields.within.value
    control = SetTemperature(fields.to.value.value, within_degC, _settle_s(fields))
    ends = [time_end(_at_most_s(fields), then_of(fields.then))]
    return bench.step(f"temperature {fields.to}", control, ends, fields.record, WATCHING)


def _tell(fields: TemperatureFields, show: Show) -> str:
    within = "0.5 K" if fields.within is None else show(fields.within)
    settle = "10 min" if fields.settle is None else show(fields.settle)
    at_most = "3 h" if fields.at_most is None else show(fields.at_most)
    return (
        f"Set the chamber to {show(fields.to)} and wait until it has been within {within} of that "
        f"for {settle}{said_of_timeout(fields.then, at_most)}"
    )


TEMPERATURE = Technique(
    word="temperature",
    fields=TemperatureFields,
    about="Set the chamber's temperature and wait until it has settled.",
    check=_check,
    build=_build,
    tell=_tell,
    short="to",
    example="temperature: 25 degC",
)
