"""Battery Data Format: CSV whose columns and units are named as the Battery Data Alliance does.

A visit to a step counts as a step: BDF's step count goes up at every entry. Temperature is that of
the cell's own sensor. Current is positive for charging, charge and energy are net since the start,
as here.

Battery Data Alliance, battery-data-format ontology, preferred labels (batterydf 0.1.0).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pandas as pd

from labctl.archive.exports.common import Head
from labctl.archive.exports.csv_files import CsvWriter

LABELS = {
    "test_time_s": "Test Time / s",
    "voltage_V": "Voltage / V",
    "current_A": "Current / A",
    "unix_time_s": "Unix Time / s",
    "cycle": "Cycle Count / 1",
    "visit": "Step Count / 1",
    "charge_Ah": "Net Capacity / Ah",
    "energy_Wh": "Net Energy / Wh",
    "temperature_degC": "Surface Temperature T1 / degC",
}


class BdfWriter:
    """See :class:`labctl.archive.exports.common.Writer`."""

    def __init__(self, to: Path | TextIO, head: Head) -> None:
        # BDF has no remarks: what a file begins with is its head.
        self._file = CsvWriter(to, replace(head, empty=_labelled(head.empty), with_remarks=False))

    def write(self, part: pd.DataFrame) -> None:
        self._file.write(_labelled(part))

    def close(self) -> None:
        self._file.close()


def _labelled(part: pd.DataFrame) -> pd.DataFrame:
    return part[list(LABELS)].rename(columns=LABELS)
