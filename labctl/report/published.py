"""What the reference study published, and which runs answer it.

Configurational entropy-tailored NASICON cathode redox chemistry for capacity-dense and ultralong
cyclability, Energy Environ. Sci. 2025, 18, 7278 (DOI 10.1039/d5ee00877h), main text. Where it gives
a word and no figure ("stable", "good"), the bound is chosen here and the row says so.
"""

from __future__ import annotations

from typing import Final

HE_V: Final = "HE-V"
NVP: Final = "NVP"
CARBON: Final = "HC"
FULL_CELL_SIGN: Final = "||"
"""In the material of a full cell, between anode and cathode: ``HC||HE-V``."""

CAPACITY: Final = "Capacity at 0.2C"
CYCLING: Final = "Cycling at 0.2C"
LADDER: Final = "Rate ladder"
ENDURANCE: Final = "Endurance at 50C"
GITT: Final = "GITT"
VOLTAMMETRY: Final = "Cyclic voltammetry"
IMPEDANCE: Final = "Impedance"
PRECYCLE: Final = "Hard carbon precycle"
FULL_CELL: Final = "Pre-sodiated full cell"
WITHOUT: Final = "Full cell without pre-sodiation"
OPERANDO: Final = "Operando at 0.1C"

DISCHARGE_MAH_G: Final = {HE_V: 170.0, NVP: 155.2}
DISCHARGE_TOLERANCE_MAH_G: Final = 2.0
TWO_SODIUM_MAH_G: Final = 117.5
"""Two Na per formula unit: the most that a first charge takes out."""
PLATEAUS_V: Final = (1.67, 3.43, 4.03)
PLATEAU_TOLERANCE_V: Final = 0.03
TOP_OF_NVP_V: Final = 3.9
RECOVERY: Final = 0.97
STABLE: Final = 0.95
FAST_RATE_C: Final = 50.0
ENDURANCE_CYCLES: Final = 10_000
ENDURANCE_RETENTION: Final = {(1, 5000): 95.2, (5001, 10_000): 93.3, (1, 10_000): 88.8}
ENDURANCE_TOLERANCE_PERCENT: Final = 1.0
GITT_TOLERANCE_MAH_G: Final = 5.0
PARTICLE_RADIUS_M: Final = 1.25e-6
"""For diffusion coefficients. The main text gives none; a usual size, the same for both materials,
so that their ratio does not hang on it."""
SCAN_RATE_V_PER_S: Final = 1e-4
CARBON_MAH_G: Final = 300.0
CARBON_TOLERANCE_MAH_G: Final = 10.0
CARBON_PLATEAU_V: Final = 0.1
CARBON_PLATEAU_TOLERANCE_V: Final = 0.05
FULL_MAH_G: Final = 170.8
FULL_TOLERANCE_MAH_G: Final = 3.0
FULL_WH_KG: Final = 485.9
FULL_TOLERANCE_WH_KG: Final = 10.0
FULL_MEAN_V: Final = 2.845
FULL_MEAN_TOLERANCE_V: Final = 0.03
FULL_FAST_C: Final = 5.0
GOOD_AT_5C: Final = 0.7
