"""The canonical layout of a recipe: two spaces a level, comments kept, what it means unchanged.

Only the layout changes. Every value stays as it was typed, in the same quotes, in the same order;
that is checked, and so is that no comment was lost.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import ScalarEvent
from ruamel.yaml.resolver import VersionedResolver

from labctl.protocols.includes import bundle_text, unbundle
from labctl.protocols.source import (
    Listing,
    Mapping,
    Node,
    Place,
    Problems,
    Text,
    normal_text,
    read_source,
)

WIDTH = 100
_WHOLE = 10**9
_RUAMEL_LETS_OUT = (
    YAMLError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""Of texts with comments in places where few people write one."""


class _AllText(VersionedResolver):
    """Guesses no types: '1e-3', '012' and 'NO' stay as they were typed. Nothing stays nothing."""

    @property
    def versioned_resolver(self) -> Any:  # noqa: ANN401
        """What a plain text may be besides a text, by its first letter."""
        return {"": [("tag:yaml.org,2002:null", re.compile("^$"))]}


def laid_out(text: str, *, file: str = "") -> str:
    """``text`` in the canonical layout; laying it out again changes nothing.

    Args:
        text: a recipe or a bundle; mistakes that are not YAML's do not matter.
        file: what to call it in messages.

    Raises:
        RecipeError: it is not YAML as recipes use it, or it cannot be laid out unchanged.
    """
    main, included = unbundle(text)
    return bundle_text(
        _laid_out(main, file), {name: _laid_out(one, name) for name, one in included.items()}
    )


def _laid_out(text: str, file: str) -> str:
    text = normal_text(text)
    problems = Problems(file, tuple(text.split("\n")))
    before = _plain(read_source(text, problems))
    try:
        new = _dressed(_dumped(text))
        again = read_source(new, Problems(file, tuple(new.split("\n"))))
    except _RUAMEL_LETS_OUT as error:
        what = next(iter(str(error).splitlines()), "") or "ruamel.yaml cannot keep its comments"
        raise problems.stop(Place(), f"it cannot be laid out: {what}") from None
    if _plain(again) != before:
        raise problems.stop(Place(), "it cannot be laid out without a change of what it says")
    lost = [one for one in _comments(text) if one not in _comments(new)]
    if lost or len(_comments(text)) != len(_comments(new)):
        line = next((n for n, one in enumerate(problems.lines, 1) if lost and lost[0] in one), 0)
        raise problems.stop(
            Place(line, 1),
            "a comment would be lost here",
            "put it on a line of its own, outside brackets",
        )
    return new


def _dumped(text: str) -> str:
    yaml: Any = YAML(typ="rt", pure=True)
    yaml.Resolver = _AllText
    yaml.preserve_quotes = True
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(yaml.load(text), stream)
    return stream.getvalue()


def _dressed(text: str) -> str:
    """Comments beside what they belong to, one blank line at the most, no spaces at line ends."""
    lines = text.split("\n")
    taken, inside = _taken(text)
    dressed: list[str] = []
    for number, line in enumerate(lines):
        new = line
        if number not in inside:
            at = _comment_at(line, taken.get(number, ()))
            if at == -1:
                new = line.rstrip()
            elif line[:at].strip():
                new = f"{line[:at].rstrip()}  {line[at:].rstrip()}"
            else:
                new = " " * _indent_of_comment(lines, number, inside) + line[at:].rstrip()
        if new or number in inside or (dressed and dressed[-1]):
            dressed.append(new)
    return "\n".join(dressed).strip("\n") + "\n"


def _indent_of_comment(lines: list[str], number: int, inside: set[int]) -> int:
    """A level of what stands around it, the nearest to where it was typed."""
    typed = len(lines[number]) - len(lines[number].lstrip())

    def indent(numbers: range) -> int:
        for other in numbers:
            line = lines[other].lstrip()
            if line and not line.startswith("#") and other not in inside:
                return len(lines[other]) - len(line)
        return 0

    before = indent(range(number - 1, -1, -1))
    after = indent(range(number + 1, len(lines)))
    levels: set[int] = {after, before, *range(after, before, 2)}
    return min(levels, key=lambda level: (abs(level - typed), level))


def _taken(text: str) -> tuple[dict[int, list[tuple[int, int]]], set[int]]:
    """The columns of each line (from 0) that scalars take; and the lines that one goes on into."""
    parser: Any = YAML(typ="safe", pure=True)
    taken: dict[int, list[tuple[int, int]]] = {}
    inside: set[int] = set()
    for event in parser.parse(text):
        if not isinstance(event, ScalarEvent):
            continue
        start, end = event.start_mark, event.end_mark
        last = end.line - 1 if event.style in {"|", ">"} else end.line
        for line in range(start.line, last + 1):
            begins = start.column if line == start.line else 0
            ends = end.column if line == end.line else _WHOLE
            if event.style in {"|", ">"} and line == start.line:
                ends = begins + 1
            taken.setdefault(line, []).append((begins, ends))
        inside |= set(range(start.line + 1, last + 1))
    return taken, inside


def _comment_at(line: str, taken: Sequence[tuple[int, int]]) -> int:
    """Where a comment begins in a line, -1 if it has none."""
    for match in re.finditer(r"(?<!\S)#", line):
        at: int = match.start()
        if not any(begins <= at < ends for begins, ends in taken):
            return at
    return -1


def _comments(text: str) -> list[str]:
    taken, _ = _taken(text)
    places = (
        (line, _comment_at(line, taken.get(number, ())))
        for number, line in enumerate(text.split("\n"))
    )
    return sorted(line[at:].rstrip() for line, at in places if at != -1)


def _plain(node: Node) -> object:
    """What a node says, without where it stands."""
    match node:
        case Text():
            return (node.value, node.quoted)
        case Listing():
            return [_plain(item) for item in node.items]
        case Mapping():
            return [((key.value, key.quoted), _plain(value)) for key, value in node.entries]
