"""What a MethodSCRIPT instrument says, quoted, and what the driver makes of it.

Places: MethodSCRIPT manual v1.8; communication protocols of EmStat Pico v1.6 and EmStat4 v1.3.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from wire_fuzz import HastyClock

from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.drivers.palmsens.faultcodes import Refusal, parse_refusal
from labctl.drivers.palmsens.models import MODELS
from labctl.drivers.palmsens.packages import PackageError, Status, literal, parse_package
from labctl.errors import InstrumentError

HELLO = {
    # protocol EmStat Pico v1.6, "get version": six letters of a code, a version, '#', the build;
    # the last line ends with '*'
    "t": "tespico1600#Sep 30 2025 12:00:00\nR*",
    # "get serial number"
    "i": "iES4LR20B0008",
}


@contextlib.asynccontextmanager
async def scripted(answers: Mapping[str, str]) -> AsyncIterator[int]:
    """An instrument that knows these commands; another it refuses with 0003."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                line = (await reader.readuntil(b"\n")).decode().strip()
                if line:
                    writer.write(answers.get(line, f"{line}!0003").encode() + b"\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def driver_at(port: int, folder: Path, model: str = "EmStat Pico") -> PalmSens:
    config = PalmSensConfig(
        port=f"socket://127.0.0.1:{port}",
        model=model,
        lock_dir=str(folder),
        reply_timeout_s=1.0,
    )
    return PalmSens(config, name="ps 1", clock=HastyClock())


async def test_an_instrument_is_known_by_its_code_and_its_serial_number(tmp_path: Path) -> None:
    async with scripted(HELLO) as port:
        driver = driver_at(port, tmp_path)
        identity = await driver.open()
        assert (identity.manufacturer, identity.model) == ("PalmSens", "EmStat Pico")
        assert identity.serial == "ES4LR20B0008"
        await driver.close()


@pytest.mark.parametrize(
    ("code", "model"),
    [("es4_hr", "EmStat4S HR"), ("es4_lr", "EmStat4X LR"), ("nexus1", "Nexus")],
)
async def test_the_codes_of_the_models(tmp_path: Path, code: str, model: str) -> None:
    """Device codes, answers to ``t``."""
    said = {**HELLO, "t": f"t{code}1300#Sep 30 2025 12:00:00\nR*"}
    async with scripted(said) as port:
        driver = driver_at(port, tmp_path, model)
        await driver.open()
        await driver.close()
        wrong = driver_at(port, tmp_path, "EmStat Pico")
        with pytest.raises(InstrumentError, match="not an EmStat Pico") as caught:
            await wrong.open()
        assert caught.value.reply == code
        await wrong.close()


@pytest.mark.parametrize("serial", ["i", "i\x07", "i a b", "i" + "X" * 60, "iES4LR20\\xff"])
async def test_a_serial_number_that_is_none_is_not_remembered(tmp_path: Path, serial: str) -> None:
    async with scripted({**HELLO, "i": serial}) as port:
        driver = driver_at(port, tmp_path)
        with pytest.raises(InstrumentError) as caught:
            await driver.open()
        assert caught.value.command == "i"
        await driver.close()
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and "X" * 10 in path.read_text()
    ]


def test_an_unknown_command_is_refused_with_its_own_letter() -> None:
    """Protocols, chapter on errors: the command's echo, '!', four hexadecimal digits."""
    assert parse_refusal("x!0003") == Refusal("x", 0x0003)
    assert parse_refusal("e!4001: Line 3, Col 9") == Refusal("e", 0x4001, 3, 9)
    assert parse_refusal("!0032: Line 12") == Refusal("", 0x0032, 12)
    assert parse_refusal("!0032: Line " + "9" * 5000) is not None


def test_the_worked_example_of_a_package() -> None:
    """MethodSCRIPT manual v1.8, chapter 5: 400 mV set, 10 mA, underload, range 0x0B."""
    package = parse_package("Pda8000190m;ba800000Am,14,20B")
    assert package["da"].value == 0.4
    current = package["ba"]
    assert (current.value, current.status, current.range_index) == (0.01, Status.UNDERLOAD, 11)


@pytest.mark.parametrize(
    "line",
    [
        "Pda8000190m;ba800000Am,1,20B",  # the flag of the status is missing
        "Pda8000190m;ba800000Am,14,20",  # a digit of the range is
        "Pda8000190m;ba800000Am,2,20B",  # the 1 of ",12", which says overload, is
        "Pda8000190m;ba800000Am,1220B",  # a comma is
    ],
)
def test_a_flag_that_lost_a_character_makes_no_package(line: str) -> None:
    """MethodSCRIPT manual v1.8, chapter 5: ``1`` and one digit, ``2`` and two."""
    with pytest.raises(PackageError):
        parse_package(line)


def test_what_is_no_number_is_five_blanks_and_nan() -> None:
    """MethodSCRIPT manual v1.8, chapter 5."""
    assert math.isnan(parse_package("Pab     nan")["ab"].value)


@pytest.mark.parametrize(
    ("model", "numbers"),
    [
        # MethodSCRIPT manual v1.8, appendix B: ranges of the current
        (
            "EmStat4S HR",
            {9: 100e-9, 12: 1e-6, 15: 10e-6, 18: 100e-6, 21: 1e-3, 24: 10e-3, 27: 100e-3},
        ),
        ("EmStat4S LR", {3: 1e-9, 6: 10e-9, 9: 100e-9, 24: 10e-3}),
        ("EmStat Pico", {0: 100e-9, 1: 2e-6, 7: 125e-6, 11: 5e-3, 128: 100e-9, 137: 5e-3}),
        ("Nexus", {16: 100e-12, 0: 1e-9, 5: 100e-6, 8: 1e-3, 10: 100e-3, 11: 1.0}),
    ],
)
def test_the_ranges_of_a_current_by_their_numbers(model: str, numbers: dict[int, float]) -> None:
    kind = MODELS[model]
    for number, full_A in numbers.items():
        assert kind.can_measure_A(full_A, number)
        assert not kind.can_measure_A(5 * full_A, number)
        assert not kind.can_measure_A(-5 * full_A, number)


def test_a_number_of_a_script_is_whole_with_a_prefix() -> None:
    """MethodSCRIPT manual v1.8, chapter 4: ``500m``, ``-2``, no decimal point."""
    assert (literal(0.5), literal(-2.0)) == ("500m", "-2")
