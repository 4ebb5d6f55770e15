"""The recipes that come with labctl, and the schema that editors read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import labctl.protocols
from labctl.model import Cell
from labctl.program import (
    Branch,
    Comparison,
    ConstantCurrent,
    CycleFigure,
    CycleResult,
    Loop,
    RecordRule,
    RetentionAlarm,
)
from labctl.protocols.plan import make_plan
from labctl.protocols.recipe import (
    Recipe,
    compile_recipe,
    file_loader,
    read_recipe,
    shipped_recipes,
)
from labctl.protocols.schema import recipe_schema, schema_text
from labctl.protocols.source import Listing, Node, Problems, Text, read_source

SHIPPED = shipped_recipes()


def shipped(name: str) -> Recipe:
    path = SHIPPED[name]
    return read_recipe(path.read_text(encoding="utf-8"), file=str(path), load=file_loader(path))


def test_the_recipes_of_the_study_are_shipped() -> None:
    assert SHIPPED.keys() == {
        "capacity-0.2C",
        "cyclic-voltammetry",
        "cycling-0.2C",
        "endurance-50C",
        "formation",
        "full-cell-as-made",
        "gitt",
        "hard-carbon-precycle",
        "hppc",
        "impedance",
        "operando-0.1C",
        "pre-sodiated-full-cell",
        "rate-ladder",
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_runs_on_its_cell_and_points_to_the_schema(name: str, cell: Cell) -> None:
    if name in {"hard-carbon-precycle", "pre-sodiated-full-cell", "full-cell-as-made"}:
        cell = msgspec.structs.replace(cell, safe_voltage_min_V=-0.1)
    recipe = shipped(name)
    assert compile_recipe(recipe, cell).visit_count > 1
    match = re.match(r"# yaml-language-server: \$schema=(\S+)\n#\n# [A-Z]", recipe.text)
    assert match
    assert (SHIPPED[name].parent / match[1]).resolve().is_file()
    assert recipe.about


def test_endurance_is_ten_thousand_fast_cycles_with_a_check_every_five_hundred(cell: Cell) -> None:
    program = compile_recipe(shipped("endurance-50C"), cell)
    classes = {node.cycle_class: node.count for node in program.body if isinstance(node, Loop)}
    [blocks] = [node for node in program.body if isinstance(node, Loop) and not node.counts_cycles]
    fast, check, worn = blocks.body
    assert classes["formation"] == 3
    assert isinstance(fast, Loop)
    assert (blocks.count * fast.count, fast.cycle_class) == (10_000, "endurance")
    assert isinstance(check, Loop)
    assert (check.count, check.cycle_class) == (1, "check")
    assert isinstance(worn, Branch)
    assert worn.condition == CycleResult(
        CycleFigure.DISCHARGE_AH, Comparison.AT_MOST, 0.5, of_first=4, of_last=4
    )


def test_the_capacity_recipe_is_three_cycles_between_the_voltages_of_the_study(cell: Cell) -> None:
    recipe = read_recipe(SHIPPED["capacity-0.2C"].read_text(encoding="utf-8"))
    program = compile_recipe(recipe, cell)
    _, loop = program.body
    assert isinstance(loop, Loop)
    assert (loop.count, loop.counts_cycles) == (3, True)
    assert [step.control for step in program.steps[1:]] == [
        ConstantCurrent(4e-05),
        ConstantCurrent(-4e-05),
    ]
    assert [step.ends[0].value for step in program.steps] == [600.0, 4.1, 1.5]
    assert program.steps[0].record == RecordRule(60.0, 0.008)
    assert (program.limits.voltage_min_V, program.limits.voltage_max_V) == (1.0, 4.4)
    assert program.alarms == (RetentionAlarm(0.8, 0.81, 1, 1, 1),)
    assert make_plan(program, cell).expected_records <= 3500


def test_the_rate_ladder_goes_to_50C_and_back(cell: Cell) -> None:
    recipe = read_recipe(SHIPPED["rate-ladder"].read_text(encoding="utf-8"))
    program = compile_recipe(recipe, cell)
    charges = [step.control.current_A for step in program.steps[1::2]]  # type: ignore[union-attr]
    assert charges == [4e-5, 1e-4, 2e-4, 4e-4, 1e-3, 2e-3, 4e-3, 6e-3, 8e-3, 1e-2, 4e-5]
    assert program.cycle_count == 55
    assert compile_recipe(recipe, cell, {"rates": "[1C, 2C]"}).cycle_count == 10


def test_the_shipped_schema_is_current() -> None:
    shipped = Path(labctl.protocols.__path__[0]) / "recipe.schema.json"
    assert shipped.read_text(encoding="utf-8") == schema_text(), (
        "run: labctl recipe schema > protocols/recipe.schema.json"
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_right_in_an_editor(name: str) -> None:
    document = editor_value(SHIPPED[name].read_text(encoding="utf-8"))
    assert mistakes(document, recipe_schema()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("steps:", "stepz:"),
        ("cycle: 3", "cycle: 0"),
        ("cycle: 3", "cycel: 3"),
        ("charge: {at: $rate", "charge: {rate: $rate"),
        ("until: $upper", "until: 4.1"),
        ("record: 60 s", "record: 60"),
        ("every: 2 min", "evry: 2 min"),
        ("voltage: 1.0 V .. 4.4 V", "voltage: 4.4"),
        ("below: 80 %, ", ""),
        ("reference: cycle 1", "reference: 1"),
    ],
)
def test_an_editor_marks_what_the_check_refuses(old: str, new: str) -> None:
    text = SHIPPED["capacity-0.2C"].read_text(encoding="utf-8")
    assert old in text
    assert mistakes(editor_value(text.replace(old, new)), recipe_schema())


STRUCTURE = """\
recipe: Structure
parameters:
  upper: {default: 4.1 V, from: 3.8 V, to: 4.3 V, about: where charges end}
  rates: {default: [1C, 2C], to: 50C}
  lower: 1.5 V
