"""What every command shares: its options, its console, and how it says what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from labctl.errors import LabctlError

Result = TypeVar("Result")

out = Console(soft_wrap=False)
err = Console(stderr=True, soft_wrap=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The PC's labctl.toml. Default: ./labctl.toml, then /etc/labctl/labctl.toml.",
        show_default=False,
    ),
]


def complain(error: LabctlError) -> None:
    """Print an error for a person: what, where, what to do."""
    err.print(f"[bold red]error:[/] {_escaped(str(error))}", highlight=False)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a short piece of asynchronous work for a command."""
    return asyncio.run(work)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
