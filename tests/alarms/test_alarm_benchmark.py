"""The rules on a few of the benchmark's cells: what fades is told in time, what is sound is not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import alarms as bench


@pytest.fixture(scope="module")
def found() -> bench.Found:
    rng = np.random.default_rng(11)
    stories = [bench.fading(rng, number) for number in range(9)]
    stories += [bench.healthy(rng, number) for number in (0, 1, 6, 7, 8, 9)]
    stories += [bench.changing(rng, rule) for rule in bench.RULES[1:]]
    return bench.judged(stories)


def test_a_cell_that_fades_to_80_percent_is_told_within_5_comparable_cycles(
    found: bench.Found,
) -> None:
    delays = found.delays["retention"]
    assert len(delays) == 9
    assert max(delays) <= 5
    assert min(delays) >= -2


def test_every_other_loss_is_found(found: bench.Found) -> None:
    assert found.missed.total() == 0
    assert found.delays["drop"] == [2]
    assert 2 <= found.delays["efficiency"][0] <= 5
    assert 10 <= found.delays["fade"][0] <= 50
    assert 10 <= found.delays["knee"][0] <= 40


def test_no_rule_fires_on_healthy_cells(found: bench.Found) -> None:
    assert found.healthy_cycles > 400
    assert found.messages == []
