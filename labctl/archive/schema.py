"""The tables of the archive, as plain SQL that a person reads in DBeaver.

Units end the names; current and charge are positive for charging; times are seconds, ``unix`` ones
since 1970 UTC. The same tables on SQLite and PostgreSQL.

Decisions:
- ``samples`` names its run by ``run_number``, 4 bytes, instead of the text ``run_id``, because
  there are millions of rows; the views ``*_named`` put the name and the cell beside it.
- ``samples`` is append-only and has no key of its own: a batch is committed whole or not at all,
  and ``batches`` (source, number) keeps it from being committed twice. Its one index finds the
  samples of a cycle.
- No foreign key leads to or from ``samples``, nor from ``runs`` to ``cells``: batches may come out
  of order, and a run may be known before its cell.
- ``run_number`` and ``alarm_number`` count in the order of arrival and mean nothing else.
- Integrals of a cycle are empty until all of its samples are here.
- ``spectra`` has a row for each frequency, so that a spectrum is read and drawn without decoding
  anything; what holds for the whole spectrum stands in each of its rows.
- ``packed_runs`` says which runs have their samples in a file instead of ``samples``. From the
  moment that a run has a row there the file counts, and rows of ``samples`` with the same numbers
  are remains of it.
- ``markers`` has the place in the journal as its key: the same marker may be set twice at one
  sample.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData()


def _run(*, primary_key: bool = False, nullable: bool = False) -> Column[int]:
    return Column(
        "run_number",
        Integer,
        ForeignKey("runs.run_number"),
        primary_key=primary_key,
        nullable=nullable,
        autoincrement=False,
    )


sources = Table(
    "sources",
    metadata,
    Column("source", Text, primary_key=True, comment="names one journal of one node, for ever"),
    Column("node", Text, nullable=False, server_default=""),
    Column(
        "committed", Text, nullable=False, server_default="", comment="batch numbers: 1-500 502"
    ),
)

batches = Table(
    "batches",
    metadata,
    Column("source", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False, comment="samples, events or quarantined"),
    _run(nullable=True),
    Column("first_seq", BigInteger),
    Column("last_seq", BigInteger),
    Column("crc", BigInteger, nullable=False),
    Column("committed_unix_s", Double, nullable=False),
)

cells = Table(
    "cells",
    metadata,
    Column("cell", Text, primary_key=True),
    Column("material", Text, nullable=False),
    Column("active_mass_g", Double, nullable=False),
    Column("one_C_mA_per_g", Double, nullable=False),
    Column("safe_voltage_min_V", Double, nullable=False),
    Column("safe_voltage_max_V", Double, nullable=False),
    Column("area_cm2", Double),
    Column("max_current_A", Double),
    Column("note", Text, nullable=False),
    Column("actor", Text, nullable=False, comment="who registered it last"),
    Column("registered_unix_s", Double, nullable=False),
    Column(
        "cell_type", Text, nullable=False, server_default="", comment="of the lab's configuration"
    ),
)

cell_parents = Table(
    "cell_parents",
    metadata,
    Column("cell", Text, ForeignKey("cells.cell"), primary_key=True),
    Column("parent", Text, primary_key=True, comment="a cell that it was built from"),
)

instruments = Table(
    "instruments",
    metadata,
    Column("instrument", Text, primary_key=True),
    Column("driver", Text, nullable=False),
    Column("manufacturer", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("serial", Text, nullable=False),
    Column("seen_unix_s", Double, nullable=False),
)

channels = Table(
    "channels",
    metadata,
    Column("instrument", Text, ForeignKey("instruments.instrument"), primary_key=True),
    Column("channel", Text, primary_key=True),
)

recipes = Table(
    "recipes",
    metadata,
    Column("recipe_sha256", Text, primary_key=True),
    Column("recipe_text", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_number", Integer, primary_key=True),
    Column("run_id", Text, nullable=False, unique=True),
    Column("source", Text, nullable=False, comment="the journal that all of it comes from"),
    Column("cell", Text),
    Column("instrument", Text),
    Column("channel", Text),
    Column("recipe_name", Text),
    Column("recipe_sha256", Text),
    Column("program", LargeBinary, comment="MessagePack of labctl.program.Program"),
    Column("active_mass_g", Double, comment="what mAh/g is divided by"),
    Column("one_C_mA_per_g", Double),
    Column("actor", Text),
    Column("labctl_version", Text),
    Column("created_unix_s", Double),
    Column("state", Text),
    Column("state_reason", Text),
    Column("state_unix_s", Double),
    Column("outcome", Text, comment="completed, stopped, tripped or failed"),
    Column("outcome_reason", Text),
    Column("ended_unix_s", Double),
    Column("last_seq", BigInteger, comment="number of its last sample, known when it has ended"),
    Column(
        "committed_seq", Text, nullable=False, server_default="", comment="sample numbers: 1-500"
    ),
    Column("complete_through_seq", BigInteger, nullable=False, server_default="0"),
    Column(
        "quarantined_seq", Text, nullable=False, server_default="", comment="kept in quarantine"
    ),
    Column("judged_cycles", Integer, nullable=False, server_default="0"),
)

samples = Table(
    "samples",
    metadata,
    Column("run_number", Integer, nullable=False),
    Column("cycle", Integer, nullable=False, comment="0 outside any cycle"),
    Column("step", Integer, nullable=False, comment="of the program, from 1"),
    Column("visit", Integer, nullable=False, comment="counts every entry into a step of the run"),
    Column("seq", BigInteger, nullable=False, comment="number of the sample in its run, from 1"),
    Column("test_time_s", Double, nullable=False, comment="since the run began"),
    Column("unix_time_s", Double, nullable=False),
    Column("voltage_V", Double, nullable=False),
    Column("current_A", Double, nullable=False, comment="positive for charging"),
    Column("charge_Ah", Double, nullable=False, comment="net since the run began"),
    Column("energy_Wh", Double, nullable=False, comment="net since the run began"),
    Column("temperature_degC", Double),
    Index("samples_run_cycle", "run_number", "cycle"),
)

packed_runs = Table(
    "packed_runs",
    metadata,
    _run(primary_key=True),
    Column("state", Text, nullable=False, comment="moving, packed, or removed by policy"),
    Column("folder", Text, nullable=False, comment="'' for the one beside the SQLite file"),
    Column("file", Text, nullable=False, comment="Parquet, sorted by seq"),
    Column("rows", BigInteger, nullable=False, comment="so many samples are in it"),
    Column("size_B", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("crc32", Text, nullable=False, comment="of its footer and each of its row groups"),
    Column("last_cycle", Integer, nullable=False),
    Column("last_test_time_s", Double, nullable=False),
    Column("packed_unix_s", Double, nullable=False),
    Column("packed_by", Text, nullable=False),
    Column("removed_unix_s", Double),
    Column("removed_by", Text),
)

steps = Table(
    "steps",
    metadata,
    _run(primary_key=True),
    Column("visit", Integer, primary_key=True, autoincrement=False),
    Column("step", Integer, nullable=False),
    Column("cycle", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("technique", Text, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("start_test_time_s", Double),
    Column("end_test_time_s", Double),
    Column("end_voltage_V", Double),
    Column("end_current_A", Double),
    Column("ended_by", Text, nullable=False, comment="the condition that won, or limit, stop"),
    Column("charge_Ah", Double),
    Column("discharge_Ah", Double),
    Column("charge_Wh", Double),
    Column("discharge_Wh", Double),
)

spectra = Table(
    "spectra",
    metadata,
    _run(primary_key=True),
    Column(
        "spectrum", Integer, primary_key=True, autoincrement=False, comment="of the run, from 1"
    ),
    Column(
        "point", Integer, primary_key=True, autoincrement=False, comment="in the order measured"
    ),
    Column("visit", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("cycle", Integer, nullable=False, comment="0 outside any cycle"),
    Column("after_seq", BigInteger, nullable=False, comment="the last sample before it"),
    Column("test_time_s", Double, comment="since the run began"),
    Column("unix_time_s", Double, nullable=False),
    Column("frequency_Hz", Double),
    Column("impedance_real_ohm", Double),
    Column("impedance_imag_ohm", Double, comment="negative for a capacitor"),
    Column("voltage_V", Double, comment="the working point"),
    Column("current_A", Double, comment="the working point"),
    Column("temperature_degC", Double),
)

markers = Table(
    "markers",
    metadata,
    _run(primary_key=True),
    Column("batch_number", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False, comment="in its batch"),
    Column("marker", Text, nullable=False),
    Column("direction", Text, nullable=False, comment="sent or received"),
    Column("seq", BigInteger, nullable=False, comment="the sample that it was set at"),
    Column("cycle", Integer, nullable=False, comment="0 outside any cycle"),
    Column("test_time_s", Double, comment="since the run began"),
    Column("unix_time_s", Double, nullable=False),
    Column("actor", Text, nullable=False, comment="who sent what was received"),
)

cycles = Table(
    "cycles",
    metadata,
    _run(primary_key=True),
    Column("cycle", Integer, primary_key=True, autoincrement=False),
    Column("cycle_class", Text, nullable=False, comment="only like is compared with like"),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("interrupted", Boolean, nullable=False, comment="readings are missing from it"),
    Column("charge_Ah", Double),
    Column("discharge_Ah", Double),
    Column("charge_Wh", Double),
    Column("discharge_Wh", Double),
    Column("coulombic_efficiency", Double, comment="discharge over charge, a fraction"),
    Column("mean_charge_voltage_V", Double),
    Column("mean_discharge_voltage_V", Double),
    Column("voltage_min_V", Double),
    Column("voltage_max_V", Double),
    Column("current_min_A", Double),
    Column("current_max_A", Double),
    Column("duration_s", Double),
    Column("end_test_time_s", Double),
    Column("end_unix_time_s", Double),
    Column("position_in_class", Integer),
    Column("comparable", Boolean, comment="takes part in retention and alarms"),
    Column(
        "judged", Boolean, nullable=False, server_default=false(), comment="alarms have seen it"
    ),
    Column("batch_number", BigInteger, nullable=False, comment="that told of its end"),
)
Index(
    "cycles_not_judged",
    cycles.c.run_number,
    sqlite_where=text("NOT judged"),
    postgresql_where=text("NOT judged"),
)

retention_references = Table(
    "retention_references",
    metadata,
    _run(primary_key=True),
    Column("cycle_class", Text, primary_key=True),
    Column("reference_discharge_Ah", Double, nullable=False, comment="what retention divides by"),
    Column("reference_cycles", Text, nullable=False, comment="whose median it is: 3-7"),
)

alarms = Table(
    "alarms",
    metadata,
    Column("alarm_number", Integer, primary_key=True),
    _run(nullable=True),
    Column("rule", Text, nullable=False),
    Column("rule_number", Integer, nullable=False, comment="place in the recipe, from 1"),
    Column("cycle_class", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("state", Text, nullable=False, comment="a state of labctl.alarms.states"),
    Column("active", Boolean, nullable=False),
    Column("verdict", Text, nullable=False, comment="'cannot tell' where a rule has no answer"),
    Column("message", Text, nullable=False),
    Column("value", Double),
    Column("limit_value", Double),
    Column("unit", Text, nullable=False),
    Column("reference", Double),
    Column("reference_unit", Text, nullable=False),
    Column("cycles", Text, nullable=False, comment="that the value was taken from"),
    Column("reference_cycles", Text, nullable=False),
    Column("cycle", Integer, nullable=False, comment="after which the state last changed"),
    Column("unix_time_s", Double, comment="when the state last changed"),
    Column(
        "subject", Text, nullable=False, server_default="", comment="'' for a run, else 'node lab1'"
    ),
    Column("shelved_until_unix_s", Double, comment="then it comes back by itself"),
    Column(
        "aside_actor",
        Text,
        nullable=False,
        server_default="",
        comment="who shelved it or took it out of service",
    ),
    Column(
        "aside_reason",
        Text,
        nullable=False,
        server_default="",
        comment="why it is shelved, suppressed or out of service",
    ),
    UniqueConstraint("run_number", "rule", "rule_number", "cycle_class", name="alarms_key"),
)
Index(
    "alarms_of_subjects",
    alarms.c.subject,
    alarms.c.rule,
    alarms.c.rule_number,
    alarms.c.cycle_class,
    unique=True,
    sqlite_where=text("run_number IS NULL"),
    postgresql_where=text("run_number IS NULL"),
)

alarm_events = Table(
    "alarm_events",
    metadata,
    Column("alarm_event_number", Integer, primary_key=True),
    Column("alarm_number", Integer, ForeignKey("alarms.alarm_number"), nullable=False, index=True),
    Column("trigger", Text, nullable=False, comment="a trigger of labctl.alarms.states"),
    Column("from_state", Text, nullable=False),
    Column("to_state", Text, nullable=False),
    Column("cycle", Integer),
    Column("message", Text, nullable=False),
    Column("value", Double),
    Column("reference", Double),
    Column("actor", Text, nullable=False, server_default=""),
    Column("unix_time_s", Double),
    Column("committed_unix_s", Double, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    Column(
        "alarm_number",
        Integer,
        ForeignKey("alarms.alarm_number"),
        primary_key=True,
        autoincrement=False,
    ),
    Column(
        "raise_number",
        Integer,
        nullable=False,
        comment="the alarm_event that people were last told of",
    ),
    Column("told_unix_s", Double, nullable=False),
    Column("times", Integer, nullable=False, comment="told of this event"),
)

notifications = Table(
    "notifications",
    metadata,
    Column("notification_number", Integer, primary_key=True),
    Column("created_unix_s", Double, nullable=False),
    Column("priority", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("alarms", Text, nullable=False, comment="their numbers: 1-3 7"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column(
        "notification_number",
        Integer,
        ForeignKey("notifications.notification_number"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("target", Text, primary_key=True, comment="a digest of the address"),
    Column("attempts", Integer, nullable=False),
    Column("next_try_unix_s", Double, nullable=False),
    Column("delivered_unix_s", Double, comment="empty until it is delivered"),
    Column("problem", Text, nullable=False, comment="of the last try"),
)
Index(
    "deliveries_due",
    deliveries.c.next_try_unix_s,
    sqlite_where=text("delivered_unix_s IS NULL"),
    postgresql_where=text("delivered_unix_s IS NULL"),
)

events = Table(
    "events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="the run, cell, instrument or command"),
    Column("unix_time_s", Double, comment="empty where the event has none of its own"),
    Column("detail", Text, nullable=False, comment="the event as JSON"),
    Index("events_subject", "subject", "kind"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("payload_sha256", Text, primary_key=True),
    Column("part", Text, primary_key=True, comment="'' for the whole message"),
    Column("source", Text, comment="empty where even that could not be read"),
    Column("number", BigInteger),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("received_unix_s", Double, nullable=False),
)

TABLES: tuple[Table, ...] = tuple(metadata.sorted_tables)
