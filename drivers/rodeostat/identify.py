"""Is it a Rodeostat? It answers in JSON which variant, hardware and firmware it is, and the number
that a person gave it."""

from __future__ import annotations

from typing import Final, TypeVar

from labctl.drivers.probe import Conversation, Found, Options, Place, Probe, SerialLine
from labctl.drivers.rodeostat.config import CURRENT_RANGES_A
from labctl.drivers.rodeostat.messages import (
    DEVICE_ID,
    HARDWARE,
    VARIANT,
    VERSION,
    Command,
    Reply,
    ReplyError,
    read_line,
)

BAUD: Final = 115_200
PATIENCE_S: Final = 1.0

Value = TypeVar("Value")


def ask(conversation: Conversation) -> Found | None:
    try:
        variant = _answer(conversation, VARIANT)
        hardware = _answer(conversation, HARDWARE)
        version = _answer(conversation, VERSION)
        device_id = _answer(conversation, DEVICE_ID)
    except ReplyError:
        return None
    options: dict[str, str | int | float | bool] = {"device_id": device_id}
    options.update(("variant", name) for name in CURRENT_RANGES_A if name in variant)
    return Found(
        driver="rodeostat",
        manufacturer="IO Rodeo",
        model=f"Rodeostat {variant}",
        serial=str(device_id),
        firmware=f"{version}, hardware {hardware}",
        channels=("1",),
        unique=False,
        options=options,
    )


def options_at(place: Place) -> Options:
    return {"port": f"socket://{place}" if place.port else place.address}


def _answer(conversation: Conversation, command: Command[Value]) -> Value:
    answer = conversation.ask(command.request() + b"\n", patience_s=PATIENCE_S)
    reply = read_line(answer.strip())
    if not isinstance(reply, Reply) or not reply.success:
        raise ReplyError("it was refused")
    return command.value(reply)


PROBE = Probe(
    stem="rodeostat",
    ask=ask,
    options_at=options_at,
    tcp_ports=(),
    serial=(SerialLine(BAUD),),
    examples={f"Rodeostat {name}": {"port": "port", "variant": name} for name in CURRENT_RANGES_A},
)
