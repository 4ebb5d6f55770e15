"""The time port of a simulated instrument in virtual time; see :mod:`labctl.wire.timelink`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from labctl.simulators.server import After, Answer, Socket, serve_frames
from labctl.wire.timelink import LONGEST_LINE, TimeLineError, now_line, read_advance

logger = logging.getLogger(__name__)


def serve_time(
    advance: Callable[[float], float], *, host: str, port: int
) -> AbstractAsyncContextManager[Socket]:
    """Serve until the block is left. ``advance`` moves time on by so many seconds and returns what
    time it is then, in s since an arbitrary start.

    A line that means nothing closes its connection.

    Raises:
        OSError: the address cannot be listened on.
    """

    async def answer(frame: bytes) -> Answer:
        try:
            duration_s = read_advance(frame)
        except TimeLineError as error:
            logger.warning("a connection to the time port is closed: %s", error)
            return Answer(after=After.CLOSE)
        return Answer(now_line(advance(duration_s)))

    return serve_frames(answer, host=host, port=port, separator=b"\n", max_frame_bytes=LONGEST_LINE)
