"""What a node watches by itself, reading by reading: one line a condition. And what is seen of the
node from outside.

Rules on cycles are evaluated where the cycles are, in the archive; what must be known within
seconds is seen by the node and told as :class:`labctl.stream.events.ConditionChanged`, in the order
of its journal. An alarm comes of each. None of them acts: what acts is a limit, and trips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Priority = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a node watches. ``about``: a run, or the node itself."""

    name: str
    about: Literal["run", "node"]
    priority: Priority
    means: str


CONDITIONS: dict[str, Condition] = {
    each.name: each
    for each in (
        Condition("no-connection", "run", "high", "the instrument cannot be reached"),
        Condition("stuck", "run", "high", "something keeps the run from going on"),
        Condition("silent", "run", "high", "no reading came in three reporting intervals"),
        Condition("frozen", "run", "high", "voltage and current do not change any more"),
        Condition("temperature", "run", "high", "the cell is too warm or too cold"),
        Condition("temperature-rate", "run", "high", "the temperature changes too fast"),
        Condition("temperature-lost", "run", "medium", "the temperature is not known any more"),
        Condition("disk", "node", "high", "the journal's disk is full"),
        Condition("behind", "node", "medium", "the archive has not taken the journal for long"),
        Condition("node-gone", "node", "high", "the node went without a word"),
    )
}

GONE = CONDITIONS["node-gone"]
"""Seen by the archive, of the node's last will. While it holds, the other alarms of the node and of
its runs say nothing more."""


def condition(name: str) -> Condition:
    """The condition of this name; one that a newer node knows and we do not is of medium priority
    and about a run."""
    return CONDITIONS.get(name) or Condition(name, "run", "medium", name)
