"""An instrument that is unplugged in the middle of a step: a node, real sockets and ptys.

All of it happens at once, as most of it is waiting. ``benchmarks/unplug.py`` does it many times.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import laboratory
import unplug

from labctl.simulators.faults import Fault, write_faults

pytestmark = pytest.mark.whole_way

PLANS = {
    name: unplug.Plan(*plan)
    for name, plan in {
        "rack runs on": ("neware", "charge", 0.4, "short", "running"),
        "rack lost its power": ("neware", "discharge", 0.2, "short", "off"),
        "rack stays away": ("neware", "discharge", 0.5, "never", "running"),
        "another rack": ("neware", "rest", 0.3, "short", "another"),
        "meter runs on": ("keithley", "discharge", 0.3, "short", "running"),
        "meter lost its power": ("keithley", "charge", 0.6, "long", "off"),
        "potentiostat runs on": ("palmsens", "discharge", 0.2, "short", "running", True),
        "another potentiostat": ("palmsens-usb", "sweep", 0.2, "short", "another"),
    }.items()
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    async def all_at_once() -> list[Any]:
        folder = tmp_path_factory.mktemp("unplugged")
        return await asyncio.gather(
            *(unplug.unplugged(plan, folder / name) for name, plan in PLANS.items())
        )

    return dict(zip(PLANS, asyncio.run(all_at_once()), strict=True))


@pytest.mark.parametrize("name", PLANS)
def test_no_reading_is_lost_or_doubled_and_no_cell_leaves_its_limits(
    outcomes: dict[str, Any], name: str
) -> None:
    found = outcomes[name]
    assert (found.lost, found.doubled, found.problems) == (0, 0, ())
    low_V, high_V = unplug.LIMITS_V
    assert low_V <= found.lowest_V
    assert found.highest_V <= high_V
    assert not found.silent, found.unseen_mAh


def test_a_rack_that_runs_on_is_read_from_where_it_stood(outcomes: dict[str, Any]) -> None:
    found = outcomes["rack runs on"]
    assert (found.became, found.ended, found.gaps) == ("resumed", "completed", 0)


def test_a_potentiostat_goes_on_whether_the_cable_was_pulled_in_a_step_or_between_two(
    outcomes: dict[str, Any],
) -> None:
    found = outcomes["potentiostat runs on"]
    assert (found.became, found.ended) == ("resumed", "completed")
    assert found.gaps <= 1, "between two steps nothing is missed, and its time is not a manual one"


@pytest.mark.parametrize("name", ["meter runs on", "meter lost its power"])
def test_an_instrument_that_comes_back_goes_on_and_the_gap_is_recorded(
    outcomes: dict[str, Any], name: str
) -> None:
    found = outcomes[name]
    assert (found.became, found.ended, found.gaps) == ("resumed", "completed", 1)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("another rack", "barcode 'another-00001'"),
        ("another potentiostat", "is the instrument 8000B02RH4SE now, not ES4HR20B0008"),
    ],
)
def test_another_instrument_is_never_gone_on_with(
    outcomes: dict[str, Any], name: str, why: str
) -> None:
    found = outcomes[name]
    assert found.became == "held"
    assert why in found.why
    assert found.ended == "completed", "with the right one back, and released, it goes on"


def test_a_test_that_a_power_cut_stopped_is_held_and_goes_on_when_it_is_released(
    outcomes: dict[str, Any],
) -> None:
    found = outcomes["rack lost its power"]
    assert (found.became, found.ended) == ("held", "completed")
    assert "stopped before the end" in found.why


def test_an_instrument_that_stays_away_is_told_within_seconds(outcomes: dict[str, Any]) -> None:
    found = outcomes["rack stays away"]
    assert found.became in {"away", "held"}
    assert "no connection" in found.why
    assert 0 <= found.said_s < 5.0
    assert ("no-connection", True) in found.told, "an alarm comes of it"


@pytest.mark.parametrize("kind", ["neware", "keithley"])
async def test_a_fault_in_a_file_pulls_the_plug_of_a_simulator_for_a_time(
    kind: str, tmp_path: Path
) -> None:
    maker, speed = unplug.KINDS[kind]
    folder = tmp_path / "instrument"
    folder.mkdir()
    async with maker.make(folder, speed, laboratory.Seen()) as stand:
        port = int(str(stand.options().get("port") or stand.options()["resource"].split("::")[2]))
        faults = next(path.parent for path in folder.rglob("lock")) / "faults.json"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        write_faults(faults, [Fault("unplug", seconds=0.3)])
        assert await reader.read() == b"", "what was connected is cut"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        async with asyncio.timeout(10.0):
            await laboratory.until(lambda: _listens(port))


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
