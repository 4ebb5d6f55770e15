"""XML as BTS writes it, from bytes, without what XML can do to a reader.

Document types and entities are refused before anything of them is read. Files saved by the vendor's
window declare GB2312; some of them hold UTF-8 all the same, so UTF-8 is tried first.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from xml.parsers import expat

_DECLARATION = re.compile(
    rb"""\s*<\?xml\s+version\s*=\s*["'][\d.]+["']"""
    rb"""(?:\s+encoding\s*=\s*["']([A-Za-z0-9._-]+)["'])?[^>]*\?>"""
)
_CHINESE = {"gb2312", "gbk", "gb18030", "cp936", "euc-cn", "gb_2312-80", "x-gbk", "hz-gb-2312"}
_WESTERN = {"iso-8859-1": "latin-1", "latin-1": "latin-1", "windows-1252": "cp1252"}
MAX_DEPTH = 64


class XmlError(ValueError):
    """Bytes that are no document that can be read here; ``line`` from 1, 0 if not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        self.line = line
        super().__init__(message)


@dataclass(slots=True)
class Element:
    """One element."""

    tag: str
    attributes: dict[str, str]
    line: int = 0
    children: list[Element] = field(default_factory=list)
    text_pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All the text directly inside it."""
        return "".join(self.text_pieces)

    def find(self, *path: str) -> Element | None:
        """The first element down ``path``, or None.

        Raises:
            XmlError: an element of the path is there twice, so that it is not clear which counts.
        """
        here = self
        for tag in path:
            found = here.find_all(tag)
            if not found:
                return None
            if len(found) > 1:
                raise XmlError(f"<{here.tag}> has {len(found)} elements <{tag}>", found[1].line)
            here = found[0]
        return here

    def find_all(self, tag: str) -> list[Element]:
        return [child for child in self.children if child.tag == tag]


def parse_xml(data: bytes) -> Element:
    """The root element of a document.

    Raises:
        XmlError: not XML, in an encoding that is not known, nested too deep, or with a DOCTYPE.
    """
    text = decode_xml(data)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    top = Element("", {})
    open_elements = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(open_elements) > MAX_DEPTH:
            raise XmlError(f"nested deeper than {MAX_DEPTH} elements", parser.CurrentLineNumber)
        element = Element(tag, attributes, parser.CurrentLineNumber)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_tag: str) -> None:
        open_elements.pop()

    def characters(text: str) -> None:
        open_elements[-1].text_pieces.append(text)

    def doctype(*_: object) -> None:
        raise XmlError("a document type or entity, which is refused", parser.CurrentLineNumber)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text.encode("utf-8"), True)
    except expat.ExpatError as error:
        raise XmlError(f"not XML: {expat.ErrorString(error.code)}", error.lineno) from error
    return top.children[0]


def decode_xml(data: bytes) -> str:
    """The text of a document, in the encoding that it is in rather than the one that it declares.

    Raises:
        XmlError: not decodable.
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return _decode(data[len(mark) :], encoding)
    declaration = _DECLARATION.match(data)
    declared = (declaration[1] or b"utf-8").decode("ascii").lower() if declaration else "utf-8"
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if declared in _CHINESE:
            return _decode(data, "gb18030")
        return _decode(data, _WESTERN.get(declared, "utf-8"))


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise XmlError(f"byte {error.start} is not {encoding}", line) from error
