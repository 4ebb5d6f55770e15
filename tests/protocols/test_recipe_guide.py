"""Every example of docs/recipes.md does what the guide says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import Program
from labctl.protocols.reader import MOST_STEPS, MOST_VISITS, SECTIONS
from labctl.protocols.recipe import compile_recipe, read_recipe, shipped_recipes
from labctl.protocols.source import DEEPEST, LARGEST_BYTES, MOST_NODES
from labctl.protocols.techniques import TECHNIQUES

GUIDE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
RIGHT = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
WRONG = re.findall(
    r"^```yaml wrong\n(.*?)^```\n\n```text\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL
)
AFTER = "steps:\n  - cycle: 10\n    do:\n      - charge: {at: 0.2C, until: 4.1 V}\n"


def whole(example: str) -> str:
    if re.search(r"^recipe:", example, re.MULTILINE):
        return example
    if example.startswith("- "):
        return "recipe: example\nsteps:\n" + re.sub(r"^", "  ", example, flags=re.MULTILINE)
    return f"recipe: example\n{example}{AFTER}"


def test_the_guide_has_examples() -> None:
    assert len(RIGHT) >= 12
    assert len(WRONG) >= 2
    assert GUIDE.count("```") == 2 * (len(RIGHT) + 2 * len(WRONG))


@pytest.mark.parametrize("example", RIGHT)
def test_an_example_of_the_guide_compiles(example: str, cell: Cell) -> None:
    assert isinstance(compile_recipe(read_recipe(whole(example)), cell), Program)


@pytest.mark.parametrize(("example", "said"), WRONG)
def test_a_mistake_of_the_guide_is_reported_as_it_says(example: str, said: str, cell: Cell) -> None:
    with pytest.raises(RecipeError) as caught:
        compile_recipe(read_recipe(example, file="my-recipe.yaml"), cell)
    assert str(caught.value) == said.rstrip("\n")


def test_the_guide_speaks_of_every_word_and_bound() -> None:
    for word in (*TECHNIQUES, "cycle", "repeat", "for", *SECTIONS):
        assert word in GUIDE
    for technique in TECHNIQUES.values():
        for name, field in technique.fields.model_fields.items():
            assert f"{field.alias or name}" in GUIDE
    for bound in (MOST_NODES, MOST_STEPS, MOST_VISITS):
        assert f"{bound:,}" in GUIDE
    assert f"{LARGEST_BYTES // 1024} KiB" in GUIDE
    assert f"{DEEPEST} levels" in GUIDE
    assert shipped_recipes()
