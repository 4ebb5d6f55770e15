from __future__ import annotations

import importlib

import msgspec
import pytest

from labctl.clock import VirtualClock
from labctl.drivers import DRIVERS, build_driver
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.errors import ConfigError


def built(kind: str = "neware_bts", /, **options: object) -> object:
    return build_driver(kind, options, name="rack 1", clock=VirtualClock())


def problems(kind: str = "neware_bts", /, **options: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        built(kind, **options)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("kind", list(DRIVERS))
def test_every_driver_of_the_table_is_where_the_table_says(kind: str) -> None:
    module, _, name = DRIVERS[kind].partition(":")
    driver = getattr(importlib.import_module(module), name)
    assert issubclass(driver.Config, msgspec.Struct)


def test_a_driver_is_built_from_plain_options() -> None:
    driver = built(host="10.0.0.7", step_file_dir="/mnt/bts", port=5020, voltage_max_V=4)
    assert isinstance(driver, NewareBts)
    assert driver.capabilities.voltage_max_V == 4.0


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    (problem,) = problems("neware_bts8")
    assert "no driver 'neware_bts8'" in problem
    assert "did you mean 'neware_bts'?" in problem
    (problem,) = problems("xyz")
    assert "there are neware_bts" in problem


def test_every_wrong_option_is_named_at_once() -> None:
    found = "\n".join(problems(hots="10.0.0.7", port="many", utc_offset_s=[]))
    assert "no option 'hots'" in found
    assert "did you mean 'host'?" in found
    assert "the option 'host' is missing" in found
    assert "the option 'step_file_dir' is missing" in found
    assert "the option 'port': Expected `int`, got `str`" in found
    assert "the option 'utc_offset_s'" in found


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("port", 70_000, "port is 70000"),
        ("connections", 0, "connections is 0"),
        ("reply_timeout_s", 0, "reply_timeout_s is 0"),
        ("host", " ", "host is empty"),
        ("step_file_dir", "", "step_file_dir is empty"),
        ("utc_offset_s", 90_000, "within a day"),
        ("voltage_max_V", -6, "below voltage_max_V"),
        ("current_full_scales_A", [], "at least one current"),
        ("current_full_scales_A", [0.1, -1], "all above 0"),
        ("current_resolution", 1, "between 0 and 1"),
        ("fastest_record_s", 0, "above 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: str, value: object, says: str) -> None:
    options: dict[str, object] = {"host": "bts", "step_file_dir": "/mnt/bts"}
    (problem,) = problems(**(options | {option: value}))
    assert says in problem
