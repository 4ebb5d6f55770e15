"""What every command shares: its options, its console, and how it says what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from labctl.errors import ConfigError, Problem

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


def complain(error: Exception) -> None:
    """Print an error for a person: what, where, what to do."""
    err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a short piece of asynchronous work for a command."""
    return asyncio.run(work)


def read_text(path: Path, *, longest_B: int = 1024 * 1024) -> str:
    """The text of a file that a person named.

    Raises:
        ConfigError: it cannot be read, is too long, or is not text.
    """
    try:
        if path.stat().st_size > longest_B:
            message = f"is longer than {longest_B >> 10} KiB: is it the right file?"
            raise ConfigError([Problem(message, file=str(path))])
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([Problem(f"cannot be read: {reason}", file=str(path))]) from error
    except UnicodeDecodeError as error:
        message = f"is not text in UTF-8 (byte {error.start})"
        raise ConfigError([Problem(message, file=str(path))]) from error
