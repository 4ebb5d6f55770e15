"""The last samples of each run: all of them or none, and never more than there is room for."""

from __future__ import annotations

import numpy as np

from labctl.archive.tails import A_BLOCK, Tails
from labctl.model import RECORD_COLUMNS, Records


def block(first_seq: int, count: int = 10) -> Records:
    seq = np.arange(first_seq, first_seq + count)
    return Records(**dict.fromkeys(RECORD_COLUMNS, seq) | {"seq": seq})


def kept(tails: Tails[int], run: int, first_seq: int, last_seq: int) -> list[int] | None:
    found = tails.take(run, first_seq, last_seq)
    return None if found is None else found.seq.tolist()


def test_samples_of_several_blocks_come_in_their_order() -> None:
    tails: Tails[int] = Tails()
    for first_seq in (11, 1, 21):
        tails.add(1, block(first_seq))
    assert kept(tails, 1, 8, 23) == list(range(8, 24))


def test_where_a_sample_is_missing_there_are_none() -> None:
    tails: Tails[int] = Tails()
    tails.add(1, block(1))
    tails.add(1, block(21))
    assert kept(tails, 1, 5, 25) is None
    assert kept(tails, 2, 1, 5) is None
    tails.forget_before(1, 11)
    assert kept(tails, 1, 1, 10) is None
    assert kept(tails, 1, 21, 30) == list(range(21, 31))


def test_the_run_that_was_quiet_for_longest_makes_room() -> None:
    tails: Tails[int] = Tails(most_rows=3 * (10 + A_BLOCK))
    for run in (1, 2, 3):
        tails.add(run, block(1))
    tails.add(1, block(11))
    assert kept(tails, 1, 1, 20) == list(range(1, 21))
    assert kept(tails, 2, 1, 10) is None
    assert kept(tails, 3, 1, 10) == list(range(1, 11))


def test_a_block_that_comes_again_takes_no_more_room() -> None:
    tails: Tails[int] = Tails(most_rows=2 * (10 + A_BLOCK))
    for _ in range(100):
        tails.add(1, block(1))
    tails.add(2, block(1))
    assert kept(tails, 1, 1, 10) == kept(tails, 2, 1, 10) == list(range(1, 11))
