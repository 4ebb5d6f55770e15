"""What a simulated Rodeostat answers, beside what the firmware says.

Source: github.com/iorodeo/potentiostat at 86e4708, ``firmware/libraries/potentiostat``.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.simulators.keithley.loads import Resistor
from labctl.simulators.rodeostat.commands import Commands
from labctl.simulators.rodeostat.device import Device
from labctl.simulators.rodeostat.waves import TESTS


def instrument(ohm: float = 1e4, *, scale: float = 0.0, resistor: float = 0.0) -> Commands:
    device = Device("microAmp", Resistor(ohm), counter_resistor_ohm=resistor, seed=1, scale=scale)
    return Commands(device, variant="microAmp", device_id=7)


def said(commands: Commands, **fields: Any) -> Any:
    return json.loads(commands.answer(json.dumps(fields).encode())[1])


# ps_system_state.cpp, ps_voltammetry.cpp, ps_base_test.cpp, ps_constant_test.cpp
REFUSALS = (
    (b"{", "unable to parse json"),
    (b"", "unable to parse json"),
    (b'{"command":"fly"}', "command, fly, not found"),
    (b'{"command":"setVolt"}', "json does not contain key: v"),
    (b'{"command":"setVolt","v":"1"}', "unable to convert volt to float"),
    (b'{"command":"setCurrRange","currRange":"2A"}', "currRange, 2A, not found"),
    (b'{"command":"setVoltRange","voltRange":"20V"}', "voltRange, 20V, not found"),
    (b'{"command":"setSamplePeriod","samplePeriod":0}', "json samplePeriod value is too small"),
    (b'{"command":"setSamplePeriod","samplePeriod":1001}', "json samplePeriod value is too large"),
    (b'{"command":"setParam","test":"constant"}', "key param missing"),
    (b'{"command":"setParam","test":"x","param":{}}', "test not found"),
    (b'{"command":"setParam","test":"constant","param":{"value":"x"}}', "value not a float"),
    (b'{"command":"setParam","test":"constant","param":{"duration":1.5}}', "duration not uint32"),
    (b'{"command":"setParam","test":"cyclic","param":{"shift":2.0}}', "shift out of range"),
    (b'{"command":"runTest"}', "json does not contain key: test"),
    (b'{"command":"setAllElectConnected","connected":1}', "unable to convert 'connected' to bool"),
)


@pytest.mark.parametrize(("line", "message"), REFUSALS)
def test_what_is_wrong_is_refused_in_the_firmwares_words(line: bytes, message: str) -> None:
    answer = json.loads(instrument().answer(line)[1])
    assert (answer["success"], answer["message"]) == (False, message)


def test_an_answer_repeats_command_and_test() -> None:
    commands = instrument()
    answer = said(commands, command="setParam", test="constant", param={"value": 1, "duration": 50})
    assert answer["response"]["command"] == "setParam"
    assert answer["response"]["test"] == "constant"
    assert answer["response"]["param"] == {"value": 1, "duration": 50}
    found = said(commands, command="getParam", test="constant")["response"]["param"]
    assert found == {"quietValue": 0.0, "quietTime": 0, "value": 1, "duration": 50}
    done = said(commands, command="getTestDoneTime", test="constant")["response"]
    assert done["testDoneTime"] == 50


def test_a_test_connects_the_cell_samples_ends_and_disconnects_it() -> None:
    commands = instrument()
    device = commands.device
    said(commands, command="setCurrRange", currRange="1000uA")
    said(commands, command="setParam", test="constant", param={"value": 1.0, "duration": 50})
    assert not device.connected
    said(commands, command="runTest", test="constant")
    assert device.connected
    assert device.voltage_range == "1V"
    device.live(0.04)
    assert [sample[:2] for sample in device.samples] == [(10, 1.0), (20, 1.0), (30, 1.0), (40, 1.0)]
    assert device.samples[0][2] == pytest.approx(100.0, abs=0.1)
    assert not device.ended
    device.live(0.02)
    assert device.ended
    assert len(device.samples) == 5
    assert not device.connected
    assert device.put_out_V == pytest.approx(0.0, abs=1e-3)


def test_a_stop_says_that_the_samples_end_even_if_nothing_ran() -> None:
    commands = instrument()
    said(commands, command="stopTest")
    assert commands.device.ended


@pytest.mark.parametrize("order", list(itertools.permutations(("Wrk", "Ref", "Ctr"))))
def test_a_cell_is_open_unless_all_three_electrodes_are_connected(order: tuple[str, ...]) -> None:
    commands = instrument()
    said(commands, command="setVolt", v=0.5)
    for one in order:
        commands.device.live(0.01)
        assert commands.device.true_uA == 0.0
        said(commands, command=f"set{one}ElectConnected", connected=True)
    commands.device.live(0.01)
    assert commands.device.true_uA == pytest.approx(50.0, rel=1e-2)


def test_the_current_stays_within_what_the_resistor_lets_pass_and_shows_in_the_voltage() -> None:
    commands = instrument(1000.0, resistor=22e3)
    said(commands, command="setVoltRange", voltRange="2V")
    said(commands, command="setRefElectVoltRange", voltRange="2V")
    said(commands, command="setVolt", v=1.0)
    said(commands, command="setAllElectConnected", connected=True)
    commands.device.live(0.01)
    assert commands.device.true_uA == pytest.approx(500.0, rel=1e-2)  # (12 - 1) V / 22 kohm
    measured = said(commands, command="getRefVolt")["response"]["r"]
    assert measured == pytest.approx(0.5, rel=1e-2)


def test_a_current_beyond_its_range_reads_as_the_end_of_the_range() -> None:
    commands = instrument(1000.0)
    said(commands, command="setCurrRange", currRange="10uA")
    said(commands, command="setVolt", v=0.5)
    said(commands, command="setAllElectConnected", connected=True)
    commands.device.live(0.01)
    assert said(commands, command="getCurr")["response"]["i"] == pytest.approx(10.0)


def test_the_errors_are_those_of_the_seed_and_within_what_the_maker_says() -> None:
    """Issue 26 of the repository: 14 uA on the range of 1000 uA is what parts of 0.5 % come to."""
    first, again = (instrument(math.inf, scale=1.0) for _ in range(2))
    reads = [said(each, command="getCurr")["response"]["i"] for each in (first, again)]
    assert reads[0] == reads[1]
    assert 0.0 < abs(reads[0]) < 0.01 * 10.0


@given(
    share=st.floats(0, 1),
    amplitude=st.floats(0.01, 5),
    offset=st.floats(-5, 5),
    shift=st.floats(0, 1),
)
def test_a_triangle_never_leaves_its_amplitude(
    share: float, amplitude: float, offset: float, shift: float
) -> None:
    test = TESTS["cyclic"]
    params = test.defaults | {"amplitude": amplitude, "offset": offset, "shift": shift}
    wave = test.wave(params)
    value_V = wave.value_V(round(share * wave.done_us))
    assert wave.lowest_V - 1e-9 <= value_V <= wave.highest_V + 1e-9


@given(
    line=st.binary(max_size=100)
    | st.text(max_size=60).map(lambda text: f'{{"command":{text}'.encode())
)
def test_any_line_is_answered(line: bytes) -> None:  # fmt: skip
    answer = json.loads(instrument().answer(line)[1])
    assert set(answer) <= {"success", "message", "response"}


def test_the_same_seed_gives_the_same_samples_to_the_bit() -> None:
    found = []
    for _ in range(2):
        commands = instrument(scale=1.0)
        said(commands, command="runTest", test="sinusoid")
        commands.device.live(0.5)
        found.append(commands.device.samples)
    assert found[0] == found[1]
    assert len(found[0]) == 50
