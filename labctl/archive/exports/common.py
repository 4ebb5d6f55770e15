"""What every format has: a writer that takes tables part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

import pandas as pd


class Writer(Protocol):
    """Takes the parts of one table in order, all of the same columns."""

    def write(self, part: pd.DataFrame) -> None: ...

    def close(self) -> None:
        """Everything is on its way to the disk afterwards."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is known before the first row.

    empty: the table without rows, which has its columns and their types.
    said: of the run, for formats that have a place for it, and for CSV if it is asked for.
    """

    empty: pd.DataFrame
    said: Mapping[str, str]
    with_remarks: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """How files of a format end, and who writes them.

    samples_only: it has no place for cycles and steps.
    """

    suffix: str
    writer: Callable[[Path | TextIO, Head], Writer]
    about: str
    samples_only: bool = False


UNITS = {
    "V": "V", "A": "A", "s": "s", "Ah": "Ah", "Wh": "Wh", "degC": "degC", "g": "g", "Hz": "Hz",
    "ohm": "ohm", "mAh_g": "mAh/g", "Wh_kg": "Wh/kg", "mA_per_g": "mA/g",
}  # fmt: skip


def unit_of(name: str) -> str:
    """The unit that ends a column's name; '1' if there is none.

    >>> unit_of("charge_mAh_g"), unit_of("voltage_V"), unit_of("cycle")
    ('mAh/g', 'V', '1')
    """
    words = name.split("_")
    endings = ("_".join(words[place:]) for place in range(1, len(words)))
    return next((UNITS[ending] for ending in endings if ending in UNITS), "1")
