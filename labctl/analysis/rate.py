"""Rate capability: what a cell gives at each current, and whether the capacity comes back.

A block is cycles in a row at about the same current. The current is the measured one, so that
nothing hangs on what the recipe calls its cycles.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

COLUMNS = ("current_max_A", "discharge_mAh_g", "complete")
SAME_RATE = 0.05
"""Currents that differ by less than this share are of one block."""


def rate_blocks(cycles: pd.DataFrame, one_C_A: float) -> pd.DataFrame:
    """Blocks of cycles at one rate, in order.

    Columns: rate_C (largest charging current over ``one_C_A``, median of the block), first_cycle,
    last_cycle, cycles (complete ones), discharge_mAh_g (their median).

    Args:
        cycles: by cycle, or with a column cycle, of one run in order: columns current_max_A,
            discharge_mAh_g, complete. Cycles without a figure are left out.
        one_C_A: what 1C means for the cell.

    Raises:
        ValueError: a column is missing, or 1C is not above 0.
    """
    if missing := [name for name in COLUMNS if name not in cycles]:
        raise ValueError(f"the cycles have no column {', '.join(missing)}")
    if not one_C_A > 0:
        raise ValueError(f"1C must be above 0 A, not {one_C_A}")
    good = cycles[
        cycles["complete"].to_numpy(dtype=bool, na_value=False)
        & np.isfinite(cycles["discharge_mAh_g"].to_numpy(dtype=np.float64))
        & (cycles["current_max_A"].to_numpy(dtype=np.float64) > 0)
    ]
    numbers = good["cycle"] if "cycle" in good else good.index.to_series()
    rate = good["current_max_A"].to_numpy(dtype=np.float64) / one_C_A
    table = pd.DataFrame(
        {
            "rate_C": rate,
            "cycle": numbers.to_numpy(dtype=np.int64),
            "discharge_mAh_g": good["discharge_mAh_g"].to_numpy(dtype=np.float64),
            "block": np.cumsum(np.abs(np.diff(np.log(rate), prepend=np.log(rate[:1]))) > SAME_RATE),
        }
    )
    return table.groupby("block").agg(
        rate_C=("rate_C", "median"),
        first_cycle=("cycle", "min"),
        last_cycle=("cycle", "max"),
        cycles=("cycle", "size"),
        discharge_mAh_g=("discharge_mAh_g", "median"),
    )


def recovery(blocks: pd.DataFrame) -> float:
    """Capacity of the last block over that of the first block of the same rate, a fraction.

    NaN where the rate did not come back: no other block, of another rate, lies between.

    Args:
        blocks: of :func:`rate_blocks`.
    """
    if len(blocks) < 3:
        return float("nan")
    last_C = float(blocks["rate_C"].iloc[-1])
    same = np.abs(np.log(blocks["rate_C"].to_numpy(dtype=np.float64) / last_C)) <= SAME_RATE
    capacity = blocks["discharge_mAh_g"].to_numpy(dtype=np.float64)
    first = int(np.argmax(same))
    return float(capacity[-1] / capacity[first]) if first < len(blocks) - 1 else float("nan")


def at_rate(blocks: pd.DataFrame, rate_C: float) -> float:
    """Capacity of the first block within 5 % of a rate, in mAh/g; NaN if there is none."""
    same = np.abs(np.log(blocks["rate_C"].to_numpy(dtype=np.float64) / rate_C)) <= SAME_RATE
    found = blocks["discharge_mAh_g"].to_numpy(dtype=np.float64)[same]
    return float(found[0]) if len(found) else float("nan")
