"""Whose turn it is: runs that were made and wait, for a channel, for a cell, or for a time. Pure.

A run that is queued behind another begins when that one has run to its end. Where it did not (it
was stopped, tripped or failed) somebody looks first, and releases the run that waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from labctl.engine.run import Charter, Checkpoint
from labctl.engine.states import RunState


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a run waits; ``for_s`` is how long, infinite where something has to happen first."""

    why: str
    for_s: float = math.inf


def in_the_way(
    charter: Charter, others: Iterable[tuple[Charter, Checkpoint]]
) -> list[tuple[Charter, Checkpoint]]:
    """The runs of ``others`` that have not ended and have the channel, or the cell, of a run."""
    return [
        (other, checkpoint)
        for other, checkpoint in others
        if not checkpoint.state.ended
        and other.run != charter.run
        and (
            other.cell == charter.cell
            or (other.instrument, other.channel) == (charter.instrument, charter.channel)
        )
    ]


def waits_for(
    charter: Charter,
    before: Iterable[tuple[Charter, Checkpoint]],
    now_unix_s: float,
    released: AbstractSet[str],
) -> Waiting | None:
    """Why a run that was made does not begin yet; None if it is its turn.

    Args:
        charter: of the run.
        before: the runs that were made before it, in their order.
        now_unix_s: the present moment.
        released: runs that a person lets begin although the one before did not end well.
    """
    earlier = list(before)
    if ahead := in_the_way(charter, earlier):
        other, checkpoint = ahead[-1]
        return Waiting(f"waits for run {other.run}, which is {checkpoint.state}")
    for other, checkpoint in earlier:
        if (
            other.run == charter.after_run
            and checkpoint.state is not RunState.COMPLETED
            and charter.run not in released
        ):
            return Waiting(
                f"was queued behind run {other.run}, which is {checkpoint.state}: look at the "
                "cell, then release this run or stop it"
            )
    if now_unix_s < charter.not_before_unix_s:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(charter.not_before_unix_s))
        return Waiting(f"begins at {moment}", charter.not_before_unix_s - now_unix_s)
    return None
