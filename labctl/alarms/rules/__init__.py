"""Alarm rules on cycles: one file a rule, one line in RULES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labctl.alarms.evidence import Evaluation, Evidence
from labctl.alarms.rules import drop, efficiency, fade, knee, retention
from labctl.program import (
    AlarmRule,
    DropAlarm,
    EfficiencyAlarm,
    FadeAlarm,
    KneeAlarm,
    RetentionAlarm,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of rule of a Program is evaluated.

    evaluate: ``(rule, evidence, *, active) -> Evaluation``, pure: after each cycle that can be
        compared, in their order.
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
    DropAlarm: Rule(drop.NAME, drop.PRIORITY, drop.evaluate, drop.cycles_needed),
    EfficiencyAlarm: Rule(
        efficiency.NAME, efficiency.PRIORITY, efficiency.evaluate, efficiency.cycles_needed
    ),
    FadeAlarm: Rule(fade.NAME, fade.PRIORITY, fade.evaluate, fade.cycles_needed),
    KneeAlarm: Rule(knee.NAME, knee.PRIORITY, knee.evaluate, knee.cycles_needed),
}
"""Rules of a Program that are not here are watched by the node, reading by reading."""


def evaluate(rule: AlarmRule, evidence: Evidence, *, active: bool) -> Evaluation:
    """What ``rule`` of a Program says about ``evidence``."""
    return RULES[type(rule)].evaluate(rule, evidence, active=active)
