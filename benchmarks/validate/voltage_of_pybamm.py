"""Runs PyBaMM's single-particle model through the comparison and writes what it gave as JSON.

Runs in an environment of its own, in which PyBaMM is and labctl is not: see compare_with_pybamm.py.
usage: voltage_of_pybamm.py PROGRAM.json RESULT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pybamm

program = json.loads(Path(sys.argv[1]).read_text())
steps = [
    pybamm.step.current(-current_A, duration=f"{duration_s} second", period=f"{period_s} second")
    for current_A, duration_s, period_s in program["steps"]
]
simulation = pybamm.Simulation(
    pybamm.lithium_ion.SPM(),
    parameter_values=pybamm.ParameterValues("Chen2020"),
    experiment=pybamm.Experiment([tuple(steps)]),
    solver=pybamm.IDAKLUSolver(rtol=1e-8, atol=1e-10),
    var_pts={"x_n": 5, "x_s": 5, "x_p": 5, "r_n": 200, "r_p": 200},
)
cycles = simulation.solve().cycles[0].steps
answer = {
    "version": pybamm.__version__,
    "steps": [
        {
            "time_s": (np.asarray(step["Time [s]"].entries) - step["Time [s]"].entries[0]).tolist(),
            "voltage_V": np.asarray(step["Voltage [V]"].entries).tolist(),
        }
        for step in cycles
    ],
}
Path(sys.argv[2]).write_text(json.dumps(answer))
