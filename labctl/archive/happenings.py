"""What happened, into the tables: events in any order give the same rows.

Ends of steps and cycles, spectra, markers and the creation of a run have tables that hold all of
them; the others are kept in ``events`` as they are, and what follows from them is written besides.
Where a later event replaces an earlier one, later means: of a higher batch number of the same
journal; between journals, of a later time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Table, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

from labctl.archive import schema
from labctl.archive.arrivals import Arrived
from labctl.archive.many import insert_many
from labctl.stream.batches import EventsBatch
from labctl.stream.events import (
    CellRegistered,
    CommandTaken,
    CycleEnded,
    Event,
    InstrumentSeen,
    MarkerSet,
    RunCreated,
    RunEnded,
    RunStateChanged,
    SpectrumMeasured,
    StepEnded,
)

Row = dict[str, Any]
_T = TypeVar("_T")
_step_figures = attrgetter(
    *(one.name for one in msgspec.structs.fields(StepEnded) if one.type is float)
)
_REGISTRY_LOCK = 7_236_181_002
"""Any number will do that nobody else uses as an advisory lock."""


def insert_into(connection: Connection, table: Table) -> PostgresqlInsert | SqliteInsert:
    """The INSERT of the database's own dialect, which knows ``ON CONFLICT``."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def keep(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Insert ``rows``; those whose key is there already are passed over."""
    if rows:
        connection.execute(insert_into(connection, table).on_conflict_do_nothing(), rows)


def put(connection: Connection, table: Table, row: Row) -> None:
    """Insert ``row``, or replace the one with its key."""
    key = [column.name for column in table.primary_key]
    insert = insert_into(connection, table).values(row)
    changes = {name: value for name, value in row.items() if name not in key}
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=changes))


def run_of(event: Event) -> str:
    """The run that an event is about, '' if none."""
    return str(getattr(event, "run", ""))


@dataclass(frozen=True, slots=True)
class _Placed:
    source: str
    number: int
    position: int
    event: Event


def apply_events(
    connection: Connection,
    arrived: Iterable[Arrived],
    run_numbers: Mapping[str, int],
    *,
    once: bool = False,
) -> tuple[int, list[Row]]:
    """Take in the events of new batches, the ends of cycles left out.

    Gives how many there were, and the rows of ``cycles`` for the ends.

    Args:
        once: no end of a step may be there already; otherwise those that are are passed over.

    Raises:
        sqlalchemy.exc.IntegrityError: one is there, and none may be.
    """
    placed = [
        (one.batch.source, one.batch.number, position, event)
        for one in arrived
        if isinstance(one.batch, EventsBatch) and not one.whole
        for position, event in enumerate(one.batch.events)
    ]
    rows: defaultdict[Table, list[Row]] = defaultdict(list)
    ended: list[Row] = []
    subjects: defaultdict[type, set[str]] = defaultdict(set)
    for source, number, position, event in placed:
        if isinstance(event, StepEnded):
            rows[schema.steps].append(_row(event, run_numbers))
            continue
        if isinstance(event, CycleEnded):
            row = _row(event, run_numbers)
            row["batch_number"], row["judged"] = number, False
            ended.append(row)
            continue
        one = _Placed(source, number, position, event)
        if isinstance(event, SpectrumMeasured):
            rows[schema.spectra] += _spectrum_rows(event, run_numbers)
        elif isinstance(event, MarkerSet):
            rows[schema.markers].append(_marker_row(one, event, run_numbers))
        elif isinstance(event, RunCreated):
            _create_run(connection, event, run_numbers)
        else:
            rows[schema.events].append(_event_row(one))
            subjects[type(event)].add(_subject(event))
            if isinstance(event, RunEnded):
                _end_run(connection, event, run_numbers)
    if subjects[CellRegistered] or subjects[InstrumentSeen]:
        _one_archive_at_a_time(connection)
    for table, some in rows.items():
        insert_many(connection, table, some, once=once and table is schema.steps)
    for name in sorted(subjects[CellRegistered]):
        _register_cell(connection, _latest(connection, CellRegistered, name))
    for name in sorted(subjects[InstrumentSeen]):
        _see_instrument(connection, _latest(connection, InstrumentSeen, name))
    for name in sorted(subjects[RunStateChanged]):
        _set_state(connection, _latest(connection, RunStateChanged, name), run_numbers)
    return len(placed), ended


def _one_archive_at_a_time(connection: Connection) -> None:
    # Two journals may tell of the same cell; which of them counts must be seen by one archive.
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_REGISTRY_LOCK})")


def _row(event: StepEnded | CycleEnded, run_numbers: Mapping[str, int]) -> Row:
    row = msgspec.structs.asdict(event)
    if isinstance(event, StepEnded) and not math.isfinite(sum(_step_figures(event))):
        row = {name: known(value) for name, value in row.items()}
    del row["run"]
    row["run_number"] = run_numbers[event.run]
    return row


def _spectrum_rows(event: SpectrumMeasured, run_numbers: Mapping[str, int]) -> list[Row]:
    spectrum = event.spectrum
    whole = {
        "run_number": run_numbers[event.run],
        "spectrum": event.number,
        "visit": event.visit,
        "step": event.step,
        "cycle": event.cycle,
        "after_seq": event.after_seq,
        "test_time_s": known(event.test_time_s),
        "unix_time_s": spectrum.unix_time_s,
        "voltage_V": known(spectrum.voltage_V),
        "current_A": known(spectrum.current_A),
        "temperature_degC": known(spectrum.temperature_degC),
    }
    points = zip(
        spectrum.frequency_Hz,
        spectrum.impedance_real_ohm,
        spectrum.impedance_imag_ohm,
        strict=True,
    )
    return [
        whole
        | {
            "point": point,
            "frequency_Hz": known(frequency_Hz),
            "impedance_real_ohm": known(real_ohm),
            "impedance_imag_ohm": known(imag_ohm),
        }
        for point, (frequency_Hz, real_ohm, imag_ohm) in enumerate(points, start=1)
    ]


