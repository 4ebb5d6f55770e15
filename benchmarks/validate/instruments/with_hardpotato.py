"""hardpotato, which drives an EmStat Pico at a serial port and writes what it measured to files.

usage: with_hardpotato.py PORT        a simulated EmStat Pico with 10 kOhm at its leads
Its port is set on the technique: the setup of 1.3.13 takes one and does not use it.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import hardpotato as hp
import numpy as np
from checks import Checks

OHM = 10_000.0


def main() -> int:
    port = sys.argv[1]
    checks = Checks("hardpotato", "softpotato", "pyserial")
    hp.potentiostat.Setup("emstatpico", folder=".", port=port, verbose=0)

    def measured(technique: object) -> np.ndarray:
        technique.port = port
        with contextlib.redirect_stdout(io.StringIO()):
            technique.run()
        return np.loadtxt(Path(technique.fileName + ".txt"), delimiter=",", skiprows=1)

    def ohmic(technique: object, points: int) -> str:
        rows = measured(technique)
        assert len(rows) == points, len(rows)
        time_s, potential_V, current_A = rows[:, 0], rows[:, 1], rows[:, 2]
        assert np.all(np.diff(time_s) > 0)
        assert np.allclose(current_A, potential_V / OHM, atol=2e-6), rows[:3]
        return f"{len(rows)} points"

    made = hp.potentiostat
    checks.check(
        "CV", lambda: ohmic(made.CV(-0.2, 0.2, -0.2, -0.2, 0.1, 0.01, 2, 1e-4, fileName="CV"), 81)
    )
    checks.check("LSV", lambda: ohmic(made.LSV(-0.2, 0.2, 0.1, 0.01, 1e-4, fileName="LSV"), 41))
    checks.check("CA", lambda: ohmic(made.CA(0.2, 0.1, 2, 1e-4, fileName="CA"), 20))

    def rest() -> str:
        rows = measured(made.OCP(2, 0.1, fileName="OCP"))
        assert len(rows) == 20, len(rows)
        assert np.all(np.abs(rows[:, 1]) < 1e-3), rows[:3]
        return f"{len(rows)} points"

    checks.check("OCP", rest)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
