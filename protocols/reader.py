"""From the text's nodes to the tree of a recipe: parameters put in, 'for' unrolled, all checked.

What comes out is typed and knows where each value was written. It knows no cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from labctl.protocols.alarms import AlarmsFields, check_alarms
from labctl.protocols.fields import F, read_fields
from labctl.protocols.source import (
    DEEPEST,
    Listing,
    Mapping,
    Node,
    Place,
    Problems,
    Text,
    shortened,
)
from labctl.protocols.structure import (
    LOOPS,
    LimitsFields,
    WrittenFor,
    WrittenLoop,
    WrittenNode,
    WrittenRecipe,
    WrittenStep,
)
from labctl.protocols.techniques import TECHNIQUES
from labctl.protocols.techniques.base import Sheet, Technique
from labctl.protocols.written import Fields, RecordFields, Written, note
from labctl.units import nearest

MOST_STEPS = 10_000
MOST_VISITS = 1_000_000
MOST_EXPANDED_NODES = 200_000
LONGEST_NAME = 120

SECTIONS = ("recipe", "about", "parameters", "limits", "record", "alarms", "steps")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_STEP_WORDS = (*TECHNIQUES, *LOOPS)
Scope: TypeAlias = Table[str, Node]


def parameters_of(root: Mapping, problems: Problems) -> dict[str, Node]:
    """The parameters with their defaults: each one value or a list of values."""
    node = root.get("parameters")
    if node is None:
        return {}
    if not isinstance(node, Mapping):
        problems.add(_key(root, "parameters").place, "'parameters' takes names with their values")
        return {}
    found: dict[str, Node] = {}
    for name, value in node.entries:
        if _check_name(name, name.value, problems) and is_parameter_value(value):
            found[name.value] = value
        elif _NAME.fullmatch(name.value):
            problems.add(
                name.place,
                f"the parameter '{name.value}' needs one value or a list of values",
                f"write for example '{name.value}: 4.1 V'",
            )
    return found


def is_parameter_value(node: Node) -> bool:
    """Whether it is a value that is not empty, or a list of such values."""
    if isinstance(node, Listing):
        return bool(node.items) and all(
            isinstance(item, Text) and item.value != "" for item in node.items
        )
    return isinstance(node, Text) and (node.value != "" or node.quoted)


def read_structure(root: Node, scope: Scope, problems: Problems) -> WrittenRecipe | None:
    """The whole recipe with the parameters of ``scope``; None with everything wrong noted."""
    if not isinstance(root, Mapping):
        problems.add(root.place, "a recipe is a group of keys", "begin with 'recipe:' and a name")
        return None
    for key, _ in root.entries:
        if key.value not in SECTIONS:
            better = nearest(key.value, SECTIONS)
            problems.add(
                key.place,
                f"'{shortened(key.value)}' is not a part of a recipe",
                f"did you mean '{better}'?" if better else f"its parts are {', '.join(SECTIONS)}",
            )
    reader = _Reader(problems, dict(scope))
    name = _plain_text(root, "recipe", problems)
    if not name:
        problems.add(_key(root, "recipe").place, "the recipe has no name", "write 'recipe: a name'")
    about = _plain_text(root, "about", problems)
    limits = reader.section(root, "limits", LimitsFields)
    record = reader.section(root, "record", RecordFields, short="every")
    alarms = reader.section(root, "alarms", AlarmsFields)
    reader.sheet.voltage = limits.voltage if limits else None
    key = _key(root, "steps")
    node = root.get("steps")
    steps: tuple[WrittenNode, ...] = ()
    if node is None:
        problems.add(Place(1, 1), "the recipe has no steps", "write 'steps:' and a list")
    else:
        before = len(problems.found)
        steps = reader.steps(node, key, dict(scope), _Around())
        if alarms is not None and len(problems.found) == before:
            check_alarms(alarms, _cycles(steps), problems)
    reader.check_used(root)
    if problems.found:
        return None
    return WrittenRecipe(
        name, about, limits or LimitsFields(), record, alarms or AlarmsFields(), steps, key
    )


@dataclass(frozen=True, slots=True)
class _Around:
    """What stands around a step."""

    in_cycle: bool = False
    visits: int = 1
    depth: int = 0


@dataclass(slots=True)
class _Reader:
    problems: Problems
    scope: dict[str, Node]
    used: set[str] = field(default_factory=set)
    sheet: Sheet = field(init=False)
    steps_read: int = 0
    nodes_read: int = 0
    visits: int = 0

    def __post_init__(self) -> None:
        self.sheet = Sheet(self.problems)

    def section(self, root: Mapping, key: str, model: type[F], short: str = "") -> F | None:
        """A top-level group, None if it is not written or wrong."""
        node = root.get(key)
        if node is None:
            return None
        try:
            put_in = self.put_in(node, self.scope)
        except _UnknownName:
            return None
        return read_fields(model, put_in, _key(root, key), self.problems, short=short)

    def put_in(self, node: Node, scope: Scope) -> Node:
        """``node`` with every $name replaced by its value."""
        self.nodes_read += 1
        if self.nodes_read > MOST_EXPANDED_NODES:
            raise self.problems.stop(
                node.place, "the 'for' loops unroll to too much", "use shorter lists"
            )
        if isinstance(node, Listing):
            return replace(node, items=tuple(self.put_in(item, scope) for item in node.items))
        if isinstance(node, Mapping):
            entries = tuple((key, self.put_in(value, scope)) for key, value in node.entries)
            return replace(node, entries=entries)
        if not node.value.startswith("$"):
            return node
        name = node.value[1:]
        if name not in scope:
            better = nearest(name, scope)
            self.problems.add(
                node.place,
                f"'{shortened(node.value)}' is neither a parameter nor the name of a 'for'",
                f"did you mean '${better}'?" if better else "write it under 'parameters'",
            )
            raise _UnknownName
        self.used.add(name)
        return _named(scope[name], name, node.place)

    def steps(self, node: Node, at: Text, scope: Scope, around: _Around) -> tuple[WrittenNode, ...]:
        """A list of steps."""
        if isinstance(node, Mapping):
            self.problems.add(
                at.place, f"'{at.value}' takes a list of steps", "begin each step with '- '"
            )
            return ()
        if not isinstance(node, Listing) or not node.items:
            self.problems.add(
                at.place, f"'{at.value}' has no steps", "write for example '- rest: 10 min'"
            )
            return ()
        if around.depth > DEEPEST:
            raise self.problems.stop(at.place, f"loops are nested more than {DEEPEST} deep")
        found = [self._item(item, scope, around) for item in node.items]
        steps = tuple(step for step in found if step is not None)
        if around.depth > 0 and len(steps) == len(node.items):
            _check_crossed(steps, self.problems)
        return steps

    def check_used(self, root: Mapping) -> None:
        """Note parameters that nothing uses."""
        node = root.get("parameters")
        if self.problems.found or not isinstance(node, Mapping):
            return
        for name, _ in node.entries:
            if name.value not in self.used:
                self.problems.add(
                    name.place,
                    f"the parameter '{name.value}' is never used",
                    f"write '${name.value}' where it is meant, or delete it",
                )

    def _item(self, item: Node, scope: Scope, around: _Around) -> WrittenNode | None:
        if not isinstance(item, Mapping):
            self._not_a_step(item)
            return None
        words = [key for key, _ in item.entries if key.value in _STEP_WORDS]
        techniques = [word for word in words if word.value in TECHNIQUES]
        if len(techniques) == 1 and item.get("do") is None:
            words = techniques
        if len(words) > 1:
            first, second = words[0], words[1]
            self.problems.add(
                second.place,
                f"'{second.value}' and '{first.value}' stand in one step",
                f"begin '{second.value}' with its own '- '",
            )
            return None
        if not words:
            self._no_word(item)
            return None
        word = words[0]
        try:
            if word.value in TECHNIQUES:
                return self._step(TECHNIQUES[word.value], word, item, scope, around)
            return self._loop(word, item, scope, around)
        except _UnknownName:
            return None

    def _step(
        self, technique: Technique[Any], word: Text, item: Mapping, scope: Scope, around: _Around
    ) -> WrittenStep | None:
        self.steps_read += 1
        self.visits += around.visits
        if self.steps_read > MOST_STEPS:
            raise self.problems.stop(
                word.place,
                f"the recipe has more than {MOST_STEPS} steps when 'for' is unrolled",
                "use shorter lists, or 'repeat' and 'cycle', which are not unrolled",
            )
        if self.visits > MOST_VISITS:
            raise self.problems.stop(
                word.place,
                f"the recipe goes through more than {MOST_VISITS} steps in all",
                "let the loops around this step run fewer times",
            )
        for key, _ in item.entries:
            if key is not word:
                inside = f"write it inside: '{word.value}: {{…, {key.value}: …}}'"
                known = _known_key(technique.fields, key.value)
                self.problems.add(
                    key.place,
                    f"'{shortened(key.value)}' does not belong beside '{word.value}'",
                    inside if known else f"delete it, or begin a step with '- {_or(key.value)}'",
                )
        value = item.get(word.value)
        assert value is not None  # noqa: S101
        put_in = self.put_in(value, scope)
        fields = read_fields(technique.fields, put_in, word, self.problems, short=technique.short)
        if fields is None:
            return None
        technique.check(fields, self.sheet)
        return WrittenStep(technique, fields, word)

    def _loop(self, word: Text, item: Mapping, scope: Scope, around: _Around) -> WrittenNode | None:
        if word.value == "for" and item.get("in") is None and item.get("do") is None:
            value = item.get("for")
            written = value.value if isinstance(value, Text) else "10 min"
            self.problems.add(
                word.place,
                "a 'for' loop needs 'in' and 'do'",
                f"to wait, write '- rest: {shortened(written)}'",
            )
            return None
        head = replace(
            item,
            entries=tuple(
                (key, value if key.value in {"do", "for"} else self.put_in(value, scope))
                for key, value in item.entries
            ),
        )
        fields = read_fields(LOOPS[word.value], head, word, self.problems)
        do, do_key = item.get("do"), _key(item, "do")
        if do is None:
            return None
        if word.value == "for":
            return self._for(word, head, do, do_key, scope, around) if fields else None
        cycles = word.value == "cycle"
        if cycles and around.in_cycle:
            self.problems.add(
                word.place, "a cycle inside a cycle would be counted twice", "write 'repeat'"
            )
        count: Written[int] | None = getattr(fields, word.value, None)
        inner = _Around(
            around.in_cycle or cycles,
            around.visits * (count.value if count else 1),
            around.depth + 1,
        )
        body = self.steps(do, do_key, scope, inner)
        if fields is None or count is None:
            return None
        return WrittenLoop(count, body, word, cycles, getattr(fields, "class_", None))

    def _for(
        self, word: Text, head: Mapping, do: Node, do_key: Text, scope: Scope, around: _Around
    ) -> WrittenFor | None:
        name, values = head.get("for"), head.get("in")
        assert values is not None  # noqa: S101
        if not isinstance(name, Text):
            self.problems.add(word.place, "'for' takes a name", "write for example 'for: rate'")
            return None
        if not _check_name(name, name.value, self.problems):
            return None
        if name.value in scope:
            self.problems.add(
                name.place, f"'{name.value}' is already a name here", "choose another name"
            )
            return None
        if not isinstance(values, Listing) or not is_parameter_value(values):
            note(
                self.problems,
                values if isinstance(values, Text) else _key(head, "in"),
                "'in' takes a list of values",
                "write for example 'in: [0.2C, 0.5C, 1C]'",
            )
            return None
        passes = []
        self.used.discard(name.value)
        inner = replace(around, depth=around.depth + 1)
        for value in values.items:
            if isinstance(value, Text):
                plain = replace(value, name="")
                passes.append(self.steps(do, do_key, {**scope, name.value: plain}, inner))
        if not self.problems.found and name.value not in self.used:
            self.problems.add(
                name.place, f"'${name.value}' is not used in the loop", "write 'repeat' instead"
            )
        texts = tuple(value.value for value in values.items if isinstance(value, Text))
        return WrittenFor(name.value, texts, tuple(passes), word)

    def _not_a_step(self, item: Text | Listing) -> None:
        message = "a step is a word and what belongs to it, not a list"
        suggestion = "write for example '- rest: 10 min'"
        if isinstance(item, Text):
            message = message.replace("a list", f"'{shortened(item.value)}'")
            word, colon, rest = item.value.partition(":")
            if word in TECHNIQUES and not colon:
                message, suggestion = f"'{word}' does not say how", f"write '- {_or(word)}'"
            elif word in _STEP_WORDS:
                message = "a ':' needs a space after it"
                suggestion = f"write '- {word}: {shortened(rest.strip())}'"
        self.problems.add(item.place, message, suggestion)

    def _no_word(self, item: Mapping) -> None:
        if not item.entries:
            self.problems.add(item.place, "an empty step", "delete it")
            return
        key = item.entries[0][0]
        better = nearest(key.value, _STEP_WORDS)
        self.problems.add(
            key.place,
            f"'{shortened(key.value)}' is not a kind of step",
            f"did you mean '{better}'?" if better else f"a step is one of {', '.join(_STEP_WORDS)}",
        )


class _UnknownName(Exception):  # noqa: N818
    """A $name that is not known was noted; the step that holds it cannot be read."""


def _check_name(at: Text, name: str, problems: Problems) -> bool:
    if _NAME.fullmatch(name):
        return True
    plain = re.sub(r"[^a-z0-9_]+", "_", name.lower().lstrip("$")).strip("_")
    better = f"write '{plain}'" if _NAME.fullmatch(plain) else "write for example 'upper'"
    problems.add(
        at.place,
        f"'{shortened(name)}' cannot be a name: small letters, digits and '_' only",
        better,
    )
    return False


def _named(node: Node, name: str, used: Place) -> Node:
    if isinstance(node, Listing):
        return replace(node, items=tuple(_named(item, name, used) for item in node.items))
    if isinstance(node, Text):
        place = node.place if node.place.line else used
        return replace(node, name=name, used=used, place=place)
    return node


def _plain_text(root: Mapping, key: str, problems: Problems) -> str:
    node = root.get(key)
    if node is None:
        return ""
    if not isinstance(node, Text):
        problems.add(_key(root, key).place, f"'{key}' takes a text")
        return "?"
    if key == "recipe" and len(node.value) > LONGEST_NAME:
        problems.add(node.place, f"the name is longer than {LONGEST_NAME} characters")
    return node.value.strip()


def _key(node: Mapping, key: str) -> Text:
    return node.key(key) or Text(key, Place(1, 1))


def _known_key(model: type[Fields], key: str) -> bool:
    return any(key == (each.alias or name) for name, each in model.model_fields.items())


def _or(word: str) -> str:
    examples = {"rest": "rest: 10 min", "hold": "hold: {voltage: 4.1 V, until: 0.02C}"}
    if word in {"charge", "discharge"}:
        return f"{word}: {{at: 0.2C, until: {'4.1 V' if word == 'charge' else '1.5 V'}}}"
    return examples.get(word, "rest: 10 min")


def _cycles(steps: tuple[WrittenNode, ...]) -> int:
    total = 0
    for node in steps:
        if isinstance(node, WrittenLoop):
            total += node.count.value * (int(node.counts_cycles) + _cycles(node.body))
        elif isinstance(node, WrittenFor):
            total += sum(_cycles(one) for one in node.passes)
    return total


def _check_crossed(steps: tuple[WrittenNode, ...], problems: Problems) -> None:
    """Note charges that end below where the discharges beside them end: every step ends at once."""
    ends: dict[str, list[Written[Any]]] = {"charge": [], "discharge": []}
    for node in steps:
        if isinstance(node, WrittenStep) and node.technique.word in ends:
            voltages = [end for end in node.fields.until or () if end.value.kind == "voltage"]
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
