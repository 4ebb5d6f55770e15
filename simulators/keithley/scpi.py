"""How a SourceMeter reads a line: units, headers in long and short form, parameters. No I/O.

Source: SCPI-1999 vol. 1, ch. 6 and 7. Mnemonics are in any case, long or short; parts in brackets
may be left out; units are joined by ``;`` and a header without a leading colon goes on from the
path of the one before, or from the root where that leads nowhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from labctl.simulators.keithley.errors import ScpiError

FUNCTIONS: Final = {"VOLT": "VOLTage[:DC]", "CURR": "CURRent[:DC]", "RES": "RESistance"}

_PIECE = re.compile(r"\[|\]|:|<FUNC>|<SFUNC>|<n>|\*?[A-Z]+\d?[a-z]*|1")
_HEADER = re.compile(r"\*[A-Za-z]{2,12}\??|:?[A-Za-z][A-Za-z0-9_]*(?::[A-Za-z][A-Za-z0-9_]*)*\??")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]?\d{1,3})?", re.ASCII)
_MOST_HEADERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Text:
    """A parameter in quotes."""

    value: str


Parameter = str | Text


@dataclass(frozen=True, slots=True)
class Unit:
    """One command of a line. ``header`` begins with ``:`` unless it is relative or common."""

    header: str
    parameters: tuple[Parameter, ...]

    @property
    def is_query(self) -> bool:
        return self.header.endswith("?")


@dataclass(frozen=True, slots=True)
class Found:
    """Which command a header is, and what stood in its ``<FUNC>``, ``<SFUNC>`` and ``<n>``."""

    pattern: str
    function: str = ""
    number: int = 1


def split_units(line: str) -> tuple[str, ...]:
    """The units of a line as they were written; empty ones are left out.

    Raises:
        ScpiError: a quotation does not end.
    """
    return tuple(part.strip() for part in _split(line, ";") if part.strip())


def parse_unit(text: str) -> Unit:
    """One unit, taken apart.

    Raises:
        ScpiError: it has no header, or a quotation does not end.
    """
    header, _, rest = text.strip().partition(" ")
    if "\t" in header:
        header, _, more = text.strip().partition("\t")
        rest = more
    if not _HEADER.fullmatch(header):
        raise ScpiError(-102, header[:40])
    parameters = tuple(_parameter(part) for part in _split(rest, ",")) if rest.strip() else ()
    return Unit(header, parameters)


class Grammar:
    """The headers that exist, each given as a manual prints it, such as
    ``[:SENSe[1]]:<FUNC>:NPLCycles``; the same pattern stands for setting and query."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._expressions = tuple(
            (pattern, re.compile(_expression(pattern), re.IGNORECASE)) for pattern in patterns
        )
        self._find = functools.lru_cache(_MOST_HEADERS)(self._search)

    def find(self, header: str, path: str) -> tuple[Found, str]:
        """The command, and the path from which a next relative header goes on.

        Raises:
            ScpiError: there is no such command.
        """
        body = header.removesuffix("?")
        for rooted in (body,) if body[0] in ":*" else (f"{path}:{body}", f":{body}"):
            found = self._find(rooted)
            if found is not None:
                return found, path if rooted[0] == "*" else rooted.rpartition(":")[0]
        raise ScpiError(-113, header[:60])

    def _search(self, header: str) -> Found | None:
        for pattern, expression in self._expressions:
            match = expression.fullmatch(header)
            if match is None:
                continue
            groups = match.groupdict()
            function = ""
            if groups.get("function"):
                function = next(
                    name for name in FUNCTIONS if groups["function"].upper().startswith(name)
                )
            return Found(pattern, function, int(groups.get("number") or 1))
        return None


def _expression(pattern: str) -> str:
    parts: list[str] = []
    for piece in _PIECE.findall(pattern):
        if piece == "[":
            parts.append("(?:")
        elif piece == "]":
            parts.append(")?")
        elif piece in {"<FUNC>", "<SFUNC>"}:
            names = list(FUNCTIONS.values())[: 3 if piece == "<FUNC>" else 2]
            parts.append(f"(?P<function>{'|'.join(_expression(name) for name in names)})")
        elif piece == "<n>":
            parts.append(r"(?P<number>\d{1,3})")
        elif piece in ":1":
            parts.append(piece)
        else:
            short = piece.rstrip("abcdefghijklmnopqrstuvwxyz")
            rest = piece[len(short) :]
            parts.append(re.escape(short) + (f"(?:{rest})?" if rest else ""))
    return "".join(parts)


def _split(text: str, separator: str) -> list[str]:
    parts, begin, quote = [], 0, ""
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == separator:
            parts.append(text[begin:at])
            begin = at + 1
    if quote:
        raise ScpiError(-151)
    return [*parts, text[begin:]]


def _parameter(text: str) -> Parameter:
    text = text.strip()
    if text[:1] in {'"', "'"}:
        if len(text) < 2 or text[-1] != text[0]:
            raise ScpiError(-151, text[:40])
        return Text(text[1:-1])
    return text


class Arguments:
    """The parameters of one unit, taken one after the other; a comma at the end is forgiven."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._left = list(parameters)
        if len(self._left) > 1 and self._left[-1] == "":
            self._left.pop()

    def __len__(self) -> int:
        return len(self._left)

    def end(self) -> None:
        """Raises ScpiError if any are left."""
        if self._left:
            raise ScpiError(-108)

    def any(self) -> Parameter:
        if not self._left or self._left[0] == "":
            raise ScpiError(-109)
        return self._left.pop(0)

    def number(
        self,
        low: float,
        high: float,
        *,
        default: float | None = None,
        words: dict[str, float] | None = None,
    ) -> float:
        """A number from ``low`` to ``high``, or ``MIN``, ``MAX``, ``DEF`` or one of ``words``."""
        value = self.any()
        if not isinstance(value, str):
            raise ScpiError(-104, value.value[:40])
        named = {"MIN": low, "MINIMUM": low, "MAX": high, "MAXIMUM": high, **(words or {})}
        if default is not None:
            named |= {"DEF": default, "DEFAULT": default}
        if value.upper() in named:
            return named[value.upper()]
        if not _NUMBER.fullmatch(value):
            raise ScpiError(-104, value[:40])
        if not low <= float(value) <= high:
            raise ScpiError(-222, value[:40])
        return float(value)

    def integer(self, low: int, high: int, *, default: int | None = None) -> int:
        return round(self.number(low, high, default=default))

    def boolean(self) -> bool:
        return self.word("ON", "OFF", "1", "0") in {"ON", "1"}

    def word(self, *choices: str) -> str:
        """One of ``choices``, each as a manual prints it, such as ``ABOVe``; gives its short form.

        A word in quotes is as good.
        """
        value = self.any()
        said = (value.value if isinstance(value, Text) else value).strip().upper()
        for choice in choices:
            short = choice.rstrip("abcdefghijklmnopqrstuvwxyz")
            if said in {choice.upper(), short}:
                return short
        raise ScpiError(-224, said[:40])

    def text(self) -> str:
        """A parameter in quotes."""
        value = self.any()
        if not isinstance(value, Text):
            raise ScpiError(-104, value[:40])
        return value.value

    def next_is_number(self) -> bool:
        return (
            bool(self._left)
            and isinstance(self._left[0], str)
            and bool(_NUMBER.fullmatch(self._left[0]))
        )
