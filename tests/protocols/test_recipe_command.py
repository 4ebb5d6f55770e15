"""``labctl recipe`` as a technician types it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from labctl.cli.recipe import app
from labctl.control import (
    Answer,
    Cells,
    Command,
    Done,
    GetCells,
    StartRun,
    serve_control,
)
from labctl.errors import LabctlError, PlanError
from labctl.model import Cell
from labctl.protocols.files import template_text
from labctl.protocols.recipe import compile_recipe, read_recipe, shipped_recipes
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


def test_a_recipe_finds_the_recipes_beside_it(tmp_path: Path) -> None:
    (tmp_path / "formation.yaml").write_text("recipe: F\nsteps:\n  - rest: 1 min\n")
    main = tmp_path / "main.yaml"
    main.write_text("recipe: Main\nsteps:\n  - recipe: formation.yaml\n  - recipe: capacity-0.2C\n")
    assert run("check", str(main)).exit_code == 0
    assert "Do what 'F' says (formation.yaml):" in run("explain", str(main)).stdout
    result = run("plan", str(main), "--cell-mass", "2 mg")
    assert "rest 1 min" in result.stdout
    assert "3 cycles" in result.stdout
    main.write_text("recipe: Main\nsteps:\n  - recipe: formatoin.yaml\n")
    result = run("check", str(main))
    assert result.exit_code == 1
    assert f"{main}:3:13: there is no recipe 'formatoin.yaml' to include" in result.stderr
    assert "did you mean 'formation'?" in result.stderr


def test_a_new_recipe_is_right_and_has_the_schema_beside_it(tmp_path: Path, cell: Cell) -> None:
    path = tmp_path / "my-first recipe.yaml"
    result = run("new", str(tmp_path / "my-first recipe"))
    assert result.exit_code == 0
    assert f"wrote {path}" in result.stdout
    text = path.read_text()
    assert text == template_text().replace("New recipe", "my first recipe")
    assert compile_recipe(read_recipe(text), cell).cycle_count == 3
    assert (tmp_path / "recipe.schema.json").read_text() == schema_text()
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert run("fmt", "--check", str(path)).exit_code == 0

    again = run("new", str(path))
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_a_new_recipe_can_begin_as_a_shipped_one_or_as_a_file(tmp_path: Path, cell: Cell) -> None:
    assert run("new", str(tmp_path / "a: b"), "--from", "rate-ladder").exit_code == 0
    text = (tmp_path / "a: b.yaml").read_text()
    assert read_recipe(text).name == "a: b"
    shipped = read_recipe(shipped_recipes()["rate-ladder"].read_text(encoding="utf-8"))
    assert compile_recipe(read_recipe(text), cell).body == compile_recipe(shipped, cell).body
    assert "$schema=recipe.schema.json" in text

    (tmp_path / "inner.yaml").write_text("recipe: I\nsteps:\n  - rest: 1 min\n")
    (tmp_path / "outer.yaml").write_text("recipe: O\nsteps:\n  - recipe: inner\n")
    (tmp_path / "there").mkdir()
    made = tmp_path / "there" / "copy.yaml"
    assert run("new", str(made), "--from", str(tmp_path / "outer.yaml")).exit_code == 0
    assert run("explain", str(made)).stdout.startswith("copy\n")

    wrong = run("new", str(tmp_path / "c"), "--from", "rate-lader")
    assert wrong.exit_code == 1
    assert "did you mean the shipped recipe 'rate-ladder'?" in wrong.stderr
    assert not (tmp_path / "c.yaml").exists()


def test_recipes_are_laid_out_in_place_and_checked_without_a_change(tmp_path: Path) -> None:
    untidy, wrong = tmp_path / "untidy.yaml", tmp_path / "wrong.yaml"
    untidy.write_text("recipe: x   # why\nsteps:\n- rest:   1 h\n")
    wrong.write_text("recipe: x\nrecipe: y\n")
    checked = run("fmt", "--check", str(untidy), "rate-ladder")
    assert (checked.exit_code, checked.stdout) == (1, f"would change  {untidy}\n")
    assert "- rest:   1 h" in untidy.read_text()
    result = run("fmt", str(untidy), str(wrong))
    assert result.exit_code == 1
    assert untidy.read_text() == "recipe: x  # why\nsteps:\n  - rest: 1 h\n"
    assert f"{wrong}:2:1: 'recipe' stands twice" in result.stderr
    assert run("fmt", "--check", str(untidy)).exit_code == 0


SITE = """\
[node]
name = "lab1"
data = "data"
[archive]
url = "sqlite:///archive.db"
[limits]
voltage_max_V = 4.35
[instruments.rack1]
driver = "neware_bts"
host = "127.0.0.1"
step_file_dir = "steps"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "labctl.toml").write_text(SITE)
    return tmp_path / "labctl.toml"


