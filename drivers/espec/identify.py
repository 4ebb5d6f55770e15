"""Is it an Espec chamber? ``TYPE?`` tells its sensors, its controller and its highest temperature,
``ROM?`` its version; what it does not know it refuses with ``NA:``.

On an RS-485 line nothing is heard without an address: such a chamber is not found.

Source: ChamberConnectLibrary @1d2deb8, p300.py, read_rom and read_type.
"""

from __future__ import annotations

from typing import Final

from labctl.drivers.espec.words import parse_kind, parse_refusal, parse_rom
from labctl.drivers.probe import (
    Conversation,
    Found,
    Options,
    Place,
    Probe,
    SerialLine,
    Wire,
    text_of_answer,
)
from labctl.errors import InstrumentError

PATIENCE_S: Final = 1.0
PORTS: Final = (57_732, 10_001)
"""Of a PR-3J, and of a P-300's converter."""


def ask(conversation: Conversation) -> Found | None:
    kind_told = text_of_answer(conversation.ask(b"TYPE?\r\n", patience_s=PATIENCE_S))
    rom_told = text_of_answer(conversation.ask(b"ROM?\r\n", patience_s=PATIENCE_S))
    try:
        kind, rom = parse_kind(kind_told), parse_rom(rom_told)
    except InstrumentError:
        return None
    if parse_refusal(rom) is not None:
        return None
    return Found(
        driver="espec",
        manufacturer="ESPEC",
        model=kind.controller,
        serial=rom,
        firmware=rom,
        unique=False,
        options={"rom": rom},
    )


def options_at(place: Place) -> Options:
    if place.wire is Wire.TCP:
        return {"host": place.address, "port": place.port}
    return {"port": place.address}


PROBE = Probe(
    stem="chamber",
    ask=ask,
    options_at=options_at,
    tcp_ports=PORTS,
    serial=(SerialLine(9600),),
    examples={"PR-3J": {"host": "chamber"}},
)
