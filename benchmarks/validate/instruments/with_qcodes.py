"""QCoDeS' Keithley2450 over a raw socket: sources, senses, sweeps, buffers.

usage: with_qcodes.py HOST PORT        a simulated 2450 with 1 kOhm at its terminals
"""

from __future__ import annotations

import sys

from checks import Checks
from qcodes.instrument_drivers.Keithley import Keithley2450

OHM = 1000.0


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("qcodes", "pyvisa", "pyvisa-py")
    smu = Keithley2450(
        "smu", f"TCPIP0::{host}::{port}::SOCKET", visalib="@py", terminator="\n", timeout=20
    )
    errors = lambda: int(smu.ask(":SYST:ERR:COUN?"))  # noqa: E731
    checks.equal("get_idn: model", lambda: smu.get_idn()["model"], "2450")
    checks.check("reset", smu.reset)
    checks.close("line_frequency", smu.line_frequency, 50.0, 0.0)

    def volts() -> None:
        smu.source_function("voltage")
        smu.sense_function("current")
        smu.source.range(2.0)
        smu.source.voltage(1.5)
        smu.source.limit(0.01)
        smu.sense.range(0.01)
        smu.sense.nplc(0.1)
        smu.sense.four_wire_measurement(True)
        assert smu.source.range() == 2.0
        assert smu.source.limit() == 0.01
        assert smu.sense.four_wire_measurement() is True

    checks.check("a voltage source that senses current", volts)
    checks.equal("auto_range is off after a range", smu.sense.auto_range, False)
    checks.equal("the limit is not reached", smu.source.limit_tripped, False)

    def without_output() -> str:
        try:
            smu.sense.current()
        except RuntimeError as error:
            return str(error)
        raise AssertionError("it measured with the output off")

    checks.check("measuring without output is refused by the driver", without_output)
    smu.output_enabled(True)
    checks.close("the current of 1.5 V at 1 kOhm", smu.sense.current, 1.5e-3, 5e-6)

    def trip() -> object:
        smu.source.limit(1e-4)
        smu.sense.auto_range(True)
        smu.sense.current()
        return smu.source.limit_tripped()

    checks.equal("a limit below it trips", trip, True)
    smu.source.limit(0.01)

    def delays() -> None:
        smu.source.delay(0.01)
        assert float(smu.source.delay()) == 0.01
        assert smu.source.auto_delay() is False
        smu.source.auto_delay(True)
        for part in (smu.source, smu.sense):
            part.user_number(2)
            part.user_delay(0.25)
            assert part.user_delay() == 0.25

    checks.check("delays", delays)

    def zero() -> None:
        smu.sense.auto_zero_enabled(False)
        assert smu.sense.auto_zero_enabled() is False
        smu.sense.auto_zero_once()
        smu.source.read_back_enabled(False)
        assert smu.source.read_back_enabled() is False
        smu.source.read_back_enabled(True)

    checks.check("auto zero and read back", zero)

    def sweep() -> str:
        smu.source.sweep_setup(0.0, 1.0, 11, delay=0.0)
        currents = smu.sense.sweep()
        assert len(currents) == 11
        for place, current in enumerate(currents):
            assert abs(current - place / 10 / OHM) < 5e-6, (place, current)
        return f"{len(currents)} points to {currents[-1]:.6g} A"

    checks.check("a sweep", sweep)

    def buffer() -> str:
        with smu.buffer("validate", 50, "STANdard") as made:
            made.elements(["relative_time", "source_value", "measurement", "measurement_unit"])
            smu.sense.count(5)
            smu.output_enabled(True)
            made.trigger_start()
            assert made.size() == 50
            assert made.number_of_readings() == 5
            rows = made.get_data(1, 5)
            last = made.get_last_reading()
            made.clear_buffer()
            assert made.number_of_readings() == 0
        smu.sense.count(1)
        assert len(rows) == 20
        return last

    checks.check("a buffer of its own with elements", buffer)

    def amperes() -> None:
        smu.source_function("current")
        smu.sense_function("voltage")
        smu.source.current(1e-3)
        smu.source.limit(5.0)
        smu.output_enabled(True)

    checks.check("a current source that senses voltage", amperes)
    checks.close("the voltage of 1 mA", smu.sense.voltage, 1.0, 5e-3)
    smu.sense_function("resistance")
    checks.close("the resistance", smu.sense.resistance, OHM, 5.0)
    smu.sense_function("voltage")

    def ends() -> None:
        smu.terminals("rear")
        assert smu.terminals().lower() == "rear"
        assert smu.output_enabled() is False
        smu.terminals("front")

    checks.check("terminals; a change opens the output", ends)
    checks.check("abort", smu.abort)
    checks.check("wait", smu.wait)
    checks.equal("no errors in the event log", errors, 0)
    checks.check("clear_event_register", smu.clear_event_register)
    checks.check("clear_event_log", smu.clear_event_log)
    smu.close()
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
