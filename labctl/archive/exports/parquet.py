"""Parquet, compressed by zstd: units in the metadata of the columns, the run's in the schema's.

Samples are sorted by ``seq``, and the file says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from labctl.archive.exports.common import Head, unit_of
from labctl.errors import ArchiveError


class ParquetWriter:
    """See :class:`labctl.archive.exports.common.Writer`.

    Raises:
        ArchiveError: pyarrow is not installed, or no file is named.
    """

    def __init__(self, to: Path | TextIO, head: Head) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise ArchiveError("pyarrow is not installed; install labctl[parquet]") from error
        if not isinstance(to, Path):
            raise ArchiveError("Parquet is no text: name a file")
        self._pa: Any = pa
        plain = pa.Schema.from_pandas(head.empty, preserve_index=False)
        self._schema = pa.schema(
            [_with_unit(plain.field(name), pa) for name in plain.names],
            metadata={f"labctl.{name}": value for name, value in head.said.items()},
        )
        sorting = (
            [parquet.SortingColumn(plain.names.index("seq"))] if "seq" in plain.names else None
        )
        self._file = parquet.ParquetWriter(
            to, self._schema, compression="zstd", sorting_columns=sorting
        )

    def write(self, part: pd.DataFrame) -> None:
        batch = self._pa.RecordBatch.from_pandas(part, schema=self._schema, preserve_index=False)
        self._file.write_batch(batch)

    def close(self) -> None:
        self._file.close()


def _with_unit(field: Any, pa: Any) -> Any:  # noqa: ANN401
    kind = pa.string() if pa.types.is_null(field.type) else field.type
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind):
        kind = pa.string()
    return pa.field(field.name, kind, metadata={"unit": unit_of(field.name)})
