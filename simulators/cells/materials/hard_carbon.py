"""HC, hard carbon: the anode of the full cell, and the working electrode against sodium metal.

Reference study: Energy Environ. Sci. 2025, 18, 7278 (DOI 10.1039/d5ee00877h), "the study" below.
Occupancy is a share of what the carbon takes up above 0 V; 1 is full.
"""

from __future__ import annotations

from labctl.simulators.cells.materials.base import Material, Parameter, Reaction

HARD_CARBON = Material(
    name="HC",
    formula="C",
    about="hard carbon",
    reactions=(
        Reaction(0.095, 0.60, 0.8, "plateau near 0.1 V of the study"),
        Reaction(0.32, 0.22, 4.0, "chosen so that a slope leads down to the plateau"),
        Reaction(0.80, 0.18, 8.0, "chosen so that the slope begins near 1.2 V"),
    ),
    theoretical_mAh_per_g=Parameter(
        308.2, "mAh/g", "chosen so that 0.01 to 2 V at 25 mA/g gives the study's 300 mAh/g"
    ),
    made_occupancy=Parameter(0.0005, "1", "chosen so that a new electrode rests near 2 V"),
    particle_radius=Parameter(2.0e-6, "m", "chosen so that a particle is of usual size"),
    diffusivity=Parameter(1.0e-13, "m2/s", "chosen so that the full cell still works at 5C"),
    plateau_diffusivity_share=Parameter(
        0.3, "1", "chosen so that D dips on the plateau as in GITT of hard carbon"
    ),
    diffusion_activation=Parameter(30e3, "J/mol", "chosen so that it is usual for a carbon"),
    exchange_current=Parameter(
        1.5, "A/g", "chosen so that the anode adds little to the cathode's resistance"
    ),
    exchange_activation=Parameter(50e3, "J/mol", "chosen so that it is usual for insertion"),
    double_layer=Parameter(0.5, "F/g", "chosen so that 10 uF/cm2 covers 5 m2/g"),
    hysteresis=Parameter(0.005, "V", "chosen so that the plateau's gap is small"),
    hysteresis_decay=Parameter(60.0, "1", "chosen so that a reversal takes 5 % of the occupancy"),
    oxidation_current=Parameter(4.0, "A/g", "chosen so that it equals the cathodes'"),
    oxidation_potential=Parameter(4.8, "V", "oxidation of carbonate electrolyte"),
    film_current=Parameter(
        5.0, "A/g", "chosen so that the film begins to form near 1.2 V at 25 mA/g"
    ),
    film_potential=Parameter(0.9, "V", "reduction of carbonate electrolyte"),
    film_charge=Parameter(
        2.2, "mAh/g", "chosen so that the first cycle loses some 58 mAh/g and later ones little"
    ),
    plating_current=Parameter(0.5, "A/g", "chosen so that sodium plates below 0 V"),
    loss_per_cycle=Parameter(1e-5, "1/cycle", "chosen so that it is as durable as HE-V"),
    loss_per_year=Parameter(0.01, "1/year", "chosen so that time weighs less than cycles"),
    growth_per_cycle=Parameter(2e-5, "1/cycle", "chosen so that it is as durable as HE-V"),
    growth_per_year=Parameter(0.1, "1/year", "chosen so that time weighs less than cycles"),
    loss_by_growth=Parameter(0.0, "1", "chosen so that loss is steady"),
    entropy=Parameter(0.0, "V/K", "chosen so that heat is that of losses alone"),
)
