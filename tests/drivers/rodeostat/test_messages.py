"""What is sent and understood, beside what the firmware and its Python client say and understand.

Client: ``iorodeo-potentiostat`` 0.0.9, ``potentiostat.py``. Firmware:
github.com/iorodeo/potentiostat at 86e4708.
"""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.rodeostat import messages
from labctl.drivers.rodeostat.messages import Command, End, Reply, ReplyError, Sample, read_line

REQUESTS = (
    # potentiostat.py get_hardware_variant, get_device_id, stop_test
    (messages.VARIANT.request(), '{"command": "getVariant"}'),
    (messages.DEVICE_ID.request(), '{"command": "getDeviceId"}'),
    (messages.STOP_TEST.request(), '{"command": "stopTest"}'),
    # set_curr_range, set_sample_period, set_volt
    (
        messages.SET_CURRENT_RANGE.request("100uA"),
        '{"command": "setCurrRange", "currRange": "100uA"}',
    ),
    (messages.SET_PERIOD_MS.request(10), '{"command": "setSamplePeriod", "samplePeriod": 10}'),
    (messages.SET_VOLTAGE.request(0.5), '{"command": "setVolt", "v": 0.5}'),
    # run_test, set_param, get_test_done_time
    (
        messages.RUN_TEST.request(test="linearSweep"),
        '{"command": "runTest", "test": "linearSweep"}',
    ),
    (
        messages.SET_PARAM.request({"value": 0.1, "duration": 1000}, test="constant"),
        '{"command": "setParam", "test": "constant", "param": {"value": 0.1, "duration": 1000}}',
    ),
    (
        messages.DONE_TIME_MS.request(test="cyclic"),
        '{"command": "getTestDoneTime", "test": "cyclic"}',
    ),
    # set_all_elect_connected, set_auto_connect
    (
        messages.CONNECT_ALL.request(False),
        '{"command": "setAllElectConnected", "connected": false}',
    ),
    (
        messages.CONNECT_BY_TEST.request(True),
        '{"command": "setElectAutoConnect", "autoConnect": true}',
    ),
)


@pytest.mark.parametrize(("line", "says"), REQUESTS)
def test_a_request_is_what_the_vendors_client_sends(line: bytes, says: str) -> None:
    assert json.loads(line) == json.loads(says)
    assert b"\n" not in line


@given(test=st.text(alphabet="abcdefgh", min_size=1, max_size=200))
def test_no_request_is_as_long_as_a_packet_of_the_usb(test: str) -> None:
    line = messages.RUN_TEST.request(test=test)
    assert (len(line) + 1) % 64 != 0
    assert json.loads(line) == {"command": "runTest", "test": test}


# ps_message_sender.cpp sendCommandResponse, ps_system_state.cpp
ANSWERS = (
    (messages.VARIANT, '"command":"getVariant","variant":"10V_microAmpV0.2"', "10V_microAmpV0.2"),
    (messages.HARDWARE, '"command":"getHardwareVersion","version":"V0.2"', "V0.2"),
    (messages.REFERENCE_V, '"command":"getRefVolt","r":0.1234', 0.1234),
    (messages.COUNTER_CONNECTED, '"command":"getCtrElectConnected","connected":false', False),
    (messages.GET_PERIOD_MS, '"command":"getSamplePeriod","samplePeriod":10', 10),
)


@pytest.mark.parametrize(("command", "response", "value"), ANSWERS)
def test_an_answer_of_the_firmware_is_understood(
    command: Command[object], response: str, value: object
) -> None:
    said = read_line(b'{"success":true,"response":{' + response.encode() + b"}}\r")
    assert isinstance(said, Reply)
    assert command.value(said) == value


def test_samples_and_their_end_are_told_from_answers() -> None:
    assert read_line(b'{"t":10,"v":-0.5,"i":12.25}') == Sample(t=10, v=-0.5, i=12.25)
    assert read_line(b'{"t":10,"v":1,"i":-3,"n":2}') == Sample(t=10, v=1.0, i=-3.0, n=2)
    assert read_line(b"{}") == End()


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"[1]", b"{", b'{"t":1}', b'{"t":1.5,"v":0,"i":0}', b'{"t":1,"v":"0","i":0}',
        b'{"t":1,"v":0,"i":NaN}', b'{"t":1,"v":0,"i":1e999}', b'{"t":1,"v":0,"i":0,"x":1}',
        b'{"success":1,"response":{}}', b'{"success":true,"response":7}', b"\xff\xfe{}",
        b'{"success":true,"response":{"command":"getRefVolt","r":0.12',
    ],
)  # fmt: skip
def test_what_the_instrument_cannot_have_meant_is_an_error(line: bytes) -> None:
    with pytest.raises(ReplyError):
        read_line(line)


@pytest.mark.parametrize(
    "response",
    [
        {"command": "getVolt", "r": 0.1}, {"command": "getRefVolt"}, {},
        {"command": "getRefVolt", "r": "0.1"}, {"command": "getRefVolt", "r": True},
        {"command": "getRefVolt", "r": None},
    ],
)  # fmt: skip
def test_an_answer_to_something_else_is_no_value(response: dict[str, object]) -> None:
    with pytest.raises(ReplyError):
        messages.REFERENCE_V.value(Reply(success=True, response=response))


def test_an_answer_for_another_test_is_no_value() -> None:
    reply = Reply(success=True, response={"command": "runTest", "test": "cyclic"})
    with pytest.raises(ReplyError, match="cyclic"):
        messages.RUN_TEST.value(reply, test="linearSweep")


@given(line=st.binary(max_size=200))
def test_any_bytes_are_a_line_or_a_typed_error(line: bytes) -> None:
    with contextlib.suppress(ReplyError):
        assert isinstance(read_line(line), Sample | End | Reply)


@given(
    line=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["success", "response", "command", "message", "t", "v", "i", "n", "r"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    ).map(lambda said: json.dumps(said).encode())
)
def test_any_json_is_a_line_or_a_typed_error(line: bytes) -> None:
    with contextlib.suppress(ReplyError):
        said = read_line(line)
        if isinstance(said, Reply):
            assert isinstance(messages.REFERENCE_V.value(said), float)
