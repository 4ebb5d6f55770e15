"""YAML's traps: what a text may cost, and that nothing but RecipeError comes out of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.errors import RecipeError
from labctl.protocols.recipe import read_recipe, shipped_recipes
from labctl.protocols.source import (
    MOST_PROBLEMS,
    Listing,
    Mapping,
    Place,
    Problems,
    Text,
    read_source,
)

BOMBS: dict[str, str] = {
    "nested brackets": "[" * 200_000,
    "nested brackets in lines": "\n".join(["[" * 900] * 250),
    "a bracket a line": "[\n" * 100_000,
    "nested braces": "\n".join(["{" * 900] * 250),
    "nested dashes": "\n".join(["- " * 450] * 250),
    "nested question marks": "\n".join(["? " * 450] * 250),
    "deeper by a space a line": "".join(" " * depth + "a:\n" for depth in range(700)),
    "a long list": "- a\n" * 60_000,
    "a long list in one line": "[" + "a," * 450 + "\n" + ("a," * 450 + "\n") * 250,
    "many keys": "".join(f"k{number}: 1\n" for number in range(20_000)),
    "one key many times": "k: 1\n" * 50_000,
    "a long quoted text": '"' + ("\\x41" * 200 + "\n") * 300 + '"',
    "a long block text": "a: >\n" + "  x\n" * 60_000,
    "a long plain text": "a:\n" + " x\n" * 80_000,
    "a long tag": "!" + "%41" * 300 + " x\n",
    "comments only": "# x\n" * 60_000,
    "empty lines only": "\n" * 250_000,
    "too many bytes": "# x\n" * 600_000,
    "billion laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    ),
    "loops that unroll": "recipe: x\nsteps:\n"
    + "".join(
        f"{' ' * n}  - for: v{n}\n{' ' * n}    in: [1 h, 2 h, 3 h, 4 h]\n{' ' * n}    do:\n"
        for n in range(0, 36, 4)
    )
    + "  " * 18 + "  - rest: [" + ", ".join(f"$v{n}" for n in range(0, 36, 4)) + "]\n",
}  # fmt: skip


def _nested(heads: list[str], innermost: str) -> str:
    """Groups inside each other; the lines of a head are keys of one group, the last takes steps."""
    text, indent = "recipe: x\nsteps:\n  - charge: {at: 1C, until: 4.1 V}\n", "  "
    for head in heads:
        text += f"{indent}- " + head.replace("\n", f"\n{indent}  ") + "\n"
        indent += "    "
    return text + "".join(f"{indent}{line}\n" for line in innermost.splitlines())


WIDE = "[" + ", ".join(f"{n} s" for n in range(1, 40)) + "]"
BRANCH = "- if: {ended by: time}\n  then: [{repeat: 2, do: [rest: 1 s]}]\n  else: [stop: b]\n"
TWICE = "- repeat: 2\n  do: [{rest: 1 s}, {repeat: 2, do: [rest: 2 s]}]\n"
BOMBS_OF_STEPS: dict[str, dict[str, str]] = {
    "branches that unroll": {
        "": _nested([f"for: v{n}\nin: {WIDE}\ndo:" for n in range(4)], BRANCH * 20)
    },
    "branches in each other": {"": _nested(["if: {ended by: time}\nthen:"] * 9, BRANCH * 300)},
    "first in each other": {
        "": _nested(["cycle: 9\nuntil: {efficiency: below 9 %}\nfirst:"] * 9, BRANCH)
    },
    "many loops in loops": {"": _nested(["repeat: 2\ndo:"] * 6, TWICE * 600 + BRANCH)},
    "recipes that include recipes": {
        "": "recipe: x\nsteps:\n" + "  - recipe: r0\n" * 600,
        **{
            f"r{n}": "recipe: x\nsteps:\n  - rest: 1 s\n" + f"  - recipe: r{n + 1}\n" * 600
            for n in range(4)
        },
        "r4": "recipe: x\nsteps:\n  - rest: 1 s\n",
    },
    "an included recipe with many parameters": {
        "": _nested(
            [f"for: v{n}\nin: {WIDE}\ndo:" for n in range(3)], "- recipe: r0\n- rest: $v0\n"
        ),
        "r0": "recipe: x\nparameters:\n"
        + "".join(f"  p{n}: {{default: 1 s, from: 1 s, to: 9 s}}\n" for n in range(900))
        + "steps:\n  - rest: 1 s\n",
    },
    "many recipes in a row": {
        "": "recipe: x\nsteps:\n" + "".join(f"  - recipe: r{n}\n" for n in range(50)),
        **{f"r{n}": "recipe: x\nsteps:\n" + "  - rest: [\n" * 3000 for n in range(50)},
    },
    "a recipe that includes long ones": {
        "": "recipe: x\nsteps:\n" + "".join(f"  - recipe: r{n}\n" for n in range(19)),
        **{f"r{n}": "recipe: x\nsteps:\n" + "# x\n" * 40_000 for n in range(19)},
    },
}


# VmHWM and not ru_maxrss, which a child inherits from the process that forked it.
_MEASURE = """
import json, re, sys, time
from pathlib import Path
from labctl.errors import RecipeError
from labctl.protocols.recipe import read_recipe
bombs = json.load(sys.stdin)
spent = {}
for name, texts in bombs.items():
    begin = time.process_time()
    try:
        read_recipe(texts[""], load=lambda file: texts[file.removesuffix(".yaml")])
    except RecipeError:
        pass
    spent[name] = time.process_time() - begin
