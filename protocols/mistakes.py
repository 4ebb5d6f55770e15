"""What is wrong with a step that is none, and with steps that stand where they can do nothing."""

from __future__ import annotations

import itertools
from typing import Any

from labctl.protocols.source import Listing, Mapping, Problems, Text, shortened
from labctl.protocols.structure import (
    STRUCTURE,
    WrittenBranch,
    WrittenLeave,
    WrittenNode,
    WrittenStep,
    WrittenStop,
)
from labctl.protocols.techniques import TECHNIQUES
from labctl.protocols.written import Written, note
from labctl.units import nearest

STEP_WORDS = (*TECHNIQUES, *STRUCTURE)


def note_not_a_step(item: Text | Listing, problems: Problems) -> None:
    """Note an item of a list of steps that has no keys."""
    message = "a step is a word and what belongs to it, not a list"
    suggestion = "write for example '- rest: 10 min'"
    if isinstance(item, Text):
        message = message.replace("a list", f"'{shortened(item.value)}'")
        word, colon, rest = item.value.partition(":")
        if word in TECHNIQUES and not colon:
            message, suggestion = f"'{word}' does not say how", f"write '- {example_of(word)}'"
        elif word in STEP_WORDS:
            message = "a ':' needs a space after it"
            suggestion = f"write '- {word}: {shortened(rest.strip())}'"
        if word in {"leave", "stop"} and not colon:
            message, suggestion = f"'{word}' does not say what", f"write '- {example_of(word)}'"
    problems.add(item.place, message, suggestion)


def note_no_word(item: Mapping, problems: Problems) -> None:
    """Note a group in a list of steps in which no key is a kind of step."""
    if not item.entries:
        problems.add(item.place, "an empty step", "delete it")
        return
    key = item.entries[0][0]
    better = nearest(key.value, STEP_WORDS)
    suggestion = (
        f"did you mean '{better}'?" if better else f"a step is one of {', '.join(STEP_WORDS)}"
    )
    if key.value in {"then", "else"}:
        suggestion = f"write '{key.value}' without a '-', as far in as its 'if'"
    problems.add(key.place, f"'{shortened(key.value)}' is not a kind of step", suggestion)


def example_of(word: str) -> str:
    """A step of that kind, as it is written."""
    if word in TECHNIQUES:
        return TECHNIQUES[word].example
    examples = {"leave": "leave: loop", "stop": "stop: capacity is down"}
    return examples.get(word, "rest: 10 min")


def check_reached(steps: tuple[WrittenNode, ...], problems: Problems) -> None:
    """Note a step that stands after one behind which nothing is ever done."""
    for step, following in itertools.pairwise(steps):
        if _always_leaves(step):
            problems.add(
                following.key.place,
                f"this is never done: line {step.key.place.line} always leaves before it",
                "delete it, or put it first",
            )
            return


def _always_leaves(node: WrittenNode) -> bool:
    if isinstance(node, WrittenBranch):
        return all(body and _always_leaves(body[-1]) for body in (node.then, node.otherwise))
    return isinstance(node, WrittenLeave | WrittenStop)


def check_crossed(steps: tuple[WrittenNode, ...], problems: Problems) -> None:
    """Note charges that end below where the discharges beside them end: every step ends at once."""
    ends: dict[str, list[Written[Any]]] = {"charge": [], "discharge": []}
    for node in steps:
        if isinstance(node, WrittenStep) and node.technique.word in ends:
            until = getattr(node.fields, "until", None) or ()
            voltages = [end for end in until if getattr(end.value, "kind", "") == "voltage"]
            ends[node.technique.word] += voltages[:1]
    if not (ends["charge"] and ends["discharge"]):
        return
    highest = max(ends["charge"], key=lambda end: end.value.value)
    lowest = min(ends["discharge"], key=lambda end: end.value.value)
    if highest.value.value <= lowest.value.value:
        note(
            problems,
            highest.text,
            f"charging ends at {highest} and discharging at {lowest}, so each step ends at once",
            "exchange the two voltages",
        )