def _marker_row(one: _Placed, event: MarkerSet, run_numbers: Mapping[str, int]) -> Row:
    return {
        "run_number": run_numbers[event.run],
        "batch_number": one.number,
        "position": one.position,
        "marker": event.marker,
        "direction": event.direction,
        "seq": event.seq,
        "cycle": event.cycle,
        "test_time_s": known(event.test_time_s),
        "unix_time_s": event.unix_time_s,
        "actor": event.actor,
    }


def known(value: _T) -> _T | None:
    """``value``, or NULL for a number that is not one."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _event_row(one: _Placed) -> Row:
    return {
        "source": one.source,
        "number": one.number,
        "position": one.position,
        "kind": kind_of(type(one.event)),
        "subject": _subject(one.event),
        "unix_time_s": getattr(one.event, "unix_time_s", None),
        "detail": msgspec.json.encode(one.event).decode(),
    }


def kind_of(event_type: type[Any]) -> str:
    """What ``events.kind`` says of such an event."""
    return str(event_type.__struct_config__.tag)


def _subject(event: Event) -> str:
    if isinstance(event, CellRegistered):
        return event.cell.name
    if isinstance(event, InstrumentSeen):
        return event.instrument
    if isinstance(event, CommandTaken):
        return event.command
    return run_of(event)


def _latest(connection: Connection, kind: type[_T], subject: str) -> _T:
    """The event that counts, whatever the order in which they came."""
    table = schema.events
    rows = connection.execute(
        select(table.c.source, table.c.unix_time_s, table.c.detail)
        .where(table.c.kind == kind_of(kind), table.c.subject == subject)
        .order_by(table.c.number, table.c.position)
    )
    last_of_source = {row.source: row for row in rows}
    last = max(last_of_source.values(), key=lambda row: (row.unix_time_s, row.source))
    return msgspec.json.decode(last.detail, type=kind)


def _register_cell(connection: Connection, event: CellRegistered) -> None:
    cell = event.cell
    put(
        connection,
        schema.cells,
        {
            "cell": cell.name,
            "material": cell.material,
            "active_mass_g": cell.active_mass_g,
            "one_C_mA_per_g": cell.one_C_mA_per_g,
            "safe_voltage_min_V": cell.safe_voltage_min_V,
            "safe_voltage_max_V": cell.safe_voltage_max_V,
            "area_cm2": cell.area_cm2,
            "max_current_A": cell.max_current_A,
            "note": cell.note,
            "actor": event.actor,
            "registered_unix_s": event.unix_time_s,
            "cell_type": cell.cell_type,
        },
    )
    parents = schema.cell_parents
    connection.execute(delete(parents).where(parents.c.cell == cell.name))
    keep(
        connection,
        parents,
        [{"cell": cell.name, "parent": parent} for parent in sorted(set(cell.parents))],
    )


def _see_instrument(connection: Connection, event: InstrumentSeen) -> None:
    put(
        connection,
        schema.instruments,
        {
            "instrument": event.instrument,
            "driver": event.driver,
            "manufacturer": event.manufacturer,
            "model": event.model,
            "serial": event.serial,
            "seen_unix_s": event.unix_time_s,
        },
    )
    channels = schema.channels
    connection.execute(delete(channels).where(channels.c.instrument == event.instrument))
    keep(
        connection,
        channels,
        [
            {"instrument": event.instrument, "channel": channel}
            for channel in sorted(set(event.channels))
        ],
    )


def _create_run(connection: Connection, event: RunCreated, run_numbers: Mapping[str, int]) -> None:
    keep(
        connection,
        schema.recipes,
        [{"recipe_sha256": event.recipe_sha256, "recipe_text": event.recipe_text}],
    )
    connection.execute(
        update(schema.runs)
        .where(schema.runs.c.run_number == run_numbers[event.run])
        .values(
            cell=event.cell,
            instrument=event.instrument,
            channel=event.channel,
            recipe_name=event.recipe_name,
            recipe_sha256=event.recipe_sha256,
            program=event.program,
            active_mass_g=known(event.active_mass_g),
            one_C_mA_per_g=known(event.one_C_mA_per_g),
            actor=event.actor,
            labctl_version=event.labctl_version,
            created_unix_s=event.unix_time_s,
        )
    )


def _end_run(connection: Connection, event: RunEnded, run_numbers: Mapping[str, int]) -> None:
    connection.execute(
        update(schema.runs)
        .where(schema.runs.c.run_number == run_numbers[event.run])
        .values(
            outcome=event.outcome,
            outcome_reason=event.reason,
            ended_unix_s=event.unix_time_s,
            last_seq=event.last_seq,
        )
    )


def _set_state(
    connection: Connection, event: RunStateChanged, run_numbers: Mapping[str, int]
) -> None:
    connection.execute(
        update(schema.runs)
        .where(schema.runs.c.run_number == run_numbers[event.run])
        .values(state=event.state, state_reason=event.reason, state_unix_s=event.unix_time_s)
    )
