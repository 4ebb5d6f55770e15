"""The same single-particle parameters in PyBaMM and here: how far apart are the voltages?

LG M50 after Chen et al. 2020: a C/2 discharge of an hour, a rest of half an hour, and a train of 2C
pulses. PyBaMM (Sulzer et al., J. Open Res. Softw. 9 (2021) 14) runs in its own environment.
usage: compare_with_pybamm.py PYTHON-WITH-PYBAMM
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from labctl.simulators.cells.interface import Control, Recorder, Until
from labctl.simulators.cells.lithium import build_lithium_cell
from labctl.simulators.cells.materials.lg_m50 import NOMINAL_Ah

LARGEST_RMS_mV = 2.0
PULSES = 5
STEPS: list[tuple[str, float, float, float]] = [
    ("C/2 discharge", -0.5 * NOMINAL_Ah, 3600.0, 30.0),
    ("rest", 0.0, 1800.0, 30.0),
    *[
        step
        for _ in range(PULSES)
        for step in (("2C pulse", -2.0 * NOMINAL_Ah, 30.0, 1.0), ("rest", 0.0, 60.0, 1.0))
    ],
]
"""Name, current in A (positive charges), duration and period of readings in s."""


def ours(times_s: list[np.ndarray]) -> list[np.ndarray]:
    """Voltages of this model at the times of each step."""
    cell = build_lithium_cell()
    voltages = []
    for (_, current_A, _, _), times in zip(STEPS, times_s, strict=True):
        control = Control.CURRENT if current_A else Control.REST
        here = [cell.voltage_V(current_A)]
        for piece_s in np.diff(times):
            trace = cell.advance(
                control, current_A, float(piece_s), until=Until(), recorder=Recorder()
            )
            here.append(trace.end_voltage_V)
        voltages.append(np.array(here))
    return voltages


def theirs(python: str) -> tuple[str, list[np.ndarray], list[np.ndarray]]:
    """Version, times and voltages of PyBaMM."""
    script = Path(__file__).with_name("voltage_of_pybamm.py")
    with tempfile.TemporaryDirectory() as folder:
        program, result = Path(folder) / "program.json", Path(folder) / "result.json"
        program.write_text(json.dumps({"steps": [step[1:] for step in STEPS]}))
        subprocess.run([python, str(script), str(program), str(result)], check=True)
        answer = json.loads(result.read_text())
    times = [np.array(step["time_s"]) for step in answer["steps"]]
    return answer["version"], times, [np.array(step["voltage_V"]) for step in answer["steps"]]


def main() -> None:
    """Print the figures; exit code 1 if they are too far apart."""
    version, times, reference = theirs(sys.argv[1])
    mine = ours(times)
    print(f"PyBaMM {version}, SPM, Chen2020, beside labctl's single-particle model")
    print(f"{'':24}{'readings':>9}{'RMS / mV':>10}{'largest / mV':>14}")
    apart_mV = []
    for (name, *_), one, other in zip(STEPS, mine, reference, strict=True):
        # A first instant is that of the current's step, where models differ in the double layer.
        difference = 1e3 * (one[1:] - other[1:])
        apart_mV.append(difference)
        if len(apart_mV) <= 4 or len(apart_mV) > len(STEPS) - 2:
            print(_line(name, difference))
    everything = np.concatenate(apart_mV)
    print(_line("all", everything))
    if np.sqrt(np.mean(everything**2)) > LARGEST_RMS_mV:
        sys.exit(f"the voltages are more than {LARGEST_RMS_mV} mV (RMS) apart")


def _line(name: str, difference_mV: np.ndarray) -> str:
    rms = float(np.sqrt(np.mean(difference_mV**2)))
    return f"{name:24}{len(difference_mV):9d}{rms:10.3f}{np.abs(difference_mV).max():14.3f}"


if __name__ == "__main__":
    main()
