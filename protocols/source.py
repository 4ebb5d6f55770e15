"""YAML as recipes use it: the text of every value as it was written, and where it stands.

Nothing is resolved: '1e-3', 'NO' and '12:30:00' stay the text that a person typed, and the
language decides what each means. Anchors, aliases, merge keys, tags, directives, duplicate keys and
a second document are refused, and so is a text that is too long, too deep or too full, before
anything is built from it. A recipe and the recipes that it includes are bounded together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from labctl.errors import Problem, RecipeError

LARGEST_BYTES = 256 * 1024
LONGEST_LINE = 1000
DEEPEST = 30
MOST_NODES = 10_000
MOST_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column from 1, and how many characters wide; line 0 is nowhere.

    ``file`` is the included recipe that it is in, '' for the recipe itself.
    """

    line: int = 0
    column: int = 0
    width: int = 1
    file: str = ""

    def seen_from(self, other: Place) -> str:
        """'line 3', and of which file if that is another one than ``other``'s."""
        if self.file == other.file:
            return f"line {self.line}"
        return f"line {self.line} of {self.file or 'the recipe that includes it'}"


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar as written.

    ``name`` is the parameter or loop variable that it came through, and ``used`` where that stood.
    """

    value: str
    place: Place
    quoted: bool = False
    name: str = ""
    used: Place = Place()


@dataclass(frozen=True, slots=True)
class Listing:
    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Mapping:
    """``entries`` in the order written; no key stands twice."""

    entries: tuple[tuple[Text, Node], ...]
    place: Place

    def get(self, key: str) -> Node | None:
        """The value of ``key``, None if there is none."""
        return next((value for name, value in self.entries if name.value == key), None)

    def key(self, key: str) -> Text | None:
        """Where ``key`` itself stands."""
        return next((name for name, _ in self.entries if name.value == key), None)


Node: TypeAlias = Text | Listing | Mapping


@dataclass(slots=True)
class Problems:
    """Collects every mistake of a recipe and of what it includes; equal ones count once.

    ``file`` and ``lines`` are those of the recipe; ``included`` has the lines of each included one.
    """

    file: str
    lines: tuple[str, ...]
    found: dict[Problem, None] = field(default_factory=dict)
    included: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def lines_of(self, file: str) -> tuple[str, ...]:
        """The lines of an included recipe, or of the recipe itself ('')."""
        return self.included.get(file, ()) if file else self.lines

    def add(self, place: Place, message: str, suggestion: str = "") -> None:
        """Note a mistake at ``place``, unless there are more than can be read already."""
        if len(self.found) >= MOST_PROBLEMS:
            return
        line, lines = "", self.lines_of(place.file)
        if 0 < place.line <= len(lines):
            line = lines[place.line - 1].replace("\t", " ")
        width = max(1, min(place.width, len(line) - place.column + 1))
        file = place.file or self.file
        problem = Problem(message, file, place.line, place.column, line, width, suggestion)
        self.found.setdefault(problem)

    def stop(self, place: Place, message: str, suggestion: str = "") -> RecipeError:
        """Note a mistake after which nothing else can be said; raise what comes back."""
        self.add(place, message, suggestion)
        return self.error()

    def error(self) -> RecipeError:
        """All of them, in the order of the text; those of included recipes after the others."""
        files = [self.file, *self.included]

        def order(problem: Problem) -> tuple[int, int, int]:
            file = files.index(problem.file) if problem.file in files else 0
            return file, problem.line, problem.column

        return RecipeError(sorted(self.found, key=order))

    def raise_any(self) -> None:
        """Raise RecipeError if anything was noted."""
        if self.found:
            raise self.error()


def shortened(text: str, most: int = 60) -> str:
    """``text`` as it can be shown in a message."""
    return text if len(text) <= most else text[: most - 1] + "…"


def normal_text(text: str) -> str:
    """Without a byte-order mark, and with line feeds as line ends."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


@dataclass(slots=True)
class Budget:
    """What a recipe and the recipes that it includes may still cost together."""

    bytes: int = LARGEST_BYTES
    nodes: int = MOST_NODES


