"""labmcp-palmsens: an MCP server that drives a MethodSCRIPT instrument at a serial port.

usage: with_labmcp_palmsens.py PORT        a simulated EmStat4S HR with 10 kOhm at its leads
"""

from __future__ import annotations

import sys

from checks import Checks
from fastmcp.exceptions import ToolError
from tools import Tools, with_tools

OHM = 10_000.0
SCRIPT = """var c
var p
set_pgstat_chan 0
set_pgstat_mode 2
set_max_bandwidth 100
set_range ba 1m
set_e 500m
cell_on
meas_loop_ca p c 500m 100m 1
pck_start
pck_add p
pck_add c
pck_end
endloop
on_finished:
cell_off"""


def main() -> int:
    port = sys.argv[1]
    checks = Checks("labmcp-palmsens", "labmcp")

    def steps(tools: Tools) -> None:
        info = tools("get_device_info")
        checks.check("get_device_info", lambda: info)

        def ohmic(tool: str, points: int, **arguments: object) -> str:
            found = tools(tool, current_range_a=1e-3, **arguments)
            assert found["n_points"] == points, found["n_points"]
            assert not found["aborted"], found
            for row in found["data"]:
                wanted_A = row["potential_v"] / OHM
                assert abs(row["current_a"] - wanted_A) < 1e-6, row
            return f"{found['n_points']} points, warnings {found['warnings']}"

        checks.check(
            "run_cyclic_voltammetry",
            lambda: ohmic(
                "run_cyclic_voltammetry",
                242,
                begin_potential_v=0.0,
                vertex1_potential_v=0.5,
                vertex2_potential_v=-0.1,
                n_scans=2,
                equilibration_s=1.0,
            ),
        )
        checks.check(
            "run_linear_sweep_voltammetry",
            lambda: ohmic(
                "run_linear_sweep_voltammetry",
                51,
                begin_potential_v=0.0,
                end_potential_v=0.5,
            ),
        )
        checks.check(
            "run_chronoamperometry",
            lambda: ohmic(
                "run_chronoamperometry", 20, potential_v=0.5, interval_s=0.1, run_time_s=2.0
            ),
        )

        def pulses() -> str:
            found = tools(
                "run_differential_pulse_voltammetry",
                begin_potential_v=0.0,
                end_potential_v=0.3,
                pulse_potential_v=0.05,
                current_range_a=1e-3,
            )
            for row in found["data"]:
                assert abs(row["current_a"] - 0.05 / OHM) < 1e-6, row
            return f"{found['n_points']} points"

        checks.check("run_differential_pulse_voltammetry", pulses)
        checks.check(
            "run_methodscript",
            lambda: len(tools("run_methodscript", script=SCRIPT, timeout_s=30.0)["packages"]),
        )

        def refused() -> str:
            said = ""
            try:
                tools("run_methodscript", script="set_e 100m\nno_such 1", timeout_s=10.0)
            except ToolError as error:
                said = str(error)
            assert "line 2, column 1" in said, said
            assert "0x4001" in said, said
            return said

        checks.check("a script with a mistake is refused", refused)
        checks.check("abort_measurement", lambda: tools("abort_measurement"))

    return with_tools("labmcp-palmsens", ["--address", f"serial://{port}"], checks, steps)


if __name__ == "__main__":
    sys.exit(main())
