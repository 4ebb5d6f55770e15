"""easy-scpi's Instrument, which turns attributes into headers.

usage: with_easy_scpi.py HOST PORT        a simulated 2450 with 1 kOhm at its terminals
"""

from __future__ import annotations

import sys

import easy_scpi
from checks import Checks


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("easy-scpi", "pyvisa", "pyvisa-py")
    smu = easy_scpi.Instrument(
        port=f"TCPIP0::{host}::{port}::SOCKET",
        port_match=False,
        backend="@py",
        read_termination="\n",
        write_termination="\n",
        timeout=20_000,
    )
    smu.connect()
    checks.check("id", lambda: smu.id)
    smu.reset()

    def set_up() -> None:
        smu.source.function("VOLT")
        smu.source.volt.level(1.5)
        smu.source.volt.ilimit(0.01)
        smu.sense.curr.nplc(0.1)
        smu.output("ON")

    checks.check("headers from attributes", set_up)
    checks.equal("source.function()", smu.source.function, "VOLT")
    checks.close("source.volt.level()", smu.source.volt.level, 1.5, 0.0)
    checks.close("read()", lambda: smu.query(":READ?"), 1.5e-3, 5e-6)
    checks.close("measure.curr()", smu.measure.curr, 1.5e-3, 5e-6)
    checks.check("system.error()", lambda: smu.system.error())  # noqa: PLW0108
    smu.output("OFF")
    checks.equal("output()", smu.output, "0")
    smu.disconnect()
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