def test_a_plan_for_a_channel_says_ranges_and_what_runs_onboard(site: Path) -> None:
    result = run(*PLAN, "--channel", "rack1/21-1-1", "--config", str(site), "--set", "upper=4.0 V")
    assert result.exit_code == 1, "its limits are wider than the site's"
    assert "1.0 V .. 4.4 V are wider than the limits of the site, 1 V .. 4.35 V" in result.stderr
    site.write_text(SITE.replace("4.35", "4.4"))
    result = run(*PLAN, "--channel", "rack1/21-1-1", "--config", str(site))
    assert result.exit_code == 0
    assert "Current range: " in result.stdout
    assert "for steps 2-3" in result.stdout
    assert "Runs: steps 1 to 3 run in the instrument in one go, 7 visits to steps" in result.stdout
    unknown = run(*PLAN, "--channel", "rack2/1", "--config", str(site))
    assert unknown.exit_code == 1
    assert "no instrument 'rack2' is configured: there is rack1" in unknown.stderr
    neither = run("plan", "capacity-0.2C")
    assert neither.exit_code == 2
    assert "--cell-mass" in neither.stderr


@contextlib.contextmanager
def a_daemon(path: Path, seen: list[StartRun], refusal: LabctlError | None) -> Iterator[None]:
    """Answers at a control socket as a daemon does that knows one cell."""
    cell = Cell(
        name="HE-V-9", material="HE-V", active_mass_g=0.003, one_C_mA_per_g=100.0,
        safe_voltage_min_V=1.0, safe_voltage_max_V=4.5,
    )  # fmt: skip

    async def handle(command: Command, actor: str) -> Answer:
        assert actor
        if isinstance(command.request, GetCells):
            return Cells(cells=(cell,))
        assert isinstance(command.request, StartRun)
        seen.append(command.request)
        if refusal is not None:
            raise refusal
        return Done(message="everything fits; nothing was started")

    listening, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with serve_control(path, handle):
            listening.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert listening.wait(10)
        yield
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join()


def test_a_plan_for_a_registered_cell_asks_the_daemon(site: Path, tmp_path: Path) -> None:
    site.write_text(SITE.replace("4.35", "4.4"))
    (tmp_path / "data").mkdir()
    ask = ["plan", "capacity-0.2C", "--cell", "HE-V-9", "--config", str(site)]
    assert "no daemon answers" in run(*ask).stderr
    socket = tmp_path / "data" / "control.sock"
    seen: list[StartRun] = []
    with a_daemon(socket, seen, None):
        alone = run(*ask)
        assert alone.exit_code == 0
        assert "1C is 300 uA" in alone.stdout
        assert seen == []
        fits = run(*ask, "--channel", "rack1/21-1-1", "--set", "upper=4.0 V")
        assert fits.exit_code == 0
        assert "in one go" in fits.stdout
        other = run("plan", "capacity-0.2C", "--cell", "HE-V-8", "--config", str(site))
        assert "no cell 'HE-V-8' is registered: there are HE-V-9" in other.stderr
    (asked,) = seen
    assert (asked.dry, asked.queue, asked.cell, asked.channel) == (True, True, "HE-V-9", "21-1-1")
    assert asked.parameters == {"upper": "4.0 V"}
    with a_daemon(socket, [], PlanError(["rack1: step 2 is too fast", "rack1: no"])):
        refused = run(*ask, "--channel", "rack1/21-1-1")
    assert refused.exit_code == 1
    assert "Refused: rack1: step 2 is too fast\nRefused: rack1: no\n" in refused.stdout
