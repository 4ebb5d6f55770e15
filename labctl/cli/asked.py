"""What a person asked for on the command line, as values: recipes, channels, parameters, times."""

from __future__ import annotations

import datetime as dt
import re
import time
from pathlib import Path

import typer

_LATER = re.compile(r"\+\s*([0-9]+(?:\.[0-9]+)?)\s*(s|min|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def find_recipe(recipe: str) -> Path:
    """A recipe's file, or a shipped recipe by name."""
    from labctl.protocols.recipe import shipped_recipes

    path = Path(recipe)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if recipe in shipped:
        return shipped[recipe]
    raise typer.BadParameter(
        f"no file {recipe!r}, and no shipped recipe of that name: there are {', '.join(shipped)}",
        param_hint="RECIPE",
    )


def included_texts(text: str, path: Path) -> dict[str, str]:
    """The texts of the recipes that a recipe includes, by the names that it includes them by."""
    from labctl.protocols.recipe import file_loader, read_recipe

    return dict(read_recipe(text, file=str(path), load=file_loader(path)).included)


def parse_channel(channel: str) -> tuple[str, str]:
    """Instrument and channel of ``INSTRUMENT/CHANNEL``."""
    instrument, slash, own_channel = channel.partition("/")
    if not (slash and instrument and own_channel):
        raise typer.BadParameter(
            f"{channel!r} is not INSTRUMENT/CHANNEL; 'labctl status' lists them",
            param_hint="--channel",
        )
    return instrument, own_channel


def parse_parameters(pairs: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` pairs."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--set")
        found[name.strip()] = value.strip()
    return found


def moment_of(text: str) -> float:
    """A moment in seconds since 1970 UTC: ``+90min`` from now, or a date and time.

    A time without a zone is this PC's local time.
    """
    later = _LATER.fullmatch(text.strip())
    if later:
        return time.time() + float(later[1]) * _SECONDS[later[2]]
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no moment: write for example '2026-03-01 08:00' or '+90min'",
            param_hint="--at",
        ) from None
    return moment.astimezone().timestamp()