steps:
  - recipe: formation.yaml
    with: {rate: 0.1C, rates: [1C, 2C]}
  - cycle: 500
    first class: slow
    first:
      - rest: 1 h
    until: {retention: below 80 %, of: cycles 3 .. 7}
    do:
      - charge: {at: 1C, until: $upper, limits: {voltage: 1.2 V .. 4.35 V}}
      - if: {ended by: time}
        then: [{stop: too slow}]
        else:
          - rest: 1 min
      - if: {discharge capacity: above 100 mAh/g}
        then: [leave: loop]
  - repeat: 3
    until: [{efficiency: below 95 %}]
    do:
      - rest: {for: 1 h, limits: {temperature: 10 degC .. 40 degC}}
"""


def test_loops_choices_and_included_recipes_are_right_in_an_editor() -> None:
    assert mistakes(editor_value(STRUCTURE), recipe_schema()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("default: 4.1 V", "defualt: 4.1 V"),
        ("from: 3.8 V", "from: 3.8"),
        ("with: {rate", "with: {Rate"),
        ("first class", "first klass"),
        ("retention: below 80 %", "retention: under 80 %"),
        ("retention: below", "retantion: below"),
        ("of: cycles 3", "of: 3"),
        ("ended by: time", "ended by: magic"),
        ("leave: loop", "leave: cycle"),
        ("stop: too slow", "stop: ''"),
        ("limits: {voltage: 1.2 V .. 4.35 V}", "limits: {duration: 1 h}"),
        ("else:", "otherwise:"),
        ("        then: [leave", "        than: [leave"),
        ("{efficiency: below 95 %}", "{efficiency: 95}"),
    ],
)
def test_an_editor_marks_mistakes_in_loops_and_choices(old: str, new: str) -> None:
    assert old in STRUCTURE
    assert mistakes(editor_value(STRUCTURE.replace(old, new)), recipe_schema())


def test_every_key_is_explained_in_the_editor() -> None:
    schema = recipe_schema()
    groups = [schema, schema["properties"]["limits"], *schema["$defs"].values()]
    for group in groups:
        for name, key in group.get("properties", {}).items():
            if "$ref" not in key:
                assert key.get("description"), name


def editor_value(text: str) -> object:
    """A document as an editor's YAML 1.2 sees it: plain numbers are numbers."""
    return _value(read_source(text, Problems("", tuple(text.split("\n")))))


def _value(node: Node) -> object:
    if isinstance(node, Text):
        if not node.quoted and re.fullmatch(r"[-+]?\d+", node.value):
            return int(node.value)
        if not node.quoted and re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?", node.value):
            return float(node.value)
        return node.value
    if isinstance(node, Listing):
        return [_value(item) for item in node.items]
    return {key.value: _value(value) for key, value in node.entries}


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
}
_ANNOTATIONS = {"$schema", "$defs", "title", "description", "examples"}


def mistakes(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> list[str]:
    """What of JSON schema the recipe's schema uses; an unknown keyword is an error of this test."""
    root = root or schema
    found: list[str] = []
    for keyword, argument in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword == "$ref":
            found += mistakes(value, root["$defs"][argument.removeprefix("#/$defs/")], root)
        elif keyword == "type":
            names = argument if isinstance(argument, list) else [argument]
            if not any(isinstance(value, _TYPES[name]) for name in names):
                found.append(f"{value!r} is no {argument}")
        elif keyword == "anyOf":
            if all(mistakes(value, choice, root) for choice in argument):
                found.append(f"{value!r} is none of {len(argument)}")
        elif keyword == "enum":
            found += [] if value in argument else [f"{value!r} is not in {argument}"]
        elif keyword in {"properties", "additionalProperties", "required", "propertyNames"}:
            if isinstance(value, dict):
                found += _mistakes_of_object(value, keyword, argument, schema, root)
        elif keyword == "items":
            if isinstance(value, list):
                found += [each for item in value for each in mistakes(item, argument, root)]
        elif keyword in {"minItems", "maxItems"}:
            if isinstance(value, list) and (
                len(value) < argument if keyword == "minItems" else len(value) > argument
            ):
                found.append(f"{len(value)} items")
        elif keyword == "pattern":
            if isinstance(value, str) and not re.search(argument, value):
                found.append(f"{value!r} is not like {argument}")
        elif keyword in {"minLength", "maxLength"}:
            if isinstance(value, str) and (
                len(value) < argument if keyword == "minLength" else len(value) > argument
            ):
                found.append(f"{len(value)} characters")
        elif keyword == "minimum":
            if isinstance(value, int | float) and value < argument:
                found.append(f"{value} is too small")
        else:
            raise AssertionError(f"the test does not know the keyword {keyword}")
    return found


def _mistakes_of_object(
    value: dict[str, Any], keyword: str, argument: Any, schema: dict[str, Any], root: dict[str, Any]
) -> list[str]:
    if keyword == "required":
        return [f"{key} is missing" for key in argument if key not in value]
    if keyword == "propertyNames":
        return [each for key in value for each in mistakes(key, argument, root)]
    if keyword == "properties":
        known = [key for key in value if key in argument]
        return [each for key in known for each in mistakes(value[key], argument[key], root)]
    others = [key for key in value if key not in schema.get("properties", {})]
    if argument is False:
        return [f"{key} is not known" for key in others]
    return [each for key in others for each in mistakes(value[key], argument, root)]


def test_the_schema_is_plain_json() -> None:
    assert json.loads(schema_text()) == recipe_schema()