def read_source(
    text: str, problems: Problems, *, file: str = "", budget: Budget | None = None
) -> Node:
    """The one document of ``text``; ``problems`` takes what is wrong with it.

    Args:
        text: with line feeds as line ends (:func:`normal_text`).
        problems: has the lines of ``text`` already, under ``file``.
        file: the included recipe, '' for the recipe itself.
        budget: what is left of it; a whole one if None.

    Raises:
        RecipeError: it is not YAML, or YAML beyond the bounds of a recipe.
    """
    budget = budget or Budget()
    _check_bounds(text, problems, file, budget)
    nowhere = Place(file=file)
    parser: Any = YAML(typ="safe", pure=True)
    try:
        return _Composer(parser.parse(text), problems, file, budget).document()
    except MarkedYAMLError as error:
        place = replace(_place_of(error), file=file)
        raise problems.stop(place, *_explain(error, problems, place)) from None
    except (YAMLError, YAMLStreamError) as error:
        raise problems.stop(nowhere, f"this is not YAML: {_first_line(error)}") from None
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # ruamel's scanner lets these out of malformed escapes and directives.
        raise problems.stop(nowhere, f"this is not YAML: {_first_line(error)}") from None


def _check_bounds(text: str, problems: Problems, file: str, budget: Budget) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > budget.bytes:
        spent = LARGEST_BYTES - budget.bytes
        have = "the recipe and what it includes have" if file else "the recipe has"
        raise problems.stop(
            Place(file=file),
            f"{have} {spent + size} bytes; the most is {LARGEST_BYTES}",
            "write repeated steps with 'repeat', 'cycle' or 'for'",
        )
    budget.bytes -= size
    for number, line in enumerate(problems.lines_of(file), 1):
        if len(line) > LONGEST_LINE:
            raise problems.stop(
                Place(number, LONGEST_LINE + 1, file=file),
                f"the line has {len(line)} characters; the most is {LONGEST_LINE}",
            )
        for column, character in enumerate(line, 1):
            if not (character.isprintable() or character in "\t\u00a0\u202f"):
                raise problems.stop(
                    Place(number, column, file=file),
                    f"the character U+{ord(character):04X} cannot be printed",
                    "delete it, and type the line again if it was copied from elsewhere",
                )
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent and line.strip():
            problems.add(
                Place(number, indent.index("\t") + 1, file=file),
                "a tab in the indentation: YAML takes only spaces",
                "replace each tab by two spaces",
            )
    problems.raise_any()


