"""Step files that neware-utils writes, run by the rack, started by aurora-neware.

usage: with_neware_utils.py HOST PORT        a simulated rack with a larger cell in 1-5
It cannot write a file that begins with a rest: its own check of the limits stumbles over that. It
writes currents as whole milliamperes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from aurora_neware import NewareAPI
from checks import Checks, until
from neware_utils.protocols import step_modes
from neware_utils.protocols.protocol import Protocol

CHANNEL = "21-1-5"
CURRENT_A = 2e-3


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("neware-utils", "aurora-neware")
    file = Path("protocol.xml").resolve()

    def write() -> None:
        protocol = Protocol(builder_name="validate", protocol_description="one cycle")
        for step in (
            step_modes.CC_CHG.create(CURRENT_A, 4.1),
            step_modes.REST.create(60.0),
            step_modes.CC_DCHG.create(CURRENT_A, 1.5),
            step_modes.CYCLE.create(1, 2),
            step_modes.END.create(),
        ):
            protocol.add_step(step)
        protocol.set_protection_limits("voltage", 0.5, 4.5)
        protocol.set_sampling_intervals("time", 60.0)
        protocol.export(file)

    checks.check("export", write)
    with NewareAPI(host, int(port)) as rack:
        checks.equal("start", lambda: rack.start(CHANNEL, "cell-1", file)[0]["start"], "ok")

        def complete() -> str:
            def over() -> bool:
                rack.download(CHANNEL, 0)
                return rack.inquire(CHANNEL)[CHANNEL]["workstatus"] == "finish"

            until(over, 120.0)
            kinds = [row["steptype"] for row in rack.get_steps(CHANNEL)]
            assert kinds == ["cc", "rest", "dc", "cc", "rest", "dc"], kinds
            return ", ".join(kinds)

        checks.check("its steps, twice round", complete)

        def levels() -> str:
            data = rack.download(CHANNEL, 0)
            rows = list(zip(data["steptype"], data["volt"], data["curr"], strict=True))
            charging = [current for kind, _, current in rows if kind == "cc"]
            assert all(abs(current - CURRENT_A) < 1e-6 for current in charging)
            last = [voltage for kind, voltage, _ in rows if kind == "dc"][-1]
            assert last < 1.51, last
            return f"{len(rows)} records to {last:.4f} V"

        checks.check("currents and voltages are the protocol's", levels)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
