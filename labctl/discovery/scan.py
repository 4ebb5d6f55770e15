"""What is at each place: asked gently, a few at once, and never what a daemon owns."""

from __future__ import annotations

import enum
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from labctl.discovery.conversation import Patience, Talk, talk_at
from labctl.drivers import PROBES, probe_of
from labctl.drivers.probe import Found, Place, Probe, SerialLine, Wire, text_of_answer
from labctl.errors import InstrumentError, LinkError
from labctl.wire.ownership import OwnedError, Ownership, owner_of
from labctl.wire.places import number_name, serial_names, tcp_names, visa_names
from labctl.wire.scpi import parse_identification

AT_ONCE: Final = 12
IDENTIFY: Final = b"*IDN?\n"
"""The general question: IEEE 488.2, 10.14."""
_SHOWN: Final = 60

SCANNER: Final = "labctl instruments scan"
USB_LINE: Final = SerialLine(115_200)
BRIDGES: Final = frozenset({0x0403, 0x10C4, 0x1A86, 0x067B})
"""Vendors of USB serial ports behind which is a line that has a speed: FTDI, Silicon Labs, WCH,
Prolific."""


Asking: TypeAlias = tuple[SerialLine | None, list[Probe]]
"""A connection, and who asks on it."""


class Outcome(enum.StrEnum):
    """What came of asking."""

    FOUND = "found"
    UNKNOWN = "unknown"
    """It said something that no driver of labctl understands."""
    SILENT = "silent"
    OWNED = "owned"
    CLOSED = "closed"
    """Nothing could be asked."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One place and what is there. ``why`` says what a person should know of it."""

    place: Place
    outcome: Outcome
    found: Found | None = None
    why: str = ""
    names: tuple[str, ...] = ()
    """What the place is called in locks: see :mod:`labctl.wire.places`."""


def probes() -> dict[str, Probe]:
    """Every probe that there is, by the kind of instrument, in the order that they are asked in."""
    return {kind: probe for kind in PROBES if (probe := probe_of(kind)) is not None}


def known_ports() -> tuple[int, ...]:
    """Where instruments listen on a network, as delivered."""
    return tuple(sorted({port for each in probes().values() for port in each.tcp_ports or ()}))


