"""PyBaMM's experiment text: steps as English sentences, loops as Python lists times a number.

Text as in ``pybamm.Experiment([...])``: a list of sentences and of tuples of sentences (a tuple is
a cycle), added and multiplied. Rates in C are of the parameter set's nominal capacity there, and of
the cell's 1C here. Source: the documentation of ``pybamm.Experiment`` and ``pybamm.step.string``.
"""

from __future__ import annotations

import ast
import re
from decimal import Decimal
from typing import Final

from labctl.convert.parts import end_of, left_out, unsaid
from labctl.convert.told import (
    Converted,
    Told,
    ToldLoop,
    ToldNode,
    ToldRecipe,
    Value,
    amount,
    cannot,
    write_recipe,
)
from labctl.model import Cell
from labctl.program import (
    ConstantCurrent,
    ConstantCurrentConstantVoltage,
    ConstantPower,
    ConstantVoltage,
    Loop,
    Node,
    Program,
    Quantity,
    Rest,
    Step,
)
from labctl.units import Kind

MOST_STEPS: Final = 10_000
LONGEST_B: Final = 1024 * 1024
_DEEPEST: Final = 50
_TECHNIQUES: Final = frozenset(
    {
        "rest",
        "constant_current",
        "constant_voltage",
        "constant_current_constant_voltage",
        "constant_power",
    }
)
_ENDS: Final = frozenset({Quantity.STEP_TIME_S, Quantity.VOLTAGE_V, Quantity.CURRENT_A})

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?"
_TIME = rf"({_NUMBER})\s*(s|sec|secs|second|seconds|min|minute|minutes|h|hr|hour|hours)"
_ELECTRIC = rf"(?:C\s*/\s*({_NUMBER})|({_NUMBER})\s*(mA|A|mW|W|mV|V|C))"
_SENTENCE = re.compile(
    rf"""\s*(?P<verb>charge|discharge|hold|rest)
    (?:\s+at\s+(?P<at>{_ELECTRIC}))?
    (?:\s+for\s+(?P<time>{_TIME}))?
    (?:\s+(?:or\s+)?until\s+(?P<until>{_ELECTRIC}))?
    (?:\s+at\s+(?P<temperature>-?{_NUMBER})\s*oC)?
    (?:\s*\((?P<period>{_TIME})\s+period\))?\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_UNITS: Final = {"ma": "mA", "a": "A", "mw": "mW", "w": "W", "mv": "mV", "v": "V", "c": "C"}


def to_pybamm(program: Program, cell: Cell) -> Converted:
    """The program as the text of ``pybamm.Experiment``'s list.

    Raises:
        ConversionError: it has steps that PyBaMM has no sentence for.
    """
    reasons = unsaid(program, ends=_ENDS, techniques=_TECHNIQUES)
    if reasons:
        raise cannot(*(f"PyBaMM's text has no {reason}" for reason in reasons))
    parts = _written(program.body, cell)
    lost = left_out(program, limits=True, records=False)
    if any(step.record.voltage_change_V < 1e9 for step in program.steps):
        lost.append("records by change of voltage or current: PyBaMM keeps one a period")
    lost.append("what 1C means: PyBaMM takes the nominal capacity of its parameter set")
    whole = parts[0] if len(parts) == 1 else "(\n    " + "\n    + ".join(parts) + "\n)"
    return Converted(whole + "\n", tuple(lost))


def from_pybamm(text: str, name: str) -> Converted:
    """A recipe out of such a list, or out of one sentence a line.

    Raises:
        ConversionError: with every sentence that is not understood.
    """
    if len(text) > LONGEST_B:
        raise cannot(f"the text is longer than {LONGEST_B} characters")
    problems: list[str] = []
    lost: dict[str, None] = {}
    body = _read(text, problems, lost)
    if problems:
        raise cannot(*problems)
    if not body:
        raise cannot("there is no step in the text")
    recipe = ToldRecipe(name, "From a PyBaMM experiment.", body)
    lost["the limits: the cell's hold where none are written"] = None
    lost["what 1C means: here it is the cell's"] = None
    return Converted(write_recipe(recipe), tuple(lost))


def _written(body: tuple[Node, ...], cell: Cell) -> list[str]:
    """Lists to be added up."""
    parts: list[str] = []
    flat: list[str] = []
    for node in body:
        if isinstance(node, Step):
            flat += [repr(sentence) for sentence in _sentences(node, cell)]
            continue
        if not isinstance(node, Loop):
            continue
        if flat:
            parts.append(_list(flat))
            flat = []
        inner = _written(node.body, cell)
        if len(inner) == 1 and node.counts_cycles and "*" not in inner[0]:
            parts.append(f"[({inner[0].strip()[1:-1].strip().rstrip(',')},)] * {node.count}")
        else:
            parts.append(f"({' + '.join(inner)}) * {node.count}")
    if flat:
        parts.append(_list(flat))
    return parts


def _list(sentences: list[str]) -> str:
    return "[" + ", ".join(sentences) + "]"


def _sentences(step: Step, cell: Cell) -> list[str]:
    time, voltage = end_of(step, Quantity.STEP_TIME_S), end_of(step, Quantity.VOLTAGE_V)
    current = end_of(step, Quantity.CURRENT_A)
    lasting = f" for {_plain(time.value)} seconds" if time else ""
    joined = " or until " if time else " until "
    period = f" ({_plain(step.record.every_s)} second period)"
    taper = f"{joined}{_plain(current.value / cell.one_C_A)}C" if current else ""
    match step.control:
        case Rest():
            return [f"Rest{lasting}{period}"]
        case ConstantCurrent(current_A):
            verb = "Charge" if current_A > 0 else "Discharge"
            end = f"{joined}{_plain(voltage.value)} V" if voltage else ""
            return [f"{verb} at {_plain(abs(current_A) / cell.one_C_A)}C{lasting}{end}{period}"]
        case ConstantCurrentConstantVoltage(current_A, voltage_V):
            verb = "Charge" if current_A > 0 else "Discharge"
            rate = _plain(abs(current_A) / cell.one_C_A)
            return [
                f"{verb} at {rate}C{lasting}{joined}{_plain(voltage_V)} V{period}",
                f"Hold at {_plain(voltage_V)} V{lasting}{taper}{period}",
            ]
        case ConstantVoltage(voltage_V):
            return [f"Hold at {_plain(voltage_V)} V{lasting}{taper}{period}"]
        case ConstantPower(power_W):
            verb = "Charge" if power_W > 0 else "Discharge"
            end = f"{joined}{_plain(voltage.value)} V" if voltage else ""
            return [f"{verb} at {_plain(abs(power_W))} W{lasting}{end}{period}"]
        case _:
            raise cannot(f"PyBaMM's text has no sentence for step '{step.label}'")


def _plain(value: float) -> str:
    """Without an exponent: PyBaMM's own parser takes none."""
    text = f"{Decimal(f'{value:.10g}'):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _read(text: str, problems: list[str], lost: dict[str, None]) -> tuple[ToldNode, ...]:
    try:
        tree = ast.parse(f"({text.strip()}\n)", mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        lines = [line.strip() for line in text.splitlines()]
        found = [_sentence(line, problems, lost) for line in lines if line and line[0] != "#"]
        return tuple(step for step in found if step is not None)
    budget = [MOST_STEPS]
    return _evaluated(tree.body, problems, lost, budget, 0)


def _evaluated(
    node: ast.expr, problems: list[str], lost: dict[str, None], budget: list[int], depth: int
) -> tuple[ToldNode, ...]:
    budget[0] -= 1
    if budget[0] < 0 or depth > _DEEPEST:
        raise cannot(f"the text has more than {MOST_STEPS} parts, or is too deep")
    match node:
        case ast.Constant(value=str() as sentence):
            step = _sentence(sentence, problems, lost)
            return () if step is None else (step,)
        case ast.List(elts=parts):
            return tuple(
                step
                for part in parts
                for step in _evaluated(part, problems, lost, budget, depth + 1)
            )
        case ast.Tuple(elts=parts):
            body = tuple(
                step
                for part in parts
                for step in _evaluated(part, problems, lost, budget, depth + 1)
            )
            return (ToldLoop(1, body),) if body else ()
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _evaluated(left, problems, lost, budget, depth + 1) + _evaluated(
                right, problems, lost, budget, depth + 1
            )
        case (
            ast.BinOp(left=body, op=ast.Mult(), right=ast.Constant(value=int() as count))
            | ast.BinOp(left=ast.Constant(value=int() as count), op=ast.Mult(), right=body)
        ) if count >= 1 and not isinstance(count, bool):
            inner = _evaluated(body, problems, lost, budget, depth + 1)
            if len(inner) == 1 and isinstance(inner[0], ToldLoop) and inner[0].count == 1:
                return (ToldLoop(count, inner[0].body),)
            return (ToldLoop(count, inner),) if inner else ()
        case _:
            words = ast.unparse(node)
            problems.append(f"'{words[:60]}' is neither a sentence nor a list of them")
            return ()


def _sentence(text: str, problems: list[str], lost: dict[str, None]) -> Told | None:
    match = _SENTENCE.fullmatch(text)
    if match is None:
        problems.append(
            f"'{text[:80]}' is not understood: write for example 'Charge at C/5 until 4.1 V'"
        )
        return None
    verb, at = match["verb"].lower(), match["at"]
    if match["temperature"]:
        lost["temperatures in sentences: write '- temperature:' before the step"] = None
    keys: dict[str, Value] = {}
    until = _quantity(match["until"])
    time = _duration(match["time"])
    if verb == "rest":
        if at or until or not time:
            problems.append(f"'{text[:80]}': a rest takes a time and nothing else")
            return None
        keys["for"] = time
    elif verb == "hold":
        voltage = _quantity(at)
        if voltage is None or not voltage.endswith("V"):
            problems.append(f"'{text[:80]}': a hold takes a voltage")
            return None
        keys["voltage"] = voltage
        if until:
            keys["until"] = until
    else:
        rate = _quantity(at)
        if rate is None or rate.endswith("V"):
            problems.append(f"'{text[:80]}': it does not say at which current or power")
            return None
        keys["at"] = rate
        if until:
            keys["until"] = until
    if verb != "rest" and time:
        keys["at_most" if until else "for"] = time
    if verb != "rest" and not until and not time:
        problems.append(f"'{text[:80]}' has no end")
        return None
    if match["period"]:
        keys["record"] = {"every": _duration(match["period"])}
    return Told(verb, keys)


def _quantity(text: str | None) -> str | None:
    if text is None:
        return None
    match = re.fullmatch(_ELECTRIC, text.strip(), re.IGNORECASE)
    if match is None:
        return None
    if match[1]:
        return f"C/{match[1]}"
    unit = _UNITS[match[3].lower()]
    return f"{match[2]}C" if unit == "C" else f"{match[2]} {unit}"


def _duration(text: str | None) -> str:
    match = re.fullmatch(_TIME, (text or "").strip(), re.IGNORECASE)
    if match is None:
        return ""
    seconds = {"s": 1.0, "m": 60.0, "h": 3600.0}[match[2][0].lower()]
    return amount(float(match[1]) * seconds, Kind.DURATION)
