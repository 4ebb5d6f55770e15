"""A simulated cell: the compiled core behind the contract of ``interface``."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from labctl.simulators.cells import core
from labctl.simulators.cells.interface import Control, Recorder, StopReason, Trace, Until

Floats = npt.NDArray[np.float64]

ROWS = 2048
LONGEST_S = 1e10


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
        while True:
            count, why = core.walk(
                self._state,
                self._work,
                self._electrodes,
                self._cell,
                self._tables_u,
                self._tables_d,
                self._grid,
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