def scan(
    places: Sequence[Place],
    locks: Path,
    *,
    patience: Patience | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> tuple[Seen, ...]:
    """What is at each of ``places``, in their order.

    Args:
        places: where to ask.
        locks: the folder of the lock files, which say what is a daemon's.
        patience: how long to wait for whom.
        told: called with how many places have been asked.

    Raises:
        ConfigError: the locks cannot be looked at: then nothing is asked.
    """
    seen: list[Seen] = []
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scan") as threads:
        try:
            for each in threads.map(lambda at: ask_at(at, locks, patience), places):
                seen.append(each)
                told(len(seen))
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
    return tuple(seen)


def ask_at(place: Place, locks: Path, patience: Patience | None = None) -> Seen:
    """What is at a place. See :func:`scan`."""
    names: tuple[str, ...] = ()
    ownership = Ownership(locks, who=SCANNER)
    try:
        names = names_of(place)
        ownership.take(names)
        return _asked(place, names, locks, patience or Patience())
    except OwnedError as error:
        owner = error.owner or "another process"
        return Seen(place=place, outcome=Outcome.OWNED, why=f"owned by {owner}", names=names)
    except LinkError as error:
        why = str(error).removeprefix(f"{place}: ")
        return Seen(place=place, outcome=Outcome.CLOSED, why=why, names=names)
    finally:
        ownership.let_go()


def names_of(place: Place) -> tuple[str, ...]:
    """What a place is called in locks.

    Raises:
        LinkError: its host's name is not known.
    """
    if place.wire is Wire.TCP:
        return tcp_names(place.address, place.port)
    return serial_names(place.address) if place.wire is Wire.SERIAL else visa_names(place.address)


def _asked(place: Place, names: tuple[str, ...], locks: Path, patience: Patience) -> Seen:
    heard = b""
    known: dict[bytes, bytes] = {}
    lost = ""
    waiting = deque(conversations(place))
    if sum(len(asking) for _, asking in waiting) > 1:
        patience = patience.guessing()
    while waiting:
        line, asking = waiting.popleft()
        found = None
        with talk_at(place, line=line, patience=patience, known=known) as talk:
            try:
                if _is_put_off(talk, known, waiting):
                    waiting.append((line, asking))
                else:
                    found = _first_that_understands(talk, asking)
            except LinkError as error:
                lost = str(error).removeprefix(f"{place}: ")
            finally:
                heard += talk.heard
        if found is not None:
            return _found(place, names, found, locks)
        if place.wire is Wire.SERIAL:
            known.clear()
    if heard.strip(b"\0 \t\r\n"):
        why = f"said {repr(heard[:_SHOWN])[1:]}, which no driver of labctl understands"
        return Seen(place=place, outcome=Outcome.UNKNOWN, why=why, names=names)
    return Seen(place=place, outcome=Outcome.SILENT, why=lost or "no answer", names=names)


def conversations(place: Place) -> list[Asking]:
    """The connections that are made to a place, one after the other, and who asks on each.

    What USB says of itself, and a port where something listens as delivered, narrow it down.
    """
    every = [each for each in probes().values() if _may_be_at(each, place)]
    told = [each for each in every if place.usb in each.usb]
    told = told or [each for each in every if place.port and place.port in (each.tcp_ports or ())]
    asking = told or every
    if place.wire is Wire.SERIAL and "://" not in place.address and not told and _has_speed(place):
        lines = sorted(
            {line for each in asking for line in each.serial} | {SerialLine(9600)},
            key=lambda line: (line.baud, line.xonxoff),
        )
        return [(line, [each for each in asking if line in each.serial]) for line in lines]
    line = USB_LINE if place.wire is Wire.SERIAL else None
    together = [each for each in asking if not each.alone]
    alone: list[list[Probe]] = [[each] for each in asking if each.alone]
    return [(line, each) for each in ([together] if together or not alone else []) + alone]


def _may_be_at(probe: Probe, place: Place) -> bool:
    if place.wire is Wire.VISA:
        return probe.visa
    if place.wire is Wire.SERIAL:
        return bool(probe.serial)
    return probe.tcp_ports is not None


def _has_speed(place: Place) -> bool:
    """Whether it matters how fast the port is set."""
    if place.usb is not None:
        return place.usb[0] in BRIDGES
    device = os.path.realpath(place.address)
    return not device.startswith("/dev/pts/") and "ACM" not in device


def _is_put_off(talk: Talk, known: dict[bytes, bytes], waiting: deque[Asking]) -> bool:
    """Whether those that must be asked alone come first: they answer no line, and whatever answers
    a line is none of them."""
    if IDENTIFY in known or not any(each.alone for _, others in waiting for each in others):
        return False
    if talk.ask(IDENTIFY):
        waiting.clear()
        return False
    return True


def _first_that_understands(talk: Talk, asking: Iterable[Probe]) -> Found | None:
    """By the general question first, which every instrument with a parser survives."""
    asking = tuple(asking)
    if any(each.alone for each in asking):
        return next(filter(None, (each.ask(talk) for each in asking)), None)
    general = _by_idn(talk)
    found = (each.ask(talk) for each in asking)
    return next(filter(None, itertools.chain(found, (general,))), None)


def _by_idn(talk: Talk) -> Found | None:
    """Whatever answers ``*IDN?`` (IEEE 488.2), with a driver or without."""
    try:
        said = parse_identification(text_of_answer(talk.ask(IDENTIFY)))
    except InstrumentError:
        return None
    return Found(
        driver="",
        manufacturer=said.manufacturer,
        model=said.model,
        serial=said.serial,
        firmware=said.firmware,
        note="labctl has no driver for it",
    )


def _found(place: Place, names: tuple[str, ...], found: Found, locks: Path) -> Seen:
    """It may be a daemon's all the same, by another way that leads to it."""
    owner = None
    if found.serial and found.unique:
        owner = owner_of(locks, [number_name(found.manufacturer, found.serial)])
    if owner is not None:
        why = f"owned by {owner}, which reaches it another way"
        return Seen(place=place, outcome=Outcome.OWNED, found=found, why=why, names=names)
    return Seen(place=place, outcome=Outcome.FOUND, found=found, why=found.note, names=names)
