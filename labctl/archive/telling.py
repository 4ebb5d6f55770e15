"""What the archive tells the stream: acknowledgements, cycles and alarms, out of the database."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, text

from labctl.archive import schema
from labctl.archive.alarm_store import AlarmRow
from labctl.archive.ledger import SourceAck, ack_of_spans
from labctl.archive.spans import Spans
from labctl.errors import StreamError
from labctl.stream import topics
from labctl.stream.topics import AlarmState, CycleSummary

Message = tuple[str, bytes]
"""A topic and what is said on it, to be retained."""


def ack_message(node: str, ack: topics.Ack) -> Message:
    """An acknowledgement for a node."""
    return topics.ack_topic(node), topics.encode(ack)


def cycle_message(node: str, summary: CycleSummary) -> Message:
    """A cycle's summary."""
    return topics.cycle_topic(node, summary.run), topics.encode(summary)


def alarm_message(alarm: AlarmRow) -> Message:
    """An alarm as it stands."""
    said = AlarmState(
        run=alarm.run_id,
        rule=alarm.name,
        cell=alarm.cell,
        state=alarm.state.value,
        priority=alarm.priority,
        message=alarm.message,
        value=alarm.value,
        limit=alarm.limit_value,
        unit=alarm.unit,
        unix_time_s=alarm.unix_time_s or 0.0,
        active=alarm.active,
        number=alarm.alarm_number,
        node=alarm.node,
        shelved_until_unix_s=alarm.shelved_until_unix_s,
        aside_actor=alarm.aside_actor,
        aside_reason=alarm.aside_reason,
    )
    name = _as_level(alarm.name)
    if not alarm.run_id:
        return topics.node_alarm_topic(alarm.node, name), topics.encode(said)
    return topics.alarm_topic(alarm.node, alarm.run_id, name), topics.encode(said)


def all_acks(connection: Connection) -> list[SourceAck]:
    """What is committed of every journal whose node is known."""
    rows = connection.execute(select(schema.sources).where(schema.sources.c.node != ""))
    return [
        SourceAck(row.node, ack_of_spans(row.source, Spans.parse(row.committed))) for row in rows
    ]


def latest_cycles(connection: Connection) -> list[tuple[str, CycleSummary]]:
    """The last judged cycle of every run that has not ended, with its node."""
    runs, cycles, sources = schema.runs, schema.cycles, schema.sources
    last = (
        select(runs.c.run_id, sources.c.node, func.max(cycles.c.cycle).label("cycle"))
        .join(cycles, cycles.c.run_number == runs.c.run_number)
        .join(sources, sources.c.source == runs.c.source)
        .where(cycles.c.judged, runs.c.outcome.is_(None), sources.c.node != "")
        .group_by(runs.c.run_id, sources.c.node)
    )
    found = []
    for run_id, node, cycle in connection.execute(last).all():
        row = connection.execute(
            text("SELECT * FROM cycles_named WHERE run_id = :run AND cycle = :cycle").bindparams(
                run=run_id, cycle=cycle
            )
        ).one()
        found.append(
            (
                node,
                CycleSummary(
                    run=run_id,
                    cell=row.cell or "",
                    cycle=cycle,
                    cycle_class=row.cycle_class,
                    complete=bool(row.complete),
                    interrupted=bool(row.interrupted),
                    charge_mAh_g=row.charge_mAh_g,
                    discharge_mAh_g=row.discharge_mAh_g,
                    coulombic_efficiency=row.coulombic_efficiency,
                    retention=row.retention,
                    mean_charge_V=row.mean_charge_voltage_V,
                    mean_discharge_V=row.mean_discharge_voltage_V,
                    unix_time_s=row.end_unix_time_s,
                ),
            )
        )
    return found


def _as_level(name: str) -> str:
    """``name`` made fit for one level of a topic."""
    try:
        return topics.check_name(name)
    except StreamError:
        plain = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in name)
        return plain.encode()[: topics.LONGEST_NAME_B].decode(errors="ignore")
