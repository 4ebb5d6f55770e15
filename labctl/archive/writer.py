"""Where groups of batches are committed: in a thread of the archive's process, or beside it.

Python runs one thread at a time. Beside the thread that hears the broker, the one that feeds the
database waits for its turn at every statement, and loses a third of its time to that; in a process
of its own it waits for the database alone. Both ways commit one group after the other, in the order
in which they were given, and the database is the same.

A process that dies is started again: what it had not answered was not committed for certain, is
given again, and the ledger drops what was committed all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Protocol, TypeVar, cast

from sqlalchemy import Engine

from labctl.archive.arrivals import laid_out, look_over
from labctl.archive.database import archive_url, open_engine
from labctl.archive.handing_over import GivingEnd, Group, TakingEnd
from labctl.archive.ingest import Committed, Ingest
from labctl.archive.reckoning import ReckonsAhead
from labctl.archive.turns import Turn, Turns

log = logging.getLogger(__name__)

_CLOSE_S: Final = 5.0
_Answer = tuple[object, list[logging.LogRecord]]
"""What came of a question, an exception perhaps, and what was logged meanwhile."""
Done = TypeVar("Done")


class WriterGoneError(Exception):
    """The process that commits has died; another one takes its place when it is asked again."""


class Writer(Protocol):
    """Commits groups of batches.

    at_once: how many may be given at the same time and all be on their way.
    """

    @property
    def at_once(self) -> int: ...

    async def start(self) -> None:
        """Get ready, so that the first group need not wait."""
        ...

    async def commit(self, payloads: Sequence[bytes], nodes: Sequence[str]) -> Committed:
        """See :meth:`labctl.archive.ingest.Ingest.commit`. A commit that has begun is finished,
        also when the caller is cancelled.

        Raises:
            WriterGoneError: it is not known whether it was committed; ask again.
        """
        ...

    async def do(self, work: Callable[[Engine], Done]) -> Done:
        """Let ``work`` write between two groups: a function of a module, or a partial of one.

        Raises:
            WriterGoneError: it is not known whether it was done.
        """
        ...

    async def close(self) -> None:
        """Finish what has begun, and let go of the database."""
        ...


class ThreadWriter:
    """In a thread; ``engine`` stays the caller's."""

    at_once = 2

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ingest = Ingest(engine)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    async def start(self) -> None:
        """See :class:`Writer`."""

    async def commit(self, payloads: Sequence[bytes], nodes: Sequence[str]) -> Committed:
        """See :class:`Writer`."""
        return await _to_the_end(self._thread, lambda: self._ingest.commit(payloads, nodes))

    async def do(self, work: Callable[[Engine], Done]) -> Done:
        """See :class:`Writer`."""
        return await _to_the_end(self._thread, lambda: work(self._engine))

    async def close(self) -> None:
        """See :class:`Writer`."""
        await asyncio.to_thread(self._thread.shutdown)


class ProcessWriter:
    """In a process that has the database at ``url`` open for itself; on PostgreSQL two groups are
    committed side by side (:mod:`labctl.archive.turns`)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.at_once = 1 + _side_by_side(url)
        self._lays_out = _is_sqlite(url)
        self._process: BaseProcess | None = None
        self._end: GivingEnd | None = None
        self._changing = threading.RLock()
        self._ahead = ReckonsAhead()
        self._sending = ThreadPoolExecutor(1, thread_name_prefix="to writer")
        self._hearing = ThreadPoolExecutor(1, thread_name_prefix="from writer")

    async def start(self) -> None:
        """See :class:`Writer`."""
        await self.commit((), ())

    async def commit(self, payloads: Sequence[bytes], nodes: Sequence[str]) -> Committed:
        """See :class:`Writer`. The next group is on its way while one is committed: call it twice
        at once to make use of that."""
        asked = functools.partial(self._as_group, list(payloads), list(nodes))
        return cast("Committed", await self._ask(asked))

    async def do(self, work: Callable[[Engine], Done]) -> Done:
        """See :class:`Writer`."""
        return cast("Done", await self._ask(lambda: work))

    async def _ask(self, question: Callable[[], object]) -> object:
        # Both at once, so that answers come in the order of the questions.
        sending = self._sending.submit(self._send, question)
        return await _to_the_end(self._hearing, lambda: self._hear(sending.result()))

    async def close(self) -> None:
        """See :class:`Writer`."""
        await asyncio.to_thread(self._close)

    def _as_group(self, payloads: list[bytes], nodes: list[str]) -> Group:
        arrived = look_over(payloads)
        if arrived is None:
            return Group(payloads, nodes, checked=False, reckoned={})
        return Group(
            payloads,
            nodes,
            checked=True,
            reckoned=self._ahead.look(arrived),
            samples=laid_out(arrived) if self._lays_out else None,
        )

    def _send(self, question: Callable[[], object]) -> GivingEnd | None:
        """Where a question was given; None if the process is gone. It is made ready here, while the
        process works on the one before."""
        asked = question()
        with self._changing:
            end = self._end
            if end is None or self._process is None or not self._process.is_alive():
                end = self._start()
        try:
            end.give(asked)
        except (OSError, ValueError):
            return None
        return end

    def _hear(self, end: GivingEnd | None) -> object:
        try:
            if end is None:
                raise EOFError
            answer, said = _loaded(end.connection.recv_bytes())
        except (EOFError, OSError):
            with self._changing:
                if end is None or end is self._end:
                    self._let_go()
            raise WriterGoneError("the process that commits has ended without a word") from None
        end.answered()
        for record in said:
            logging.getLogger(record.name).handle(record)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _start(self) -> GivingEnd:
        self._let_go()
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(self._url, theirs), name="labctl archive writer", daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._end = process, GivingEnd(ours, process.pid or 0)
        return self._end

    def _let_go(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None
        if self._process is not None:
            self._process.join(_CLOSE_S)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
            self._process = None

    def _close(self) -> None:
        self._sending.shutdown(wait=True)
        self._hearing.shutdown(wait=True)
        self._let_go()


async def _to_the_end(thread: ThreadPoolExecutor, work: Callable[[], Done]) -> Done:
    future = asyncio.get_running_loop().run_in_executor(thread, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


def _loaded(answer: bytes) -> _Answer:
    loaded: _Answer = pickle.loads(answer)  # noqa: S301 - of our own child
    return loaded


class _Said(logging.Handler):
    """Keeps what is logged, for the parent to say."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, with its text made: its arguments may be anything."""
        record.msg, record.args = record.getMessage(), None
        record.exc_info = None
        self.records.append(record)

    def take(self) -> list[logging.LogRecord]:
        """What was kept since the last time."""
        records, self.records = self.records, []
        return records


