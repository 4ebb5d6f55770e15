"""Reading the TOML files that administrators write, with errors that name file, line and key.

Each section's type lives with the code that uses it; the whole is in labctl.settings.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from labctl.errors import ConfigError, Problem

Section = TypeVar("Section")

_PLACE = re.compile(r"^(?P<what>.*?) - at `\$(?P<path>[^`]*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]+)`")
_MISSING = re.compile(r"missing required field `(?P<key>[^`]+)`")


def read_toml(path: Path, kind: type[Section]) -> Section:
    """The file at ``path`` as a ``kind`` (a msgspec.Struct).

    Raises:
        ConfigError: the file cannot be read, is not TOML, or does not fit.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError([Problem(f"cannot be read: {reason}", file=str(path))]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(f"is not text in UTF-8: {error}", file=str(path))]) from error
    return parse_toml(text, kind, file=str(path))


def parse_toml(text: str, kind: type[Section], *, file: str = "") -> Section:
    """``text`` as a ``kind``; see :func:`read_toml`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(text, file, str(error))]) from error
    return convert(values, kind, text=text, file=file)


def convert(
    values: dict[str, Any], kind: type[Section], *, text: str = "", file: str = "", under: str = ""
) -> Section:
    """Values that were read as a ``kind``; ``under`` names the table that they stand in.

    Raises:
        ConfigError: a key is missing, unknown, or of the wrong type.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError([_misfit(str(error), kind, text, file, under)]) from error


def _syntax_problem(text: str, file: str, message: str) -> Problem:
    place = re.search(r"\(at line (\d+), column (\d+)\)", message)
    line, column = (int(place[1]), int(place[2])) if place else (0, 0)
    lines = text.splitlines()
    return Problem(
        re.sub(r" \(at .*\)$", "", message),
        file=file,
        line=line,
        column=column,
        source_line=lines[line - 1] if 0 < line <= len(lines) else "",
    )


def _misfit(message: str, kind: type[object], text: str, file: str, under: str) -> Problem:
    place = _PLACE.match(message)
    what, path = (place["what"], place["path"]) if place else (message, "")
    keys = [key for key in re.split(r"[.\[\]]", f"{under}{path}") if key and key != "..."]
    suggestion = ""
    if unknown := _UNKNOWN.search(what):
        near = difflib.get_close_matches(unknown["key"], _known_keys(kind), 1, 0.6)
        keys.append(unknown["key"])
        what = f"unknown key {unknown['key']!r}"
        suggestion = f"did you mean {near[0]!r}?" if near else ""
    elif missing := _MISSING.search(what):
        what = f"the key {missing['key']!r} is missing"
    table = f" in [{'.'.join(keys)}]" if keys and _needs_its_table(what) else ""
    line = line_of(text, keys)
    lines = text.splitlines()
    return Problem(
        f"{what}{table}",
        file=file,
        line=line,
        column=1 if line else 0,
        source_line=lines[line - 1] if line else "",
        width=len(lines[line - 1]) if line else 1,
        suggestion=suggestion,
    )


def _needs_its_table(what: str) -> bool:
    """Whether a message needs the table's name to be understood."""
    return not what.startswith("unknown key")


def line_of(text: str, keys: list[str]) -> int:
    """The line, from 1, that sets the key at the end of ``keys``, or else begins its table; 0 if
    neither is there."""
    table: list[str] = []
    best = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+([^\]]+)\]+", line):
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            if keys[: len(table)] == table:
                best = number
        elif keys and table == keys[:-1] and re.match(rf"\s*[\"']?{re.escape(keys[-1])}\b", line):
            return number
    return best


def _known_keys(kind: type[object]) -> list[str]:
    """The keys of ``kind`` and of every Struct within it."""
    found: list[str] = []
    seen: set[object] = set()
    waiting: list[object] = [kind]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        if isinstance(here, type) and issubclass(here, msgspec.Struct):
            for known in msgspec.structs.fields(here):
                found.append(known.encode_name)
                waiting.append(known.type)
        else:
            waiting.extend(getattr(here, "__args__", ()))
    return found
