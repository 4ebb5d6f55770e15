"""DataFrames whose columns have the same types whatever is in them, and if nothing is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pandas as pd
from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, Table, Text

TEXT = pd.StringDtype(na_value=np.nan)


def typed(frame: pd.DataFrame, *tables: Table, words: Iterable[str] = ()) -> pd.DataFrame:
    """The frame with columns as the tables of the schema declare them, the first that has a name.

    Whole numbers are int64, or Int64 where they may be unknown; yes and no is boolean, text is
    text, and all else float64, which is what views reckon.

    Args:
        words: texts of which there are few different ones, as categories.
    """
    kinds = {str(name): _dtype(str(name), tables) for name in frame.columns}
    kinds |= {name: "category" for name in words if name in kinds}
    kept = {name: kind for name, kind in kinds.items() if kind is not None}
    for name, kind in kept.items():
        frame[name] = frame[name].astype(cast("Any", kind))
    return frame


def utc(unix_s: pd.Series) -> pd.Series:
    """Seconds since 1970 as times of UTC; NaT where unknown."""
    return pd.to_datetime(unix_s.astype("float64"), unit="s", utc=True).astype(
        "datetime64[ns, UTC]"
    )


def _dtype(name: str, tables: Iterable[Table]) -> object:
    column: Column[object] | None = next(
        (table.c[name] for table in tables if name in table.c), None
    )
    if column is None or isinstance(column.type, Double):
        return np.dtype("float64")
    if isinstance(column.type, Boolean):
        return pd.BooleanDtype()
    if isinstance(column.type, (Integer, BigInteger)):
        return pd.Int64Dtype() if column.nullable else np.dtype("int64")
    return TEXT if isinstance(column.type, Text) else None
