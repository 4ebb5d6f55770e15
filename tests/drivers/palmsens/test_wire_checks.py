"""What no line of a potentiostat can be, case by case: docs/wire.md."""

from __future__ import annotations

from typing import Any

import pytest
from wire_fuzz import Deed, Meddler, Mischief

from labctl.drivers.base import Task
from labctl.drivers.palmsens.config import PalmSensConfig
from labctl.drivers.palmsens.driver import PalmSens
from labctl.drivers.palmsens.stages import Script
from labctl.drivers.palmsens.stream import Stream
from labctl.drivers.palmsens.techniques import script_of
from labctl.errors import InstrumentError
from labctl.program import (
    Comparison,
    ConstantCurrent,
    Control,
    EndCondition,
    Impedance,
    Limits,
    Quantity,
    RecordRule,
    Step,
)

HR = PalmSensConfig(port="/dev/null", model="EmStat4S HR")
LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
ENDS = (
    EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1),
    EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 3600.0),
)
GOOD = {
    "ee": "80003E8i",  # tick 1000, which is 10 s
    "ab": "8000D48m,10,206",  # 3.4 V
    "ba": "80003E8u,10,215",  # 1 mA in the range of 1 mA
    "ja": "800000Am",  # 10 mC
    "jb": "8000022m",
    "jc": "8000001i",
}


def stream_of(control: Control) -> tuple[Stream, Script]:
    step = Step(5, "step", control, ENDS, RecordRule(every_s=30.0))
    task = Task(step=step, limits=LIMITS, tag="run.1")
    script = script_of(task, HR)
    return Stream(script, task, HR.kind, 1000.0), script


def package(script: Script, **said: str) -> str:
    words = {**GOOD, "jd": f"{script.mark + 2**27:07X}i", **said}
    return "P" + ";".join(kind + word for kind, word in words.items() if word)


def test_a_package_as_it_is_passes() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script))
    readings = stream.new_readings()
    assert readings.step_time_s.tolist() == [10.0]
    assert readings.voltage_V.tolist() == [3.4]
    assert readings.current_A.tolist() == [1e-3]


@pytest.mark.parametrize(
    "said",
    [
        {"jc": "     nan"},
        {"jc": "800000Ci"},  # 12: one more than the step has ends
        {"jc": "7FFFFFFi"},
        {"jc": "8000001m"},
        {"ab": "8000D48k"},  # 3400 kV
        {"ab": "8001F40m"},  # 8 V
        {"ba": "80003E8m,10,215"},  # 1 A in the range of 1 mA
        {"ba": "80003E8u,10,209"},  # 1 mA in the range of 100 nA
        {"ba": "80003E8E"},
        {"ja": "     nan"},
        {"ja": ""},
        {"ja": "80003E8 "},  # 1000 C in 10 s
        {"jb": "     nan"},
        {"jb": "80003E8k"},
        {"ee": "     nan"},
        {"ee": "7FFFFFFi"},
        {"ee": "80186A0i"},  # 1000 s: a record was due long before
        {"ee": "80003E8E"},
    ],
)
def test_a_package_with_a_value_that_cannot_be_is_no_reading(said: dict[str, str]) -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script, **said))
    assert len(stream.new_readings()) == 0
    assert stream.garbled == 1
    assert not stream.tripped
    stream.take(package(script, ee="80007D0i"))
    assert len(stream.new_readings()) == 1


def test_a_package_that_comes_twice_is_one_reading() -> None:
    stream, script = stream_of(ConstantCurrent(1e-3))
    stream.take(package(script))
    stream.take(package(script))
    assert len(stream.new_readings()) == 1


def test_after_a_lost_line_or_connection_a_reading_may_be_of_any_later_time() -> None:
    for lose in (lambda stream: stream.take("P8000"), lambda stream: stream.missed()):
        stream, script = stream_of(ConstantCurrent(1e-3))
        stream.take(package(script))
        lose(stream)
        stream.take(package(script, ee="80186A0i"))
        assert stream.new_readings().step_time_s.tolist() == [10.0, 1000.0]


@pytest.mark.parametrize("line", ["M00", "MX", "C1", "*x", "ZZ", "Lo", "+-", "T\x07", "q"])
def test_a_line_that_is_no_mark_of_the_protocol_is_none(line: str) -> None:
    """Protocol EmStat4 v1.3: ``M`` and four digits, ``C`` and four, ``L``, ``+``, ``-``, ``*``."""
    stream, _ = stream_of(ConstantCurrent(1e-3))
    stream.take(line)
    assert stream.garbled == 1
    for mark in ("M000A", "C0001", "-", "L", "+", "*", "Tall is well", "r"):
        stream.take(mark)
        assert stream.garbled == 0


@pytest.mark.parametrize("frequency", ["8030D40 ", "8000000 ", "7FFFF9C ", "     nan", "8000064k"])
def test_a_frequency_that_was_not_asked_for_or_comes_again_is_no_point(frequency: str) -> None:
    stream, script = stream_of(Impedance(False, 0.01, 1e4, 1.0, 5, 1e-2))
    mark = f"jd{script.mark + 2**27:07X}i"
    stream.take(f"Pdc8002710 ;cc8000064 ;cd7FFFF9C ;{mark}")
    stream.take(f"Pdc{frequency};cc8000064 ;cd7FFFF9C ;{mark}")
    stream.take(f"Pdc8002710 ;cc8000064 ;cd7FFFF9C ;{mark}")
    spectrum = stream.spectrum()
    assert spectrum is not None
    assert spectrum.frequency_Hz == (10_000.0,)


@pytest.mark.parametrize("damage", [b"\n", b"!0032: Line 1\n"], ids=["an end", "an error"])
async def test_a_script_that_only_seemed_to_end_is_ended_by_off(lab: Any, damage: bytes) -> None:
    async with lab(port=0, link="") as bench:
        port = int(bench.simulated.address.rpartition(":")[2])
        async with Meddler(port, b"\n").listening() as wire:
            driver = await bench.opened(port=f"socket://127.0.0.1:{wire.port}")
            step = Step(0, "charge", ConstantCurrent(1e-4), ENDS[1:], RecordRule(every_s=1.0))
            task = Task(step=step, limits=LIMITS, tag="run.1")
            await driver.arm("1", task)
            await driver.begin("1", task)
            first = len(wire.told)
            wire.plan = {
                number: Deed(Mischief.BEFORE, data=damage[:-1], back=1)
                for number in range(first + 5, first + 2000)
            }
            with pytest.raises(InstrumentError):
                await _looks(driver)
            wire.calm()
            await driver.off("1")
            assert not bench.cell_is_on
            assert not bench.simulated.instrument.running
            await driver.close()


async def _looks(driver: PalmSens) -> None:
    while True:
        await driver.look("1")
