"""Every example and every key of docs/techniques.md is what the techniques are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.protocols.explain import explain_text
from labctl.protocols.plan import plan_text
from labctl.protocols.recipe import compile_recipe, read_recipe
from labctl.protocols.techniques import TECHNIQUES
from labctl.units import Kind, parse_quantity

GUIDE = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text(encoding="utf-8")
RIGHT = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
WRONG = re.findall(
    r"^```yaml wrong\n(.*?)^```\n\n```text\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL
)
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL))
EVERY = re.findall(r"^\| `(\w+: .*?)` \| (\S+ \w+) \|$", GUIDE, re.MULTILINE)


def whole(example: str) -> str:
    return "recipe: example\nsteps:\n" + re.sub(r"^", "  ", example, flags=re.MULTILINE)


def section_of(word: str) -> str:
    return SECTIONS["charge and discharge" if word in {"charge", "discharge"} else word]


def test_the_guide_has_examples() -> None:
    assert len(RIGHT) >= 14
    assert len(WRONG) == 2
    assert GUIDE.count("```") == 2 * (len(RIGHT) + 2 * len(WRONG))
    assert len(EVERY) >= 6


@pytest.mark.parametrize("example", RIGHT)
def test_an_example_of_the_guide_can_be_run_planned_and_explained(example: str, cell: Cell) -> None:
    recipe = read_recipe(whole(example))
    program = compile_recipe(recipe, cell)
    assert explain_text(recipe)
    assert plan_text(program, cell).count("\n") > len(program.steps)


@pytest.mark.parametrize(("example", "said"), WRONG)
def test_a_mistake_of_the_guide_is_reported_as_it_says(example: str, said: str, cell: Cell) -> None:
    with pytest.raises(RecipeError) as caught:
        compile_recipe(read_recipe(example, file="my-recipe.yaml"), cell)
    assert str(caught.value) == said.rstrip("\n")


@pytest.mark.parametrize("word", TECHNIQUES)
def test_every_technique_has_a_section_with_examples_and_every_key(word: str) -> None:
    section = section_of(word)
    assert re.search(rf"^ *- {word}: ", section, re.MULTILINE)
    for name, field in TECHNIQUES[word].fields.model_fields.items():
        if name != "record":
            assert f"`{field.alias or name}`" in section
    assert f"`{word}`" in GUIDE[: GUIDE.index("\n## ")]


@pytest.mark.parametrize("word", TECHNIQUES)
def test_the_example_of_a_technique_can_be_run(word: str, cell: Cell) -> None:
    technique = TECHNIQUES[word]
    assert technique.example.startswith(f"{word}: ")
    before = "- charge: {at: 1C, until: 4.1 V}\n" if word == "hold" else ""
    assert compile_recipe(read_recipe(whole(f"{before}- {technique.example}\n")), cell)


@pytest.mark.parametrize(("step", "every"), EVERY)
def test_readings_are_kept_as_often_as_the_guide_says(step: str, every: str, cell: Cell) -> None:
    program = compile_recipe(read_recipe(whole(f"- {step}\n")), cell)
    assert program.steps[0].record.every_s == parse_quantity(every, Kind.DURATION)
