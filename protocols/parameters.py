"""The parameters of a recipe: values with names, that may be set for one run within bounds.

The short form is a name with its default. The long form has a group: ``default``, or none where a
value must be given each time; ``from`` and ``to``, between which it must lie; ``about``, in words;
``example``, with which a recipe is looked at that has no default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping as Table
from dataclasses import dataclass, replace
from typing import TypeAlias

from labctl.protocols.source import Listing, Mapping, Node, Place, Problems, Text, shortened
from labctl.protocols.written import note, read_count
from labctl.units import (
    CHARGE_KINDS,
    CURRENT_KINDS,
    ENERGY_KINDS,
    POWER_KINDS,
    Amount,
    Kind,
    QuantityError,
    nearest,
    parse_amount,
)

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
KEYS = ("default", "from", "to", "example", "about")
OFF = "off"
BROKEN = Listing((), Place())
"""The value of a parameter whose declaration is wrong, which is noted already."""
Scope: TypeAlias = Table[str, Node]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as it is declared.

    ``default`` is None where a value must be given; ``example`` stands in where none is.
    """

    name: Text
    default: Node | None
    example: Node
    lowest: Text | None = None
    highest: Text | None = None
    about: str = ""

    @property
    def bounds(self) -> str:
        """'3.8 V .. 4.3 V', '' where there are none."""
        if self.lowest is not None and self.highest is not None:
            return f"{self.lowest.value} .. {self.highest.value}"
        if self.lowest is not None:
            return f"at least {self.lowest.value}"
        return f"at most {self.highest.value}" if self.highest is not None else ""


def read_parameters(root: Mapping, problems: Problems) -> dict[str, Parameter]:
    """The parameters of a recipe, with what is wrong with them noted."""
    node = root.get("parameters")
    if node is None:
        return {}
    key = root.key("parameters")
    if not isinstance(node, Mapping):
        if key is not None:
            problems.add(key.place, "'parameters' takes names with their values")
        return {}
    found: dict[str, Parameter] = {}
    for name, value in node.entries:
        if not check_name(name, problems):
            continue
        parameter = None
        if isinstance(value, Mapping):
            parameter = _long_form(name, value, problems)
        elif is_value(value):
            parameter = Parameter(name, value, value)
        else:
            problems.add(
                name.place,
                f"the parameter '{name.value}' needs one value or a list of values",
                f"write for example '{name.value}: 4.1 V'",
            )
        if parameter is not None:
            _check_bounds(parameter, problems)
        found[name.value] = parameter or Parameter(name, BROKEN, BROKEN)
    return found


def check_name(at: Text, problems: Problems) -> bool:
    """Whether ``at`` can be a name; noted if it cannot."""
    name = at.value
    if NAME.fullmatch(name):
        return True
    plain = re.sub(r"[^a-z0-9_]+", "_", name.lower().lstrip("$")).strip("_")
    better = f"write '{plain}'" if NAME.fullmatch(plain) else "write for example 'upper'"
    problems.add(
        at.place,
        f"'{shortened(name)}' cannot be a name: small letters, digits and '_' only",
        better,
    )
    return False


def is_value(node: Node) -> bool:
    """Whether it is a value that is not empty, or a list of such values."""
    if isinstance(node, Listing):
        return bool(node.items) and all(
            isinstance(item, Text) and item.value != "" for item in node.items
        )
    return isinstance(node, Text) and (node.value != "" or node.quoted)


def put_given(
    parameters: Table[str, Parameter], given: Table[str, Node], problems: Problems
) -> dict[str, Node]:
    """Each parameter's value: what is given for it, else its default, else its example.

    Wrong values are noted where they stand, or where the parameter is declared if they stand
    outside the text.
    """
    scope = {name: one.example for name, one in parameters.items()}
    for name, value in given.items():
        right = [_check_given(parameters[name], text, problems) for text in texts_of(value)]
        scope[name] = value if all(right) else scope[name]
    return scope


def missing(parameters: Table[str, Parameter], given: Iterable[str]) -> list[Parameter]:
    """The parameters that have no default and are not given."""
    names = set(given)
    return [one for name, one in parameters.items() if one.default is None and name not in names]


def texts_of(node: Node) -> tuple[Text, ...]:
    """The value, or the values of a list."""
    if isinstance(node, Listing):
        return tuple(item for item in node.items if isinstance(item, Text))
    return (node,) if isinstance(node, Text) else ()


def as_text(node: Node) -> str:
    """As a person writes it: '4.1 V', '[1C, 2C]'."""
    if isinstance(node, Listing):
        return "[" + ", ".join(as_text(item) for item in node.items) + "]"
    return node.value if isinstance(node, Text) else ""


