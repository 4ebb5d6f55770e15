"""Is it a Neware BTS 8 host? It is one if it lets in with the password that it is delivered with,
or refuses that in its own words, and then it lists its channels."""

from __future__ import annotations

from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.messages import (
    DEFAULT_PORT,
    FRAMING,
    connect_request,
    devinfo_request,
    read_connect,
    read_devinfo,
)
from labctl.drivers.probe import Conversation, Found, Options, Place, Probe
from labctl.errors import InstrumentError

PATIENCE_S = 6.0
"""BTS stalls for some seconds now and then."""

MISSING = {"step_file_dir": "a folder that the BTS host can read, as this PC sees it"}


def ask(conversation: Conversation) -> Found | None:
    defaults = NewareConfig(host="-", step_file_dir="-")
    answer = _ask(conversation, connect_request(defaults.username, defaults.password))
    if b"<bts" not in answer or b"connect_resp" not in answer:
        return None
    try:
        read_connect(answer)
    except InstrumentError as error:
        return _host(note=str(error), missing={"username": "", "password": "", **MISSING})
    try:
        addresses = read_devinfo(_ask(conversation, devinfo_request()))
    except InstrumentError as error:
        return _host(note=str(error), missing=MISSING)
    units = sorted({(address.devtype, address.devid) for address in addresses})
    return Found(
        driver="neware_bts",
        manufacturer="Neware",
        model="BTS 8 device type " + ", ".join(str(kind) for kind in sorted({k for k, _ in units})),
        serial=", ".join(f"{kind}-{unit}" for kind, unit in units),
        channels=tuple(str(address) for address in addresses),
        unique=False,
        missing=MISSING,
    )


def options_at(place: Place) -> Options:
    if place.port == DEFAULT_PORT:
        return {"host": place.address}
    return {"host": place.address, "port": place.port}


def _ask(conversation: Conversation, request: bytes) -> bytes:
    end = FRAMING.reply_end
    answer = conversation.ask(request + FRAMING.request_end, until=end, patience_s=PATIENCE_S)
    return answer.removesuffix(end)


def _host(*, note: str, missing: dict[str, str]) -> Found:
    return Found(
        driver="neware_bts",
        manufacturer="Neware",
        model="BTS 8",
        unique=False,
        note=note,
        missing=missing,
    )


PROBE = Probe(
    stem="rack",
    ask=ask,
    options_at=options_at,
    tcp_ports=(DEFAULT_PORT,),
    alone=True,
    examples={"BTS 8": {"host": "host", "step_file_dir": "folder"}},
)
