"""Recipes that include others: where their texts come from, and how they are kept together.

An included recipe has one name in the whole of a recipe: its path from the recipe's own folder,
with '/' between its parts. A bundle is the recipe's text with the texts of all that it includes
after it, each under a comment line with its name; reading a bundle needs no other file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeAlias

from labctl.errors import RecipeError
from labctl.protocols.parameters import Parameter, read_parameters
from labctl.protocols.source import Budget, Problems, Text, normal_text, read_source, shortened
from labctl.protocols.source import Mapping as Group
from labctl.units import nearest

MOST_INCLUDED = 20
DEEPEST_INCLUDE = 5
_SUFFIXES = (".yaml", ".yml")
_MARK = re.compile(r"^# --- included recipe: (\S.*\S) ---\r?\n", re.MULTILINE)

Load: TypeAlias = Callable[[str], str]
"""The text of an included recipe by its name.

Raises:
    RecipeError: there is none, or it cannot be read.
    LookupError, OSError: there is none.
"""


@dataclass(frozen=True, slots=True)
class Included:
    """An included recipe as far as it is the same wherever it is included."""

    name: str
    root: Group
    parameters: dict[str, Parameter]


@dataclass(slots=True)
class Library:
    """The texts of one recipe and of all that it includes; each is read once."""

    problems: Problems
    load: Load | None = None
    budget: Budget = field(default_factory=Budget)
    texts: dict[str, str] = field(default_factory=dict)
    bundled: dict[str, str] = field(default_factory=dict)
    _known: dict[str, Included | None] = field(default_factory=dict)

    def find(self, written: Text, including: str) -> Included | None:
        """The recipe that ``written`` names in the recipe ``including``; None with why noted."""
        name = self._name(written, including)
        if name is None:
            return None
        if name not in self._known:
            self._known[name] = self._read(name, written)
        return self._known[name]

    def _name(self, written: Text, including: str) -> str | None:
        name = written.value.strip()
        if not name or name.startswith("$") or not name.isprintable() or "\\" in name:
            self.problems.add(
                written.place,
                f"'{shortened(written.value)}' is not the name of a file",
                "write for example 'formation.yaml', and its folders with '/' between them",
            )
            return None
        if not name.endswith(_SUFFIXES):
            name += _SUFFIXES[0]
        return posixpath.normpath(posixpath.join(posixpath.dirname(including), name))

    def _read(self, name: str, written: Text) -> Included | None:
        if len(self._known) >= MOST_INCLUDED:
            raise self.problems.stop(
                written.place, f"more than {MOST_INCLUDED} different recipes are included"
            )
        text = self._text(name, written)
        if text is None:
            return None
        lines = tuple(normal_text(text).split("\n"))
        self.problems.included[name] = lines
        inner = Problems(self.problems.file, self.problems.lines, included={name: lines})
        try:
            root = read_source(normal_text(text), inner, file=name, budget=self.budget)
            if not isinstance(root, Group):
                raise inner.stop(
                    root.place, "a recipe is a group of keys", "begin with 'recipe:' and a name"
                )
            parameters = read_parameters(root, inner)
            inner.raise_any()
        except RecipeError:
            self.problems.found.update(inner.found)
            return None
        return Included(name, root, parameters)

    def _text(self, name: str, written: Text) -> str | None:
        text = self.bundled.get(name)
        if text is None and self.load is None:
            self.problems.add(
                written.place,
                f"the recipe '{name}' is not here to be included",
                "only a recipe that is read from a file, or a bundle, can include others",
            )
            return None
        if text is None and self.load is not None:
            try:
                text = self.load(name)
            except RecipeError as error:
                for problem in error.problems[:1]:
                    self.problems.add(written.place, problem.message, problem.suggestion)
                return None
            except (LookupError, OSError):
                self.problems.add(written.place, *no_such_recipe(name, ()))
                return None
        main, more = unbundle(text or "")
        for inner, its_text in more.items():
            self.bundled.setdefault(
                posixpath.normpath(posixpath.join(posixpath.dirname(name), inner)), its_text
            )
        self.texts[name] = main
        return main


def no_such_recipe(name: str, known: Iterable[str]) -> tuple[str, str]:
    """What is wrong and what is probably meant, where there is no recipe of that name."""
    better = nearest(PurePosixPath(name).stem, known)
    hint = f"did you mean '{better}'?" if better else "give its path from the recipe's own folder"
    return f"there is no recipe '{name}' to include", hint


def bundle_text(text: str, included: Mapping[str, str]) -> str:
    """A recipe with all that it includes, as one text; ``text`` itself if it includes nothing."""
    parts = [text]
    for name, its_text in included.items():
        if not parts[-1].endswith("\n"):
            parts.append("\n")
        parts += [f"# --- included recipe: {name} ---\n", its_text]
    return "".join(parts)


def unbundle(text: str) -> tuple[str, dict[str, str]]:
    """Inverse of :func:`bundle_text`: the recipe's own text, and the others by name."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return text, {}
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    included = {mark[1]: text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)}
    return text[: marks[0].start()], included
