"""What the configuration says of an instrument, and what kind of driver that makes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard

from labctl.drivers.base import Chamber, Driver, Sequencer, Source
from labctl.settings import Settings

NODES_OWN = frozenset({"driver", "time", "chamber"})
"""Keys of an instrument in the configuration that are not its driver's."""


def drivers_own(settings: Settings, options: Mapping[str, object]) -> dict[str, object]:
    """Of an instrument's keys in the configuration those that are its driver's, with the paths of
    its folders made absolute."""
    return {
        key: str(settings.base / str(value)) if key.endswith("_dir") else value
        for key, value in options.items()
        if key not in NODES_OWN
    }


def runs_recipes(driver: Driver) -> TypeGuard[Sequencer | Source]:
    """Whether recipes can be run on it at all."""
    return hasattr(driver, "refusals")


def is_chamber(driver: Driver) -> TypeGuard[Chamber]:
    return hasattr(driver, "set_temperature")
