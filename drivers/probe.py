"""How an instrument is found: what it is asked, where, and what a configuration says of it then.

A probe asks nothing that changes a setting, an output, or the queue of errors. It is one file
beside its driver, and one line in :data:`labctl.drivers.PROBES`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import msgspec


class Wire(enum.StrEnum):
    """What leads to a place."""

    SERIAL = "serial"
    TCP = "tcp"
    VISA = "visa"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an instrument may be.

    address: the name of a serial port that stays (or ``socket://host:port``), a host, or a VISA
    resource. port: of TCP. usb: vendor and product number of what is plugged in, where it is USB.
    about: what the operating system says of it.
    """

    wire: Wire
    address: str
    port: int = 0
    usb: tuple[int, int] | None = None
    about: str = ""

    def __str__(self) -> str:
        if self.wire is not Wire.TCP:
            return self.address
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What answered. Empty is what it does not tell.

    driver: the kind that drives it, '' for none. unique: see :class:`labctl.drivers.base.Identity`.
    options: what a configuration says of it, beside where it is. missing: what a configuration
    needs that nobody can ask for, with what it is. note: what a person should know.
    """

    driver: str
    manufacturer: str
    model: str
    serial: str = ""
    firmware: str = ""
    channels: tuple[str, ...] = ()
    unique: bool = True
    options: dict[str, str | int | float | bool] = {}
    missing: dict[str, str] = {}
    note: str = ""


class Conversation(Protocol):
    """One connection to whatever is at a place."""

    def ask(self, question: bytes, *, until: bytes = b"\n", patience_s: float = 0.0) -> bytes:
        """What came in answer, with its end; all that came where the end did not, and nothing
        where nothing did. The same question is not asked twice.

        ``patience_s`` is how long to wait, where that is longer than usual.

        Raises:
            LinkError: the connection is lost.
        """
        ...


@dataclass(frozen=True, slots=True)
class SerialLine:
    """How a serial port is set."""

    baud: int
    xonxoff: bool = False


Options = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Probe:
    """How one kind of instrument is found.

    stem: what its instruments are called in a configuration, with a number behind.
    ask: who answers; None if it is none of these.
    options_at: the options that say where it is.
    tcp_ports: where it listens as delivered; empty where a person has to name the port, None if it
        cannot be reached that way.
    serial: how its port may be set; over USB any is right. visa: whether VISA may lead to it.
    usb: vendor and product numbers that are its alone.
    alone: it has to be asked first on a new connection.
    examples: options of each model, to tell what it can do.
    """

    stem: str
    ask: Callable[[Conversation], Found | None]
    options_at: Callable[[Place], Options]
    tcp_ports: tuple[int, ...] | None = None
    serial: tuple[SerialLine, ...] = ()
    visa: bool = False
    usb: frozenset[tuple[int, int]] = frozenset()
    alone: bool = False
    examples: Mapping[str, Options] = field(default_factory=lambda: MappingProxyType({}))


def text_of_answer(answer: bytes) -> str:
    """An answer of one line, without its end; '' if it is no printable ASCII."""
    try:
        text = answer.decode("ascii").strip(" \t\r\n\0\x11\x13")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""
