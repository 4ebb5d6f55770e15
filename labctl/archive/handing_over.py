"""Groups of batches handed to the process that commits, through memory that both see.

The questions go over a pipe; the batches of a group lie in a piece of shared memory, which is used
again when the group is answered. Where the system has no such memory they go over the pipe too.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import os
import pickle
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from labctl.archive.arrivals import Samples
from labctl.archive.reckoning import ReckonedCycles

_SMALLEST_B = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Group:
    """Batches, the node of each, whether all of them are good
    (:func:`labctl.archive.arrivals.look_over`), what was reckoned of the cycles that end in them,
    and their samples, if they were laid out."""

    payloads: Sequence[Any]
    nodes: Sequence[str]
    checked: bool
    reckoned: ReckonedCycles
    samples: Samples | None = None


@dataclass(frozen=True, slots=True)
class _Header:
    """What goes before a group.

    group: without its batches and the database of its samples, whose lengths are ``sizes``.
    piece: number of the memory that they lie in, 0 for none; ``size_b`` where it is new.
    gone: the memory that it takes the place of.
    """

    group: Group
    sizes: Sequence[int]
    piece: int = 0
    size_b: int = 0
    gone: int = 0


class _Piece:
    """Shared memory of the process that gives."""

    def __init__(self, number: int, size_b: int) -> None:
        self.number = number
        self.size_b = size_b
        self.file = os.memfd_create(f"labctl group {number}")
        os.ftruncate(self.file, size_b)
        self.memory = mmap.mmap(self.file, size_b)

    def close(self) -> None:
        self.memory.close()
        os.close(self.file)


class GivingEnd:
    """The end of the process that asks. One thread gives, one hears the answers."""

    def __init__(self, connection: Connection, pid: int) -> None:
        self.connection = connection
        self._pid = pid
        self._made = 0
        self._unanswered: deque[_Piece | None] = deque()
        self._free: deque[_Piece] = deque()

    def give(self, question: object) -> None:
        """Send a question, which may be a group.

        Raises:
            OSError: the other process is gone.
        """
        if not isinstance(question, Group):
            self._unanswered.append(None)
            self.connection.send_bytes(pickle.dumps(question))
            return
        group, parts = _taken_apart(question)
        sizes = [part.nbytes for part in parts]
        header = _Header(group, sizes)
        if not any(sizes) or not hasattr(os, "memfd_create"):
            self._unanswered.append(None)
            self._send(header)
            for part in parts:
                self.connection.send_bytes(part)
            return
        piece, is_new, gone = self._piece_for(sum(sizes))
        self._unanswered.append(piece)
        at = 0
        for part in parts:
            piece.memory[at : at + part.nbytes] = part
            at += part.nbytes
        size_b = piece.size_b if is_new else 0
        self._send(dataclasses.replace(header, piece=piece.number, size_b=size_b, gone=gone))
        if is_new:
            send_handle(self.connection, piece.file, self._pid)

    def answered(self) -> None:
        """The question that was given first has its answer."""
        if self._unanswered and (piece := self._unanswered.popleft()) is not None:
            self._free.append(piece)

    def close(self) -> None:
        """Let go of everything."""
        self.connection.close()
        for piece in (*self._unanswered, *self._free):
            if piece is not None:
                piece.close()
        self._unanswered.clear()
        self._free.clear()

    def _send(self, header: _Header) -> None:
        self.connection.send_bytes(pickle.dumps(header, protocol=5))

    def _piece_for(self, size_b: int) -> tuple[_Piece, bool, int]:
        """Memory that is large enough, whether it is new, and whose place it takes."""
        gone = 0
        if self._free:
            piece = self._free.popleft()
            if piece.size_b >= size_b:
                return piece, False, 0
            gone = piece.number
            piece.close()
        self._made += 1
        larger_b = -(-size_b * 5 // 4 // _SMALLEST_B) * _SMALLEST_B
        return _Piece(self._made, larger_b), True, gone


class TakingEnd:
    """The end of the process that answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pieces: dict[int, mmap.mmap] = {}

    def take(self) -> object:
        """The next question. The batches of a group are to be read before it is answered.

        Raises:
            OSError, EOFError: the other process is gone.
        """
        question: object = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our parent's
        if not isinstance(question, _Header):
            return question
        sizes = question.sizes
        if not question.piece:
            return _put_together(question.group, [self._connection.recv_bytes() for _ in sizes])
        self._pieces.pop(question.gone, None)
        if question.size_b:
            file = recv_handle(self._connection)
            self._pieces[question.piece] = mmap.mmap(file, question.size_b)
            os.close(file)
        whole = memoryview(self._pieces[question.piece])
        ends = list(itertools.accumulate(sizes, initial=0))
        parts = [whole[first:end] for first, end in itertools.pairwise(ends)]
        return _put_together(question.group, parts)


def _taken_apart(group: Group) -> tuple[Group, list[memoryview]]:
    """The group without what is long, and that: its batches, and the database of its samples."""
    parts = [memoryview(payload) for payload in group.payloads]
    samples = group.samples
    if samples is not None:
        parts.append(memoryview(samples.database).cast("B"))
        samples = samples._replace(database=None)
    return dataclasses.replace(group, payloads=(), samples=samples), parts


def _put_together(group: Group, parts: list[Any]) -> Group:
    samples = group.samples
    if samples is not None:
        samples = samples._replace(database=parts.pop())
    return dataclasses.replace(group, samples=samples, payloads=parts)
