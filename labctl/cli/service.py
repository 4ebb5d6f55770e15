"""Long-running commands: they begin, say that they are ready, and end cleanly when told to."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from labctl.supervisor import notify_systemd

log = logging.getLogger(__name__)

LAST_MOMENT_S: Final = 8.0
"""Less than what the supervisor and systemd wait before they kill."""


def log_to_stderr(*, verbose: bool = False) -> None:
    """Everything worth a line goes to standard error, where journald or a log file takes it."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    for noisy in ("amqtt", "transitions", "asyncio", "numba", "matplotlib", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def run_service(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``serve`` until it returns or SIGTERM or SIGINT cancels it; a cancelled service ended
    well. Errors go up to the caller.

    A service that does not end within ``LAST_MOMENT_S`` of being told to (a thread that hangs in a
    network share) is cut off: what it must not lose is in its journal.
    """
    asyncio.run(_until_signalled(serve))


def ready() -> None:
    """Tell systemd that the service does its work from now on."""
    notify_systemd("READY=1")


async def _until_signalled(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve(), name="service")
    told = False

    cut_off = threading.Timer(LAST_MOMENT_S, _cut_off)
    cut_off.daemon = True

    def end() -> None:
        nonlocal told
        if told:
            return
        told = True
        notify_systemd("STOPPING=1")
        cut_off.start()
        serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        await serving
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _cut_off() -> None:
    log.error("it did not end within %.0f s of being told to, and is cut off", LAST_MOMENT_S)
    os._exit(1)
