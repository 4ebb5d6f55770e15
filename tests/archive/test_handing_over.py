"""Groups of batches go from one process to another unchanged, through memory used again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import Pipe
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labctl.archive.arrivals import laid_out, look_over
from labctl.archive.handing_over import GivingEnd, Group, TakingEnd


class Both:
    """The two ends, in one process."""

    def __init__(self) -> None:
        ours, self._theirs = Pipe()
        self.giving = GivingEnd(ours, os.getpid())
        self.taking = TakingEnd(self._theirs)

    def hand_over(self, payloads: list[bytes]) -> Group:
        self.giving.give(Group(payloads, ["node-a"] * len(payloads), checked=True, reckoned={}))
        taken = self.taking.take()
        assert isinstance(taken, Group)
        return taken

    def close(self) -> None:
        self.giving.close()
        self._theirs.close()


@pytest.fixture(params=["shared memory", "pipe alone"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    if request.param == "pipe alone":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    made = Both()
    yield made
    made.close()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.binary(max_size=2000), max_size=20), max_size=6))
def test_batches_arrive_as_they_were(both: Both, groups: list[list[bytes]]) -> None:
    for payloads in groups:
        taken = both.hand_over(payloads)
        assert [bytes(one) for one in taken.payloads] == payloads
        assert list(taken.nodes) == ["node-a"] * len(payloads)
        assert taken.checked
        both.giving.answered()


def test_samples_that_were_laid_out_arrive_with_their_batches(both: Both, lab: Any) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec()] * 3)
    arrived = look_over(journal.payloads)
    assert arrived is not None
    samples = laid_out(arrived)
    assert samples is not None
    both.giving.give(Group(journal.payloads, [], checked=True, reckoned={}, samples=samples))
    taken = both.taking.take()
    assert isinstance(taken, Group)
    assert [bytes(one) for one in taken.payloads] == journal.payloads
    assert taken.samples is not None
    assert taken.samples.batches == samples.batches
    assert any(one is None for one in samples.batches)
    assert bytes(taken.samples.database) == bytes(samples.database)


def test_a_question_that_is_no_group_arrives_between_groups(both: Both) -> None:
    assert [bytes(one) for one in both.hand_over([b"a", b"b"]).payloads] == [b"a", b"b"]
    both.giving.give(("pack", "run-1"))
    assert both.taking.take() == ("pack", "run-1")
    assert [bytes(one) for one in both.hand_over([b"c"]).payloads] == [b"c"]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memory without a name here")
def test_memory_is_used_again_only_after_the_answer_and_grows_with_the_groups() -> None:
    both = Both()
    small, large = [b"x" * 1000] * 10, [b"y" * 300_000] * 10
    first = both.hand_over(small)
    second = both.hand_over(large)
    assert bytes(first.payloads[9]) == small[9], "the first is not answered yet"
    both.giving.answered()
    third = both.hand_over(large)
    assert bytes(second.payloads[9]) == bytes(third.payloads[0]) == large[0]
    for _ in range(50):
        both.giving.answered()
        assert bytes(both.hand_over(large).payloads[5]) == large[0]
    assert both.giving._made == 3
    both.close()


def test_one_whose_other_end_is_gone_says_so(both: Both) -> None:
    both._theirs.close()
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system says
        both.hand_over([b"x" * 1000])
