"""Loops, branches, ways out of them, other recipes: what steps there are beside techniques."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labctl.protocols.conditions import WrittenCondition, condition_of
from labctl.protocols.fields import read_fields
from labctl.protocols.includes import DEEPEST_INCLUDE, Included
from labctl.protocols.names import Around, key_of
from labctl.protocols.parameters import Scope, as_text, check_name, is_value, missing
from labctl.protocols.source import Listing, Mapping, Node, Place, Text, shortened
from labctl.protocols.structure import (
    LOOPS,
    STRUCTURE,
    WrittenBranch,
    WrittenFor,
    WrittenInclude,
    WrittenLeave,
    WrittenLoop,
    WrittenNode,
    WrittenStop,
)
from labctl.protocols.written import Fields, Written, note
from labctl.units import nearest

if TYPE_CHECKING:
    from labctl.protocols.steps import StepReader


def read_loop(
    reader: StepReader, word: Text, item: Mapping, scope: Scope, around: Around
) -> WrittenNode | None:
    """A cycle, a repeat or a for; None with what is wrong noted."""
    if word.value == "for" and item.get("in") is None and item.get("do") is None:
        value = item.get("for")
        written = value.value if isinstance(value, Text) else "10 min"
        reader.problems.add(
            word.place,
            "a 'for' loop needs 'in' and 'do'",
            f"to wait, write '- rest: {shortened(written)}'",
        )
        return None
    head = reader.head(item, scope, "for")
    fields = None
    if head is not None:
        fields = read_fields(LOOPS[word.value], head, word, reader.problems)
    if word.value == "for":
        return _read_for(reader, word, head, item, scope, around) if fields and head else None
    cycles = word.value == "cycle"
    if cycles and around.in_cycle:
        reader.problems.add(
            word.place, "a cycle inside a cycle would be counted twice", "write 'repeat'"
        )
    count: Written[int] | None = getattr(fields, word.value, None)
    passes = count.value if count else 1
    left: list[Place] = []
    inner = Around(
        around.in_cycle or cycles,
        around.visits,
        around.depth + 1,
        inside="loop",
        left=left,
        in_first=True,
    )
    first = reader.body(item, "first", scope, inner)
    visits = around.visits * (passes - 1 if item.get("first") is not None else passes)
    body = reader.body(item, "do", scope, replace(inner, visits=visits, in_first=False))
    if fields is None or count is None:
        return None
    if first and passes == 1:
        note(
            reader.problems,
            count.text,
            "with one cycle only 'first' is ever done",
            "write 2 cycles or more, or leave 'first' out",
        )
    first_class: Written[str] | None = getattr(fields, "first_class", None)
    if first_class is not None and item.get("first") is None:
        note(
            reader.problems,
            first_class.text,
            "'first class' is the class of what stands under 'first', and there is no 'first'",
            "write 'class', or the steps of the first cycle under 'first'",
        )
    return WrittenLoop(
        count,
        body,
        word,
        cycles,
        getattr(fields, "class_", None),
        first,
        first_class,
        _until(reader, fields, item),
        bool(left),
    )


def _until(reader: StepReader, fields: Fields, item: Mapping) -> tuple[WrittenCondition, ...]:
    found: list[WrittenCondition] = []
    for group in getattr(fields, "until", None) or ():
        condition = condition_of(group, key_of(item, "until"), reader.problems)
        if condition is None:
            continue
        if condition.ended_by is not None:
            note(
                reader.problems,
                condition.text,
                "a loop does not end by how a step ended",
                f"write under 'do', after the step: '- if: {{ended by: {condition.ended_by}}}' "
                "with 'then: [{leave: loop}]'",
            )
        found.append(condition)
    return tuple(found)


def _read_for(
    reader: StepReader, word: Text, head: Mapping, item: Mapping, scope: Scope, around: Around
) -> WrittenFor | None:
    name, values = head.get("for"), head.get("in")
    if item.get("do") is None:
        return None
    if not isinstance(name, Text):
        reader.problems.add(word.place, "'for' takes a name", "write for example 'for: rate'")
        return None
    if not check_name(name, reader.problems):
        return None
    if name.value in scope:
        reader.problems.add(
            name.place, f"'{name.value}' is already a name here", "choose another name"
        )
        return None
    if not isinstance(values, Listing) or not is_value(values):
        note(
            reader.problems,
            values if isinstance(values, Text) else key_of(head, "in"),
            "'in' takes a list of values",
            "write for example 'in: [0.2C, 0.5C, 1C]'",
        )
        return None
    passes = []
    reader.names.used.discard(name.value)
    left: list[Place] = []
    inner = replace(around, depth=around.depth + 1, inside="loop", left=left, in_first=False)
    for value in values.items:
        if isinstance(value, Text):
            plain = replace(value, name="")
            passes.append(reader.body(item, "do", {**scope, name.value: plain}, inner))
    if not reader.problems.found and name.value not in reader.names.used:
        reader.problems.add(
            name.place, f"'${name.value}' is not used in the loop", "write 'repeat' instead"
        )
    texts = tuple(value.value for value in values.items if isinstance(value, Text))
    return WrittenFor(name.value, texts, tuple(passes), word, bool(left))


def read_branch(
    reader: StepReader, word: Text, item: Mapping, scope: Scope, around: Around
) -> WrittenBranch | None:
    """An 'if' with its lists of steps; None with what is wrong noted."""
    head = reader.head(item, scope)
    fields: Any = None
    if head is not None:
        fields = read_fields(STRUCTURE["if"], head, word, reader.problems)
    inner = replace(around, depth=around.depth + 1, inside="branch")
    before = reader.shared.visits
    then = reader.body(item, "then", scope, inner)
    after, reader.shared.visits = reader.shared.visits, before
    otherwise = reader.body(item, "else", scope, inner)
    reader.shared.visits = max(after, reader.shared.visits)
    condition = condition_of(fields.if_, word, reader.problems) if fields is not None else None
    return None if condition is None else WrittenBranch(condition, then, otherwise, word)


def read_way_out(
    reader: StepReader, word: Text, item: Mapping, scope: Scope, around: Around
) -> WrittenLeave | WrittenStop | None:
    """A 'leave' or a 'stop'; None with what is wrong noted."""
    head = reader.head(item, scope)
    fields: Any = None
    if head is not None:
        fields = read_fields(STRUCTURE[word.value], head, word, reader.problems)
    if word.value == "leave" and around.left is None:
        reader.problems.add(
            word.place,
            "no loop is around this 'leave'",
            "to end the run write 'stop:' and a reason",
        )
    elif word.value == "leave" and around.in_first:
        reader.problems.add(
            word.place,
            "a 'leave' cannot stand under 'first'",
            "put it under 'do', or write 'stop:' and a reason",
        )
    elif around.inside != "branch":
        always = "leave its loop in the first pass" if word.value == "leave" else "stop here"
        reader.problems.add(
            word.place, f"the run would always {always}", "put it under the 'then' of an 'if'"
        )
    if word.value == "leave" and around.left is not None:
        around.left.append(word.place)
    if fields is None:
        return None
    return WrittenLeave(word) if word.value == "leave" else WrittenStop(fields.stop, word)


def read_include(
    reader: StepReader, word: Text, item: Mapping, scope: Scope, around: Around
) -> WrittenInclude | None:
    """All the steps of another recipe; None with what is wrong noted."""
    for key, _ in item.entries:
        if key.value not in {"recipe", "with"}:
            reader.problems.add(
                key.place,
                f"'{shortened(key.value)}' does not belong beside 'recipe'",
                "what the other recipe does is written in it; its parameters are set by 'with'",
            )
    name = item.get("recipe")
    if not isinstance(name, Text) or not name.value:
        reader.problems.add(
            word.place, "'recipe' takes the name of a file", "write 'recipe: formation.yaml'"
        )
        return None
    included = reader.shared.library.find(name, reader.chain[-1])
    if included is None:
        return None
    reader.shared.spend(len(included.parameters) + len(included.root.entries), word.place)
    if included.name in reader.chain[1:]:
        way = " includes ".join([*reader.chain[reader.chain.index(included.name) :], included.name])
        reader.problems.add(name.place, f"{way}: that would never end", "include another recipe")
        return None
    if len(reader.chain) > DEEPEST_INCLUDE:
        reader.problems.add(
            name.place, f"recipes include each other more than {DEEPEST_INCLUDE} deep"
        )
        return None
    given = _given(reader, included, word, item, scope)
    if given is None:
        return None
    inside = replace(around, depth=around.depth + 1, inside="", left=None, in_first=False)
    chain = (*reader.chain, included.name)
    recipe = reader.read_included(included, given, reader.shared, reader.level, inside, chain)
    return None if recipe is None else WrittenInclude(recipe, given, word)


def _given(
    reader: StepReader, included: Included, word: Text, item: Mapping, scope: Scope
) -> dict[str, Node] | None:
    node, given = item.get("with"), dict[str, Node]()
    key = key_of(item, "with")
    right = node is None or isinstance(node, Mapping)
    if not right:
        reader.problems.add(
            key.place, "'with' takes names with their values", "write 'with: {rate: 0.1C}'"
        )
    has = ", ".join(f"'{name}'" for name in included.parameters) or "none"
    for name, value in node.entries if isinstance(node, Mapping) else ():
        if name.value not in included.parameters:
            better = nearest(name.value, included.parameters)
            reader.problems.add(
                name.place,
                f"{included.name} has no parameter '{shortened(name.value)}'",
                f"did you mean '{better}'?" if better else f"it has {has}",
            )
            right = False
            continue
        put_in = reader.names.put_in(value, scope)
        if not is_value(put_in):
            reader.problems.add(
                name.place,
                f"the parameter '{name.value}' needs one value or a list of values",
                f"write for example '{name.value}: "
                f"{as_text(included.parameters[name.value].example)}'",
            )
            right = False
            continue
        given[name.value] = put_in
    for parameter in missing(included.parameters, given) if right else ():
        reader.problems.add(
            word.place,
            f"{included.name} needs '{parameter.name.value}', which has no default",
            f"write 'with: {{{parameter.name.value}: {as_text(parameter.example)}}}'",
        )
        right = False
    return given if right else None
