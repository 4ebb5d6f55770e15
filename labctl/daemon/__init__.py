"""``labctl daemon``: owns the instruments, runs Programs on them, journals, publishes, obeys.

When it is killed, the instruments go on with the limits that they hold; when it starts again, every
run goes on from the journal.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from labctl.control import serve_control
from labctl.daemon.commands import Commands
from labctl.daemon.node import Node
from labctl.engine.journal import open_journal
from labctl.engine.reserve import SIZE_B
from labctl.settings import Settings

log = logging.getLogger("labctl.daemon")

SPACING_S = 0.02
"""Of the journal's transactions. With 256 channels that each write once a second they write 1.7 MB
a second instead of 4.2, with 1,000 channels 3.7 instead of 15 (benchmarks/journal.py)."""


@asynccontextmanager
async def open_node(settings: Settings) -> AsyncIterator[Node]:
    """Open the journal and make the node; it lets go of its instruments at the end.

    Raises:
        JournalError: another daemon runs on this data folder, or the journal is damaged.
        ConfigError: an instrument's options do not fit its driver.
    """
    async with open_journal(
        settings.journal,
        settings.node.name,
        reserve_B=SIZE_B,
        spacing_s=SPACING_S if settings.node.in_real_time else 0.0,
    ) as journal:
        node = Node(settings, journal, await journal.cells(), await journal.runs())
        try:
            yield node
        finally:
            await node.close()


async def run_daemon(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until cancelled; ``ready`` is called when commands are taken.

    Raises:
        JournalError, ConfigError: see :func:`open_node`.
    """
    async with (
        open_node(settings) as node,
        serve_control(settings.socket, Commands(node).obey),
    ):
        log.info(
            "node %s (journal %s) takes commands at %s",
            settings.node.name,
            node.journal.source,
            settings.socket,
        )
        ready()
        await node.work()
