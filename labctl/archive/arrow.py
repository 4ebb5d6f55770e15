"""Samples as batches of Apache Arrow. A column says its unit in its metadata.

Every column is without nulls but the temperature, which is null where it is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labctl.archive.exports.common import unit_of
from labctl.archive.packing_files import Block
from labctl.errors import ArchiveError

if TYPE_CHECKING:
    import pyarrow as pa


def as_batch(block: Block) -> pa.RecordBatch:
    """A block of columns as a batch; a temperature that is NaN becomes null.

    Raises:
        ArchiveError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise ArchiveError("pyarrow is not installed; install labctl[parquet]") from error
    arrays, fields = [], []
    for name, column in block.items():
        may_be_unknown = name == "temperature_degC"
        arrays.append(pa.array(column, mask=np.isnan(column) if may_be_unknown else None))
        unit = {"unit": unit_of(name)}
        fields.append(pa.field(name, arrays[-1].type, nullable=may_be_unknown, metadata=unit))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
