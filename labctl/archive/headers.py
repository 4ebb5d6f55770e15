"""What the archive says of a run beside its samples."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields

from sqlalchemy import Connection, select

from labctl.archive.schema import runs
from labctl.archive.spans import Spans
from labctl.errors import ArchiveError


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What is said of a run beside its samples.

    present: the numbers of the samples that the archive has.
    """

    run_number: int
    run_id: str
    cell: str | None
    recipe_name: str | None
    instrument: str | None
    channel: str | None
    active_mass_g: float | None
    one_C_mA_per_g: float | None
    created_unix_s: float | None
    ended_unix_s: float | None
    outcome: str | None
    labctl_version: str | None
    present: Spans


def read_header(connection: Connection, run: str) -> RunHeader:
    """What is said of a run beside its samples.

    Raises:
        ArchiveError: no such run; the message names those of the most alike names.
    """
    row = connection.execute(select(runs).where(runs.c.run_id == run)).mappings().one_or_none()
    if row is None:
        names = connection.execute(select(runs.c.run_id)).scalars().all()
        near = difflib.get_close_matches(run, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ArchiveError(f"there is no run {run!r} in the archive{hint}")
    there = Spans.parse(row["committed_seq"])
    set_aside = Spans.parse(row["quarantined_seq"])
    present = Spans(piece for first, last in there for piece in set_aside.holes(first, last))
    names_of_fields = [each.name for each in fields(RunHeader) if each.name != "present"]
    return RunHeader(**{name: row[name] for name in names_of_fields}, present=present)
