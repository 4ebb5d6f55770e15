"""The commands: a line in, the instrument's own answer out, its refusals in its own words.

Source: firmware github.com/iorodeo/potentiostat at 86e4708, ``ps_system_state.cpp``,
``ps_voltammetry.cpp`` and ``ps_message_sender.cpp``. Commands of the multiplexer other than
``getMuxEnabled`` are not there, as in an instrument without one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from labctl.simulators.rodeostat.device import VOLTAGE_RANGES_V, Device
from labctl.simulators.rodeostat.waves import TESTS, ParamError, Params, merged

FIRMWARE: Final = "FW0.1.0"
HARDWARE: Final = "V0.2"
SIGNIFICANT: Final = 9
"""Digits of a number, as its JSON library prints them. Assumed."""
SHORTEST_MS, LONGEST_MS = 1, 1000

Fields = Mapping[str, Any]


class RefusedError(Exception):
    """Why a command is refused, in the firmware's words."""


class Commands:
    """One instrument's commands; ``params`` are those of each test."""

    def __init__(self, device: Device, *, variant: str, device_id: int) -> None:
        self.device = device
        self.device_id = device_id
        self._variant = f"10V_{variant}{HARDWARE}"
        self._params: dict[str, Params] = {
            name: dict(test.defaults) for name, test in TESTS.items()
        }

    def answer(self, line: bytes) -> tuple[str, bytes]:
        """The command's name ('' if it has none) and the answer, without its end."""
        response: dict[str, object] = {}
        name = ""
        try:
            fields = _parsed(line)
            if "command" not in fields:
                raise RefusedError("json does not contain key: command")
            name = str(fields["command"])
            response["command"] = name
            work = TABLE.get(name)
            if work is None:
                raise RefusedError(f"command, {name}, not found")
            work(self, fields, response)
        except (RefusedError, ParamError) as error:
            return name, _line({"success": False, "message": str(error), "response": response})
        return name, _line({"success": True, "response": response})

    def run_test(self, fields: Fields, response: dict[str, object]) -> None:
        name = _test(fields, response)
        self.device.start(TESTS[name].wave(self._params[name]))

    def set_param(self, fields: Fields, response: dict[str, object]) -> None:
        name = _test(fields, response)
        if "param" not in fields:
            raise RefusedError("key param missing")
        self._params[name], given = merged(TESTS[name], self._params[name], fields["param"])
        response["param"] = given

    def get_param(self, fields: Fields, response: dict[str, object]) -> None:
        response["param"] = self._params[_test(fields, response)]

    def done_time(self, fields: Fields, response: dict[str, object]) -> None:
        name = _test(fields, response)
        response["testDoneTime"] = TESTS[name].wave(self._params[name]).done_us // 1000

    def set_voltage(self, fields: Fields, response: dict[str, object]) -> None:
        value = _needed(fields, "v")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError("unable to convert volt to float")
        self.device.put_out(float(value))
        response["v"] = self.device.put_out_V

    def set_period(self, fields: Fields, response: dict[str, object]) -> None:
        value = _needed(fields, "samplePeriod")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise RefusedError("json samplePeriod value is not uin32_t")
        if not SHORTEST_MS <= value <= LONGEST_MS:
            size = "large" if value > LONGEST_MS else "small"
            raise RefusedError(f"json samplePeriod value is too {size}")
        self.device.period_us = 1000 * value
        response["samplePeriod"] = value

    def set_device_id(self, fields: Fields, response: dict[str, object]) -> None:
        value = _needed(fields, "deviceId")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
            raise RefusedError("deviceId is not integer")
        self.device_id = response["deviceId"] = value

    def tell(self, key: str, value: object, response: dict[str, object]) -> None:
        response[key] = value

    @property
    def variant(self) -> str:
        return self._variant


Work = Callable[[Commands, Fields, dict[str, object]], None]


def _parsed(line: bytes) -> Fields:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise RefusedError("unable to parse json") from error
    if not isinstance(said, dict):
        raise RefusedError("unable to parse json")
    return said


def _needed(fields: Fields, key: str) -> object:
    if key not in fields:
        raise RefusedError(f"json does not contain key: {key}")
    return fields[key]


def _test(fields: Fields, response: dict[str, object]) -> str:
    name = _needed(fields, "test")
    response["test"] = name
    if not isinstance(name, str) or name not in TESTS:
        raise RefusedError("test not found")
    return name


