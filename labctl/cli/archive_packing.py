"""``labctl archive pack``, ``unpack`` and ``tidy``: old runs into files, and away by policy."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labctl.cli.common import ConfigOption, err, out

if TYPE_CHECKING:
    from labctl.archive.packing import Done, Packing
    from labctl.archive.packing_policy import Policy

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="sqlite:///file.db or postgresql://user@host/database. Default: the configuration's.",
        show_default=False,
    ),
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--to",
        help="The folder for packed runs. Default: packed_dir of the configuration, or the folder "
        "beside an SQLite file.",
        show_default=False,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
]
VacuumOption = Annotated[
    bool,
    typer.Option(
        "--vacuum",
        help="SQLite: give the freed space back to the disk. Writes the whole file anew; nothing "
        "is committed meanwhile.",
    ),
]


def pack(
    context: typer.Context,
    runs: Annotated[
        list[str] | None, typer.Argument(help="The runs, as 'labctl status' names them.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(help="Every run that ended so long ago: '90 d'.", show_default=False),
    ] = None,
    dry_run: DryRunOption = False,
    vacuum: VacuumOption = False,
    to: FolderOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Move the readings of ended runs out of the database into a Parquet file each.

    They are read as before. A run that is not complete is left alone, and said so.
    """
    from labctl.archive.packing_policy import age_s
    from labctl.errors import ArchiveError

    chosen = list(dict.fromkeys(runs or []))
    if not chosen and older_than is None:
        raise ArchiveError("name the runs to pack, or say --older-than '90 d'")
    failed = False
    with _packing(config or context.obj, url, to, settle=not dry_run) as at_work:
        if older_than is not None:
            ready, not_ready = at_work.ready(age_s(older_than))
            chosen += [run for run in ready if run not in chosen]
            _print(not_ready)
        for run in chosen:
            if dry_run:
                samples, reason = at_work.look(run)
                would = f"not packed: {reason}" if reason else f"{samples} samples would be packed"
                say(f"{run}: {would}")
                failed = failed or bool(reason)
                continue
            try:
                say(str(at_work.pack(run)))
            except ArchiveError as error:
                failed = True
                err.print(f"{run}: {error}", highlight=False, markup=False)
        if vacuum and not dry_run:
            at_work.vacuum()
        failed = failed or bool(at_work.troubles)
    if failed:
        raise typer.Exit(1)


def unpack(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="The runs, as 'labctl status' names them.")],
    to: FolderOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Put the readings of packed runs back into the database."""
    with _packing(config or context.obj, url, to) as at_work:
        for run in dict.fromkeys(runs):
            say(str(at_work.unpack(run)))


def tidy(
    context: typer.Context,
    dry_run: DryRunOption = False,
    vacuum: VacuumOption = False,
    to: FolderOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Do what pack_after and raw_kept_for under [archive] say: pack old runs, and delete the
    readings of very old ones. Without them it only finishes what was broken off."""
    where = config or context.obj
    policy = _policy(where)
    with _packing(where, url, to, settle=not dry_run) as at_work:
        _print(at_work.tidy(policy, dry_run=dry_run))
        if vacuum and not dry_run:
            at_work.vacuum()
        failed = bool(at_work.troubles)
    if failed:
        raise typer.Exit(1)


def say(line: str) -> None:
    """A line for a person or a log, whatever is in it, in one piece."""
    out.print(line, highlight=False, markup=False, soft_wrap=True)


def _print(done: Iterator[Done] | list[Done]) -> None:
    for one in done:
        say(str(one))


def _policy(config: Path | None) -> Policy:
    from labctl.settings import load_settings

    return load_settings(config).archive.policy


@contextlib.contextmanager
def _packing(
    config: Path | None, url: str | None, folder: Path | None, *, settle: bool = True
) -> Iterator[Packing]:
    from labctl.archive.packing import Packing

    if url is None:
        from labctl.settings import load_settings

        found = load_settings(config)
        url = found.archive_url
        folder = folder or found.packed_dir
    with Packing(url, actor=getpass.getuser(), folder=folder, settle=settle) as at_work:
        for trouble in at_work.troubles:
            err.print(trouble, highlight=False, markup=False)
        yield at_work
