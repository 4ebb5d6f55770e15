"""What is sent again, and when."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labctl.stream.topics import Ack, ack_of
from labctl.stream.window import Window, WindowLimits

LIMITS = WindowLimits(batches=6, bytes=600, probe_batches=2, probe_bytes=250)


def send(window: Window, numbers: list[int], now_s: float = 0.0, size: int = 10) -> None:
    for number in numbers:
        window.sent(number, size, now_s)


def ack(watermark: int, *ranges: tuple[int, int]) -> Ack:
    return Ack(source="s", watermark=watermark, ranges=ranges)


def test_only_a_small_window_is_open_until_the_archive_answers():
    window = Window(LIMITS)
    send(window, [1])
    assert window.has_room
    send(window, [2])
    assert not window.has_room
    window.acknowledge(ack(1), 0.0)
    send(window, [3, 4, 5, 6])
    assert window.has_room
    send(window, [7])
    assert not window.has_room


def test_the_window_is_bounded_in_bytes_too():
    window = Window(LIMITS)
    send(window, [1], size=250)
    assert not window.has_room
    assert window.bytes_on_their_way == 250
    window.acknowledge(ack(1), 0.0)
    assert window.bytes_on_their_way == 0
    send(window, [2], size=599)
    assert window.has_room


def test_in_a_silence_only_the_oldest_batch_is_sent_again_and_ever_more_rarely():
    window = Window()
    send(window, [1, 2, 3])
    probes = []
    for second in range(1, 300):
        if window.tick(float(second)):
            assert window.read_after == 0
            assert window.wanted([(1, b""), (2, b""), (3, b"")]) == [(1, b"")]
            window.sent(1, 10, float(second))
            probes.append(second)
            assert window.silent
    assert probes == [10, 30, 70, 130, 190, 250]
    assert len(window) == 3


def test_the_answer_to_a_probe_shows_what_else_was_lost():
    window = Window()
    send(window, [1, 2, 3])
    window.tick(10.0)
    window.sent(1, 10, 10.0)
    assert window.acknowledge(ack(1), 11.0) == 1
    assert not window.silent
    assert window.read_after == 1
    assert [number for number, _ in window.wanted([(2, b""), (3, b"")])] == [2, 3]


def test_a_batch_that_was_passed_over_is_sent_again_though_others_go_on():
    window = Window()
    send(window, [1, 2, 3], now_s=0.0)
    window.acknowledge(ack(0, (3, 3)), 1.0)
    assert not window.tick(5.0)
    send(window, [4], now_s=9.0)
    window.acknowledge(ack(0, (3, 4)), 9.5)
    assert window.tick(10.0)
    assert window.wanted([(1, b"a"), (2, b"b"), (5, b"e")]) == [(1, b"a"), (2, b"b")]
    assert not window.silent


def test_what_was_acknowledged_meanwhile_is_not_sent_again():
    window = Window()
    send(window, [1, 2, 3])
    window.tick(10.0)
    assert window.wanted([(2, b""), (3, b"")]) == []
    assert window.read_after == 3


def test_a_new_connection_sends_everything_again_and_new_batches_after_it():
    window = Window()
    send(window, [1, 2, 3])
    epoch = window.epoch
    window.rewind(5.0)
    assert (len(window), window.read_after, window.bytes_on_their_way) == (0, 0, 0)
    assert window.epoch != epoch


def test_a_slow_archive_that_acknowledges_in_order_is_not_sent_anything_twice():
    window = Window()
    send(window, list(range(1, 101)))
    for second in range(1, 100):
        window.acknowledge(ack(second), 9.0 * second)
        assert not window.tick(9.0 * second + 8.9)


class LossyWire(RuleBasedStateMachine):
    """Any loss of batches and of acks, any reconnect: in the end all has arrived, and no more than
    the window was ever on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(LIMITS)
        self.journal: dict[int, bytes] = {}
        self.written = 0
        self.committed: list[int] = []
        self.now_s = 0.0

    @rule(count=st.integers(1, 5))
    def write(self, count: int) -> None:
        for _ in range(count):
            self.written += 1
            self.journal[self.written] = b"x" * 80

    @rule(lost=st.lists(st.booleans(), min_size=8, max_size=8), chunk=st.integers(1, 4))
    def send(self, lost: list[bool], chunk: int) -> None:
        for is_lost in lost:
            if not self.window.has_room:
                return
            pending = sorted(n for n in self.journal if n > self.window.read_after)[:chunk]
            wanted = self.window.wanted([(number, self.journal[number]) for number in pending])
            for number, payload in wanted:
                if not self.window.has_room:
                    break
                self.window.sent(number, len(payload), self.now_s)
                if not is_lost:
                    self.committed.append(number)

    @rule(lost=st.booleans())
    def acknowledge(self, lost: bool) -> None:
        if lost:
            return
        ack = ack_of("s", self.committed)
        self.journal = {n: payload for n, payload in self.journal.items() if not ack.covers(n)}
        self.window.acknowledge(ack, self.now_s)

    @rule(duration_s=st.floats(0, 70))
    def wait(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.window.tick(self.now_s)

    @rule()
    def reconnect(self) -> None:
        self.window.rewind(self.now_s)

    @invariant()
    def the_window_is_kept(self) -> None:
        assert len(self.window) <= LIMITS.batches
        assert self.window.bytes_on_their_way < LIMITS.bytes + 80
        assert self.window.bytes_on_their_way == 80 * len(self.window)

    @precondition(lambda self: self.journal)
    @rule()
    def once_the_wire_holds_everything_arrives(self) -> None:
        for _ in range(4 * self.written + 20):
            self.send([False] * 8, 4)
            self.acknowledge(lost=False)
            self.wait(61.0)
        assert not self.journal
        assert set(self.committed) == set(range(1, self.written + 1))


LossyWire.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLossyWire = LossyWire.TestCase
