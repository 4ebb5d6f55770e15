"""aurora-unicycler's JSON: a flat method of steps, tags and loops back to a tag or a number.

Currents in mA or as rates of the sample's capacity, voltages in V, times in s; all steps share one
record rule and one set of safety limits. Positive current charges. Source: the models of
aurora-unicycler (``Protocol``), which accept numbers and texts of numbers alike.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from labctl.convert.parts import end_of, finite_or_none, left_out, unsaid
from labctl.convert.told import (
    ConversionError,
    Converted,
    Told,
    ToldRecipe,
    Unrolled,
    Value,
    amount,
    cannot,
    write_recipe,
)
from labctl.model import Cell
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantVoltage,
    Impedance,
    Loop,
    Node,
    Program,
    Quantity,
    Rest,
    Step,
)
from labctl.units import Kind

LONGEST_B: Final = 4 * 1024 * 1024
_TECHNIQUES: Final = frozenset(
    {
        "rest",
        "constant_current",
        "constant_voltage",
        "constant_current_constant_voltage",
        "impedance",
    }
)
_ENDS: Final = frozenset({Quantity.STEP_TIME_S, Quantity.VOLTAGE_V, Quantity.CURRENT_A})
_RATE = re.compile(r"\s*(-?[0-9.]*)\s*([CD]?)\s*/\s*([0-9.]+)\s*")


def to_unicycler(program: Program, cell: Cell) -> Converted:
    """The program as a protocol for ``cell``: currents as rates of what 1C means for it.

    Raises:
        ConversionError: it has steps that a protocol has none for.
    """
    reasons = unsaid(program, ends=_ENDS, techniques=_TECHNIQUES)
    if reasons:
        raise cannot(*(f"a unicycler protocol has no {reason}" for reason in reasons))
    method: list[dict[str, object]] = []
    _write(program.body, cell, method)
    limits = program.limits
    rules = [step.record for step in program.steps]
    protocol = {
        "sample": {"name": cell.name, "capacity_mAh": _clean(cell.one_C_A * 1e3)},
        "record": {
            "time_s": min(rule.every_s for rule in rules),
            "voltage_V": finite_or_none(min(rule.voltage_change_V for rule in rules)),
            "current_mA": _times_1000(min(rule.current_change_A for rule in rules)),
        },
        "safety": {
            "max_voltage_V": limits.voltage_max_V,
            "min_voltage_V": limits.voltage_min_V,
            "max_current_mA": _times_1000(limits.current_max_A),
            "min_current_mA": _times_1000(limits.current_min_A),
            "max_capacity_mAh": _times_1000(limits.step_charge_max_Ah),
        },
        "method": method,
    }
    lost = left_out(program, limits=False, records=False, one_rule=True)
    if math.isfinite(limits.temperature_min_degC) or math.isfinite(limits.temperature_max_degC):
        lost.append("the temperature limits")
    lost.append("the longest duration of the whole run")
    return Converted(json.dumps(protocol, indent=2) + "\n", tuple(lost))


def from_unicycler(text: str, name: str) -> Converted:
    """A recipe out of a protocol. Rates stay rates: they are of the cell's 1C then.

    Raises:
        ConversionError: with everything that is not understood.
    """
    if len(text) > LONGEST_B:
        raise cannot(f"the text is longer than {LONGEST_B} characters")
    try:
        protocol = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise cannot(f"this is not JSON: {error}") from error
    if not isinstance(protocol, dict) or not isinstance(protocol.get("method"), list):
        raise cannot("this is no unicycler protocol: it has no list 'method'")
    problems: list[str] = []
    lost: list[str] = []
    sample = _table(protocol, "sample")
    if sample.get("capacity_mAh") not in {None, ""}:
        lost.append(
            f"the sample's capacity of {sample['capacity_mAh']} mAh: register a cell whose 1C "
            "means that current"
        )
    body = _read(protocol["method"], problems, lost)
    limits, record = _limits(_table(protocol, "safety"), problems, lost), {}
    record = _record(_table(protocol, "record"), problems)
    if problems:
        raise cannot(*problems)
    told = ToldRecipe(name, "From an aurora-unicycler protocol.", body.body(), limits, record)
    return Converted(write_recipe(told), tuple(lost))


def _write(body: tuple[Node, ...], cell: Cell, method: list[dict[str, object]]) -> None:
    for node in body:
        if isinstance(node, Step):
            method += _written(node, cell)
        elif isinstance(node, Loop):
            tag = f"loop {sum(1 for step in method if step['step'] == 'tag') + 1}"
            method.append({"step": "tag", "tag": tag})
            _write(node.body, cell, method)
            method.append({"step": "loop", "loop_to": tag, "cycle_count": node.count})


def _written(step: Step, cell: Cell) -> list[dict[str, object]]:
    time, voltage = end_of(step, Quantity.STEP_TIME_S), end_of(step, Quantity.VOLTAGE_V)
    current = end_of(step, Quantity.CURRENT_A)
    until_time = {"until_time_s": time.value if time else None}
    taper = {"until_rate_C": _clean(current.value / cell.one_C_A) if current else None}
    match step.control:
        case Rest():
            return [{"step": "open_circuit_voltage", **until_time}]
        case ConstantCurrent(current_A):
            end = {"until_voltage_V": voltage.value if voltage else None}
            rate = _clean(current_A / cell.one_C_A)
            return [{"step": "constant_current", "rate_C": rate, **until_time, **end}]
        case ConstantCurrentConstantVoltage(current_A, voltage_V):
            rate = _clean(current_A / cell.one_C_A)
            end = {"until_voltage_V": voltage_V}
            return [
                {"step": "constant_current", "rate_C": rate, **until_time, **end},
                {"step": "constant_voltage", "voltage_V": voltage_V, **until_time, **taper},
            ]
        case ConstantVoltage(voltage_V):
            return [{"step": "constant_voltage", "voltage_V": voltage_V, **until_time, **taper}]
        case Impedance() as spectrum:
            if spectrum.bias is not None:
                raise cannot(f"a unicycler protocol has no bias: step '{step.label}' has one")
            peak = spectrum.amplitude * math.sqrt(2.0)
            key = "amplitude_mA" if spectrum.galvanostatic else "amplitude_V"
            return [
                {
                    "step": "impedance_spectroscopy",
                    key: _clean(peak * 1e3 if spectrum.galvanostatic else peak),
                    "start_frequency_Hz": spectrum.frequency_max_Hz,
                    "end_frequency_Hz": spectrum.frequency_min_Hz,
                    "points_per_decade": spectrum.points_per_decade,
                }
            ]
        case _:
            raise cannot(f"a unicycler protocol has nothing for step '{step.label}'")


def _read(method: list[Any], problems: list[str], lost: list[str]) -> Unrolled:
    told = Unrolled()
    tags: dict[str, int] = {}
    for number, step in enumerate(method, start=1):
        if not isinstance(step, dict):
            problems.append(f"step {number} is not a group of keys")
            continue
        kind = step.get("step")
        try:
            if kind == "tag":
                tags[str(step.get("tag", ""))] = number
            elif kind == "loop":
                target = step.get("loop_to", step.get("start_step", 1))
                if isinstance(target, str) and not target.isdecimal():
                    if target not in tags:
                        raise cannot(
                            f"step {number} goes back to tag '{target}', which is not there"
                        )
                    target = tags[target]
                told.again(number, int(str(target)), int(step.get("cycle_count", 0)))
            else:
                told.add(number, _step(str(kind), step, number, lost))
        except (ValueError, TypeError) as error:
            problems.append(f"step {number} ({kind}): {error}")
        except ConversionError as error:
            problems += [problem.message for problem in error.problems]
    return told


def _step(kind: str, step: dict[str, Any], number: int, lost: list[str]) -> Told:
    time = _number(step.get("until_time_s"))
    lasting = {} if time is None else {"at_most": amount(time, Kind.DURATION)}
    keys: dict[str, Value] = {}
    if kind == "open_circuit_voltage":
        if time is None:
            raise ValueError("it has no time")
        return Told("rest", {"for": amount(time, Kind.DURATION)})
    if kind == "constant_current":
        rate, current_mA = _rate(step.get("rate_C")), _number(step.get("current_mA"))
        flows = rate or current_mA
        if not flows:
            raise ValueError("it has neither rate_C nor current_mA")
        at = amount(abs(flows), Kind.C_RATE) if rate else amount(abs(flows) * 1e-3, Kind.CURRENT)
        keys["at"] = at
        voltage = _number(step.get("until_voltage_V"))
        if voltage is not None:
            keys["until"] = amount(voltage, Kind.VOLTAGE)
        keys |= lasting if voltage is not None else _for(lasting)
        return Told("charge" if flows > 0 else "discharge", keys)
    if kind == "constant_voltage":
        voltage = _number(step.get("voltage_V"))
        if voltage is None:
            raise ValueError("it has no voltage_V")
        keys["voltage"] = amount(voltage, Kind.VOLTAGE)
        taper_C, taper_mA = _rate(step.get("until_rate_C")), _number(step.get("until_current_mA"))
        if taper_C:
            keys["until"] = amount(abs(taper_C), Kind.C_RATE)
        elif taper_mA:
            keys["until"] = amount(abs(taper_mA) * 1e-3, Kind.CURRENT)
        keys |= lasting if "until" in keys else _for(lasting)
        return Told("hold", keys)
    if kind == "impedance_spectroscopy":
        lost += [
            f"step {number}: {key} {step[key]}"
            for key in ("measures_per_point", "drift_correction")
            if step.get(key) not in {None, False, 1}
        ]
        volts, milliamps = _number(step.get("amplitude_V")), _number(step.get("amplitude_mA"))
        if (volts is None) == (milliamps is None):
            raise ValueError("it needs one of amplitude_V and amplitude_mA")
        root = math.sqrt(2.0)
        keys["from"] = f"{_number(step.get('start_frequency_Hz')) or 0:g} Hz"
        keys["to"] = f"{_number(step.get('end_frequency_Hz')) or 0:g} Hz"
        keys["amplitude"] = (
            amount(_clean(volts / root), Kind.VOLTAGE)
            if volts is not None
            else amount(_clean((milliamps or 0.0) * 1e-3 / root), Kind.CURRENT)
        )
        keys["points"] = f"{int(step.get('points_per_decade', 10))} per decade"
        return Told("impedance", keys)
    raise ValueError("labctl knows no such step")


def _for(lasting: dict[str, str]) -> dict[str, Value]:
    return {"for": lasting["at_most"]} if lasting else {}


def _limits(safety: dict[str, Any], problems: list[str], lost: list[str]) -> dict[str, Value]:
    limits: dict[str, Value] = {}
    try:
        low, high = _number(safety.get("min_voltage_V")), _number(safety.get("max_voltage_V"))
        if low is not None and high is not None:
            limits["voltage"] = f"{amount(low, Kind.VOLTAGE)} .. {amount(high, Kind.VOLTAGE)}"
        elif low is not None or high is not None:
            lost.append("a voltage limit on one side alone: the cell's hold")
        low, high = _number(safety.get("min_current_mA")), _number(safety.get("max_current_mA"))
        if low is not None and high is not None and low < 0 < high:
            ends = [amount(value * 1e-3, Kind.CURRENT) for value in (low, high)]
            limits["current"] = " .. ".join(ends)
        elif low is not None or high is not None:
            lost.append("a current limit on one side alone: the cell's hold")
        charge = _number(safety.get("max_capacity_mAh"))
        if charge:
            limits["step charge"] = amount(charge * 1e-3, Kind.CHARGE)
        if _number(safety.get("delay_s")):
            lost.append("the delay of the limits: here they act at once")
    except (ValueError, TypeError) as error:
        problems.append(f"safety: {error}")
    return limits


def _record(rule: dict[str, Any], problems: list[str]) -> dict[str, Value]:
    record: dict[str, Value] = {}
    try:
        time_s = _number(rule.get("time_s"))
        if time_s:
            record["every"] = amount(time_s, Kind.DURATION)
        change_V = _number(rule.get("voltage_V"))
        if change_V:
            record["voltage_change"] = amount(change_V, Kind.VOLTAGE)
        change_mA = _number(rule.get("current_mA"))
        if change_mA:
            record["current_change"] = amount(change_mA * 1e-3, Kind.CURRENT)
    except (ValueError, TypeError) as error:
        problems.append(f"record: {error}")
    return record


def _table(protocol: dict[str, Any], key: str) -> dict[str, Any]:
    found = protocol.get(key)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def _rate(value: object) -> float | None:
    """A rate in C: a number, or a text such as '1/5', 'C/3' or 'D/2' (which discharges)."""
    if isinstance(value, str) and (match := _RATE.fullmatch(value)):
        over = float(match[1]) if match[1] else 1.0
        return (-over if match[2] == "D" else over) / float(match[3])
    return _number(value)


def _clean(value: float) -> float:
    """Without what binary fractions add in the last digits."""
    return float(f"{value:.12g}")


def _times_1000(value: float) -> float | None:
    return _clean(value * 1e3) if math.isfinite(value) else None
