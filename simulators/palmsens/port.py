"""The instrument's connectors: a pseudo-terminal under a name of its own, and a TCP port.

In virtual time the instrument waits until what it wrote was read, so that it does not run ahead of
whoever reads. Otherwise it writes as long as there is room, waits for a second, and then throws
away what nobody takes. That a real one does so is assumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import struct
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

AHEAD_BYTES: Final = 512
"""How much may wait to be read in virtual time."""
PATIENCE_S: Final = 1.0
_SHORTEST_NAP_S: Final = 1e-4
_LONGEST_NAP_S: Final = 5e-3
_CHUNK: Final = 4096


class PtyPort:
    """A pseudo-terminal; ``link`` is a symbolic link to it, None for none."""

    def __init__(self, hear: Callable[[bytes], None], *, link: Path | None, waits: bool) -> None:
        self._hear = hear
        self._link = link
        self._waits = waits
        self._master = self._slave = -1
        self._plugs = 0
        self._unheard = False
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.path = ""

    @property
    def plugged(self) -> bool:
        return self._master >= 0

    def plug(self) -> None:
        """Appear. Doing so twice is no matter.

        Raises:
            OSError: the link cannot be made.
        """
        if self.plugged:
            return
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        if self._link is not None:
            new = self._link.with_name(self._link.name + ".new")
            new.unlink(missing_ok=True)
            new.symlink_to(self.path)
            new.replace(self._link)
        self._loop.add_reader(self._master, self._readable)
        self._plugs += 1
        self._changed.set()

    def unplug(self) -> None:
        """Be gone, for whoever has it open too. Idempotent."""
        if not self.plugged:
            return
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        for fd in (self._master, self._slave):
            os.close(fd)
        self._master = self._slave = -1
        if self._link is not None and _points_to(self._link, self.path):
            self._link.unlink()
        self._changed.set()

    async def write(self, data: bytes) -> None:
        """Write all of it, or what is taken of it until the plug is pulled."""
        while self._waits and not self.plugged:
            await self._change()
        left, plugs = memoryview(data), self._plugs
        nap_s = _SHORTEST_NAP_S
        over_s = self._loop.time() + (0.0 if self._unheard else PATIENCE_S)
        while left:
            if not self.plugged or self._plugs != plugs:
                return
            if not self._waits or self._unread() < AHEAD_BYTES:
                try:
                    left = left[os.write(self._master, left) :]
                    self._unheard = False
                    continue
                except OSError as error:
                    if error.errno not in {errno.EAGAIN, errno.EIO}:
                        raise
            if not self._waits and self._loop.time() > over_s:
                self._unheard = True
                return
            await asyncio.sleep(nap_s)
            nap_s = min(2 * nap_s, _LONGEST_NAP_S)

    def _unread(self) -> int:
        """How many bytes wait in the terminal to be read."""
        buffer = fcntl.ioctl(self._slave, termios.FIONREAD, b"\0\0\0\0")
        count: int = struct.unpack("i", buffer)[0]
        return count

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._hear(os.read(self._master, _CHUNK))


class TcpPort:
    """A TCP port; the newest client is the one that is talked to."""

    def __init__(self, hear: Callable[[bytes], None], *, waits: bool) -> None:
        self._hear = hear
        self._waits = waits
        self._writer: asyncio.StreamWriter | None = None
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> int:
        """Where it listens now.

        Raises:
            OSError: it cannot.
        """
        self._server = await asyncio.start_server(self._connected, host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._talks:
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def disconnect(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    async def write(self, data: bytes) -> None:
        while self._waits and self._writer is None:
            self._changed.clear()
            await self._changed.wait()
        if self._writer is None:
            return
        writer = self._writer
        writer.write(data)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(None if self._waits else PATIENCE_S):
                await writer.drain()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.disconnect()
        writer.transport.set_write_buffer_limits(high=AHEAD_BYTES)
        self._writer = writer
        self._changed.set()
        try:
            while data := await reader.read(_CHUNK):
                self._hear(data)
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def _points_to(link: Path, path: str) -> bool:
    try:
        return link.is_symlink() and os.readlink(link) == path  # noqa: PTH115
    except OSError:
        return False
