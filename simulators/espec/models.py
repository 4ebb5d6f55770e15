"""The controllers that can be simulated, and what each of them says of itself.

Source: ports and program counts: espec-pr3j 0.5.0 and ChamberConnectLibrary @1d2deb8. What a
controller answers to ``ROM?`` and ``TYPE?`` is made up after the few that are published
(``T,T,S2,160.0``; a ROM that begins with P3 is a P-300).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Model:
    """port: where it listens. range_degC: what can be set. high_degC, low_degC: its alarm limits
    as an operator leaves them. detail: it knows the parameter ``DETAIL``."""

    port: int
    rom: str
    controller: str
    humidity: bool
    programs: int
    range_degC: tuple[float, float]
    high_degC: float
    low_degC: float
    detail: bool = True


MODELS: Final = {
    "PR-3J": Model(57_732, "PR3J VER1.10", "PR3J", True, 40, (-20.0, 100.0), 105.0, 0.0),
    "P-300": Model(10_001, "P3N20 VER2.05", "P300", False, 40, (-70.0, 150.0), 155.0, -75.0),
    "SCP-220": Model(10_001, "SCP220 VER1.3", "SCP220", True, 20, (-40.0, 150.0), 155.0, -45.0,
                     detail=False),
}  # fmt: skip
