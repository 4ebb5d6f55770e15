"""What a simulated cell is made of, as a configuration file can say it."""

from __future__ import annotations

import math

import msgspec


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wrong with a cell beyond its material's own ageing; the defaults are a sound cell.

    fade_per_cycle: extra share of active material lost per full equivalent cycle.
    resistance_per_cycle: extra growth of the charge-transfer resistance per full equivalent cycle.
    short_ohm: an internal short across the terminals.
    contact_ohm: a bad contact, in series.
    """

    fade_per_cycle: float = 0.0
    resistance_per_cycle: float = 0.0
    short_ohm: float = math.inf
    contact_ohm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fade_per_cycle", "resistance_per_cycle", "contact_ohm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"faults.{name} must be a finite number, 0 or above, not {value}")
        if not self.short_ohm > 0.0:
            raise ValueError(f"faults.short_ohm must be above 0, not {self.short_ohm}")


class Anode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The counter electrode of a full cell and what it brings from its life before assembly.

    material: a name in MATERIALS; ``active_mass_g`` is its mass.
    sodium_mAh_per_g: sodium in it at assembly, per gram of its material.
    film_mAh_per_g: charge that already went into its film (SEI); 0 is a new electrode.
    """

    material: str = "HC"
    active_mass_g: float
    sodium_mAh_per_g: float = 0.0
    film_mAh_per_g: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.active_mass_g) and self.active_mass_g > 0.0):
            raise ValueError(f"anode.active_mass_g must be above 0, not {self.active_mass_g}")
        for name in ("sodium_mAh_per_g", "film_mAh_per_g"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"anode.{name} must be a finite number, 0 or above, not {value}")


class CellSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cell to simulate. The same spec gives the same cell, to the bit.

    material: of the electrode at the positive terminal, a name in MATERIALS; ``active_mass_g`` is
        its mass.
    anode: the counter electrode of a full cell; without it the counter electrode is sodium metal.
    seed, scatter: cell-to-cell scatter in capacity, resistance and diffusion; 0 is nominal.
    """

    name: str
    material: str
    active_mass_g: float
    seed: int = 0
    scatter: float = 1.0
    faults: Faults = Faults()
    anode: Anode | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.active_mass_g) and self.active_mass_g > 0.0):
            raise ValueError(f"active_mass_g must be above 0, not {self.active_mass_g}")
        if not (math.isfinite(self.scatter) and 0.0 <= self.scatter <= 10.0):
            raise ValueError(f"scatter must lie between 0 and 10, not {self.scatter}")
