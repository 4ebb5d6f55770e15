"""A recipe that includes others is one recipe: one text, one hash, one set of limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from labctl.errors import Problem, RecipeError
from labctl.model import Cell
from labctl.program import ConstantCurrent, CycleResult, Loop, Program, RecordRule, Step
from labctl.protocols.explain import explain_text
from labctl.protocols.includes import DEEPEST_INCLUDE, MOST_INCLUDED
from labctl.protocols.recipe import Recipe, bundle, compile_recipe, file_loader, read_recipe
from labctl.protocols.source import LARGEST_BYTES, MOST_NODES

FORMATION = """\
recipe: Formation
about: Two slow cycles.
parameters: {rate: 0.2C, upper: 4.1 V}
limits: {voltage: 1.1 V .. 4.3 V}
record: 10 s
steps:
  - cycle: 2
    class: formation
    do:
      - charge: {at: $rate, until: $upper}
      - discharge: {at: $rate, until: 1.5 V}
"""
MAIN = """\
recipe: Main
parameters: {slow: 0.1C}
limits: {voltage: 1.0 V .. 4.4 V}
record: 60 s
steps:
  - rest: 10 min
  - recipe: formation.yaml
    with: {rate: $slow}
  - rest: 20 min
"""
Read = Callable[..., Recipe]


def read(text: str, **files: str) -> Recipe:
    return read_recipe(text, file="main.yaml", load=lambda name: files[name.removesuffix(".yaml")])


def steps_of(program: Program) -> list[Step]:
    return list(program.steps)


def test_its_steps_are_done_with_the_values_that_are_given(cell: Cell) -> None:
    recipe = read(MAIN, formation=FORMATION)
    program = compile_recipe(recipe, cell)
    first, loop, last = program.body
    assert isinstance(loop, Loop)
    assert (loop.count, loop.cycle_class) == (2, "formation")
    assert [step.control for step in program.steps[1:3]] == [
        ConstantCurrent(2e-5),
        ConstantCurrent(-2e-5),
    ]
    assert [step.index for step in program.steps] == [0, 1, 2, 3]
    again = compile_recipe(recipe, cell, {"slow": "0.5C"})
    assert again.steps[1].control == ConstantCurrent(1e-4)
    assert isinstance(first, Step)
    assert isinstance(last, Step)


def test_its_limits_and_its_record_hold_for_its_steps_only(cell: Cell) -> None:
    program = compile_recipe(read(MAIN, formation=FORMATION), cell)
    assert (program.limits.voltage_min_V, program.limits.voltage_max_V) == (1.0, 4.4)
    own = [step.limits for step in program.steps]
    assert [limits is None for limits in own] == [True, False, False, True]
    inner = msgspec.structs.replace(program.limits, voltage_min_V=1.1, voltage_max_V=4.3)
    assert own[1] == own[2] == inner
    assert [step.record for step in program.steps] == [
        RecordRule(60.0),
        RecordRule(10.0),
        RecordRule(10.0),
        RecordRule(60.0),
    ]


def test_what_it_does_not_say_of_recording_stays_as_in_the_outer_recipe(cell: Cell) -> None:
    inner = FORMATION.replace("record: 10 s", "record: {voltage_change: 1 mV}")
    program = compile_recipe(read(MAIN, formation=inner), cell)
    assert program.steps[1].record == RecordRule(60.0, 0.001)


def test_its_steps_are_counted_to_the_line_that_includes_it(cell: Cell) -> None:
    program = compile_recipe(read(MAIN, formation=FORMATION), cell)
    assert [step.line for step in program.steps] == [6, 7, 7, 9]


def test_all_texts_are_kept_and_hashed_together(cell: Cell) -> None:
    recipe = read(MAIN, formation=FORMATION)
    assert recipe.text == MAIN
    assert recipe.included == {"formation.yaml": FORMATION}
    whole = bundle(recipe)
    assert recipe.sha256 == hashlib.sha256(whole.encode()).hexdigest()
    assert compile_recipe(recipe, cell).recipe_sha256 == recipe.sha256
    other = read(MAIN, formation=FORMATION.replace("0.2C", "0.3C"))
    assert other.sha256 != recipe.sha256
    alone = read_recipe(FORMATION)
    assert (bundle(alone), alone.included) == (FORMATION, {})
    assert alone.sha256 == hashlib.sha256(FORMATION.encode()).hexdigest()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_bundle_is_read_again_without_any_file(cell: Cell, newline: str) -> None:
    main = MAIN.replace("  - rest: 20 min\n", "  - recipe: second\n").rstrip("\n")
    texts = {
        "formation": FORMATION.replace("\n", newline),
        "second": "recipe: Second\nsteps:\n  - recipe: formation\n",
    }
    recipe = read(main.replace("\n", newline), **texts)
    again = read_recipe(bundle(recipe))
    assert list(again.included) == ["formation.yaml", "second.yaml"]
    assert again.sha256 == recipe.sha256
    assert bundle(again) == bundle(recipe)
    assert compile_recipe(again, cell) == compile_recipe(recipe, cell)
    with_bundle = read("recipe: x\nsteps:\n  - recipe: whole\n", whole=bundle(recipe))
    assert with_bundle.included.keys() == {"whole.yaml", "formation.yaml", "second.yaml"}


def test_a_bundle_in_a_folder_finds_its_own_texts(cell: Cell) -> None:
    whole = bundle(read("recipe: x\nsteps:\n  - recipe: formation\n", formation=FORMATION))
    recipe = read_recipe(
        "recipe: y\nsteps:\n  - recipe: saved/whole\n",
        load={"saved/whole.yaml": whole}.__getitem__,
    )
    assert recipe.included["saved/formation.yaml"] == FORMATION
    assert compile_recipe(read_recipe(bundle(recipe)), cell).cycle_count == 2


def test_values_of_a_for_go_through(cell: Cell) -> None:
    recipe = read(
        "recipe: Main\nsteps:\n  - for: rate\n    in: [0.1C, 1C]\n    do:\n"
        "      - recipe: formation\n        with: {rate: $rate}\n",
        formation=FORMATION,
    )
    program = compile_recipe(recipe, cell)
    assert [step.control for step in program.steps[::2]] == [
        ConstantCurrent(2e-5),
        ConstantCurrent(2e-4),
    ]
    assert "Charge at that rate until" in explain_text(recipe)


def test_cycles_in_it_count_from_its_own_beginning(cell: Cell) -> None:
    ageing = (
        "recipe: Ageing\nsteps:\n  - cycle: 100\n    until: {retention: below 80 %, of: cycle 3}\n"
        "    do:\n      - charge: {at: 1C, until: 4.1 V}\n      - discharge: {at: 1C, until: 2 V}\n"
    )

    def until(text: str) -> CycleResult:
        loop = compile_recipe(read(text, formation=FORMATION, ageing=ageing), cell).body[-1]
        assert isinstance(loop, Loop)
        return loop.until[0]

    assert until("recipe: x\nsteps:\n  - recipe: ageing\n").of_first == 3
    later = until("recipe: x\nsteps:\n  - recipe: formation\n  - recipe: ageing\n")
    assert (later.of_first, later.of_last) == (5, 5)


def test_a_value_that_is_wrong_inside_is_shown_where_it_was_given(cell: Cell) -> None:
    inner = "recipe: x\nparameters: {what: '4.1 V'}\nsteps:\n  - charge: {at: $what, until: 4 V}\n"
    with pytest.raises(RecipeError) as caught:
        read("recipe: x\nsteps:\n  - recipe: a\n    with: {what: 3.9 V}\n", a=inner)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == ("main.yaml", 4, 18)
    assert problem.message.endswith("($what in line 4 of a.yaml)")


def test_mistakes_of_all_texts_are_reported_together_each_with_its_file() -> None:
    with pytest.raises(RecipeError) as caught:
        read(
            "recipe: x\nsteps:\n  - rest: 1\n  - recipe: a\n  - recipe: b\n  - recipe: c\n",
            a="recipe: x\nsteps:\n  - rest: 2\n",
            b="recipe: [x\n",
        )
    assert [(problem.file, problem.line) for problem in caught.value.problems] == [
        ("main.yaml", 3),
        ("main.yaml", 6),
        ("a.yaml", 3),
        ("b.yaml", 2),
    ]


def test_a_recipe_without_a_loader_includes_nothing() -> None:
    with pytest.raises(RecipeError, match=r"'formation.yaml' is not here to be included"):
        read_recipe(MAIN)


def test_what_the_loader_says_is_said_where_the_name_stands() -> None:
    def load(name: str) -> str:
        raise RecipeError([Problem(f"the disk with {name} is gone", suggestion="look for it")])

    with pytest.raises(RecipeError) as caught:
        read_recipe(MAIN, load=load)
    (problem,) = caught.value.problems
    assert (problem.line, problem.message) == (7, "the disk with formation.yaml is gone")
    assert problem.suggestion == "look for it"


def test_files_are_found_beside_the_recipe_then_among_the_shipped(tmp_path: Path) -> None:
    main = tmp_path / "main.yaml"
    (tmp_path / "more").mkdir()
    (tmp_path / "formation.yaml").write_text(FORMATION)
    (tmp_path / "more" / "outer.yaml").write_text(
        "recipe: Outer\nsteps:\n  - recipe: inner\n  - recipe: ../formation.yaml\n"
    )
    (tmp_path / "more" / "inner.yaml").write_text("recipe: Inner\nsteps:\n  - rest: 1 h\n")
    load = file_loader(main)
    recipe = read_recipe(
        "recipe: x\nsteps:\n  - recipe: more/outer.yaml\n  - recipe: capacity-0.2C\n", load=load
    )
    assert list(recipe.included) == [
        "more/outer.yaml",
        "more/inner.yaml",
        "formation.yaml",
        "capacity-0.2C.yaml",
    ]
    (tmp_path / "capacity-0.2C.yaml").write_text("recipe: Mine\nsteps:\n  - rest: 1 h\n")
    assert load("capacity-0.2C.yaml").startswith("recipe: Mine")
    for name, said in (
        ("more/capacity-0.2C.yaml", "there is no recipe"),
        ("more", "cannot be read"),
    ):
        with pytest.raises(RecipeError, match=said):
            load(name)
    (tmp_path / "latin.yaml").write_bytes(b"recipe: \xff\n")
    with pytest.raises(RecipeError, match="byte 9 is not UTF-8 text"):
        load("latin.yaml")


def test_recipes_may_not_include_each_other_without_end_or_too_deep() -> None:
    deep = {
        f"r{n}": f"recipe: x\nsteps:\n  - recipe: r{n + 1}\n" for n in range(DEEPEST_INCLUDE + 1)
    }
    last = f"r{DEEPEST_INCLUDE + 1}"
    with pytest.raises(RecipeError, match=f"more than {DEEPEST_INCLUDE} deep"):
        read(
            "recipe: x\nsteps:\n  - recipe: r0\n", **deep, **{last: "recipe: x\nsteps: [rest: 1 h]"}
        )
    ring = {"a": "recipe: x\nsteps:\n  - recipe: b\n", "b": "recipe: x\nsteps:\n  - recipe: a\n"}
    with pytest.raises(RecipeError, match=r"a.yaml includes b.yaml includes a.yaml"):
        read("recipe: x\nsteps:\n  - recipe: a\n", **ring)


def test_all_texts_together_are_bounded() -> None:
    one = "recipe: x\nsteps:\n" + "  - rest: 1 h\n" * (MOST_NODES // 6)
    main = "recipe: x\nsteps:\n  - recipe: a\n  - recipe: b\n"
    with pytest.raises(RecipeError, match=f"includes have more than {MOST_NODES} values"):
        read(main, a=one, b=one)
    long = "recipe: x\nsteps:\n  - rest: 1 h\n" + "# x\n" * (LARGEST_BYTES // 6)
    with pytest.raises(RecipeError, match=f"bytes; the most is {LARGEST_BYTES}"):
        read(main, a=long, b=long)
    many = {f"r{n}": "recipe: x\nsteps:\n  - rest: 1 h\n" for n in range(MOST_INCLUDED + 1)}
    with pytest.raises(RecipeError, match=f"more than {MOST_INCLUDED} different recipes"):
        read("recipe: x\nsteps:\n" + "".join(f"  - recipe: {name}\n" for name in many), **many)
