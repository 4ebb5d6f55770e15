"""Is it a PalmSens instrument? ``i`` asks for its serial number, ``t`` for its model and firmware.

While a script runs it tells neither, and sends the script's packages instead. Source: communication
protocols of EmStat Pico v1.6 and EmStat4 v1.3.
"""

from __future__ import annotations

import re
from typing import Final

from labctl.drivers.palmsens.models import MODEL_OF_CODE, MODELS
from labctl.drivers.palmsens.talk import CODE_LENGTH
from labctl.drivers.probe import (
    Conversation,
    Found,
    Options,
    Place,
    Probe,
    SerialLine,
    text_of_answer,
)

PATIENCE_S: Final = 0.7

_SERIAL = re.compile(r"i([0-9A-Za-z-]{1,32})")
_VERSION = re.compile(rf"t([0-9a-z_]{{{CODE_LENGTH}}})([0-9.]*)#(.*)")
_PACKAGE = re.compile(rb"^P[a-z]{2}(?:[0-9A-F]{7}[afpnumkMGTPEi ]| {5}nan)", re.MULTILINE)
_OF_CODE: Final = {code: name for name, model in reversed(MODELS.items()) for code in model.codes}


def ask(conversation: Conversation) -> Found | None:
    answer = conversation.ask(b"i\n", patience_s=PATIENCE_S)
    if _PACKAGE.search(answer):
        return _busy()
    serial = _SERIAL.fullmatch(text_of_answer(answer))
    if serial is None:
        return None
    lines = conversation.ask(b"t\n", until=b"*\n", patience_s=PATIENCE_S).split(b"\n")
    version = _VERSION.fullmatch(text_of_answer(lines[0]))
    if version is None:
        return None
    code, firmware, built = version.groups()
    alike = [name for name, model in MODELS.items() if code in model.codes]
    return Found(
        driver="palmsens" if code in _OF_CODE else "",
        manufacturer="PalmSens",
        model=MODEL_OF_CODE.get(code, code),
        serial=serial[1],
        firmware=f"{firmware} ({built})",
        channels=("1",),
        options={"model": _OF_CODE.get(code, code), "serial": serial[1]},
        note=f"{' and '.join(alike)} say the same of themselves" if len(alike) > 1 else "",
    )


def options_at(place: Place) -> Options:
    return {"port": f"socket://{place}" if place.port else place.address}


def _busy() -> Found:
    return Found(
        driver="palmsens",
        manufacturer="PalmSens",
        model="",
        note="runs a script, and tells what it is only when it runs none",
        missing={"model": f"one of {', '.join(MODELS)}", "serial": "its serial number"},
    )


PROBE = Probe(
    stem="potentiostat",
    ask=ask,
    options_at=options_at,
    tcp_ports=(),
    serial=tuple(
        SerialLine(baud, xonxoff)
        for baud, xonxoff in sorted({(model.baud, model.xonxoff) for model in MODELS.values()})
    ),
    examples={name: {"port": "port", "model": name} for name in MODELS},
)
