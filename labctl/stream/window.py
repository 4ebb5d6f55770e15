"""What is on its way to the archive and not acknowledged: what to send next, what to send again.

Pure bookkeeping; times are given to it. Three things make a batch be sent again:

- everything, after :meth:`Window.rewind`: a new connection, or an archive that has come;
- one that was passed over: another that was sent later is acknowledged, and this one is not
  though the silence has passed since;
- the oldest one, as a probe, when nothing at all is acknowledged for a silence that grows. An
  archive that hangs is so asked again and again, and the broker's queue does not grow by the whole
  window each time. Its answer to the probe shows what else was lost.

Until an archive has answered, only a small window is opened. Compare TCP: selective
acknowledgement (RFC 2018), zero-window probes (RFC 9293, 3.8.6.1), slow start (RFC 5681).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from labctl.stream.topics import Ack


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLimits:
    """How much may be on its way, and how long a silence may last.

    probe_batches, probe_bytes: while no archive has answered yet.
    """

    batches: int = 2000
    bytes: int = 24 * 1024 * 1024
    probe_batches: int = 100
    probe_bytes: int = 4 * 1024 * 1024
    silence_s: float = 10.0
    longest_silence_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Sent:
    order: int
    at_s: float
    size: int


class Window:
    """The batches on their way, by number."""

    def __init__(self, limits: WindowLimits | None = None) -> None:
        self.limits = limits or WindowLimits()
        self.epoch = 0
        self.silent = False
        self._sent: dict[int, _Sent] = {}
        self._bytes = 0
        self._again: set[int] = set()
        self._cursor = 0
        self._order = 0
        self._answered_order = -1
        self._answered = False
        self._quiet_since_s = 0.0
        self._silence_s = self.limits.silence_s

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def bytes_on_their_way(self) -> int:
        return self._bytes

    @property
    def has_room(self) -> bool:
        """Whether another batch may be sent."""
        limits = self.limits
        batches, size = (
            (limits.batches, limits.bytes)
            if self._answered
            else (limits.probe_batches, limits.probe_bytes)
        )
        return len(self._sent) < batches and self._bytes < size

    @property
    def read_after(self) -> int:
        """Batches above this number are to be read from the journal next."""
        return min(self._again) - 1 if self._again else self._cursor

    def wanted(self, batches: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Those of ``batches``, just read above ``read_after``, that are to be sent.

        Numbers that were to be sent again and are not among them were acknowledged meanwhile.
        """
        if not self._again:
            return [batch for batch in batches if batch[0] not in self._sent]
        last = batches[-1][0] if batches else max(self._again)
        found = [batch for batch in batches if batch[0] in self._again]
        self._again -= {number for number in self._again if number <= last} - {
            number for number, _ in found
        }
        return found

    def sent(self, number: int, size: int, now_s: float) -> None:
        """A batch goes out now."""
        if not self._sent:
            self._quiet_since_s = now_s
        self._forget(number)
        self._sent[number] = _Sent(self._order, now_s, size)
        self._bytes += size
        self._order += 1
        self._again.discard(number)
        self._cursor = max(self._cursor, number)

    def acknowledge(self, ack: Ack, now_s: float) -> int:
        """Take what is committed off; the number of batches that this was news of."""
        firsts = [first for first, _ in ack.ranges]
        done = []
        for number in self._sent:
            place = bisect_right(firsts, number) - 1
            if number <= ack.watermark or (place >= 0 and number <= ack.ranges[place][1]):
                done.append(number)
        for number in done:
            self._answered_order = max(self._answered_order, self._sent[number].order)
            self._forget(number)
        self._again = {number for number in self._again if not ack.covers(number)}
        self._cursor = max(self._cursor, ack.watermark)
        if done or not (self._sent or self._again):
            self.silent = False
        if done:
            self._answered = True
            self._quiet_since_s = now_s
            self._silence_s = self.limits.silence_s
            self._mark_passed_over(now_s)
        return len(done)

    def tick(self, now_s: float) -> bool:
        """Look at the time; whether there is something to send again."""
        changed = self._mark_passed_over(now_s)
        if self._sent and now_s - self._quiet_since_s >= self._silence_s:
            self._resend(min(self._sent))
            self.silent = True
            self._quiet_since_s = now_s
            self._silence_s = min(2 * self._silence_s, self.limits.longest_silence_s)
            changed = True
        return changed

    def rewind(self, now_s: float) -> None:
        """Everything that is not acknowledged is to be sent again."""
        self.epoch += 1
        self._sent.clear()
        self._again.clear()
        self._bytes = 0
        self._cursor = 0
        self._answered = False
        self._answered_order = -1
        self._quiet_since_s = now_s
        self._silence_s = self.limits.silence_s

    def _mark_passed_over(self, now_s: float) -> bool:
        passed = [
            number
            for number, sent in self._sent.items()
            if sent.order < self._answered_order and now_s - sent.at_s >= self.limits.silence_s
        ]
        for number in passed:
            self._resend(number)
        return bool(passed)

    def _resend(self, number: int) -> None:
        self._forget(number)
        self._again.add(number)
        self.epoch += 1

    def _forget(self, number: int) -> None:
        sent = self._sent.pop(number, None)
        if sent is not None:
            self._bytes -= sent.size
