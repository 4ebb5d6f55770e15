"""Sodium metal, the counter electrode of half cells: plentiful, at 0 V by definition."""

from __future__ import annotations

from labctl.simulators.cells.materials.base import Parameter

EXCHANGE_CURRENT = Parameter(
    3e-3, "A/cm2", "chosen so that 1.13 cm2 adds some 7.5 ohm, little beside the cathode"
)
EXCHANGE_ACTIVATION = Parameter(40e3, "J/mol", "chosen so that it is usual for a metal electrode")
DOUBLE_LAYER = Parameter(1e-4, "F/cm2", "chosen so that its arc lies above that of a cathode")
GROWTH_PER_CYCLE = Parameter(
    0.0, "1/cycle", "chosen so that all growth stands with the working electrode"
)
