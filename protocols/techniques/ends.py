"""The ends that charges, discharges and holds have in common, and what they are said to be."""

from __future__ import annotations

from dataclasses import dataclass

from labctl.program import Comparison, Control, EndCondition, Quantity
from labctl.protocols.source import Text
from labctl.protocols.techniques.base import (
    LONGEST_STEP_S,
    Bench,
    Sheet,
    Show,
    charge_end,
    time_end,
    voltage_end,
)
from labctl.protocols.techniques.leaves import NetCharge
from labctl.protocols.written import Written
from labctl.units import CHARGE_KINDS, CURRENT_KINDS, ENERGY_KINDS, Amount, Kind, format_quantity

_MAY_BE_NEGATIVE = {"voltage", "temperature", "net charge"}


@dataclass(frozen=True, slots=True)
class Ends:
    """What ends a step, as written; at most one of each."""

    voltage: Written[Amount] | None = None
    current: Written[Amount] | None = None
    charge: Written[Amount] | None = None
    energy: Written[Amount] | None = None
    net_charge: Written[Amount] | None = None
    temperature: Written[Amount] | None = None
    time_s: float | None = None
    time_text: Text | None = None

    @property
    def only_time(self) -> bool:
        """Whether nothing but a time ends the step."""
        return self.time_s is not None and not any(self.others)

    @property
    def others(self) -> tuple[Written[Amount] | None, ...]:
        """Every end that is no time."""
        return (
            self.voltage,
            self.current,
            self.charge,
            self.energy,
            self.net_charge,
            self.temperature,
        )


@dataclass(frozen=True, slots=True)
class Made:
    """What a load comes to on a cell: its ends by charge and time, and about how long it lasts."""

    control: Control
    ends: list[EndCondition]
    expected_s: float


def sort_of(amount: Amount) -> str:
    """What sort of end an amount is, as it is said to a person."""
    if isinstance(amount, NetCharge):
        return "net charge"
    if amount.kind is Kind.DURATION:
        return "time"
    if amount.kind in CHARGE_KINDS:
        return "charge"
    if amount.kind in ENERGY_KINDS:
        return "energy"
    return "current" if amount.kind in CURRENT_KINDS else str(amount.kind)


def gather(
    until: tuple[Written[Amount], ...] | None,
    for_: Written[float] | None = None,
    at_most: Written[float] | None = None,
) -> Ends:
    """The first of each sort that is written."""
    by_sort: dict[str, Written[Amount]] = {}
    for end in until or ():
        by_sort.setdefault(sort_of(end.value).replace(" ", "_"), end)
    time = by_sort.pop("time", None)
    times = [] if time is None else [(time.value.value, time.text)]
    times += [(each.value, each.text) for each in (for_, at_most) if each is not None]
    return Ends(
        **by_sort,
        time_s=times[0][0] if times else None,
        time_text=times[0][1] if times else None,
    )


def check_ends(
    until: tuple[Written[Amount], ...] | None,
    for_: Written[float] | None,
    at_most: Written[float] | None,
    sheet: Sheet,
) -> None:
    """Note two ends of one sort, ends of nothing, and times beyond reason."""
    seen: dict[str, Text] = {}
    written = [(sort_of(end.value), end.text, end.value.value) for end in until or ()]
    written += [("time", time.text, time.value) for time in (for_, at_most) if time is not None]
    for sort, text, value in written:
        if sort in seen:
            sheet.note(
                text,
                f"a second {sort} ends the same step: the first is '{seen[sort].value}'",
                "keep the one that is meant",
            )
        seen.setdefault(sort, text)
        if sort in _MAY_BE_NEGATIVE:
            continue
        if value <= 0:
            article = "an" if sort == "energy" else "a"
            sheet.note(text, f"{article} {sort} must be more than 0, not {text.value}")
        if sort == "time":
            check_time(text, value, sheet)


def check_time(text: Text, seconds: float, sheet: Sheet) -> None:
    """Note a time of more than ten years."""
    if seconds > LONGEST_STEP_S:
        sheet.note(text, f"{text.value} is more than ten years")


def bounded(ends: Ends, at: Written[Amount], current_A: float, bench: Bench) -> list[EndCondition]:
    """The charge end, and the time end that makes the step finite.

    ``current_A`` is the smallest magnitude that the current can have before the step ends, 0 if it
    can be any.
    """
    conditions: list[EndCondition] = []
    if ends.charge is not None:
        charge_Ah = bench.amperes(ends.charge)
        check_charge(ends.charge, charge_Ah, bench)
        conditions.append(charge_end(charge_Ah))
    longest_s = bench.longest_s(current_A)
    if ends.time_s is not None and ends.time_text is not None:
        if ends.only_time:
            check_charge_of_time(ends.time_text, ends.time_s, at, current_A, bench)
        longest_s = min(longest_s, ends.time_s)
    elif not longest_s <= LONGEST_STEP_S:
        bench.note(
            at.text,
            f"at {at} the step could last more than ten years",
            "write 'at_most' with a time",
        )
    conditions.append(time_end(longest_s))
    return conditions


