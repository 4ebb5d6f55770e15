"""A simulated cell: the compiled core behind the contract of ``interface``."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from labctl.simulators.cells import core
from labctl.simulators.cells.interface import Control, Recorder, StopReason, Trace, Until
from labctl.simulators.cells.inventory import ElectrodeInventory, Inventory

Floats = npt.NDArray[np.float64]

ROWS = 2048
LONGEST_S = 1e10
NEVER = Until()


class ModelCell:
    """Fulfils :class:`labctl.simulators.cells.interface.SimulatedCell`; made by ``build_cell``.

    Where the contract leaves room: a Recorder without a last reading (NaN) takes the step's first
    instant as its last reading, without a record. A record that is due at the instant an end
    condition is met is left to the caller, who has it in the end values of the Trace.
    ``max_current_A`` clips the current under power and resistance too.
    """

    def __init__(
        self,
        state: Floats,
        electrodes: Floats,
        cell: Floats,
        tables_u: Floats,
        tables_d: Floats,
        grid: Floats,
    ) -> None:
        self._state = state
        self._electrodes = electrodes
        self._cell = cell
        self._tables_u = tables_u
        self._tables_d = tables_d
        self._grid = grid
        self._work = np.zeros((14, max(core.FAST, 3 * core.SHELLS + 14)))
        self._rows = np.empty((ROWS, 6))

    def advance(
        self,
        control: Control,
        setpoint: float,
        duration_s: float,
        *,
        until: Until,
        recorder: Recorder,
        max_records: int = 100_000,
        max_current_A: float = math.inf,
        ambient_degC: float = 25.0,
    ) -> Trace:
        """See the contract. Raises ValueError for a setpoint, duration or limit without sense."""
        if not math.isfinite(setpoint):
            raise ValueError(f"the setpoint must be finite, not {setpoint}")
        if control == Control.RESISTANCE and setpoint < 0.0:
            raise ValueError(f"a resistance must be 0 ohm or above, not {setpoint}")
        return self._walk(
            np.array([float(control), setpoint, 0.0, max_current_A, ambient_degC]),
            duration_s,
            until,
            recorder,
            max_records,
        )

    def sweep(
        self,
        from_V: float,
        to_V: float,
        rate_V_per_s: float,
        *,
        recorder: Recorder,
        duration_s: float = math.inf,
        max_records: int = 100_000,
        max_current_A: float = math.inf,
        ambient_degC: float = 25.0,
        until: Until = NEVER,
    ) -> Trace:
        """Holds a voltage that runs from ``from_V`` to ``to_V`` at ``rate_V_per_s`` (above 0).

        A sweep that was cut by ``duration_s``, ``max_records`` or ``until`` goes on seamlessly when
        it is called again from the voltage where it ended. Raises ValueError as :meth:`advance`
        does.
        """
        if not (math.isfinite(from_V) and math.isfinite(to_V)):
            raise ValueError(f"a sweep needs finite voltages, not {from_V} to {to_V}")
        if not (math.isfinite(rate_V_per_s) and rate_V_per_s > 0.0):
            raise ValueError(f"the sweep rate must be above 0 V/s, not {rate_V_per_s}")
        ramp = math.copysign(rate_V_per_s, to_V - from_V)
        return self._walk(
            np.array([float(core.SWEEP), from_V, ramp, max_current_A, ambient_degC]),
            min(duration_s, abs(to_V - from_V) / rate_V_per_s),
            until,
            recorder,
            max_records,
        )

    def impedance(self, frequencies_Hz: Floats) -> npt.NDArray[np.complex128]:
        """Impedance in ohm at each frequency: the model linearised where the cell stands.

        With M = (w - J)^-1 from the solver of the time steps, (jw' - J)^-1 b is
        (1 + (jw' - w) M)^-1 M b. Raises ValueError for a frequency that is not above 0.
        """
        wanted = np.atleast_1d(np.asarray(frequencies_Hz, dtype=np.float64))
        if not (np.isfinite(wanted).all() and (wanted > 0.0).all()):
            raise ValueError("every frequency must be finite and above 0 Hz")
        state = self._state.copy()
        state[: core.FAST] = self._now()
        inverse = np.empty((core.FAST, core.FAST))
        w = 1.0
        series, share, passed = core.response(state, self._work, *self._model(), w, inverse)
        matrix = inverse.T
        push = np.zeros(core.FAST)
        push[core.PHI] = passed / self._electrodes[0, core.DOUBLE_LAYER]
        push[core.WIDTH + core.PHI] = -passed / self._electrodes[1, core.DOUBLE_LAYER]
        start = matrix @ push
        unit = np.eye(core.FAST)
        answers = []
        for omega in 2.0 * math.pi * wanted:
            moved = np.linalg.solve(unit + (1j * omega - w) * matrix, start)
            answers.append(series + share * (moved[core.PHI] - moved[core.WIDTH + core.PHI]))
        return np.array(answers)

    def inventory(self) -> Inventory:
        """Where the sodium and the charge are now."""
        now = self._now()
        electrodes = []
        for e in (0, 1):
            p, at = self._electrodes[e], e * core.WIDTH
            active = float(self._state[core.ACTIVE + e])
            occupancy = float(self._grid[0] @ now[at : at + core.SHELLS])
            electrodes.append(
                ElectrodeInventory(
                    inserts=bool(p[core.INSERTS]),
                    occupancy=occupancy,
                    active_share=active,
                    sodium_Ah=occupancy * active * float(p[core.CAPACITY]),
                    isolated_Ah=float(self._state[core.ISOLATED + e]),
                    plated_Ah=float(now[at + core.PLATED]),
                    film_Ah=float(now[at + core.FILM]),
                    oxidised_Ah=float(now[at + core.OXIDISED]),
                    double_layer_Ah=float(p[core.DOUBLE_LAYER] * now[at + core.PHI]) / 3600.0,
                    potential_V=float(now[at + core.PHI]),
                )
            )
        return Inventory(
            positive=electrodes[0],
            negative=electrodes[1],
            through_terminals_Ah=float(now[core.Q_EXT]),
            through_cell_Ah=float(now[core.Q_CELL]),
        )

    def voltage_V(self, current_A: float = 0.0) -> float:
        """Terminal voltage in V now, if ``current_A`` were flowing."""
        return float(core.voltage_at(self._state, self._cell, current_A))

    def state(self) -> bytes:
        """Everything that changes, as bytes."""
        return self._state.tobytes()

    def restore(self, state: bytes) -> None:
        """Goes on from what :meth:`state` gave. Raises ValueError for bytes of another length."""
        if len(state) != self._state.nbytes:
            raise ValueError(
                f"a state has {self._state.nbytes} bytes, this one {len(state)}: "
                "it is of another kind or version of cell"
            )
        self._state[:] = np.frombuffer(state, dtype=np.float64)

    def _model(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        return self._electrodes, self._cell, self._tables_u, self._tables_d, self._grid

    def _now(self) -> Floats:
        """The fast state at the point where the cell stands, inside a step or not."""
        start, end, third, fourth = self._state[: core.SLOW].reshape(4, core.FAST)
        if self._state[core.PENDING] == 0.0:
            return start.copy()
        at = self._state[core.INSIDE] / self._state[core.STEP]
        return np.asarray(start + at * (end - start + (1.0 - at) * (third + at * fourth)))

    def _walk(
        self,
        order: Floats,
        duration_s: float,
        until: Until,
        recorder: Recorder,
        max_records: int,
    ) -> Trace:
        if not duration_s >= 0.0:
            raise ValueError(f"the duration must be 0 s or above, not {duration_s}")
        if max_records < 1:
            raise ValueError(f"max_records must be 1 or above, not {max_records}")
        if not order[3] > 0.0:
            raise ValueError(f"the current limit must be above 0, not {order[3]}")
        if not -200.0 <= order[4] <= 500.0:
            raise ValueError(f"the ambient must lie between -200 and 500 degC, not {order[4]}")
        ends = np.array(
            [
                until.voltage_at_least_V,
                until.voltage_at_most_V,
                until.current_magnitude_at_most_A,
                until.current_magnitude_at_least_A,
                until.charge_magnitude_at_least_Ah,
            ]
        )
        rule = np.array(
            [
                recorder.every_s,
                recorder.voltage_change_V,
                recorder.current_change_A,
                recorder.now_s,
                recorder.last_time_s,
                recorder.last_voltage_V,
                recorder.last_current_A,
            ]
        )
        totals = np.zeros(6)
        blocks: list[Floats] = []
        left = max_records
        begun = order[1]
        while True:
            count, why = core.walk(
                self._state,
                self._work,
                *self._model(),
                order,
                min(duration_s, LONGEST_S),
                ends,
                rule,
                self._rows[: min(left, ROWS)],
                totals,
            )
            blocks.append(self._rows[:count].T.copy())
            left -= count
            if why != StopReason.RECORDS or left == 0:
                break
            order[1] = begun + order[2] * totals[0]
        recorder.now_s, recorder.last_time_s = float(rule[3]), float(rule[4])
        recorder.last_voltage_V, recorder.last_current_A = float(rule[5]), float(rule[6])
        made = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
        elapsed, charge, energy, voltage, current, temperature = totals.tolist()
        return Trace(
            time_s=made[0],
            voltage_V=made[1],
            current_A=made[2],
            charge_Ah=made[3],
            energy_Wh=made[4],
            temperature_degC=made[5],
            elapsed_s=elapsed,
            end_voltage_V=voltage,
            end_current_A=current,
            end_charge_Ah=charge,
            end_energy_Wh=energy,
            end_temperature_degC=temperature,
            reason=StopReason(why),
        )
