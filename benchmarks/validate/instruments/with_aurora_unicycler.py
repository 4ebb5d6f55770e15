"""Step files that aurora-unicycler writes, run by the rack, started by aurora-neware.

usage: with_aurora_unicycler.py HOST PORT        a simulated rack with cells in 1-3 and 1-4
"""

from __future__ import annotations

import sys
from pathlib import Path

from aurora_neware import NewareAPI
from aurora_unicycler import CyclingProtocol
from checks import Checks, until

CHANNEL = "21-1-3"
CAPACITY_mAh = 0.3
PROTOCOL = {
    "record": {"time_s": 60, "voltage_V": 0.05},
    "safety": {"max_voltage_V": 4.5, "min_voltage_V": 0.5, "max_current_mA": 5, "delay_s": 1},
    "method": [
        {"step": "open_circuit_voltage", "until_time_s": 60},
        {"step": "tag", "tag": "cycle"},
        {"step": "constant_current", "rate_C": 0.5, "until_voltage_V": 4.1, "until_time_s": 36000},
        {
            "step": "constant_voltage",
            "voltage_V": 4.1,
            "until_rate_C": 0.05,
            "until_time_s": 3600,
        },
        {"step": "constant_current", "rate_C": -0.5, "until_voltage_V": 1.5, "until_time_s": 36000},
        {"step": "loop", "loop_to": "cycle", "cycle_count": 2},
    ],
}


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("aurora-unicycler", "aurora-neware")
    file = Path("protocol.xml").resolve()
    protocol = CyclingProtocol.from_dict(PROTOCOL)
    checks.check("to_neware_xml", lambda: protocol.to_neware_xml(
        sample_name="cell-1", capacity_mAh=CAPACITY_mAh, save_path=file) and None)  # fmt: skip
    with NewareAPI(host, int(port)) as rack:
        checks.equal("start", lambda: rack.start(CHANNEL, "cell-1", file)[0]["start"], "ok")

        def complete() -> str:
            def over() -> bool:
                rack.download(CHANNEL, 0)
                return rack.inquire(CHANNEL)[CHANNEL]["workstatus"] == "finish"

            until(over, 120.0)
            kinds = [row["steptype"] for row in rack.get_steps(CHANNEL)]
            assert kinds == ["rest", "cc", "cv", "dc", "cc", "cv", "dc"], kinds
            return ", ".join(kinds)

        checks.check("its steps, twice round", complete)

        def levels() -> str:
            data = rack.download(CHANNEL, 0)
            rows = list(zip(data["steptype"], data["volt"], data["curr"], strict=True))
            charging = [current for kind, _, current in rows if kind == "cc"]
            wanted_A = 0.5 * CAPACITY_mAh / 1000
            assert all(abs(current - wanted_A) < 1e-6 for current in charging), charging[:3]
            held = [voltage for kind, voltage, _ in rows if kind == "cv"]
            assert all(abs(voltage - 4.1) < 5e-3 for voltage in held), held[:3]
            last = [voltage for kind, voltage, _ in rows if kind == "dc"][-1]
            assert last < 1.51, last
            return f"{len(rows)} records, from {charging[0]:.3g} A to {last:.4f} V"

        checks.check("currents and voltages are the protocol's", levels)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