most_kB = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
json.dump([spent, most_kB / 1024], sys.stdout)
"""


def test_a_yaml_bomb_costs_less_than_a_second_and_200_MB() -> None:
    texts = {name: {"": text} for name, text in BOMBS.items()} | BOMBS_OF_STEPS
    answer = subprocess.run(
        [sys.executable, "-c", _MEASURE],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    spent, memory_MB = json.loads(answer.stdout)
    assert spent.keys() == texts.keys()
    assert {name: seconds for name, seconds in spent.items() if seconds >= 1.0} == {}
    assert memory_MB < 200


def test_values_keep_the_text_that_was_typed() -> None:
    text = "a: [1e-3, NO, 12:30:00, 0x10, ~, '5', 2026-01-01, null]\n"
    node = read_source(text, Problems("", tuple(text.split("\n"))))
    assert isinstance(node, Mapping)
    values = node.get("a")
    assert isinstance(values, Listing)
    typed = [item.value for item in values.items if isinstance(item, Text)]
    assert typed == ["1e-3", "NO", "12:30:00", "0x10", "~", "5", "2026-01-01", "null"]
    assert values.items[0].place == Place(1, 5, 4)


def test_windows_line_ends_and_a_byte_order_mark_change_no_place() -> None:
    plain = "recipe: x\nsteps:\n  - rest: 10\n"
    for text in (plain, "\ufeff" + plain.replace("\n", "\r\n"), plain.replace("\n", "\r")):
        with pytest.raises(RecipeError) as caught:
            read_recipe(text)
        (problem,) = caught.value.problems
        assert (problem.line, problem.column, problem.source_line) == (3, 11, "  - rest: 10")


def test_a_text_full_of_mistakes_reports_no_more_than_can_be_read() -> None:
    text = "recipe: x\nsteps:\n" + "  - rest: 10\n" * 500
    with pytest.raises(RecipeError) as caught:
        read_recipe(text)
    assert len(caught.value.problems) == MOST_PROBLEMS


_RECIPES = [path.read_text(encoding="utf-8") for path in shipped_recipes().values()]
_PIECES = [
    *(line + "\n" for text in _RECIPES for line in text.splitlines() if not line.startswith("#")),
    *"[]{},:-?&*!|>%@`'\"#~<=. \t\n\r\\$0123456789",
    "<<: ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n", "!!int ", '"\\UFFFFFFFF"', '"\\xZZ"',
    "&a ", "*a ", "null", ".inf", "1e999", "µ", "°", "\u2028", "\ud800", "\x00", "é",
    "recipe: x\n", "steps:\n", "  - ", "rest: ", "charge: ", "{at: 0.2C, until: 4.1 V}", "for: ",
    "in: ", "do:\n", "cycle: ", "$rate", "parameters: ", "{a: [",
    "alarms: {retention: ", "limits: {voltage: ",
]  # fmt: skip


def _read(text: str) -> None:
    with contextlib.suppress(RecipeError):
        read_recipe(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=40).map("".join))
def test_pieces_of_recipes_in_any_order_raise_only_recipe_errors(text: str) -> None:
    _read(text)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_raises_only_recipe_errors(text: str) -> None:
    _read(text)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(_RECIPES), st.data())
def test_a_shipped_recipe_with_a_piece_put_in_raises_only_recipe_errors(
    text: str, data: st.DataObject
) -> None:
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    text = "".join(lines)
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 12)))
    _read(text[:begin] + data.draw(st.sampled_from(_PIECES)) + text[end:])
