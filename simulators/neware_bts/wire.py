"""The XML interface of Neware BTS 8.0, seen from the instrument: requests in, responses out.

Requests are read tolerantly (spaces round ``=``, stray text between elements, GB2312 declarations)
but safely: no document type, no entities of the sender's own, bounded depth and number of elements.
Responses have CRLF line ends, an indent of two spaces, only ASCII, and end with ``\\n\\n#\\r\\n``.

Source: responses captured from BTS Client 8.0; two of its names are misspelt and stay so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.parsers import expat

SEPARATOR = b"#\r\n"
TERMINATOR = b"\n\n#\r\n"
MAX_REQUEST_BYTES = 1 << 20
MAX_DEPTH = 8
MAX_ELEMENTS = 20_000

RESPONSE_NAMES = {"download": "donwload_resp", "downloadlog": "donwloadlog_resp"}

_DECLARATION = re.compile(
    rb"\A\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"'][^>]*\?>"
)
_CHINESE = {"gb2312", "gbk", "gb18030"}


class WireError(Exception):
    """Bytes that are not a request; the instrument closes the connection."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a request: its attributes and the text directly inside it."""

    tag: str
    attributes: Mapping[str, str]
    text: str

    def number(self, key: str, default: int = 0) -> int:
        """An attribute as an integer; ``default`` where it is absent or is no integer."""
        text = self.attributes.get(key, "").strip()
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,15}", text) else default


@dataclass(frozen=True, slots=True)
class Request:
    """A command with the elements of its list (or those beside ``<cmd>``), in order."""

    command: str
    elements: tuple[Element, ...]

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def text(self, tag: str) -> str:
        return next((element.text for element in self.elements if element.tag == tag), "")


def parse_request(frame: bytes) -> Request:
    """Read one frame, without its ``#\\r\\n``.

    Raises:
        WireError: malformed, not a ``<bts>`` document with one command, or hostile.
    """
    if len(frame) > MAX_REQUEST_BYTES:
        raise WireError(f"a request of {len(frame)} bytes is too long")
    frame = _as_utf8(frame.strip())
    parser = expat.ParserCreate()
    open_elements: list[tuple[str, dict[str, str], list[str]]] = []
    closed: list[Element] = []
    root = ""

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal root
        if not open_elements:
            root = tag
        if len(open_elements) >= MAX_DEPTH or len(closed) >= MAX_ELEMENTS:
            raise WireError("too many or too deep elements")
        open_elements.append((tag, attributes, []))

    def end(_tag: str) -> None:
        tag, attributes, text = open_elements.pop()
        closed.append(Element(tag, attributes, "".join(text).strip()))

    def characters(text: str) -> None:
        if open_elements:
            open_elements[-1][2].append(text)

    def doctype(*_: object) -> None:
        raise WireError("a document type is refused")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = doctype
    try:
        parser.Parse(frame, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise WireError(f"not XML: {error}") from error
    commands = [element.text for element in closed if element.tag == "cmd"]
    if root != "bts" or len(commands) != 1 or not commands[0]:
        raise WireError("not a <bts> document with one <cmd>")
    envelope = {"bts", "cmd", "list"}
    return Request(commands[0], tuple(item for item in closed if item.tag not in envelope))


def response(command: str, lines: Iterable[str]) -> bytes:
    """A whole response; ``lines`` are what comes after ``<cmd>``, already indented."""
    return _joined([*_opened(command), *lines, "</bts>"]) + TERMINATOR


def response_around(command: str, lines: Iterable[str], count: int, items: bytes) -> bytes:
    """A whole response whose list of ``count`` is written already: a line for each item."""
    head = _joined([*_opened(command), *lines, f'  <list count="{count}">', ""])
    return head + items + _joined(["  </list>", "</bts>"]) + TERMINATOR


def _opened(command: str) -> tuple[str, str, str]:
    name = RESPONSE_NAMES.get(command, f"{command}_resp")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<bts version="1.0">',
        f"  <cmd>{name}</cmd>",
    )


def _joined(lines: Iterable[str]) -> bytes:
    return "\r\n".join(lines).encode("ascii", "xmlcharrefreplace")


def listed(items: list[str]) -> list[str]:
    """Elements inside ``<list>``; an empty list closes itself."""
    if not items:
        return ['  <list count="0" />']
    return [f'  <list count="{len(items)}">', *(f"    {item}" for item in items), "  </list>"]


def element(tag: str, attributes: Mapping[str, object], text: str | None = None) -> str:
    """One element on one line, self-closing unless it has text."""
    inside = "".join(f' {key}="{escaped(str(value))}"' for key, value in attributes.items())
    return f"<{tag}{inside} />" if text is None else f"<{tag}{inside}>{escaped(text)}</{tag}>"


_ESCAPES = {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
    ord("\t"): "&#9;",
    ord("\n"): "&#10;",
    ord("\r"): "&#13;",
}


def escaped(text: str) -> str:
    """Text that may stand in an attribute or an element."""
    return text.translate(_ESCAPES)


def short(value: float, decimals: int) -> str:
    """At most ``decimals`` decimals, trailing zeros dropped, never ``-0``."""
    text = f"{value:.{decimals}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _as_utf8(frame: bytes) -> bytes:
    """The frame in UTF-8 if its declaration says GB2312, which expat does not know."""
    found = _DECLARATION.match(frame)
    if found is None or found[1].decode("ascii").lower() not in _CHINESE:
        return frame
    try:
        return frame[found.end() :].decode("gb18030").encode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"not GB2312: {error}") from error
