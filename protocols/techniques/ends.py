"""The ends that charges, discharges and holds have in common: voltage, current, charge, time."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.program import EndCondition
from labctl.protocols.source import Text
from labctl.protocols.techniques.base import (
    LONGEST_STEP_S,
    Bench,
    Sheet,
    charge_end,
    is_charge,
    is_current,
    is_time,
    is_voltage,
    time_end,
)
from labctl.protocols.written import Written
from labctl.units import Amount, Kind, format_quantity


@dataclass(frozen=True, slots=True)
class Ends:
    """What ends a step, as written; at most one of each."""

    voltage: Written[Amount] | None = None
    current: Written[Amount] | None = None
    charge: Written[Amount] | None = None
    time_s: float | None = None
    time_text: Text | None = None

    @property
    def only_charge_or_time(self) -> bool:
        """Whether nothing else ends the step."""
        return self.voltage is None and self.current is None


def gather(
    until: tuple[Written[Amount], ...] | None,
    for_: Written[float] | None,
    at_most: Written[float] | None,
) -> Ends:
    """The first of each kind that is written."""
    ends = until or ()
    times = [(end.value.value, end.text) for end in ends if is_time(end.value)]
    times += [(time.value, time.text) for time in (for_, at_most) if time is not None]
    return Ends(
        voltage=next((end for end in ends if is_voltage(end.value)), None),
        current=next((end for end in ends if is_current(end.value)), None),
        charge=next((end for end in ends if is_charge(end.value)), None),
        time_s=times[0][0] if times else None,
        time_text=times[0][1] if times else None,
    )


def check_ends(
    until: tuple[Written[Amount], ...] | None,
    for_: Written[float] | None,
    at_most: Written[float] | None,
    sheet: Sheet,
) -> None:
    """Note two ends of one kind, ends of nothing, and times beyond reason."""
    seen: dict[str, Text] = {}
    written = [(_sort(end.value), end.text, end.value.value) for end in until or ()]
    written += [("time", time.text, time.value) for time in (for_, at_most) if time is not None]
    for sort, text, value in written:
        if sort in seen:
            sheet.note(
                text,
                f"a second {sort} ends the same step: the first is '{seen[sort].value}'",
                "keep the one that is meant",
            )
        seen.setdefault(sort, text)
        if sort == "voltage":
            continue
        if value <= 0:
            sheet.note(text, f"a {sort} must be more than 0, not {text.value}")
        if sort == "time":
            check_time(text, value, sheet)


def check_time(text: Text, seconds: float, sheet: Sheet) -> None:
    """Note a time of more than ten years."""
    if seconds > LONGEST_STEP_S:
        sheet.note(text, f"{text.value} is more than ten years")


def bounded(ends: Ends, at: Written[Amount], current_A: float, bench: Bench) -> list[EndCondition]:
    """The charge end, and the time end that makes the step finite.

    ``current_A`` is the smallest magnitude that the current can have before the step ends.
    """
    conditions: list[EndCondition] = []
    longest_s = bench.longest_s(current_A)
    if ends.charge is not None:
        charge_Ah = bench.amperes(ends.charge)
        if charge_Ah >= bench.step_charge_max_Ah:
            bench.note(
                ends.charge.text,
                f"{ends.charge} is not below the step charge limit of "
                f"{format_quantity(bench.step_charge_max_Ah, Kind.CHARGE)}:"
                " the run would trip first",
                "write a larger 'step charge' under 'limits'",
            )
        conditions.append(charge_end(charge_Ah))
    if ends.time_s is not None and ends.time_text is not None:
        passed_Ah = ends.time_s / 3600.0 * current_A
        if (
            ends.only_charge_or_time
            and ends.charge is None
            and passed_Ah >= bench.step_charge_max_Ah
        ):
            bench.note(
                ends.time_text,
                f"in {ends.time_text.value} at {at} at least "
                f"{format_quantity(passed_Ah, Kind.CHARGE, digits=3)} pass, not less than the step "
                f"charge limit of {format_quantity(bench.step_charge_max_Ah, Kind.CHARGE)}:"
                " the run would trip first",
                "write a larger 'step charge' under 'limits'",
            )
        longest_s = min(longest_s, ends.time_s)
    elif not longest_s <= LONGEST_STEP_S:
        bench.note(
            at.text,
            f"at {at} the step could last more than ten years",
            "write 'at_most' with a time",
        )
    conditions.append(time_end(longest_s))
    return conditions


def _sort(amount: Amount) -> str:
    if is_time(amount):
        return "time"
    if is_voltage(amount):
        return "voltage"
    return "charge" if is_charge(amount) else "current"
