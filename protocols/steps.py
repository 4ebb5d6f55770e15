"""The list of steps of a recipe: each item read as what its word says."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Table
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from labctl.protocols.fields import read_fields
from labctl.protocols.includes import Included
from labctl.protocols.limits import StepLimitsFields, narrowed
from labctl.protocols.loops import read_branch, read_include, read_loop, read_way_out
from labctl.protocols.mistakes import (
    STEP_WORDS,
    check_crossed,
    check_reached,
    example_of,
    note_no_word,
    note_not_a_step,
)
from labctl.protocols.names import Around, Level, Names, Shared, UnknownName, key_of
from labctl.protocols.parameters import Scope
from labctl.protocols.source import DEEPEST, Listing, Mapping, Node, Problems, Text, shortened
from labctl.protocols.structure import (
    BODIES,
    LOOPS,
    MOST_STEPS,
    MOST_VISITS,
    WrittenNode,
    WrittenRecipe,
    WrittenStep,
)
from labctl.protocols.techniques import TECHNIQUES
from labctl.protocols.techniques.base import Sheet, Technique
from labctl.protocols.written import Fields, note

ReadIncluded: TypeAlias = Callable[
    [Included, Table[str, Node], Shared, Level, Around, tuple[str, ...]], WrittenRecipe | None
]


@dataclass(slots=True)
class StepReader:
    """Reads the steps of one recipe. ``chain`` names the recipes around it, itself last."""

    shared: Shared
    scope: Scope
    level: Level
    read_included: ReadIncluded
    chain: tuple[str, ...]
    names: Names = field(init=False)
    sheet: Sheet = field(init=False)

    def __post_init__(self) -> None:
        self.names = Names(self.shared)
        self.sheet = Sheet(self.problems, self.level.voltage)

    @property
    def problems(self) -> Problems:
        """Where mistakes go."""
        return self.shared.problems

    def steps(self, node: Node, at: Text, scope: Scope, around: Around) -> tuple[WrittenNode, ...]:
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
        if len(steps) == len(node.items):
            if around.inside == "loop":
                check_crossed(steps, self.problems)
            check_reached(steps, self.problems)
        return steps

    def _item(self, item: Node, scope: Scope, around: Around) -> WrittenNode | None:
        if not isinstance(item, Mapping):
            note_not_a_step(item, self.problems)
            return None
        words = [key for key, _ in item.entries if key.value in STEP_WORDS]
        techniques = [word for word in words if word.value in TECHNIQUES]
        if len(techniques) == 1 and not any(item.get(key) is not None for key in BODIES):
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
            note_no_word(item, self.problems)
            return None
        word = words[0]
        self._count_step(word, around)
        try:
            if word.value in TECHNIQUES:
                return self._step(TECHNIQUES[word.value], word, item, scope, around)
            if word.value in LOOPS:
                return read_loop(self, word, item, scope, around)
            if word.value == "if":
                return read_branch(self, word, item, scope, around)
            if word.value == "recipe":
                return read_include(self, word, item, scope, around)
            return read_way_out(self, word, item, scope, around)
        except UnknownName:
            return None

    def _step(
        self, technique: Technique[Any], word: Text, item: Mapping, scope: Scope, around: Around
    ) -> WrittenStep | None:
        for key, _ in item.entries:
            if key is not word:
                inside = f"write it inside: '{word.value}: {{…, {key.value}: …}}'"
                known = key.value == "limits" or _known_key(technique.fields, key.value)
                self.problems.add(
                    key.place,
                    f"'{shortened(key.value)}' does not belong beside '{word.value}'",
                    inside
                    if known
                    else f"delete it, or begin a step with '- {example_of(key.value)}'",
                )
        value = item.get(word.value)
        assert value is not None  # noqa: S101
        put_in = self.names.put_in(value, scope)
        limits_key = put_in.key("limits") if isinstance(put_in, Mapping) else None
        limits: StepLimitsFields | None = None
        written = put_in
        if isinstance(put_in, Mapping) and limits_key is not None:
            group = put_in.get("limits")
            assert group is not None  # noqa: S101
            limits = read_fields(StepLimitsFields, group, limits_key, self.problems)
            entries = tuple(entry for entry in put_in.entries if entry[0] is not limits_key)
            written = replace(put_in, entries=entries)
        fields = read_fields(
            technique.fields,
            written,
            word,
            self.problems,
            short=technique.short,
            also=("limits",),
        )
        if limits is not None:
            narrowed(self.level.fence, limits, self._note, None)
            self.sheet.voltage = limits.voltage or self.level.voltage
        if fields is not None:
            technique.check(fields, self.sheet)
            if around.in_cycle and technique.cycles(fields):
                self.problems.add(
                    word.place,
                    f"a '{word.value}' counts cycles itself, and stands in a cycle",
                    "write 'repeat' in place of 'cycle' around it",
                )
        self.sheet.voltage = self.level.voltage
        if fields is None or (limits_key is not None and limits is None):
            return None
        return WrittenStep(technique, fields, word, limits)

    def _note(self, text: Text, message: str, suggestion: str) -> None:
        note(self.problems, text, message, suggestion)

    def _count_step(self, word: Text, around: Around) -> None:
        self.shared.steps += 1
        self.shared.visits += around.visits if word.value in TECHNIQUES else 0
        if self.shared.steps > MOST_STEPS:
            raise self.problems.stop(
                word.place,
                f"the recipe has more than {MOST_STEPS} steps when 'for' is unrolled",
                "use shorter lists, or 'repeat' and 'cycle', which are not unrolled",
            )
        if self.shared.visits > MOST_VISITS:
            raise self.problems.stop(
                word.place,
                f"the recipe goes through more than {MOST_VISITS} steps in all",
                "let the loops around this step run fewer times",
            )

    def head(self, item: Mapping, scope: Scope, *literal: str) -> Mapping | None:
        """``item`` with names put in and without what stands in its lists of steps."""
        entries: list[tuple[Text, Node]] = []
        right = True
        for key, value in item.entries:
            if key.value in BODIES:
                entries.append((key, Listing((), key.place)))
            elif key.value in literal:
                entries.append((key, value))
            else:
                try:
                    entries.append((key, self.names.put_in(value, scope)))
                except UnknownName:
                    right = False
        return replace(item, entries=tuple(entries)) if right else None

    def body(
        self, item: Mapping, key: str, scope: Scope, around: Around
    ) -> tuple[WrittenNode, ...]:
        """The steps under ``key``; none if it is not written."""
        node = item.get(key)
        return () if node is None else self.steps(node, key_of(item, key), scope, around)


def _known_key(model: type[Fields], key: str) -> bool:
    return any(key == (each.alias or name) for name, each in model.model_fields.items())
