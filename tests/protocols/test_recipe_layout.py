"""Laying a recipe out changes how it looks, and nothing else."""

from __future__ import annotations

import contextlib
import functools
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.program import Branch, Loop, Node, Program, Step
from labctl.protocols.files import template_text
from labctl.protocols.layout import laid_out
from labctl.protocols.parameters import as_text
from labctl.protocols.recipe import (
    bundle,
    compile_recipe,
    file_loader,
    read_recipe,
    shipped_recipes,
)

SHIPPED = shipped_recipes()

UNTIDY = """\
# what it is for


recipe:   Untidy   # its name
about: "quoted: yes"
parameters:
    upper: 4.1 V     # where charges end
    n: 012
    odd: 1e-3


# before the steps
steps:
- rest: 10 min   
# before the cycles
- cycle: 3
  do:
  - charge: {at: 0.2C,   until: 4.1 V}   # up
  # between
  - discharge:
        at: 0.2C
        until: [1.5 V,
           2 h]  # whichever comes first
  # behind the last
- rest: 'it''s'
"""  # noqa: W291

TIDY = """\
# what it is for

recipe: Untidy  # its name
about: "quoted: yes"
parameters:
  upper: 4.1 V  # where charges end
  n: 012
  odd: 1e-3

# before the steps
steps:
  - rest: 10 min
  # before the cycles
  - cycle: 3
    do:
      - charge: {at: 0.2C, until: 4.1 V}  # up
      # between
      - discharge:
          at: 0.2C
          until: [1.5 V, 2 h]  # whichever comes first
  # behind the last
  - rest: 'it''s'
"""


CELL = Cell(
    name="HE-V-1", material="HE-V", active_mass_g=0.002, one_C_mA_per_g=100.0,
    safe_voltage_min_V=-1.0, safe_voltage_max_V=6.0, area_cm2=1.0,
)  # fmt: skip


def meaning_of(text: str) -> Program:
    """The program without what only the layout decides: lines and the hash of the text."""
    recipe = read_recipe(text, load=file_loader(SHIPPED["capacity-0.2C"]))
    given = {
        name: as_text(one.example) for name, one in recipe.declared.items() if one.default is None
    }
    program = compile_recipe(recipe, CELL, given)
    return msgspec.structs.replace(program, body=without_lines(program.body), recipe_sha256="")


def without_lines(body: tuple[Node, ...]) -> tuple[Node, ...]:
    changed: list[Node] = []
    for node in body:
        match node:
            case Step():
                changed.append(msgspec.structs.replace(node, line=0))
            case Loop():
                changed.append(msgspec.structs.replace(node, body=without_lines(node.body)))
            case Branch():
                changed.append(
                    Branch(
                        node.condition,
                        without_lines(node.then),
                        without_lines(node.otherwise),
                    )
                )
            case _:
                changed.append(node)
    return tuple(changed)


@functools.cache
def meaning_of_shipped(name: str) -> Program:
    return meaning_of(SHIPPED[name].read_text(encoding="utf-8"))


def test_an_untidy_recipe_is_laid_out() -> None:
    assert laid_out(UNTIDY) == TIDY
    assert laid_out(TIDY) == TIDY
    assert laid_out("\ufeff" + UNTIDY.replace("\n", "\r\n")) == TIDY


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_laid_out_already(name: str) -> None:
    text = SHIPPED[name].read_text(encoding="utf-8")
    assert laid_out(text) == text


def test_the_template_is_laid_out_already() -> None:
    assert laid_out(template_text()) == template_text()


def test_every_text_of_a_bundle_is_laid_out() -> None:
    inner = "recipe: Inner\nsteps:\n- rest:   1 h\n"
    recipe = read_recipe("recipe: x\nsteps:\n- recipe:   a\n", load=lambda _: inner)
    text = laid_out(bundle(recipe))
    again = read_recipe(text)
    assert again.text == "recipe: x\nsteps:\n  - recipe: a\n"
    assert again.included == {"a.yaml": "recipe: Inner\nsteps:\n  - rest: 1 h\n"}
    assert compile_recipe(again, CELL).body == compile_recipe(recipe, CELL).body


def test_values_keep_their_quotes_and_are_not_guessed() -> None:
    text = "recipe: x\nsteps: [NO, 12:30:00, 0x10, ~, '5', \"a\\tb\", 1_000, .5, '']\nabout:\n"
    assert laid_out(text) == text


def test_a_long_text_keeps_its_words_and_a_block_its_lines() -> None:
    words = " ".join(f"word{n}" for n in range(60))
    block = "  - wait: |\n      first\n        second\n\n      # third\n"
    text = f"recipe: x\nabout: {words}\nsteps:\n{block}"
    new = laid_out(text)
    assert max(len(line) for line in new.split("\n")) <= 100
    assert " ".join(new.split()).startswith(f"recipe: x about: {words} steps:")
    assert new.endswith(block)
    assert laid_out(new) == new


def test_what_is_not_yaml_is_said_as_always() -> None:
    with pytest.raises(RecipeError, match="stands twice"):
        laid_out("recipe: x\nrecipe: y\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:2:1: .*bracket is missing"):
        laid_out("steps: [x\n", file="mine.yaml")


def _shaken(text: str, random_: random.Random) -> str:
    """The same recipe as somebody in a hurry would have typed it.

    No comments between brackets: those are refused, not laid out.
    """
    lines = []
    depth = 0
    for typed in text.split("\n"):
        line, plain = typed, not set(typed) & set("#'\"")
        inside = depth > 0
        if plain:
            depth += sum(typed.count(sign) for sign in "{[") - sum(map(typed.count, "}]"))
        inside = inside or depth > 0
        if random_.random() < 0.2:
            lines.append("")
        if random_.random() < 0.1 and line.strip() and not inside:
            lines.append(" " * random_.randrange(12) + f"# note {len(lines)}")
        if plain and random_.random() < 0.3:
            line = typed.replace(", ", ",   ").replace("{", "{ ")
        if plain and line.strip() and not inside and random_.random() < 0.2:
            line += f"{' ' * random_.randrange(1, 9)}# why {len(lines)}"
        lines.append(line + " " * random_.randrange(3))
    return "\n".join(lines)


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(sorted(SHIPPED)), seed=st.integers(0, 2**32))
def test_any_layout_of_a_shipped_recipe_becomes_canonical_and_means_the_same(
    name: str, seed: int
) -> None:
    shaken = _shaken(SHIPPED[name].read_text(encoding="utf-8"), random.Random(seed))
    new = laid_out(shaken)
    assert laid_out(new) == new
    assert meaning_of(new) == meaning_of_shipped(name)
    for line in shaken.split("\n"):
        if "# note " in line or "# why " in line:
            assert line[line.rindex("# ") :].rstrip() in new


_PIECES = [
    *(f"{line}\n" for line in UNTIDY.splitlines()),
    *"[]{},:-?|>'\"#. \n", "# c\n", " # d\n", "|\n", ">-\n", "a: ", "- ", "\n\n", "null", "..",
]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=25).map("".join))
def test_any_text_is_laid_out_for_good_or_refused(text: str) -> None:
    with contextlib.suppress(RecipeError):
        new = laid_out(text)
        assert laid_out(new) == new