def _flag(fields: Fields, key: str) -> bool:
    value = _needed(fields, key)
    if not isinstance(value, bool):
        raise RefusedError(f"unable to convert '{key}' to bool")
    return value


def _line(said: object) -> bytes:
    return json.dumps(_rounded(said), separators=(",", ":")).encode()


def _rounded(said: object) -> object:
    if isinstance(said, float):
        return float(f"{said:.{SIGNIFICANT}g}")
    if isinstance(said, dict):
        return {key: _rounded(value) for key, value in said.items()}
    if isinstance(said, list):
        return [_rounded(value) for value in said]
    return said


def sample_line(time_ms: int, voltage_V: float, current_uA: float) -> bytes:
    return _line({"t": time_ms, "v": voltage_V, "i": current_uA})


END_LINE: Final = b"{}"


def _getter(key: str, value: Callable[[Commands], object]) -> Work:
    return lambda commands, _, response: commands.tell(key, value(commands), response)


def _range_setter(key: str, place: str, names: Callable[[Commands], Mapping[str, float]]) -> Work:
    def work(commands: Commands, fields: Fields, response: dict[str, object]) -> None:
        name = _needed(fields, key)
        if name not in names(commands):
            response[key] = getattr(commands.device, place)
            raise RefusedError(f"{key}, {name}, not found")
        setattr(commands.device, place, name)
        response[key] = name

    return work


def _switch(*electrodes: str) -> Work:
    def work(commands: Commands, fields: Fields, response: dict[str, object]) -> None:
        commands.device.connect(**dict.fromkeys(electrodes, _flag(fields, "connected")))
        response["connected"] = all(getattr(commands.device, each) for each in electrodes)

    return work


def _by_test(commands: Commands, fields: Fields, response: dict[str, object]) -> None:
    commands.device.by_test = response["autoConnect"] = _flag(fields, "autoConnect")


ELECTRODES: Final = ("working", "reference", "counter")

TABLE: Final[dict[str, Work]] = {
    "runTest": Commands.run_test,
    "stopTest": lambda commands, _fields, _response: commands.device.stop(),
    "getVolt": _getter("v", lambda commands: commands.device.put_out_V),
    "setVolt": Commands.set_voltage,
    "getCurr": _getter("i", lambda commands: commands.device.read_uA()),
    "getRefVolt": _getter("r", lambda commands: commands.device.read_reference_V()),
    "setParam": Commands.set_param,
    "getParam": Commands.get_param,
    "setVoltRange": _range_setter("voltRange", "voltage_range", lambda _: VOLTAGE_RANGES_V),
    "getVoltRange": _getter("voltRange", lambda commands: commands.device.voltage_range),
    "setCurrRange": _range_setter("currRange", "current_range", lambda each: each.device.ranges_uA),
    "getCurrRange": _getter("currRange", lambda commands: commands.device.current_range),
    "setRefElectVoltRange": _range_setter(
        "voltRange", "reference_range", lambda _: VOLTAGE_RANGES_V
    ),
    "getRefElectVoltRange": _getter("voltRange", lambda each: each.device.reference_range),
    "setDeviceId": Commands.set_device_id,
    "getDeviceId": _getter("deviceId", lambda commands: commands.device_id),
    "setSamplePeriod": Commands.set_period,
    "getSamplePeriod": _getter("samplePeriod", lambda each: each.device.period_us // 1000),
    "getTestDoneTime": Commands.done_time,
    "getTestNames": _getter("testNames", lambda _: list(TESTS)),
    "getVersion": _getter("version", lambda _: FIRMWARE),
    "getVariant": _getter("variant", lambda commands: commands.variant),
    "getHardwareVersion": _getter("version", lambda _: HARDWARE),
    "getMuxEnabled": _getter("muxEnabled", lambda _: False),
    "setAllElectConnected": _switch(*ELECTRODES),
    "setWrkElectConnected": _switch("working"),
    "setRefElectConnected": _switch("reference"),
    "setCtrElectConnected": _switch("counter"),
    "getAllElectConnected": _getter("connected", lambda commands: commands.device.connected),
    "getWrkElectConnected": _getter("connected", lambda commands: commands.device.working),
    "getRefElectConnected": _getter("connected", lambda commands: commands.device.reference),
    "getCtrElectConnected": _getter("connected", lambda commands: commands.device.counter),
    "setElectAutoConnect": _by_test,
    "getElectAutoConnect": _getter("autoConnect", lambda commands: commands.device.by_test),
}
"""Every command by its name."""
