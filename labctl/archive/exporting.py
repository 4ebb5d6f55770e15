"""Runs into files, a part at a time: a file is whole or not there.

A file is written under the name it will have with ``.part`` behind it, brought to the disk and then
renamed; what a broken-off export left is written anew by the next.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

import pandas as pd

from labctl.archive.exports import FORMATS
from labctl.archive.exports.common import Format, Head
from labctl.archive.headers import RunHeader
from labctl.errors import ArchiveError

if TYPE_CHECKING:
    from labctl.archive.queries import Archive

What = Literal["samples", "cycles", "steps"]
Progress = Callable[[str, int, int], None]
"""Told the run, how many of its rows are written, and how many there are."""

ROWS_AT_ONCE = 100_000


def format_named(name: str | None, path: Path) -> Format:
    """A format by its name, or by how a file's name ends.

    Raises:
        ArchiveError: there is no such format.
    """
    if name is not None:
        if name not in FORMATS:
            raise ArchiveError(f"there is no format {name!r}; there are {', '.join(FORMATS)}")
        return FORMATS[name]
    fitting = [each for each in FORMATS.values() if path.name.endswith(each.suffix)]
    if not fitting:
        raise ArchiveError(
            f"{path.name!r} does not end like a file of any format; "
            f"name one of {', '.join(FORMATS)}"
        )
    return max(fitting, key=lambda each: len(each.suffix))


def files_of(
    runs: Sequence[str], to: Path, kind: Format, what: Sequence[What]
) -> dict[tuple[str, What], Path]:
    """Where each table goes: into the file ``to``, or into the folder ``to`` if there are several.

    Raises:
        ArchiveError: several tables and a file, or a format that has no place for them.
    """
    if kind.samples_only and set(what) != {"samples"}:
        raise ArchiveError(f"a file {kind.suffix} holds samples, and nothing else")
    if len(runs) * len(what) == 1 and not to.is_dir():
        return {(runs[0], what[0]): to}
    if to.exists() and not to.is_dir():
        raise ArchiveError(f"{to} is a file; several tables need a folder")
    return {
        (run, each): to / f"{_plain(run)}{'' if each == 'samples' else '.' + each}{kind.suffix}"
        for run in runs
        for each in what
    }


def export_table(
    archive: Archive,
    run: str,
    what: What,
    to: Path | TextIO,
    kind: Format,
    *,
    remarks: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write one table of one run, into a file that is whole or not there, or onto an open one.

    Raises:
        ArchiveError: no such run, or the file cannot be written.
    """
    header = archive.header(run)
    parts = _parts(archive, run, what)
    first = next(parts)
    count = header.present.count if what == "samples" else len(first)
    head = Head(empty=first.iloc[:0], said=said_of(header), with_remarks=remarks)
    done = 0
    try:
        with whole_file(to) if isinstance(to, Path) else contextlib.nullcontext(to) as part:
            with contextlib.closing(kind.writer(part, head)) as writer:
                for rows in itertools.chain([first], parts):
                    if len(rows):
                        writer.write(rows)
                    done += len(rows)
                    if progress is not None:
                        progress(run, done, count)
    except OSError as error:
        name = to if isinstance(to, Path) else "what was asked for"
        raise ArchiveError(f"{name} cannot be written: {error.strerror or error}") from error


def said_of(header: RunHeader) -> dict[str, str]:
    """What a file says of its run."""
    values = {
        "run": header.run_id,
        "cell": header.cell,
        "recipe": header.recipe_name,
        "instrument": header.instrument,
        "channel": header.channel,
        "active_mass_g": header.active_mass_g,
        "one_C_mA_per_g": header.one_C_mA_per_g,
        "created_unix_s": header.created_unix_s,
        "ended_unix_s": header.ended_unix_s,
        "outcome": header.outcome,
        "labctl_version": header.labctl_version,
        "sign": "current and charge are positive for charging",
    }
    return {name: _one_line(value) for name, value in values.items() if value is not None}


def _parts(archive: Archive, run: str, what: What) -> Iterator[pd.DataFrame]:
    """The table in parts; there is at least one, which may be empty."""
    if what == "cycles":
        yield archive.cycles(run).reset_index()
        return
    if what == "steps":
        yield archive.steps(run).reset_index()
        return
    some = False
    for frame in archive.iter_samples(run, rows=ROWS_AT_ONCE):
        some = True
        yield frame.reset_index()
    if not some:
        yield archive.samples(run, cycle=()).reset_index()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what is written is on the disk under ``path`` afterwards, or not there.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _plain(run: str) -> str:
    """A run's name as a file's."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in run)
