"""The keithley2400 library, which finds out that it talks to a 2450 and drives it in SCPI.

usage: with_keithley2400.py HOST PORT        a simulated 2450 with 1 kOhm at its terminals
It reads a voltage with ``MEAS:VOLT?``, which makes voltage the function of the next ``READ?``, here
as on an instrument; so it is told what to source again before a current is read.
"""

from __future__ import annotations

import sys

from checks import Checks
from keithley2400 import Keithley2400


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("keithley2400", "pyvisa", "pyvisa-py")
    smu = Keithley2400(resource=f"TCPIP0::{host}::{port}::SOCKET", auto_discover=False)
    checks.equal("the model that it finds", lambda: smu.model, "2450")
    smu.set_current_compliance(0.01)
    smu.set_source_v(1.5)
    smu.output_on()
    checks.close("read_v", smu.read_v, 1.5, 2e-3)
    smu.set_source_v(1.5)
    checks.close("read_i", smu.read_i, 1.5e-3, 5e-6)

    checks.check("ramp_to_voltage", lambda: smu.ramp_to_voltage(1.0, stabilize_s=0.0))
    checks.equal("no errors", smu.get_error, '0,"No error;0;0 0"')
    smu.output_off()
    smu.close()
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
