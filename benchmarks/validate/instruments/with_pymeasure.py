"""PyMeasure's Keithley2450 over a raw socket.

usage: with_pymeasure.py HOST PORT        a simulated 2450 with 1 kOhm at its terminals
Its buffer methods send commands of the 2400 (``:TRAC:FEED``), which a 2450 does not have: those are
to be refused as an instrument would.
"""

from __future__ import annotations

import sys
import time

from checks import Checks
from pymeasure.instruments.keithley import Keithley2450


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("pymeasure", "pyvisa", "pyvisa-py")
    smu = Keithley2450(
        f"TCPIP0::{host}::{port}::SOCKET",
        visa_library="@py",
        read_termination="\n",
        write_termination="\n",
        timeout=20_000,
    )
    checks.check("id", lambda: smu.id)
    checks.check("reset", smu.reset)
    checks.check("apply_voltage", lambda: smu.apply_voltage(2.0, 0.01))
    checks.check("measure_current", lambda: smu.measure_current(nplc=0.1))
    checks.equal("source_mode", lambda: smu.source_mode, "voltage")
    checks.check("enable_source", smu.enable_source)
    checks.equal("source_enabled", lambda: smu.source_enabled, True)
    checks.check("ramp_to_voltage", lambda: smu.ramp_to_voltage(1.5, steps=5, pause=0.01))
    checks.close("current", lambda: smu.current, 1.5e-3, 5e-6)

    def settings() -> None:
        for name, value in (
            ("current_range", 0.01),
            ("current_nplc", 0.5),
            ("compliance_current", 0.02),
            ("source_voltage_range", 20.0),
            ("source_voltage", 1.0),
            ("source_voltage_delay", 0.01),
            ("source_voltage_delay_auto", True),
            ("current_filter_type", "MOV"),
            ("current_filter_count", 5),
            ("voltage_filter_type", "REP"),
            ("voltage_filter_count", 3),
            ("current_output_off_state", "HIMP"),
            ("voltage_output_off_state", "HIMP"),
            ("voltage_nplc", 1.0),
            ("resistance_nplc", 1.0),
            ("wires", 4),
            ("buffer_points", 100),
        ):
            setattr(smu, name, value)
            found = getattr(smu, name)
            assert found == value, f"{name} is {found!r} instead of {value!r}"

    checks.check("settings are read back", settings)

    def filter_state() -> object:
        smu.current_filter_state = "ON"
        smu.current_filter_state = "OFF"
        return smu.current_filter_state

    checks.check("current_filter_state", filter_state)
    checks.check("apply_current", lambda: smu.apply_current(0.01, 5.0))
    checks.check("measure_voltage", lambda: smu.measure_voltage(0.1, 2.0, auto_range=False))
    checks.check("enable_source", smu.enable_source)
    checks.check("ramp_to_current", lambda: smu.ramp_to_current(1e-3, steps=5, pause=0.01))
    checks.close("voltage", lambda: smu.voltage, 1.0, 5e-3)
    checks.check("measure_resistance", lambda: smu.measure_resistance(0.1))
    checks.close("resistance", lambda: smu.resistance, 1000.0, 5.0)
    for name in ("means", "maximums", "minimums", "standard_devs"):
        checks.check(name, lambda name=name: getattr(smu, name))
    checks.check("beep", lambda: smu.beep(400.0, 0.05))
    checks.check("triad", lambda: smu.triad(400.0, 0.02))
    checks.check("use_rear_terminals", smu.use_rear_terminals)
    checks.check("use_front_terminals", smu.use_front_terminals)
    checks.equal("no errors", smu.check_errors, [])

    def feed() -> str:
        smu.write(":TRAC:FEED SENSE;:TRAC:FEED:CONT NEXT;")
        found = smu.check_errors()
        assert [error[0] for error in found] == [-113, -113], found
        return str(found[0])

    checks.check("commands of a 2400 are undefined headers", feed)
    checks.check("trigger", smu.trigger)
    time.sleep(0.05)
    smu.check_errors()
    checks.check("shutdown", smu.shutdown)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
