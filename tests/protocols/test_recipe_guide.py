"""Every example of docs/recipes.md does what the guide says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labctl.cli.recipe import app
from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import Program
from labctl.protocols.alarms import DEFINITIONS, AlarmsFields, TemperatureFields
from labctl.protocols.conditions import END_WORDS, ConditionFields
from labctl.protocols.includes import DEEPEST_INCLUDE, MOST_INCLUDED
from labctl.protocols.limits import LimitsFields
from labctl.protocols.parameters import KEYS
from labctl.protocols.recipe import Recipe, compile_recipe, read_recipe, shipped_recipes
from labctl.protocols.source import DEEPEST, LARGEST_BYTES, MOST_NODES
from labctl.protocols.structure import MOST_STEPS, MOST_VISITS, SECTIONS, STRUCTURE
from labctl.protocols.techniques import TECHNIQUES

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "recipes.md").read_text(encoding="utf-8")
RIGHT = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
WRONG = re.findall(
    r"^```yaml wrong\n(.*?)^```\n\n```text\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL
)
TECHNIQUES_GUIDE = (DOCS / "techniques.md").read_text(encoding="utf-8")
INCLUDED = {
    match[1]: match[2] for match in re.finditer(r"(?ms)^```yaml\n# (\S+\.yaml)\n(.*?)^```$", GUIDE)
}
AFTER = "steps:\n  - cycle: 10\n    do:\n      - charge: {at: 0.2C, until: 4.1 V}\n"


def whole(example: str) -> str:
    if re.search(r"^recipe:", example, re.MULTILINE):
        return example
    if re.search(r"^steps:", example, re.MULTILINE):
        return f"recipe: example\n{example}"
    if example.startswith("- "):
        return "recipe: example\nsteps:\n" + re.sub(r"^", "  ", example, flags=re.MULTILINE)
    return f"recipe: example\n{example}{AFTER}"


def read(text: str, file: str = "") -> Recipe:
    return read_recipe(text, file=file, load=INCLUDED.__getitem__)


def test_the_guide_has_examples() -> None:
    assert len(RIGHT) >= 12
    assert len(WRONG) >= 2
    assert GUIDE.count("```") == 2 * (len(RIGHT) + 2 * len(WRONG))


@pytest.mark.parametrize("example", RIGHT)
def test_an_example_of_the_guide_compiles(example: str, cell: Cell) -> None:
    assert isinstance(compile_recipe(read(whole(example)), cell), Program)


@pytest.mark.parametrize(("example", "said"), WRONG)
def test_a_mistake_of_the_guide_is_reported_as_it_says(example: str, said: str, cell: Cell) -> None:
    with pytest.raises(RecipeError) as caught:
        compile_recipe(read(example, file="my-recipe.yaml"), cell)
    assert str(caught.value) == said.rstrip("\n")


def test_the_guide_speaks_of_every_word_and_bound() -> None:
    for word in (*STRUCTURE, *SECTIONS):
        assert f"`{word}`" in GUIDE or f"- {word}:" in GUIDE or f"{word}:" in GUIDE
    alarms = (AlarmsFields, TemperatureFields, *DEFINITIONS.values())
    for group in (*STRUCTURE.values(), ConditionFields, LimitsFields, *alarms):
        for name, field in group.model_fields.items():
            assert re.search(rf"{field.alias or name}[:`]", GUIDE), name
    for key in (*KEYS, *END_WORDS):
        assert f"{key}:" in GUIDE or f"`{key}`" in GUIDE, key
    for option in app.registered_commands:
        assert option.callback is not None
        assert f"labctl recipe {option.name or option.callback.__name__}" in GUIDE
    assert "(techniques.md)" in GUIDE
    for technique in TECHNIQUES.values():
        for name, field in technique.fields.model_fields.items():
            assert f"{field.alias or name}" in TECHNIQUES_GUIDE
    for bound in (MOST_NODES, MOST_STEPS, MOST_VISITS):
        assert f"{bound:,}" in GUIDE
    assert f"{LARGEST_BYTES // 1024} KiB" in GUIDE
    assert f"{DEEPEST} levels" in GUIDE
    assert f"{MOST_INCLUDED} other recipes, {DEEPEST_INCLUDE} deep" in GUIDE
    assert shipped_recipes()
