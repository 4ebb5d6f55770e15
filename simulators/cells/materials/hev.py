"""HE-V, the high-entropy NASICON cathode Na3.2V1.5Cr0.1Mn0.1Fe0.1Al0.1Mg0.1(PO4)3.

Reference study: Energy Environ. Sci. 2025, 18, 7278 (DOI 10.1039/d5ee00877h), "the study" below.
Occupancy 0 is Na1.2, 1 is Na4.2.
"""

from __future__ import annotations

from labctl.simulators.cells.materials.base import Material, Parameter, Reaction

HE_V = Material(
    name="HE-V",
    formula="Na3.2V1.5Cr0.1Mn0.1Fe0.1Al0.1Mg0.1(PO4)3",
    about="high-entropy NASICON cathode",
    reactions=(
        Reaction(
            4.50, 0.04, 1.0, "part of Cr4+/Cr3+, in a NASICON near 4.5 V; beyond the 4.1 V limit"
        ),
        Reaction(4.03, 0.39, 0.30, "V5+/V4+ plateau of the study"),
        Reaction(3.72, 0.05, 3.0, "chosen so that 3.43 V and 4.03 V are joined by a slope"),
        Reaction(3.43, 1.50, 0.30, "V4+/V3+ plateau of the study"),
        Reaction(2.55, 0.04, 10.0, "chosen so that the cell as made rests between 2 and 3 V"),
        Reaction(1.67, 0.909, 0.30, "V3+/V2+ plateau of the study"),
        Reaction(1.10, 0.071, 1.0, "chosen so that 1.5 to 4.1 V gives the study's 170 mAh/g"),
    ),
    made_occupancy=Parameter(2.0 / 3.0, "1", "the study: Na3.2 of Na1.2 to Na4.2"),
    particle_radius=Parameter(1.25e-6, "m", "chosen so that a particle is of usual size"),
    diffusivity=Parameter(
        9.375e-14, "m2/s", "chosen so that it lies in the study's 1e-13 to 1e-15 and 50C is reached"
    ),
    plateau_diffusivity_share=Parameter(
        0.15, "1", "chosen so that D dips on plateaus as in GITT of two-phase cathodes"
    ),
    diffusion_activation=Parameter(30e3, "J/mol", "chosen so that it is usual for a NASICON"),
    exchange_current=Parameter(
        1.0, "A/g", "chosen so that the charge-transfer resistance of 2 mg is near 13 ohm"
    ),
    exchange_activation=Parameter(45e3, "J/mol", "chosen so that it is usual for insertion"),
    double_layer=Parameter(0.6, "F/g", "chosen so that 20 uF/cm2 covers the particles"),
    hysteresis=Parameter(0.006, "V", "chosen so that the peaks are as close as the study says"),
    hysteresis_decay=Parameter(60.0, "1", "chosen so that a reversal takes 5 % of the occupancy"),
    oxidation_current=Parameter(
        4.0, "A/g", "chosen so that 4.1 V loses about 0.1 mAh/g a day at open circuit"
    ),
    oxidation_potential=Parameter(4.8, "V", "oxidation of carbonate electrolyte"),
    film_current=Parameter(1e-3, "A/g", "chosen so that nothing is reduced above 1.2 V"),
    film_potential=Parameter(0.9, "V", "reduction of carbonate electrolyte"),
    film_charge=Parameter(5.0, "mAh/g", "chosen so that a film closes within 5 mAh/g"),
    plating_current=Parameter(0.5, "A/g", "chosen so that sodium plates below 0 V"),
    loss_per_cycle=Parameter(1.265e-5, "1/cycle", "chosen so that the study's endurance comes out"),
    loss_per_year=Parameter(0.01, "1/year", "chosen so that time weighs less than cycles"),
    growth_per_cycle=Parameter(5e-5, "1/cycle", "chosen so that the study's endurance comes out"),
    growth_per_year=Parameter(0.1, "1/year", "chosen so that time weighs less than cycles"),
    loss_by_growth=Parameter(5.9, "1", "chosen so that the study's endurance comes out"),
    entropy=Parameter(0.0, "V/K", "chosen so that heat is that of losses alone"),
)
