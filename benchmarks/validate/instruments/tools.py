"""Calls the tools of an MCP server that is started as its users start it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from checks import Checks
from fastmcp import Client
from fastmcp.client.transports import StdioTransport

Steps = Callable[["Tools"], None]


class Tools:
    """A server's tools, each a call that gives what it answers."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __call__(self, tool: str, **arguments: object) -> dict[str, Any]:
        """What the tool answers.

        Raises:
            Exception: what it refuses with.
        """
        work = self._client.call_tool(tool, arguments)
        result = asyncio.run_coroutine_threadsafe(work, self._loop).result(200)
        found = result.structured_content or {}
        return found.get("result", found) if set(found) == {"result"} else found


def with_tools(command: str, arguments: list[str], checks: Checks, steps: Steps) -> int:
    """Run ``steps`` with the tools of the server; the code to exit with."""

    async def work() -> None:
        async with Client(StdioTransport(command, arguments, env=dict(os.environ))) as client:
            tools = Tools(client, asyncio.get_running_loop())
            await asyncio.to_thread(steps, tools)

    asyncio.run(work())
    return checks.code
