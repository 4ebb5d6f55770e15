"""labmcp-keithley-smu and labmcp-scpi: MCP servers that drive a 2450 over a raw socket.

usage: with_labmcp_smu.py HOST PORT        a simulated 2450 with 1 kOhm at its terminals
"""

from __future__ import annotations

import sys

from checks import Checks
from tools import Tools, with_tools


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("labmcp-keithley-smu", "labmcp-scpi")
    address = ["--address", f"tcp://{host}:{port}"]

    def smu(tools: Tools) -> None:
        checks.check("get_device_info", lambda: tools("get_device_info"))
        checks.check("get_status", lambda: tools("get_status"))

        def configure() -> None:
            tools("configure_source", source="voltage", level=1.0, compliance=0.01, nplc=0.1)

        checks.check("configure_source", configure)
        checks.check("output_on", lambda: tools("output_on") and None)
        checks.close("measure", lambda: tools("measure")["current_a"], 1e-3, 5e-6)
        checks.check("set_source_level", lambda: tools("set_source_level", level=1.5) and None)
        checks.close("measure again", lambda: tools("measure")["current_a"], 1.5e-3, 5e-6)
        checks.check("output_off", lambda: tools("output_off") and None)
        checks.check("set_4wire", lambda: tools("set_4wire", enabled=True) and None)

        def sweep() -> str:
            found = tools("run_iv_sweep", start=0.0, stop=1.0, points=5, compliance=0.01, nplc=0.1)
            return ", ".join(f"{key}={found[key]}" for key in found if "ohm" in key)

        checks.check("run_iv_sweep", sweep)
        checks.equal("the output is off", lambda: tools("get_status")["output_on"], False)

    def scpi(tools: Tools) -> None:
        checks.check("identify", lambda: tools("identify"))
        checks.check("scpi_query", lambda: tools("scpi_query", command=":SOUR:FUNC?"))
        checks.check("scpi_write", lambda: tools("scpi_write", command=":SOUR:VOLT 0.5") and None)
        checks.check("get_errors", lambda: tools("get_errors"))
        checks.check("wait_operation_complete", lambda: tools("wait_operation_complete") and None)
        checks.check("reset_instrument", lambda: tools("reset_instrument") and None)

    with_tools("labmcp-keithley-smu", address, checks, smu)
    return with_tools("labmcp-scpi", address, checks, scpi)


if __name__ == "__main__":
    sys.exit(main())
