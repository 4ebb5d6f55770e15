"""espec-pr3j, the public client of the PR-3J chamber, used as its makers use it.

    labctl simulate espec --port 57732 --speed 60
    pip install espec-pr3j pyvisa-py
    python benchmarks/validate/instruments/espec_pr3j.py 127.0.0.1 57732

Needs nothing of labctl. Prints the package's version, and a line for each thing that was tried:
``ok …`` or ``FAILED …``. Exits with 1 where something failed. The chamber's time should go at least
ten times as fast as the wall's, so that it gets anywhere.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import pathlib
import sys
import time
from collections.abc import Callable

# This file has the name of what it tries, and must not be found in its place.
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:] = [place for place in sys.path if pathlib.Path(place or ".").resolve() != HERE]

import espec_pr3j as client  # noqa: E402
import pyvisa  # noqa: E402

PACKAGE = "espec-pr3j"
WARM_DEGC = 40.0
LONGEST_S = 60.0


class Checks:
    """What was tried, in order."""

    def __init__(self) -> None:
        self.failed = 0

    def check(self, what: str, work: Callable[[], object]) -> None:
        """Try ``work``; an AssertionError or any other error is a failure."""
        try:
            said = work()
        except Exception as error:  # noqa: BLE001
            self.failed += 1
            print(f"FAILED {what}: {error!r}", flush=True)
        else:
            print(f"ok {what}" + ("" if said is None else f": {said}"), flush=True)


def main() -> int:
    """Talk to the chamber at the host and port of the command line."""
    given = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    given.add_argument("host")
    given.add_argument("port", type=int)
    options = given.parse_args()
    print(f"{PACKAGE} {importlib.metadata.version(PACKAGE)}", flush=True)
    checks = Checks()
    made: list[client.EspecPr3j] = []
    resource = f"TCPIP0::{options.host}::{options.port}::SOCKET"

    def connect() -> None:
        manager = pyvisa.ResourceManager("@py")
        made.append(client.EspecPr3j(resource_path=resource, resource_manager=manager))

    checks.check("it connects", connect)
    if made:
        try:
            talk(made[0], checks)
        finally:
            made[0].close()
    return 1 if checks.failed else 0


def talk(chamber: client.EspecPr3j, checks: Checks) -> None:
    """Every call that the client has."""
    mode = client.OperationMode

    def temperature() -> object:
        found = chamber.get_temperature_status()
        assert found.lower_limit < found.current_temperature < found.upper_limit, found
        return found

    def humidity() -> object:
        found = chamber.get_humidity_status()
        assert 0 <= found.current_humidity <= 100, found
        return found

    def limits() -> None:
        chamber.set_temperature_limits(80.0, 5.0)
        found = chamber.get_temperature_status()
        assert (found.upper_limit, found.lower_limit) == (80.0, 5.0), found

    def humidity_limits() -> None:
        chamber.set_humidity_limits(95, 10)
        found = chamber.get_humidity_status()
        assert (found.upper_limit, found.lower_limit) == (95, 10), found

    def set_points() -> None:
        chamber.set_target_temperature(30.0)
        chamber.set_target_humidity(60)
        assert chamber.get_temperature_status().target_temperature == 30.0
        assert chamber.get_humidity_status().target_humidity == 60
        chamber.set_target_humidity(None)
        assert chamber.get_humidity_status().target_humidity is None

    def outside() -> str:
        try:
            chamber.set_target_temperature(80.1)
        except client.SettingError as refused:
            assert chamber.get_temperature_status().target_temperature == 30.0
            return f"{refused!r}"
        raise AssertionError("a set point above the limit was taken")

    def modes() -> None:
        for wanted in (mode.OFF, mode.CONSTANT, mode.STANDBY):
            chamber.set_mode(wanted)
            assert chamber.get_mode() == wanted, wanted
            assert chamber.get_test_area_state().operation_state == wanted

    def heats() -> str:
        chamber.set_target_temperature(WARM_DEGC)
        chamber.set_mode(mode.CONSTANT)
        assert chamber.get_heater_percentage().temperature_heater > 0
        before = chamber.get_test_area_state().current_temperature
        over_s = time.monotonic() + LONGEST_S
        while (now := chamber.get_test_area_state()).current_temperature < before + 2.0:
            assert time.monotonic() < over_s, f"{before} degC, and then {now}"
        assert now.number_of_alarms == 0, now
        return f"from {before} to {now.current_temperature} degC"

    def constant() -> object:
        chamber.set_constant_condition(WARM_DEGC, stable_time=1.0, poll_interval=0.1)
        found = chamber.get_temperature_status()
        assert abs(found.current_temperature - WARM_DEGC) <= chamber.temperature_accuracy, found
        return found

    checks.check("get_temperature_status", temperature)
    checks.check("get_humidity_status", humidity)
    checks.check("get_test_area_state", chamber.get_test_area_state)
    checks.check("set_temperature_limits are read back", limits)
    checks.check("set_humidity_limits are read back", humidity_limits)
    checks.check("set_target_temperature and _humidity are read back", set_points)
    checks.check("a set point outside the limits is refused", outside)
    checks.check("set_mode OFF, CONSTANT, STANDBY", modes)
    checks.check("it heats in constant operation", heats)
    checks.check("set_constant_condition waits until it is there", constant)
    checks.check("it is left in standby", lambda: chamber.set_mode(mode.STANDBY))


if __name__ == "__main__":
    sys.exit(main())
