"""``labctl recipe`` as a technician types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from labctl.cli.recipe import app
from labctl.protocols.recipe import shipped_recipes
from labctl.protocols.schema import schema_text
from labctl.protocols.source import LARGEST_BYTES

PLAN = ["plan", "capacity-0.2C", "--cell-mass", "2.0 mg", "--one-c", "100 mA/g"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_right_recipe_is_ok(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: Mine [1]\nsteps:\n  - rest: 1 h\n")
    result = run("check", str(file), "rate-ladder", "capacity-0.2C.yaml")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"ok  {file}: Mine [1]",
        "ok  rate-ladder: Rate ladder",
        "ok  capacity-0.2C.yaml: Capacity at 0.2C",
    ]


def test_every_mistake_of_every_file_is_printed_on_lines_that_are_not_broken(
    tmp_path: Path,
) -> None:
    name = "a-recipe-with-a-very-long-name-" + "x" * 80 + ".yaml"
    long = tmp_path / name
    long.write_text("recipe: [x]\nsteps:\n  - rest: 10\n  - charge: {at: 0.2C, untill: 4.1 V}\n")
    other = tmp_path / "other.yaml"
    other.write_text("recipe: x\n")
    result = run("check", str(long), "rate-ladder", str(other))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ["ok  rate-ladder: Rate ladder"]
    lines = result.stderr.splitlines()
    assert f"{long}:1:1: 'recipe' takes a text" in lines
    assert f"{long}:3:11: '10' has no unit" in lines
    at = lines.index(f"{long}:4:24: 'untill' is not a key of 'charge'")
    assert lines[at + 1 : at + 4] == [
        "      - charge: {at: 0.2C, untill: 4.1 V}",
        "                           ^^^^^^",
        "    did you mean 'until'?",
    ]
    assert f"{other}:1:1: the recipe has no steps" in lines


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (None, "there is no such file or shipped recipe"),
        (b"recipe: \xff\xfe\n", "byte 9 is not UTF-8 text"),
        (b"# x\n" * 100_000, f"the recipe has {LARGEST_BYTES + 1} bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_so(
    tmp_path: Path, make: bytes | None, message: str
) -> None:
    file = tmp_path / "capacity.yaml"
    if make is not None:
        file.write_bytes(make)
    result = run("check", str(file))
    assert result.exit_code == 1
    assert message in result.stderr
    if make is None:
        assert "did you mean the shipped recipe 'capacity-0.2C'?" in result.stderr


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    result = run("check", str(tmp_path))
    assert result.exit_code == 1
    assert "cannot be read: Is a directory" in result.stderr


def test_a_plan_is_made_for_a_cell_given_in_words() -> None:
    result = run(*PLAN, "--window", "1.0 V .. 4.5 V", "--set", "upper=4.0 V")
    assert result.exit_code == 0
    assert (
        "charge at 0.2C until 4.0 V     40 uA       until >= 4 V; at most 27.5 h" in result.stdout
    )
    assert "1C is 200 uA (100 mA/g, 2 mg)" in result.stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "uper=4 V"], "did you mean 'upper'?"),
        (["--set", "upper"], "'upper' sets nothing"),
        (["--set", "upper=4 V", "--set", "upper=4 V"], "'upper' is set twice"),
        (["--window", "2 V .. 4 V"], "outside the safe window of cell 'a cell', 2 V .. 4 V"),
        (["--window", "2 .. 4 V"], "write '2 V .. 4 V'"),
        (["--cell-mass", "2.0"], "write '2.0 mg'"),
        (["--cell-mass", "0 mg"], "active_mass_g must be a finite number above 0"),
        (["--max-current", "10 uA"], "0.2C is 40 uA on cell 'a cell', not below"),
        (["--area", "1 cm"], "did you mean '1 cm2'?"),
    ],
)
def test_a_plan_that_cannot_be_made_is_told_why(more: list[str], message: str) -> None:
    result = run(*PLAN, *more)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""


def test_the_shipped_recipes_are_listed_and_can_be_explained() -> None:
    result = run("list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(shipped_recipes())
    explained = run("explain", "capacity-0.2C")
    assert explained.exit_code == 0
    assert "Charge at 0.2C until the voltage has risen to 4.1 V." in explained.stdout


def test_the_schema_is_printed_as_it_is_shipped() -> None:
    assert run("schema").stdout == schema_text()