def other_ends(ends: Ends, bench: Bench, *, charging: bool) -> list[EndCondition]:
    """The ends by energy, by the net charge of the run and by temperature."""
    conditions: list[EndCondition] = []
    if ends.energy is not None:
        energy_Wh = bench.watts(ends.energy)
        least_Ah = energy_Wh / max(abs(bench.voltage_max_V), abs(bench.voltage_min_V))
        if least_Ah >= bench.step_charge_max_Ah:
            bench.note(
                ends.energy.text,
                f"{ends.energy} is at least {format_quantity(least_Ah, Kind.CHARGE, digits=3)}, "
                f"not below {_step_charge(bench)}: the run would trip first",
                "write a larger 'step charge' under 'limits'",
            )
        conditions.append(EndCondition(Quantity.STEP_ENERGY_WH, Comparison.AT_LEAST, energy_Wh))
    if ends.net_charge is not None:
        conditions.append(net_charge_end(bench.amperes(ends.net_charge), charging=charging))
    if ends.temperature is not None:
        check_temperature(ends.temperature, bench)
        value_degC = ends.temperature.value.value
        conditions.append(EndCondition(Quantity.TEMPERATURE_DEGC, Comparison.AT_LEAST, value_degC))
    return conditions


def voltage_ends(ends: Ends, bench: Bench, *, charging: bool) -> list[EndCondition]:
    """The end by voltage, if there is one; checked."""
    if ends.voltage is None:
        return []
    bench.check_voltage(ends.voltage)
    return [voltage_end(ends.voltage.value.value, rising=charging)]


def net_charge_end(charge_Ah: float, *, charging: bool) -> EndCondition:
    """Ends a step when the net charge of the run has risen, or fallen, to ``charge_Ah``."""
    comparison = Comparison.AT_LEAST if charging else Comparison.AT_MOST
    return EndCondition(Quantity.RUN_CHARGE_AH, comparison, charge_Ah)


def check_charge(written: Written[Amount], charge_Ah: float, bench: Bench) -> None:
    """Note a charge that the step charge limit does not allow."""
    if charge_Ah >= bench.step_charge_max_Ah:
        bench.note(
            written.text,
            f"{written} is not below {_step_charge(bench)}: the run would trip first",
            "write a larger 'step charge' under 'limits'",
        )


def check_charge_of_time(
    text: Text, seconds: float, at: Written[Amount], current_A: float, bench: Bench
) -> None:
    """Note a time in which more passes than the step charge limit allows."""
    passed_Ah = seconds / 3600.0 * current_A
    if passed_Ah >= bench.step_charge_max_Ah:
        bench.note(
            text,
            f"in {text.value} at {at} at least "
            f"{format_quantity(passed_Ah, Kind.CHARGE, digits=3)} pass, not less than "
            f"{_step_charge(bench)}: the run would trip first",
            "write a larger 'step charge' under 'limits'",
        )


def check_temperature(written: Written[Amount], bench: Bench) -> None:
    """Note a temperature that is not strictly inside the limits."""
    low, high = bench.temperature_min_degC, bench.temperature_max_degC
    if not low < written.value.value < high:
        limits = " .. ".join(format_quantity(edge, Kind.TEMPERATURE) for edge in (low, high))
        bench.note(
            written.text,
            f"{written} is not inside the temperature limits, {limits}: the run would trip first",
            "limits are checked before ends; leave a few kelvin between them",
        )


def expected_s(ends: Ends, current_A: float, bench: Bench) -> float:
    """About how long a step lasts: if nothing else says it, what 1C passes in an hour."""
    charge_Ah = bench.cell.one_C_A
    if ends.charge is not None:
        charge_Ah = min(charge_Ah, bench.amperes(ends.charge))
    seconds = charge_Ah / abs(current_A) * 3600.0
    return seconds if ends.time_s is None else min(seconds, ends.time_s)


def label_of(ends: tuple[Written[Amount], ...] | None) -> str:
    """' until 4.1 V or net charge 85 mAh/g'; '' without ends."""
    said = [
        f"{'net charge ' if isinstance(end.value, NetCharge) else ''}{end}" for end in ends or ()
    ]
    return f" until {' or '.join(said)}" if said else ""


def said_of(ends: Ends, show: Show, *, charging: bool | None = None) -> list[str]:
    """Each end but the time as a person says it, what is met first first."""
    said = []
    moved = {True: "has risen to", False: "has fallen to", None: "has reached"}[charging]
    if ends.voltage is not None:
        said.append(f"the voltage {moved} {show(ends.voltage)}")
    if ends.current is not None:
        said.append(f"the current has fallen to {show(ends.current)}")
    if ends.charge is not None:
        said.append(f"{show(ends.charge)} have passed")
    if ends.energy is not None:
        said.append(f"{show(ends.energy)} have passed")
    if ends.net_charge is not None:
        said.append(f"the net charge of the run {moved} {show(ends.net_charge)}")
    if ends.temperature is not None:
        said.append(f"the cell has warmed to {show(ends.temperature)}")
    return said


def _step_charge(bench: Bench) -> str:
    limit = format_quantity(bench.step_charge_max_Ah, Kind.CHARGE)
    return f"the step charge limit of {limit}"
