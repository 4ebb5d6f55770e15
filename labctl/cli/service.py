"""Long-running commands: they begin, say that they are ready, and end cleanly when told to."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from labctl.supervisor import notify_systemd


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
    """
    asyncio.run(_until_signalled(serve))


def ready() -> None:
    """Tell systemd that the service does its work from now on."""
    notify_systemd("READY=1")


async def _until_signalled(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve(), name="service")
    told = False

    def end() -> None:
        nonlocal told
        told = True
        notify_systemd("STOPPING=1")
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
