"""Spans: sets of whole numbers above 0 as a few first-to-last pieces, written ``1-500 502 510-12``.

What an archive has committed of a journal is nearly always one piece, however long the journal is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator


class Spans:
    """Ascending pieces that do not touch. Never changed: :meth:`with_spans` gives a new one."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, pieces: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(pieces):
            if not 0 < first <= last:
                raise ValueError(f"{first} to {last} is not a span of numbers above 0")
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(last, self._lasts[-1])
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    @classmethod
    def parse(cls, text: str) -> Spans:
        """Inverse of ``str``.

        Raises:
            ValueError: not such a text.
        """
        pieces = []
        for word in text.split():
            first, _, last = word.partition("-")
            pieces.append((int(first), int(last or first)))
        return cls(pieces)

    def with_spans(self, pieces: Iterable[tuple[int, int]]) -> Spans:
        """These and more."""
        return Spans((*self, *pieces))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __str__(self) -> str:
        return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in self)

    def __repr__(self) -> str:
        return f"Spans.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __bool__(self) -> bool:
        return bool(self._firsts)

    @property
    def through(self) -> int:
        """Every number from 1 to this one is in; 0 if 1 is not."""
        return self._lasts[0] if self._firsts and self._firsts[0] == 1 else 0

    @property
    def count(self) -> int:
        """How many numbers are in."""
        return sum(last - first + 1 for first, last in self)

    def touches(self, first: int, last: int) -> bool:
        """Whether any number from ``first`` to ``last`` is in."""
        place = bisect_left(self._lasts, first)
        return place < len(self._firsts) and self._firsts[place] <= last

    def holes(self, first: int, last: int) -> Spans:
        """The numbers from ``first`` to ``last`` that are not in."""
        pieces = []
        for begin, end in self:
            if begin > first and first <= last:
                pieces.append((first, min(begin - 1, last)))
            first = max(first, end + 1)
        if first <= last:
            pieces.append((first, last))
        return Spans(pieces)