class _Composer:
    """Events to nodes, iteratively bounded in depth and number."""

    def __init__(
        self, events: Iterator[Event], problems: Problems, file: str, budget: Budget
    ) -> None:
        self._events = events
        self._problems = problems
        self._file = file
        self._budget = budget

    def _place(self, event: Event) -> Place:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else LONGEST_LINE
        return Place(start.line + 1, start.column + 1, max(1, width), self._file)

    def document(self) -> Node:
        next(self._events)
        event = next(self._events)
        if isinstance(event, StreamEndEvent):
            raise self._problems.stop(
                Place(1, 1, file=self._file),
                "the recipe is empty",
                "begin with 'recipe:' and a name",
            )
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            lines = enumerate(self._problems.lines_of(self._file), 1)
            at = next((number for number, line in lines if line.startswith("%")), 1)
            raise self._problems.stop(
                Place(at, 1, LONGEST_LINE, self._file),
                "a YAML directive is refused in a recipe",
                "delete the lines that begin with %",
            )
        node = self._node(next(self._events), 0)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, StreamEndEvent):
            raise self._refuse(event, "a second document", "write each recipe in its own file")
        self._problems.raise_any()
        return node

    def _node(self, event: Event, depth: int) -> Node:
        self._budget.nodes -= 1
        place = self._place(event)
        if self._budget.nodes < 0:
            have = "the recipe and what it includes have" if self._file else "the recipe has"
            raise self._problems.stop(
                place,
                f"{have} more than {MOST_NODES} values",
                "write repeated steps with 'repeat', 'cycle' or 'for'",
            )
        if depth > DEEPEST:
            raise self._problems.stop(place, f"this is nested more than {DEEPEST} deep")
        if isinstance(event, AliasEvent):
            raise self._refuse(event, f"the alias '*{shortened(event.anchor)}'", _USE_PARAMETERS)
        if (anchor := getattr(event, "anchor", None)) is not None:
            raise self._refuse(event, f"the anchor '&{shortened(anchor)}'", _USE_PARAMETERS)
        if (tag := getattr(event, "tag", None)) is not None:
            raise self._refuse(
                event,
                f"the tag '{shortened(str(tag))}'",
                "delete it: units say what is meant",
            )
        if isinstance(event, ScalarEvent):
            return Text(event.value, place, quoted=event.style is not None)
        if isinstance(event, SequenceStartEvent):
            return self._listing(place, depth)
        assert isinstance(event, MappingStartEvent)  # noqa: S101
        return self._mapping(place, depth)

    def _listing(self, place: Place, depth: int) -> Listing:
        items: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Listing(tuple(items), place)

    def _mapping(self, place: Place, depth: int) -> Mapping:
        entries: list[tuple[Text, Node]] = []
        seen: dict[str, Place] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Text):
                self._problems.add(key.place, "a key must be one word", _NOT_FLOW)
                continue
            if key.value == "<<":
                self._problems.add(key.place, "merge keys ('<<') are refused", _USE_PARAMETERS)
            elif key.value in seen:
                first = seen[key.value].line
                self._problems.add(
                    key.place,
                    f"'{shortened(key.value)}' stands twice: the first is in line {first}",
                    "keep one of them",
                )
            else:
                seen[key.value] = key.place
                entries.append((key, value))
        return Mapping(tuple(entries), place)

    def _refuse(self, event: Event, what: str, suggestion: str) -> RecipeError:
        return self._problems.stop(self._place(event), f"{what} is refused in a recipe", suggestion)


_USE_PARAMETERS = "write a value that is used twice under 'parameters' and use it as $name"
_NOT_FLOW = "put a text with brackets in quotes"


def _place_of(error: MarkedYAMLError) -> Place:
    mark = error.problem_mark or error.context_mark
    if "scanning a quoted scalar" in (error.context or ""):
        mark = error.context_mark
    return Place() if mark is None else Place(mark.line + 1, mark.column + 1)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


_EXPLANATIONS: tuple[tuple[str, str, str], ...] = (
    (
        "mapping values are not allowed here",
        "a ':' where no key can stand",
        "put a text that holds ': ' in quotes, and indent keys of one group equally",
    ),
    (
        "could not find expected ':'",
        "a ':' is missing after a key",
        "write 'key: value', with a space after the colon",
    ),
    (
        "expected <block end>",
        "this line is not indented as the lines before it",
        "indent it as far as the key or the '-' that it belongs beside",
    ),
    ("expected ',' or", "a ',' or a closing bracket is missing", ""),
    ("cannot start any token", "this character cannot begin a value", "put the value in quotes"),
    ("while scanning a quoted scalar", "a quotation mark is not closed", ""),
    ("unexpected end of stream", "the text ends too early: a quote or bracket is open", ""),
    ("found unexpected ':'", "a ':' inside brackets needs a space after it", ""),
    ("found unknown escape character", "a '\\' in double quotes", "use single quotes"),
    ("undefined tag handle", "a tag ('!') is refused in a recipe", "delete it"),
)


def _explain(error: MarkedYAMLError, problems: Problems, place: Place) -> tuple[str, str]:
    said = f"{error.context or ''} {error.problem or ''}"
    lines = problems.lines_of(place.file)
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    if line[place.column - 1 : place.column] in {"%", "@", "`"}:
        return "this character cannot begin a value", "put the value in quotes"
    for phrase, message, suggestion in _EXPLANATIONS:
        if phrase in said:
            if "flow" in said and error.context_mark is not None:
                return message, f"the bracket was opened in line {error.context_mark.line + 1}"
            return message, suggestion
    return f"this is not YAML: {error.problem or error.context}", ""
