"""What the simulated cells measure beside the study: ``python benchmarks/cell_figures.py``.

At cell level, nominal cells of 2 mg, without an instrument; the demo measures through the system.
"""

from __future__ import annotations

import math

import numpy as np

from labctl.analysis.dqdv import dqdv, plateaus
from labctl.simulators.cells import Anode, CellSpec, build_cell
from labctl.simulators.cells.cell import ModelCell
from labctl.simulators.cells.interface import Control, Recorder, Trace, Until

MASS_G = 2e-3
ONE_C_A = 0.1 * MASS_G
CARBON_G = 1.25 * MASS_G
CYCLES = 10_000


def nominal(material: str, anode: Anode | None = None) -> ModelCell:
    """A cell without scatter."""
    return build_cell(
        CellSpec(name=material, material=material, active_mass_g=MASS_G, scatter=0.0, anode=anode)
    )


def flow(cell: ModelCell, current_A: float, until_V: float, every_V: float = math.inf) -> Trace:
    """Constant current until a voltage."""
    until = Until(voltage_at_least_V=until_V) if current_A > 0 else Until(voltage_at_most_V=until_V)
    recorder = Recorder(voltage_change_V=every_V, every_s=60.0 if every_V < 1 else math.inf)
    return cell.advance(Control.CURRENT, current_A, 1e7, until=until, recorder=recorder)


def cycle(cell: ModelCell, rate: float, every_V: float = math.inf) -> tuple[Trace, Trace]:
    """A charge to 4.1 V and a discharge to 1.5 V."""
    return flow(cell, rate * ONE_C_A, 4.1, every_V), flow(cell, -rate * ONE_C_A, 1.5, every_V)


def mAh_g(trace: Trace) -> float:
    """Charge that passed, per gram of cathode."""
    return abs(trace.end_charge_Ah) / MASS_G * 1e3


def say(what: str, published: str, measured: str) -> None:
    """One line of the table."""
    print(f"{what:50}{published:>24}{measured:>30}")


def half_cells() -> None:
    """Rows 1 to 5, 9 and 10 of the study."""
    for material, capacity in (("HE-V", "170"), ("NVP", "155.2")):
        cell = nominal(material)
        first = cycle(cell, 0.2)
        charge, discharge = cycle(cell, 0.2, 1e-3)
        say(f"{material} discharge at 0.2C, mAh/g", capacity, f"{mAh_g(discharge):.1f}")
        say(f"{material} first charge, mAh/g", "at most 117", f"{mAh_g(first[0]):.1f}")
        curves = [dqdv(trace.voltage_V, trace.charge_Ah) for trace in (charge, discharge)]
        found = plateaus(*curves)
        say(
            f"{material} plateaus, V (gap of the peaks, mV)",
            "1.67 3.43 4.03" if material == "HE-V" else "none at 4.03",
            " ".join(f"{p.voltage_V:.2f} ({1e3 * p.separation_V:.0f})" for p in found),
        )
        edges = [0.0, *np.interp([-3.6, -3.0], -discharge.voltage_V, -discharge.charge_Ah)]
        shares = np.diff([*edges, -discharge.end_charge_Ah]) / MASS_G * 1e3
        said = " ".join(f"{share:.1f}" for share in shares)
        say(f"{material} above 3.6, 3 to 3.6, below 3 V, mAh/g", "", said)
        rates = []
        for rate in (1.0, 5.0, 10.0, 20.0, 50.0, 0.2):
            cycle(cell, rate)
            rates.append(f"{mAh_g(cycle(cell, rate)[1]):.0f}")
        say(f"{material} at 1, 5, 10, 20, 50 and again 0.2C, mAh/g", "", " ".join(rates))
        charge_transfer, peaks = half_way(material), voltammogram(material)
        say(f"{material} width of the impedance arcs, ohm", "smaller for HE-V", charge_transfer)
        say(f"{material} peaks at 0.1 mV/s, mA/g (gap, mV)", "larger, closer for HE-V", peaks)


def half_way(material: str) -> str:
    """From the series resistance to the minimum before diffusion, at half charge, in ohm."""
    cell = nominal(material)
    cycle(cell, 0.2)
    cell.advance(Control.CURRENT, 0.2 * ONE_C_A, 4.25 * 3600.0, until=Until(), recorder=Recorder())
    cell.advance(Control.REST, 0.0, 3600.0, until=Until(), recorder=Recorder())
    z = cell.impedance(np.logspace(5, -3, 161))
    end = np.flatnonzero(np.diff(np.sign(np.diff(-z.imag))) > 0)[-1]
    return f"{z.real[end] - z.real[0]:.1f}"


def voltammogram(material: str) -> str:
    """The highest anodic and cathodic current of a cyclic voltammogram, and how far apart."""
    cell = nominal(material)
    cell.sweep(3.0, 4.1, 1e-4, recorder=Recorder())
    cell.sweep(4.1, 1.5, 1e-4, recorder=Recorder())
    up = cell.sweep(1.5, 4.1, 1e-4, recorder=Recorder(every_s=10.0))
    down = cell.sweep(4.1, 1.5, 1e-4, recorder=Recorder(every_s=10.0))
    top, bottom = int(up.current_A.argmax()), int(down.current_A.argmin())
    gap_mV = 1e3 * (up.voltage_V[top] - down.voltage_V[bottom])
    per_g = 1e3 / MASS_G
    return f"{up.current_A[top] * per_g:.0f} {down.current_A[bottom] * per_g:.0f} ({gap_mV:.0f})"


def endurance() -> None:
    """Row 7."""
    cell = nominal("HE-V")
    for _ in range(3):
        cycle(cell, 0.2)
    capacities = [mAh_g(cycle(cell, 50.0)[1]) for _ in range(CYCLES)]
    first, middle, last = (capacities[n] for n in (0, CYCLES // 2 - 1, CYCLES - 1))
    kept = f"{100 * middle / first:.1f} {100 * last / middle:.1f} {100 * last / first:.1f}"
    say("HE-V at 50C: first, second 5,000, all 10,000, %", "95.2 93.3 88.8", kept)


def carbon_and_full_cells() -> None:
    """Rows 11 to 13."""
    carbon = nominal("HC")
    current_A = 25e-3 * MASS_G
    taken, given = flow(carbon, -current_A, 0.01), flow(carbon, current_A, 2.0)
    say("hard carbon at 25 mA/g, mAh/g", "about 300", f"{mAh_g(given):.1f}")
    lost = f"{mAh_g(taken) - mAh_g(given):.1f}"
    say("hard carbon, lost in the first cycle, mAh/g", "some", lost)
    sodiated = Anode(active_mass_g=CARBON_G, sodium_mAh_per_g=200.0, film_mAh_per_g=61.0)
    for name, anode, published in (
        ("pre-sodiated", sodiated, "170.8, 485.9"),
        ("as made", Anode(active_mass_g=CARBON_G), "at most 117"),
    ):
        cell = nominal("HE-V", anode)
        cycle(cell, 0.2)
        discharge = cycle(cell, 0.2)[1]
        energy = abs(discharge.end_energy_Wh) / MASS_G * 1e3
        said = f"{mAh_g(discharge):.1f}, {energy:.1f}"
        say(f"full cell, anode {name}, mAh/g and Wh/kg", published, said)


if __name__ == "__main__":
    say("", "published", "simulated")
    half_cells()
    endurance()
    carbon_and_full_cells()
