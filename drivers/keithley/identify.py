"""Is it a Keithley 2450, 2460 or 2461? ``*IDN?`` tells: reference manual 2461-901-01, ch. 6."""

from __future__ import annotations

from labctl.drivers.keithley.config import MODELS
from labctl.drivers.probe import Conversation, Found, Options, Place, Probe, Wire, text_of_answer
from labctl.errors import InstrumentError
from labctl.wire.scpi import parse_identification

VENDOR = 0x05E6


def ask(conversation: Conversation) -> Found | None:
    try:
        said = parse_identification(text_of_answer(conversation.ask(b"*IDN?\n")))
    except InstrumentError:
        return None
    model = said.model.upper().removeprefix("MODEL").strip()
    if "KEITHLEY" not in said.manufacturer.upper() or model not in MODELS:
        return None
    return Found(
        driver="keithley",
        manufacturer=said.manufacturer,
        model=model,
        serial=said.serial,
        firmware=said.firmware,
        channels=("1",),
        options={"model": model, "serial": said.serial},
    )


def options_at(place: Place) -> Options:
    if place.wire is Wire.TCP:
        return {"resource": f"TCPIP::{place.address}::{place.port}::SOCKET"}
    return {"resource": place.address}


PROBE = Probe(
    stem="smu",
    ask=ask,
    options_at=options_at,
    tcp_ports=(5025,),
    visa=True,
    usb=frozenset((VENDOR, int(model, 16)) for model in MODELS),
    examples={model: {"resource": "TCPIP::host::5025::SOCKET", "model": model} for model in MODELS},
)
