"""Why a controller refuses a command, as it says so on the wire.

Source: ChamberConnectLibrary @1d2deb8, especinteract.py, ERROR_DESCRIPTIONS.
"""

from __future__ import annotations

from typing import Final, NoReturn

CMD: Final = "CMD ERR"
PARA: Final = "PARA ERR"
RANGE: Final = "DATA OUT OF RANGE"
NO_DATA: Final = "DATA NOT READY"
NOT_NOW: Final = "CHB NOT READY"
LOCKED: Final = "PROTECT ON"
NO_HUMIDITY: Final = "CONT NOT READY-1"
NO_PROGRAM: Final = "CONT NOT READY-2"
UNSUPPORTED: Final = "CONT NOT READY-3"
OFF_NOW: Final = "CONT NOT READY-4"

NOT_EDITED: Final = "PRGM WRITE ERR-2"
IS_EDITED: Final = "PRGM WRITE ERR-4"
ANOTHER_IS_EDITED: Final = "PRGM WRITE ERR-7"
NOT_IN_ORDER: Final = "PRGM WRITE ERR-8"
WRONG_COUNTER: Final = "PRGM WRITE ERR-9"
IS_RUNNING: Final = "PRGM WRITE ERR-10"
INCOMPLETE: Final = "PRGM WRITE ERR-11"
WRONG_STEP: Final = "PRGM WRITE ERR-13"


class RefusedError(Exception):
    """A command is refused; the message is the reason on the wire."""


def refuse(reason: str) -> NoReturn:
    raise RefusedError(reason)
