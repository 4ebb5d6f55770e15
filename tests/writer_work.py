"""What the tests let a writer do between two groups; its process finds it by name."""

from __future__ import annotations

import os
import signal
import sqlite3

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from labctl.errors import CommandError


def own_pid(_: Engine) -> int:
    """The process that works."""
    return os.getpid()


def die(_: Engine) -> None:
    """As when the kernel wants its memory back."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(_: Engine, why: str) -> None:
    """An error of ours."""
    raise CommandError(why)


def find_it_locked(_: Engine) -> None:
    """An error of the database's."""
    raise OperationalError("COMMIT", None, sqlite3.OperationalError("database is locked"))
