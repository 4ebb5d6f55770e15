"""What the writers of other formats ask of a Program."""

from __future__ import annotations

import math
from collections.abc import Iterator

from labctl.program import (
    INFINITY,
    EndCondition,
    Loop,
    Node,
    Program,
    Quantity,
    Step,
    Then,
    inner_bodies,
    technique_of,
)


def end_of(step: Step, quantity: Quantity) -> EndCondition | None:
    """The step's end by ``quantity``, None if it has none."""
    return next((end for end in step.ends if end.quantity is quantity), None)


def name_of(step: Step) -> str:
    """How a person finds the step."""
    line = f" (line {step.line})" if step.line else ""
    return f"'{step.label}'{line}"


def unsaid(program: Program, *, ends: frozenset[Quantity], techniques: frozenset[str]) -> list[str]:
    """What a format without branches cannot say, and without which it would be another program.

    Args:
        program: to be written.
        ends: the quantities by which a step can end in the format.
        techniques: that the format has, as :func:`technique_of` names them.
    """
    reasons = []
    for node in _nodes(program.body):
        if isinstance(node, Loop):
            if node.until:
                reasons.append("a loop that is left by a cycle's result")
        elif isinstance(node, Step):
            technique = technique_of(node.control)
            if technique not in techniques:
                reasons.append(f"step {name_of(node)}: the technique '{technique}'")
                continue
            reasons += [
                f"step {name_of(node)}: its end by {end.quantity}"
                for end in node.ends
                if end.quantity not in ends
            ]
            reasons += [
                f"step {name_of(node)}: '{end.then}' after its end by {end.quantity}"
                for end in node.ends
                if end.then is not Then.NEXT
            ]
        else:
            reasons.append("a branch, or an end of the program before its last step")
    return list(dict.fromkeys(reasons))


def left_out(program: Program, *, limits: bool, records: bool, one_rule: bool = False) -> list[str]:
    """What may be lost without another measurement, a sentence each.

    Args:
        program: to be written.
        limits, records: whether the format lacks them.
        one_rule: the format has one record rule for all steps.
    """
    lost = []
    if limits:
        lost.append("the limits: set them where it is run")
    if any(step.limits is not None for step in program.steps):
        lost.append("the limits of single steps")
    rules = {step.record for step in program.steps}
    if records:
        lost.append("when readings are kept")
    elif one_rule and len(rules) > 1:
        lost.append("different record rules for different steps: the finest is taken for all")
    if any(rule.charge_change_Ah < INFINITY for rule in rules) and not records:
        lost.append("records by change of charge")
    if program.alarms:
        lost.append("the alarms")
    if any(
        isinstance(node, Loop) and node.counts_cycles and node.cycle_class != "cycle"
        for node in _nodes(program.body)
    ):
        lost.append("the classes of cycles")
    return lost


def finite_or_none(value: float) -> float | None:
    """None for infinity: a limit or a rule that is off."""
    return value if math.isfinite(value) else None


def _nodes(body: tuple[Node, ...]) -> Iterator[Node]:
    for node in body:
        yield node
        for inner in inner_bodies(node):
            yield from _nodes(inner)
