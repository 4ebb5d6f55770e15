"""The instrument that docs/adding-an-instrument.md prints passes what every driver must pass."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from labctl.drivers import DRIVERS

HERE = Path(__file__)
GUIDE = HERE.parents[2] / "docs" / "adding-an-instrument.md"
CONTRACT = (
    "test_it_says_who_it_is_and_the_same_again",
    "test_it_lists_its_channels_and_none_of_them_runs",
    "test_switching_off_what_is_off_changes_nothing",
    "test_limits_are_read_back_before_anything_flows",
    "test_a_step_that_was_begun_is_read_and_ended",
    "test_what_it_cannot_do_is_refused_without_a_wire",
    "test_a_voltage_beyond_what_it_is_used_for_is_refused",
    "test_a_channel_that_is_not_there_is_refused_by_name",
    "test_a_link_that_is_lost_in_any_call_is_a_link_error",
    "test_bytes_that_mean_nothing_are_an_error_and_never_a_reading",
    "test_an_answer_that_comes_too_late_is_not_taken_for_the_next",
    "test_a_call_that_is_given_up_leaves_it_usable",
    "test_one_that_was_closed_is_silent_until_it_is_opened",
)


def block(mark: str) -> str:
    """The block of code behind ``<!-- mark -->``."""
    found = re.search(
        rf"<!-- {re.escape(mark)} -->\n```python\n(.*?)\n```", GUIDE.read_text(), re.DOTALL
    )
    assert found is not None, mark
    return found[1]


def module(name: str, text: str) -> ModuleType:
    made = ModuleType(name)
    sys.modules[name] = made
    exec(compile(text, name, "exec"), made.__dict__)
    return made


@pytest.fixture(scope="module")
def contract() -> Any:
    spec = importlib.util.spec_from_file_location(
        "contract", HERE.with_name("test_every_driver.py")
    )
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["contract"] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def line(contract: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The guide's own line of the table, with its driver registered as the guide says."""
    module("labctl.drivers.acme", block("drivers/acme.py"))
    simulator = module("labctl.simulators.acme", block("simulators/acme.py"))
    monkeypatch.setitem(DRIVERS, "acme", "labctl.drivers.acme:Acme")
    return eval(block("line"), {"Line": contract.Line, **simulator.__dict__})


@pytest.mark.parametrize("name", CONTRACT)
async def test_the_guides_own_driver_does_what_every_driver_must(
    name: str, line: Any, contract: Any, tmp_path: Path
) -> None:
    function = getattr(contract, name)
    wanted = inspect.signature(function).parameters
    given = {"line": line, "tmp_path": tmp_path, "turns": 4}
    done = function(**{key: value for key, value in given.items() if key in wanted})
    if inspect.isawaitable(done):
        await done


def test_the_guide_prints_the_lines_that_there_are() -> None:
    text = GUIDE.read_text()
    for path in set(re.findall(r"`((?:drivers|simulators|labctl|tests|docs)/[\w/.-]+)`", text)):
        if "acme" not in path and "NAME" not in path:
            assert (HERE.parents[2] / path).exists(), path