def _long_form(name: Text, group: Mapping, problems: Problems) -> Parameter | None:
    right = True
    for key, value in group.entries:
        if key.value not in KEYS:
            better = nearest(key.value, KEYS)
            known = "its keys are " + ", ".join(f"'{known}'" for known in KEYS)
            problems.add(
                key.place,
                f"'{shortened(key.value)}' is not a key of the parameter '{name.value}'",
                f"did you mean '{better}'?" if better else known,
            )
            right = False
        elif not (is_value(value) if key.value in {"default", "example"} else _is_text(value)):
            many = " or a list of values" if key.value in {"default", "example"} else ""
            problems.add(key.place, f"'{key.value}' takes one value{many}")
            right = False
    if not right:
        return None
    lowest, highest = (_text(group.get(key)) for key in ("from", "to"))
    default = group.get("default")
    example = default or group.get("example") or lowest or highest
    if example is None:
        problems.add(
            name.place,
            f"nothing says what kind of value the parameter '{name.value}' is",
            "write 'default: 4.1 V', or 'example: 4.1 V' if it must be given each time",
        )
        return None
    about = _text(group.get("about"))
    return Parameter(name, default, example, lowest, highest, about.value if about else "")


def _is_text(node: Node) -> bool:
    return isinstance(node, Text) and node.value != ""


def _text(node: Node | None) -> Text | None:
    return node if isinstance(node, Text) else None


def _check_bounds(parameter: Parameter, problems: Problems) -> None:
    lowest, highest = parameter.lowest, parameter.highest
    sample = next(iter(texts_of(parameter.example)), None)
    for bound in (lowest, highest):
        if bound is None or sample is None:
            continue
        if _measured(bound.value) is None:
            problems.add(
                bound.place,
                f"'{shortened(bound.value)}' is neither a quantity nor a whole number",
                "only those have bounds; write for example 'from: 3.8 V'",
            )
            return
    if lowest is not None and highest is not None:
        low, high = _measured(lowest.value), _measured(highest.value)
        if low and high and low.kind is high.kind and not low.value < high.value:
            problems.add(
                highest.place,
                f"the bounds '{parameter.bounds}' are empty: 'from' must be below 'to'",
                f"write 'from: {highest.value}, to: {lowest.value}'"
                if high.value < low.value
                else "",
            )
            return
    for text in texts_of(parameter.example):
        _check_within(parameter, text, text, problems)


def _check_given(parameter: Parameter, text: Text, problems: Problems) -> bool:
    """Whether a value is of the kind of the default and within the bounds; noted if not."""
    at = text if text.place.line else replace(parameter.name, value=text.value)
    sample = next(iter(texts_of(parameter.example)), None)
    wanted = _measured(sample.value) if sample is not None else None
    if wanted is None or text.value == OFF:
        return True
    name = parameter.name.value
    try:
        if wanted.kind is None:
            read_count(text.value)
        else:
            parse_amount(text.value, _family(wanted.kind))
    except QuantityError as error:
        better = error.suggestion or f"write for example '{as_text(parameter.example)}'"
        note(problems, at, f"the parameter '{name}': {error}", better)
        return False
    return _check_within(parameter, text, at, problems)


def _check_within(parameter: Parameter, text: Text, at: Text, problems: Problems) -> bool:
    value = _measured(text.value)
    name = parameter.name.value
    for bound, sign in ((parameter.lowest, 1.0), (parameter.highest, -1.0)):
        limit = _measured(bound.value) if bound is not None else None
        if bound is None or limit is None:
            continue
        if value is None or value.kind is not limit.kind:
            note(
                problems,
                at,
                f"'{shortened(text.value)}' cannot be compared with the bounds of '{name}', "
                f"{parameter.bounds}",
                f"write it in the unit of '{bound.value}'",
            )
            return False
        if sign * value.value < sign * limit.value:
            side = "below" if sign > 0 else "above"
            note(
                problems,
                at,
                f"'{shortened(text.value)}' is {side} what the parameter '{name}' may be: "
                f"{parameter.bounds}",
                f"write {'at least' if sign > 0 else 'at most'} '{bound.value}'",
            )
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Measured:
    """A number in the base unit of its kind; a whole number has no kind."""

    value: float
    kind: Kind | None


def _measured(text: str) -> _Measured | None:
    """None for a word, a range, a condition: what has no bounds."""
    try:
        amount: Amount = parse_amount(text, tuple(Kind))
    except QuantityError:
        try:
            return _Measured(float(read_count(text)), None)
        except QuantityError:
            return None
    return _Measured(amount.value, amount.kind)


_FAMILIES: tuple[tuple[Kind, ...], ...] = (
    CURRENT_KINDS,
    CHARGE_KINDS,
    ENERGY_KINDS,
    POWER_KINDS,
)


def _family(kind: Kind) -> tuple[Kind, ...]:
    return next((family for family in _FAMILIES if kind in family), (kind,))
