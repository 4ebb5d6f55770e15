"""``labctl``: one command for technicians, scientists and administrators."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from labctl import __version__
from labctl.cli import (
    alarms,
    archive,
    cells,
    convert,
    demo,
    init,
    instruments,
    recipe,
    runs,
    services,
    simulate,
)
from labctl.cli.common import complain
from labctl.errors import LabctlError

app = typer.Typer(
    name="labctl",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Run an electrochemistry laboratory: recipes on instruments, every reading kept, "
    "retention watched live.",
)
recipe.app.command()(convert.convert)
app.add_typer(recipe.app, name="recipe")
app.add_typer(cells.app, name="cell")
app.add_typer(runs.app, name="run")
app.add_typer(instruments.app, name="instruments")
app.add_typer(alarms.app, name="alarms")
app.add_typer(archive.app, name="archive")
app.add_typer(simulate.app, name="simulate")
app.command()(runs.status)
app.command()(runs.signal)
app.command()(services.up)
app.command()(services.daemon)
app.command()(services.broker)
app.command()(init.init)
app.command()(demo.demo)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"labctl {__version__}")
        raise typer.Exit


@app.callback()
def labctl(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Run an electrochemistry laboratory: recipes on instruments, every reading kept."""


def main() -> None:
    """Run the command line; an error that labctl foresaw is one clear message and exit code 1."""
    try:
        app()
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (LabctlError, OSError) as error:
        complain(error)
        sys.exit(1)
