"""Runs of the archive as files: a format is one file here and one line in :data:`FORMATS`."""

from __future__ import annotations

from labctl.archive.exports.bdf import BdfWriter
from labctl.archive.exports.common import Format
from labctl.archive.exports.csv_files import CsvWriter
from labctl.archive.exports.parquet import ParquetWriter

FORMATS: dict[str, Format] = {
    "csv": Format(".csv", CsvWriter, "a line a row, units in the head (RFC 4180)"),
    "parquet": Format(".parquet", ParquetWriter, "columns with units, compressed; needs pyarrow"),
    "bdf": Format(".bdf.csv", BdfWriter, "Battery Data Format, samples alone", samples_only=True),
}
