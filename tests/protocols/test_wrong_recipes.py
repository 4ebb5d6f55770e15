"""Each file of wrong/ says in its first lines what must be said of it, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from labctl.errors import RecipeError
from labctl.model import Cell
from labctl.protocols.recipe import compile_recipe, file_loader, read_recipe

WRONG = sorted((Path(__file__).parent / "wrong").glob("*.yaml"))
EXPECT = re.compile(r"# expect (?:(\S+\.yaml):)?(\d+):(\d+) (.*?)(?: => (.*))?$", re.MULTILINE)
CELL = re.compile(r"# cell (\w+)=([\d.]+)$", re.MULTILINE)


def test_there_are_many_wrong_recipes() -> None:
    assert len(WRONG) >= 190


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_recipe_is_told_where_what_and_what_to_write(path: Path, cell: Cell) -> None:
    text = path.read_text(encoding="utf-8")
    cell = msgspec.structs.replace(cell, area_cm2=None)
    for name, value in CELL.findall(text):
        cell = msgspec.structs.replace(cell, **{name: float(value)})

    with pytest.raises(RecipeError) as caught:
        compile_recipe(read_recipe(text, file=path.name, load=file_loader(path)), cell)

    expected = {
        (file or path.name, int(line), int(column), message, suggestion)
        for file, line, column, message, suggestion in EXPECT.findall(text)
    }
    assert expected
    assert expected == {
        (problem.file, problem.line, problem.column, problem.message, problem.suggestion)
        for problem in caught.value.problems
    }
    for problem in caught.value.problems:
        lines = (path.parent / problem.file).read_text(encoding="utf-8").split("\n")
        assert problem.source_line == lines[problem.line - 1].replace("\t", " ")
        assert problem.column - 1 + problem.width <= max(1, len(problem.source_line))
