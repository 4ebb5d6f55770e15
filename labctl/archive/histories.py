"""What the alarm rules know of each run: kept in memory, and read again from its judged cycles."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection, bindparam, select, tuple_

from labctl.alarms.evidence import ClassHistory, Evidence
from labctl.alarms.rules import RULES, Rule, retention
from labctl.alarms.rules.retention import reference_cycles
from labctl.analysis.cycles import reference_capacity_Ah
from labctl.archive import schema
from labctl.archive.tails import Tails
from labctl.program import AlarmRule, Program, RetentionAlarm, decode_program

MOST_HISTORIES = 2000

_ORDER = tuple_(schema.cycles.c.last_seq, schema.cycles.c.cycle)
_JUDGED_SINCE = (
    select(
        schema.cycles.c.cycle,
        schema.cycles.c.cycle_class,
        schema.cycles.c.discharge_Ah,
        schema.cycles.c.coulombic_efficiency,
        schema.cycles.c.comparable,
        schema.cycles.c.last_seq,
    )
    .where(
        schema.cycles.c.run_number == bindparam("of"),
        schema.cycles.c.judged,
        _ORDER.op(">")(tuple_(bindparam("last_seq"), bindparam("last_cycle"))),
    )
    .order_by(schema.cycles.c.last_seq, schema.cycles.c.cycle)
)


@dataclass(slots=True)
class History:
    """What the rules know of one run: as much as can be read again from its judged cycles.

    watched: the rules on cycles, with their places among those of their kind in the recipe, and how
        they are evaluated.
    last_cycle, last_class, last_seq: of the cycle that was judged last.
    """

    rules: tuple[AlarmRule, ...]
    problem: str
    judged: int = 0
    last_cycle: int = 0
    last_class: str | None = None
    last_seq: int = -1
    classes: dict[str, ClassHistory] = field(default_factory=dict)
    watched: tuple[tuple[int, AlarmRule, Rule], ...] = field(init=False)
    reference_rule: RetentionAlarm = field(init=False)
    """Says which cycles retention is divided by."""
    _needed: tuple[int, int] = field(init=False)
    _references: dict[str, tuple[float, tuple[int, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = [type(rule) for rule in self.rules]
        self.watched = tuple(
            (kinds[: place + 1].count(kind), self.rules[place], RULES[kind])
            for place, kind in enumerate(kinds)
            if kind in RULES
        )
        self.reference_rule = next(
            (rule for rule in self.rules if isinstance(rule, RetentionAlarm)), RetentionAlarm()
        )
        needed = [declared.cycles_needed(rule) for _, rule, declared in self.watched]
        needed.append(retention.cycles_needed(self.reference_rule))
        self._needed = max(first for first, _ in needed), max(last for _, last in needed)

    def of_class(self, cycle_class: str) -> ClassHistory:
        """The history of one class of cycles."""
        if cycle_class not in self.classes:
            self.classes[cycle_class] = ClassHistory(*self._needed)
        return self.classes[cycle_class]

    def add(
        self,
        cycle: int,
        cycle_class: str,
        discharge_Ah: float,
        efficiency: float | None,
        *,
        comparable: bool,
        last_seq: int,
    ) -> int:
        """Take in the next judged cycle; gives its position in its class."""
        position = self.of_class(cycle_class).add(
            cycle,
            discharge_Ah,
            comparable=comparable,
            efficiency=efficiency,
            follows=cycle_class == self.last_class,
        )
        self.judged += 1
        self.last_cycle, self.last_class, self.last_seq = cycle, cycle_class, last_seq
        return position

    def reference(self, evidence: Evidence) -> tuple[float, tuple[int, ...]] | None:
        """The reference capacity in Ah and its cycles, once they are all over."""
        rule = self.reference_rule
        found = self._references.get(evidence.cycle_class)
        if found is not None:
            return found
        if evidence.position < rule.reference_last:
            return None
        cycles = reference_cycles(evidence, rule.reference_first, rule.reference_last)
        if not cycles:
            return None
        found = (
            reference_capacity_Ah([one.discharge_Ah for one in cycles]),
            tuple(one.cycle for one in cycles),
        )
        self._references[evidence.cycle_class] = found
        return found


@dataclass(slots=True)
class Memory:
    """Copies of committed facts that save reading them again. Cleared after any failure."""

    tails: Tails[int] = field(default_factory=Tails)
    histories: OrderedDict[int, History] = field(default_factory=OrderedDict)

    def clear(self) -> None:
        """Forget everything."""
        self.tails.clear()
        self.histories.clear()


def history_of(
    connection: Connection, memory: Memory, run_number: int, judged_cycles: int
) -> History:
    """What is known of a run of which so many cycles are judged."""
    kept = memory.histories.get(run_number)
    if kept is not None and kept.judged < judged_cycles:
        _catch_up(connection, run_number, kept)  # another archive judged some meanwhile
    if kept is None or kept.judged != judged_cycles:
        program, problem = _program(connection, run_number)
        kept = History(program.alarms if program else (), problem)
        _catch_up(connection, run_number, kept)
        memory.histories[run_number] = kept
    memory.histories.move_to_end(run_number)
    while len(memory.histories) > MOST_HISTORIES:
        memory.histories.popitem(last=False)
    return kept


def _catch_up(connection: Connection, run_number: int, history: History) -> None:
    """Take in the judged cycles after those that ``history`` knows."""
    for row in connection.execute(
        _JUDGED_SINCE,
        {"of": run_number, "last_seq": history.last_seq, "last_cycle": history.last_cycle},
    ):
        history.add(
            row.cycle,
            row.cycle_class,
            row.discharge_Ah,
            row.coulombic_efficiency,
            comparable=row.comparable,
            last_seq=row.last_seq,
        )


def _program(connection: Connection, run_number: int) -> tuple[Program | None, str]:
    blob = connection.execute(
        select(schema.runs.c.program).where(schema.runs.c.run_number == run_number)
    ).scalar_one()
    if blob is None:
        return None, "alarm rules cannot be evaluated: nothing told the archive of the run's start"
    try:
        return decode_program(bytes(blob)), ""
    except msgspec.MsgspecError as error:
        return None, f"alarm rules cannot be evaluated: the run's program is unreadable: {error}"
