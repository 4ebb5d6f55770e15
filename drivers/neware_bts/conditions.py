"""The further ends of a step: ``<Other CndCount="1"><Cnd1 .../></Other>``. No I/O.

Codes and the attributes that go with them: see :mod:`labctl.drivers.neware_bts.steps` for how far
they are known. Voltage and current compare by ``>`` and ``<``, time by ``>=`` and ``<=``; charge
and energy are expressions in Ah and Wh that are compared with 0.
"""

from __future__ import annotations

import re
from decimal import Decimal

from labctl.drivers.neware_bts.fileunits import (
    AMPERE,
    ONE,
    SECOND,
    UNSCALED,
    VOLT,
    Unit,
    read_value,
    written,
)
from labctl.drivers.neware_bts.steps import Condition
from labctl.drivers.neware_bts.xmltree import Element, XmlError
from labctl.program import Comparison, Quantity

_EXPRESSION = "22"
_KINDS: dict[Quantity, tuple[str, Unit]] = {
    Quantity.VOLTAGE_V: ("1", VOLT),
    Quantity.CURRENT_A: ("2", AMPERE),
    Quantity.STEP_TIME_S: ("3", SECOND),
}
_VARIABLES = {Quantity.STEP_CHARGE_AH: "Ah", Quantity.STEP_ENERGY_WH: "Wh"}
_STRICT = {Comparison.AT_LEAST: "3", Comparison.AT_MOST: "5"}
_INCLUSIVE = {Comparison.AT_LEAST: "4", Comparison.AT_MOST: "6"}
_COMPARISONS = {
    code: comparison for codes in (_STRICT, _INCLUSIVE) for comparison, code in codes.items()
}
_NO_VARIABLE = "2147483647"
_ALWAYS = (
    f'TimeGoto="0" GlobleUserID="{_NO_VARIABLE}" GLobleType="1" GlobalVar="{_NO_VARIABLE}" Aux="0"'
)
_DIFFERENCE = re.compile(r"(Ah|Wh) - (\S{1,400})")

WATCHED = frozenset({*_KINDS, *_VARIABLES})
"""What a condition can look at."""


def written_conditions(conditions: tuple[Condition, ...]) -> list[str]:
    """The elements inside ``<Other>``.

    Raises:
        ValueError: a quantity that no condition looks at, or a value that is not finite.
    """
    return [_written(number, each) for number, each in enumerate(conditions, start=1)]


def read_conditions(other: Element, scale: Decimal) -> tuple[Condition, ...]:
    """What ``<Other>`` says; elements that are no conditions are passed over.

    Raises:
        XmlError: a condition of a kind that is not known here, or other than announced.
    """
    elements = [child for child in other.children if re.fullmatch(r"Cnd[0-9]{1,4}", child.tag)]
    announced = other.attributes.get("CndCount", str(len(elements))).strip()
    if announced != str(len(elements)):
        raise XmlError(
            f"<Other> announces {announced[:20]} conditions and holds {len(elements)}", other.line
        )
    return tuple(_read(element, scale) for element in elements)


def _written(number: int, condition: Condition) -> str:
    jump = f'Jump_Line="{int(condition.jump)}"'
    variable = _VARIABLES.get(condition.quantity)
    if variable is not None:
        codes = f'type="{_EXPRESSION}" Function="0" CmpType="{_STRICT[condition.comparison]}"'
        return (
            f'<Cnd{number} {codes} {jump} Value="0" {_ALWAYS} ExpressionName="expr{number}"'
            f' Expression="{variable} - {written(condition.value, ONE)}" />'
        )
    if condition.quantity not in _KINDS:
        raise ValueError(f"no condition of a step file looks at {condition.quantity}")
    kind, unit = _KINDS[condition.quantity]
    comparisons = _INCLUSIVE if condition.quantity is Quantity.STEP_TIME_S else _STRICT
    codes = f'type="{kind}" Function="0" CmpType="{comparisons[condition.comparison]}"'
    return f'<Cnd{number} {codes} {jump} Value="{written(condition.value, unit)}" {_ALWAYS} />'


def _read(element: Element, scale: Decimal) -> Condition:
    attributes = element.attributes
    comparison = _COMPARISONS.get(attributes.get("CmpType", "").strip())
    jump = attributes.get("Jump_Line", "").strip()
    if comparison is None or not re.fullmatch(r"[0-9]{1,6}", jump):
        raise XmlError(
            f"<{element.tag}> compares by {attributes.get('CmpType', '')[:20]!r} and leads to "
            f"{jump[:20]!r}, which is not known here",
            element.line,
        )
    kind = attributes.get("type", "").strip()
    if kind == _EXPRESSION:
        quantity, value = _read_expression(element)
        return Condition(quantity, comparison, value, int(jump))
    for quantity, (code, unit) in _KINDS.items():
        if code == kind:
            return Condition(quantity, comparison, read_value(element, unit, scale), int(jump))
    raise XmlError(f"<{element.tag}> is of type {kind[:20]!r}, not known here", element.line)


def _read_expression(element: Element) -> tuple[Quantity, float]:
    text = element.attributes.get("Expression", "").strip()
    found = _DIFFERENCE.fullmatch(text)
    if found is None or read_value(element, ONE) != 0:
        raise XmlError(
            f"<{element.tag}> has the expression {text[:40]!r}, which is not known here",
            element.line,
        )
    quantity = next(each for each, name in _VARIABLES.items() if name == found[1])
    number = Element(element.tag, {"Expression": found[2]}, element.line)
    return quantity, read_value(number, ONE, UNSCALED, attribute="Expression")
