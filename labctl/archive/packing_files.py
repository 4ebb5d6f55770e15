"""The samples of one run in one Parquet file: written once, read in parts, every part checked.

The columns are those of the table ``samples``, each with its unit, sorted by ``seq``; what the run
was stands in the schema's metadata. A row group begins where a cycle begins, if that leaves it
between 50,000 and 200,000 rows: one cycle is read without most of the file. Floats are split by
bytes and compressed by zstd, which halves what they take.

The archive keeps a CRC-32 of the file's footer and of each of its row groups: a part of the file
is read only where its own sum agrees, so that the last cycle of a large run is asked for without
reading all of it.

Apache Parquet format 2.10, "File format" (footer) and "Encodings" (BYTE_STREAM_SPLIT).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS

ROWS_AT_LEAST = 50_000
ROWS_AT_MOST = 200_000
TAIL_B = 8
"""The length of the footer, and the magic."""
_AT_ONCE_B = 1 << 20

Block = dict[str, np.ndarray[Any, Any]]
Bounds = Mapping[str, Sequence[tuple[float, float]]]
"""Of a column: the values that are asked for lie in one of these, ends included."""

_INT4 = ("run_number", "cycle", "step", "visit")


@dataclass(frozen=True, slots=True)
class Sums:
    """What a file is known by: its size, its SHA-256, and the CRC-32 of its footer and row groups.

    crc32: hexadecimal, the footer's first, with blanks between.
    """

    size_B: int
    sha256: str
    crc32: str


class ColumnSums:
    """SHA-256 of every column of samples that pass, in order, and how many they are."""

    def __init__(self) -> None:
        self.rows = 0
        self._hashes = {name: hashlib.sha256() for name in RECORD_COLUMNS}

    def passing(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks."""
        for block in blocks:
            self.rows += len(block["seq"])
            for name, kind in RECORD_COLUMNS.items():
                self._hashes[name].update(np.ascontiguousarray(block[name], dtype=kind).data)
            yield block

    def differing(self, other: ColumnSums) -> list[str]:
        """The columns that are not the same in both."""
        return [
            name
            for name, sum_ in self._hashes.items()
            if sum_.digest() != other._hashes[name].digest()
        ]