def _serve(url: str, connection: Connection) -> None:
    """The process: questions in, answers out in their order, until the other end is closed or
    gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent ends it, after the last commit
    side_by_side = _side_by_side(url)
    if _is_sqlite(url):
        _stay_on_one_processor()
    said = _Said()
    logging.basicConfig(level=logging.INFO, handlers=[said], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    questions: queue.Queue[object | None] = queue.Queue(maxsize=1)
    threading.Thread(target=_take_in, args=(connection, questions), daemon=True).start()
    engine = open_engine(url)
    ingest, turns = Ingest(engine), Turns()
    # What a group needs goes with it: there are no cycles to look for among the rows of thousands.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    answers: queue.Queue[Future[object] | None] = queue.Queue(maxsize=1)
    answering = threading.Thread(target=_answer, args=(connection, answers, said))
    answering.start()
    try:
        with ThreadPoolExecutor(side_by_side, thread_name_prefix="commit") as threads:
            while (question := questions.get()) is not None:
                answers.put(threads.submit(_done, question, engine, ingest, turns.draw()))
            answers.put(None)
            answering.join()
    finally:
        engine.dispose()


def _side_by_side(url: str) -> int:
    """How many groups are committed at the same time."""
    return 1 if _is_sqlite(url) else 2


def _is_sqlite(url: str) -> bool:
    return archive_url(url).get_backend_name() == "sqlite"


def _answer(
    connection: Connection, answers: queue.Queue[Future[object] | None], said: _Said
) -> None:
    while (future := answers.get()) is not None:
        error = future.exception()
        answer = future.result() if error is None else error
        with contextlib.suppress(OSError):
            connection.send_bytes(_packed(answer, said.take()))


def _stay_on_one_processor() -> None:
    """Where the ends of the tables are at hand: sent from one to another and back between commits
    it needs a fifth more time (benchmarks/pipeline.py)."""
    with contextlib.suppress(AttributeError, OSError):  # Linux has it
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[os.getpid() % len(allowed)]})


def _done(question: object, engine: Engine, ingest: Ingest, turn: Turn) -> object:
    with turn:
        if not isinstance(question, Group):
            turn.come_alone()
            return cast("Callable[[Engine], object]", question)(engine)
        payloads = question.payloads
        if not question.checked:
            payloads = [bytes(payload) for payload in payloads]
        return ingest.commit(
            payloads,
            question.nodes,
            checked=question.checked,
            samples=question.samples,
            reckoned=question.reckoned,
            turn=turn,
        )


def _take_in(connection: Connection, questions: queue.Queue[object | None]) -> None:
    """The next question is read while one is worked on."""
    end = TakingEnd(connection)
    while True:
        try:
            questions.put(end.take())
        except (EOFError, OSError):
            questions.put(None)
            return


def _packed(answer: object, said: list[logging.LogRecord]) -> bytes:
    try:
        packed = pickle.dumps((answer, said), protocol=5)
        if isinstance(answer, Exception):
            _loaded(packed)
    except Exception as error:  # noqa: BLE001 - whatever cannot be packed
        packed = pickle.dumps((RuntimeError(f"{answer!r}, which cannot be told: {error}"), said))
    return packed
