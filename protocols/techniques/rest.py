"""Rest: open circuit for a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from labctl.program import Node, Rest
from labctl.protocols.techniques.base import Bench, Sheet, Technique, time_end
from labctl.protocols.techniques.ends import check_time
from labctl.protocols.written import Duration, Fields, Record, Written


class RestFields(Fields):
    """No current flows; the voltage is recorded."""

    for_: Duration = Field(alias="for", description="How long the cell rests.")
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def _check(fields: RestFields, sheet: Sheet) -> None:
    check_time(fields.for_.text, fields.for_.value, sheet)


def _build(fields: RestFields, bench: Bench) -> tuple[Node, ...]:
    return bench.step(f"rest {fields.for_}", Rest(), [time_end(fields.for_.value)], fields.record)


def _tell(fields: RestFields, show: Callable[[Written[Any]], str]) -> str:
    return f"Rest without current for {show(fields.for_)}"


REST = Technique(
    word="rest",
    fields=RestFields,
    about="Leave the cell at open circuit for a time.",
    check=_check,
    build=_build,
    tell=_tell,
    short="for",
)
