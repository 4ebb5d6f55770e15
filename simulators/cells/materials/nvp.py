"""NVP, the parent NASICON cathode Na3V2(PO4)3.

Reference study: Energy Environ. Sci. 2025, 18, 7278 (DOI 10.1039/d5ee00877h), "the study" below.
Occupancy 0 is Na1, 1 is Na4.
"""

from __future__ import annotations

from labctl.simulators.cells.materials.base import Material, Parameter, Reaction

NVP = Material(
    name="NVP",
    formula="Na3V2(PO4)3",
    about="parent NASICON cathode",
    reactions=(
        Reaction(4.60, 0.365, 1.0, "chosen so that the last sodium stays below 4.1 V"),
        Reaction(3.68, 0.265, 1.5, "chosen so that the capacity above 3.6 V is below HE-V's"),
        Reaction(3.395, 1.29, 0.35, "V4+/V3+ plateau of NVP near 3.4 V"),
        Reaction(2.60, 0.10, 8.0, "chosen so that the cell as made rests between 2 and 3 V"),
        Reaction(1.63, 0.98, 0.35, "V3+/V2+ plateau of NVP near 1.6 V"),
    ),
    made_occupancy=Parameter(2.0 / 3.0, "1", "the study: Na3, here of Na1 to Na4"),
    particle_radius=Parameter(1.25e-6, "m", "chosen so that it equals HE-V's"),
    diffusivity=Parameter(1.875e-14, "m2/s", "chosen so that it is below HE-V's, as in the study"),
    plateau_diffusivity_share=Parameter(
        0.15, "1", "chosen so that D dips on plateaus as in GITT of two-phase cathodes"
    ),
    diffusion_activation=Parameter(35e3, "J/mol", "chosen so that it is usual for a NASICON"),
    exchange_current=Parameter(
        0.3, "A/g", "chosen so that the charge-transfer resistance exceeds HE-V's threefold"
    ),
    exchange_activation=Parameter(50e3, "J/mol", "chosen so that it is usual for insertion"),
    double_layer=Parameter(0.6, "F/g", "chosen so that 20 uF/cm2 covers the particles"),
    hysteresis=Parameter(0.025, "V", "chosen so that the peaks lie wider apart than HE-V's"),
    hysteresis_decay=Parameter(60.0, "1", "chosen so that a reversal takes 5 % of the occupancy"),
    oxidation_current=Parameter(
        4.0, "A/g", "chosen so that 4.1 V loses about 0.1 mAh/g a day at open circuit"
    ),
    oxidation_potential=Parameter(4.8, "V", "oxidation of carbonate electrolyte"),
    film_current=Parameter(1e-3, "A/g", "chosen so that nothing is reduced above 1.2 V"),
    film_potential=Parameter(0.9, "V", "reduction of carbonate electrolyte"),
    film_charge=Parameter(5.0, "mAh/g", "chosen so that a film closes within 5 mAh/g"),
    plating_current=Parameter(0.5, "A/g", "chosen so that sodium plates below 0 V"),
    loss_per_cycle=Parameter(8e-5, "1/cycle", "chosen so that it fades faster than HE-V"),
    loss_per_year=Parameter(0.02, "1/year", "chosen so that time weighs less than cycles"),
    growth_per_cycle=Parameter(2e-4, "1/cycle", "chosen so that it fades faster than HE-V"),
    growth_per_year=Parameter(0.2, "1/year", "chosen so that time weighs less than cycles"),
    loss_by_growth=Parameter(5.9, "1", "chosen so that it equals HE-V's"),
    entropy=Parameter(0.0, "V/K", "chosen so that heat is that of losses alone"),
)