def write_samples(
    path: Path, run_number: int, blocks: Iterable[Block], said: Mapping[str, str]
) -> None:
    """Write the samples of a run, in the order of ``seq``, into ``path``.

    Raises:
        ArchiveError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    from labctl.archive.exports.common import unit_of

    pa, parquet = _pyarrow()
    schema = pa.schema(
        [
            pa.field(
                name,
                pa.int32() if name in _INT4 else pa.int64() if name == "seq" else pa.float64(),
                nullable=name == "temperature_degC",
                metadata={"unit": unit_of(name)},
            )
            for name in ("run_number", *RECORD_COLUMNS)
        ],
        metadata={f"labctl.{name}": value for name, value in said.items()},
    )
    split = {
        field.name: "BYTE_STREAM_SPLIT" if pa.types.is_floating(field.type) else
        "DELTA_BINARY_PACKED"
        for field in schema
    }  # fmt: skip
    with parquet.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=False, column_encoding=split,
        sorting_columns=[parquet.SortingColumn(schema.names.index("seq"))],
    ) as file:  # fmt: skip
        for group in _groups(blocks):
            rows = len(group["seq"])
            arrays = [pa.array(np.full(rows, run_number, dtype=np.int32))]
            for name in RECORD_COLUMNS:
                unknown = np.isnan(group[name]) if name == "temperature_degC" else None
                arrays.append(pa.array(group[name], mask=unknown).cast(schema.field(name).type))
            file.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=rows)


def sums_of(path: Path) -> Sums:
    """Read all of a file that was written just now, past the system's memory where that can be.

    Raises:
        ArchiveError: it is not Parquet, or pyarrow is not installed.
        OSError: it cannot be read.
    """
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size_B = os.fstat(file.fileno()).st_size
        while piece := file.read(_AT_ONCE_B):
            sha256.update(piece)
        footer_at = _footer_at(file.fileno(), size_B)
        groups = _places_of_groups(_metadata(path), footer_at)
        crc32 = [_crc32(file.fileno(), first, end) for first, end in [(footer_at, size_B), *groups]]
    return Sums(size_B, sha256.hexdigest(), " ".join(f"{crc:08x}" for crc in crc32))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a whole file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_samples(
    path: Path, size_B: int, crc32: str, columns: Sequence[str], bounds: Bounds
) -> Iterator[Block]:
    """Samples in the order of ``seq``: those of every row group that may hold some within bounds.

    What is not known is NaN. A row group comes whole: the caller leaves out the rest of it.

    Args:
        size_B, crc32: as :class:`Sums` has them.
        columns: names of :data:`labctl.model.RECORD_COLUMNS`, each once.

    Raises:
        DamagedError: the file, or the part of it that is asked for, is not what was written.
        ArchiveError: pyarrow is not installed.
        OSError: it cannot be read.
    """
    pa, parquet = _pyarrow()
    sums = [int(word, 16) for word in crc32.split()]
    with contextlib.ExitStack() as open_files:
        file = open_files.enter_context(path.open("rb"))
        found_B = os.fstat(file.fileno()).st_size
        if found_B != size_B:
            raise DamagedError(f"it has {found_B} bytes and was written with {size_B}")
        footer_at = _footer_at(file.fileno(), size_B)
        if _crc32(file.fileno(), footer_at, size_B) != sums[0]:
            raise DamagedError("its footer is not what was written")
        try:
            table = open_files.enter_context(parquet.ParquetFile(path))
            groups = _places_of_groups(table.metadata, footer_at)
            for number, (first, end) in enumerate(groups):
                if not _may_hold(table.metadata.row_group(number), bounds):
                    continue
                if _crc32(file.fileno(), first, end) != sums[1 + number]:
                    raise DamagedError(f"bytes {first} to {end} of it are not what was written")
                found = table.read_row_group(number, columns=list(columns))
                yield {
                    name: found.column(name).to_numpy().astype(RECORD_COLUMNS[name], copy=False)
                    for name in columns
                }
        except pa.ArrowException as error:
            raise DamagedError(f"it cannot be understood: {error}") from error


class DamagedError(Exception):
    """A file of samples is not what was written; says what of it."""


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ArchiveError(
            "packed runs are Parquet and pyarrow is not installed; install labctl[parquet]"
        ) from error
    return pa, parquet


def _metadata(path: Path) -> Any:  # noqa: ANN401
    pa, parquet = _pyarrow()
    try:
        return parquet.read_metadata(path)
    except pa.ArrowException as error:
        raise ArchiveError(f"{path} is not Parquet: {error}") from error


def _groups(blocks: Iterable[Block]) -> Iterator[Block]:
    """The rows cut anew into row groups, which begin with a cycle where they can."""
    waiting: list[Block] = []
    count = 0
    for block in itertools.chain(blocks, [None]):
        if block is not None:
            waiting.append(block)
            count += len(block["seq"])
        while count >= ROWS_AT_MOST or (block is None and count):
            whole = {name: np.concatenate([one[name] for one in waiting]) for name in waiting[0]}
            cut = _cut(whole["cycle"])
            yield {name: column[:cut] for name, column in whole.items()}
            waiting = [{name: column[cut:] for name, column in whole.items()}]
            count -= cut


def _cut(cycle: np.ndarray[Any, Any]) -> int:
    """How many of the rows make the next group."""
    begins = np.flatnonzero(np.diff(cycle[:ROWS_AT_MOST])) + 1
    later = begins[np.searchsorted(begins, ROWS_AT_LEAST) :]
    return int(later[0]) if len(later) else min(len(cycle), ROWS_AT_MOST)


def _footer_at(file: int, size_B: int) -> int:
    length = int.from_bytes(os.pread(file, TAIL_B, max(0, size_B - TAIL_B))[:4], "little")
    return max(0, size_B - TAIL_B - length)


def _places_of_groups(metadata: Any, footer_at: int) -> list[tuple[int, int]]:  # noqa: ANN401
    """From and to (exclusive) of each row group in the file; all that is not footer is in one."""
    starts = [
        min(
            metadata.row_group(number).column(place).data_page_offset
            for place in range(metadata.num_columns)
        )
        for number in range(metadata.num_row_groups)
    ]
    if starts:
        starts[0] = 0
    return list(itertools.pairwise([*starts, footer_at]))


def _crc32(file: int, first: int, end: int) -> int:
    crc = 0
    while first < end and (piece := os.pread(file, min(_AT_ONCE_B, end - first), first)):
        crc = zlib.crc32(piece, crc)
        first += len(piece)
    return crc


def _may_hold(group: Any, bounds: Bounds) -> bool:  # noqa: ANN401
    if not bounds:
        return True
    ranges: dict[str, tuple[float, float]] = {}
    for place in range(group.num_columns):
        column = group.column(place)
        if column.path_in_schema in bounds and column.statistics.has_min_max:
            ranges[column.path_in_schema] = (column.statistics.min, column.statistics.max)
    return all(
        any(low <= ranges[name][1] and high >= ranges[name][0] for low, high in pieces)
        for name, pieces in bounds.items()
        if name in ranges
    )
