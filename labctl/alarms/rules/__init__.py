"""Alarm rules: one file a rule, one line in RULES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labctl.alarms.evidence import Evaluation, Evidence
from labctl.alarms.rules import retention
from labctl.program import RetentionAlarm


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of rule of a Program is evaluated.

    evaluate: ``(rule, evidence, *, active) -> Evaluation``, pure.
    cycles_needed: ``(rule) -> (first, last)``, how many cycles of each end it looks at.
    """

    name: str
    priority: str
    evaluate: Callable[..., Evaluation]
    cycles_needed: Callable[[Any], tuple[int, int]]


RULES: dict[type, Rule] = {
    RetentionAlarm: Rule(
        retention.NAME, retention.PRIORITY, retention.evaluate, retention.cycles_needed
    ),
}


def evaluate(rule: RetentionAlarm, evidence: Evidence, *, active: bool) -> Evaluation:
    """What ``rule`` of a Program says about ``evidence``."""
    return RULES[type(rule)].evaluate(rule, evidence, active=active)
