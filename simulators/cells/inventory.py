"""Where a cell's sodium and charge are; what an electrode takes along into another cell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ElectrodeInventory:
    """One electrode's pools, in Ah of charge or of sodium.

    sodium_Ah: in active material; isolated_Ah: in lost material; plated_Ah: as metal on it.
    film_Ah: charge that went into its film; oxidised_Ah: charge that oxidised electrolyte.
    double_layer_Ah: capacitance times potential. For sodium metal only the last is kept.
    """

    inserts: bool
    occupancy: float
    active_share: float
    sodium_Ah: float
    isolated_Ah: float
    plated_Ah: float
    film_Ah: float
    oxidised_Ah: float
    double_layer_Ah: float
    potential_V: float

    @property
    def oxidation_Ah(self) -> float:
        """Grows by the charge that passes through the electrode, whatever it does there."""
        return (
            self.double_layer_Ah
            + self.oxidised_Ah
            - self.sodium_Ah
            - self.isolated_Ah
            - self.plated_Ah
            - self.film_Ah
        )

    @property
    def sodium_in_all_forms_Ah(self) -> float:
        """Sodium active, isolated, plated and in the film."""
        return self.sodium_Ah + self.isolated_Ah + self.plated_Ah + self.film_Ah


@dataclass(frozen=True, slots=True)
class Inventory:
    """Both electrodes, and the charge that passed since assembly, positive for charging.

    The two charges differ by what an internal short passed.
    """

    positive: ElectrodeInventory
    negative: ElectrodeInventory
    through_terminals_Ah: float
    through_cell_Ah: float
