"""Recipes on disk: those that come with labctl, and the files beside a recipe that it includes."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from labctl.errors import Problem, RecipeError
from labctl.protocols.includes import Load, no_such_recipe
from labctl.protocols.source import LARGEST_BYTES
from labctl.units import nearest


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with labctl, by name."""
    folder = importlib.resources.files("labctl.protocols") / "recipes"
    files = [Path(str(file)) for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {file.stem: file for file in sorted(files)}


def template_text() -> str:
    """What a new recipe begins with."""
    template = importlib.resources.files("labctl.protocols") / "template.yaml"
    return template.read_text(encoding="utf-8")


def find_recipe(name: str) -> Path:
    """The file that a person names, or the shipped recipe of that name; it may not exist."""
    path, shipped = Path(name), shipped_recipes()
    if not path.exists() and name.removesuffix(".yaml") in shipped:
        return shipped[name.removesuffix(".yaml")]
    return path


def read_text(path: Path, *, called: str = "") -> str:
    """The text of a recipe's file, at most one byte more than a recipe may have.

    Args:
        path: the file.
        called: as what a person named it, if not by ``path``.

    Raises:
        RecipeError: there is no such file, or it cannot be read.
    """
    called = called or str(path)
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST_BYTES + 1).decode("utf-8")
    except FileNotFoundError:
        better = nearest(Path(called).stem, shipped_recipes())
        hint = f"did you mean the shipped recipe '{better}'?" if better else ""
        problem = Problem("there is no such file or shipped recipe", called, suggestion=hint)
        raise RecipeError([problem]) from None
    except OSError as error:
        raise RecipeError([Problem(f"cannot be read: {error.strerror}", called)]) from None
    except UnicodeDecodeError as error:
        problem = Problem(
            f"byte {error.start + 1} is not UTF-8 text", called, suggestion="save it as UTF-8"
        )
        raise RecipeError([problem]) from None


def file_loader(path: Path) -> Load:
    """Finds the recipes that the recipe in ``path`` includes: beside it, else among the shipped.

    Only a name without a folder is looked for among the shipped ones.
    """

    def load(name: str) -> str:
        shipped = shipped_recipes()
        file = path.parent / name
        if not file.is_file() and "/" not in name and Path(name).stem in shipped:
            file = shipped[Path(name).stem]
        if not file.exists():
            beside = {found.stem for found in file.parent.glob("*.y*ml")} - {path.stem}
            known = beside if "/" in name else {*beside, *shipped}
            message, suggestion = no_such_recipe(name, sorted(known))
            raise RecipeError([Problem(message, suggestion=suggestion)])
        try:
            return read_text(file, called=name)
        except RecipeError as error:
            what = error.problems[0]
            raise RecipeError(
                [Problem(f"'{name}': {what.message}", suggestion=what.suggestion)]
            ) from None

    return load
