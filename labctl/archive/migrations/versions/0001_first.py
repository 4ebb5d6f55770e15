"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "cells",
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("active_mass_g", sa.Double(), nullable=False),
        sa.Column("one_C_mA_per_g", sa.Double(), nullable=False),
        sa.Column("safe_voltage_min_V", sa.Double(), nullable=False),
        sa.Column("safe_voltage_max_V", sa.Double(), nullable=False),
        sa.Column("area_cm2", sa.Double()),
        sa.Column("max_current_A", sa.Double()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False, comment="who registered it last"),
        sa.Column("registered_unix_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("cell"),
    )
    op.create_table(
        "events",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "subject", sa.Text(), nullable=False, comment="the run, cell, instrument or command"
        ),
        sa.Column("unix_time_s", sa.Double(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False, comment="the event as JSON"),
        sa.PrimaryKeyConstraint("source", "number", "position"),
    )
    op.create_index("events_subject", "events", ["subject", "kind"])
    op.create_table(
        "instruments",
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("driver", sa.Text(), nullable=False),
        sa.Column("manufacturer", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("seen_unix_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("instrument"),
    )
    op.create_table(
        "quarantine",
        sa.Column("payload_sha256", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False, comment="'' for the whole message"),
        sa.Column("source", sa.Text(), comment="empty where even that could not be read"),
        sa.Column("number", sa.BigInteger()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("received_unix_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("payload_sha256", "part"),
    )
    op.create_table(
        "recipes",
        sa.Column("recipe_sha256", sa.Text(), nullable=False),
        sa.Column("recipe_text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("recipe_sha256"),
    )
    op.create_table(
        "runs",
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="the journal that all of it comes from"
        ),
        sa.Column("cell", sa.Text()),
        sa.Column("instrument", sa.Text()),
        sa.Column("channel", sa.Text()),
        sa.Column("recipe_name", sa.Text()),
        sa.Column("recipe_sha256", sa.Text()),
        sa.Column("program", sa.LargeBinary(), comment="MessagePack of labctl.program.Program"),
        sa.Column("active_mass_g", sa.Double(), comment="what mAh/g is divided by"),
        sa.Column("one_C_mA_per_g", sa.Double()),
        sa.Column("actor", sa.Text()),
        sa.Column("labctl_version", sa.Text()),
        sa.Column("created_unix_s", sa.Double()),
        sa.Column("state", sa.Text()),
        sa.Column("state_reason", sa.Text()),
        sa.Column("state_unix_s", sa.Double()),
        sa.Column("outcome", sa.Text(), comment="completed, stopped, tripped or failed"),
        sa.Column("outcome_reason", sa.Text()),
        sa.Column("ended_unix_s", sa.Double()),
        sa.Column(
            "last_seq",
            sa.BigInteger(),
            comment="number of its last sample, known when it has ended",
        ),
        sa.Column(
            "committed_seq",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="sample numbers: 1-500",
        ),
        sa.Column("complete_through_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "quarantined_seq",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="kept in quarantine",
        ),
        sa.Column("judged_cycles", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("run_number"),
        sa.UniqueConstraint("run_id"),
    )
    op.create_table(
        "samples",
        sa.Column("run_number", sa.Integer(), nullable=False),
        sa.Column("cycle", sa.Integer(), nullable=False, comment="0 outside any cycle"),
        sa.Column("step", sa.Integer(), nullable=False, comment="of the program, from 1"),
        sa.Column(
            "visit",
            sa.Integer(),
            nullable=False,
            comment="counts every entry into a step of the run",
        ),
        sa.Column(
            "seq",
            sa.BigInteger(),
            nullable=False,
            comment="number of the sample in its run, from 1",
        ),
        sa.Column("test_time_s", sa.Double(), nullable=False, comment="since the run began"),
        sa.Column("unix_time_s", sa.Double(), nullable=False),
        sa.Column("voltage_V", sa.Double(), nullable=False),
        sa.Column("current_A", sa.Double(), nullable=False, comment="positive for charging"),
        sa.Column("charge_Ah", sa.Double(), nullable=False, comment="net since the run began"),
        sa.Column("energy_Wh", sa.Double(), nullable=False, comment="net since the run began"),
        sa.Column("temperature_degC", sa.Double()),
    )
    op.create_index("samples_run_cycle", "samples", ["run_number", "cycle"])
    op.create_table(
        "sources",
        sa.Column(
            "source", sa.Text(), nullable=False, comment="names one journal of one node, for ever"
        ),
        sa.Column("node", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "committed",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="batch numbers: 1-500 502",
        ),
        sa.PrimaryKeyConstraint("source"),
    )
    op.create_table(
        "alarms",
        sa.Column("alarm_number", sa.Integer(), nullable=False),
        sa.Column("run_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column(
            "rule_number", sa.Integer(), nullable=False, comment="place in the recipe, from 1"
        ),
        sa.Column("cycle_class", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="a state of labctl.alarms.states"),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column(
            "verdict", sa.Text(), nullable=False, comment="'cannot tell' where a rule has no answer"
        ),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("limit_value", sa.Double()),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("reference", sa.Double()),
        sa.Column("reference_unit", sa.Text(), nullable=False),
        sa.Column("cycles", sa.Text(), nullable=False, comment="that the value was taken from"),
        sa.Column("reference_cycles", sa.Text(), nullable=False),
        sa.Column(
            "cycle", sa.Integer(), nullable=False, comment="after which the state last changed"
        ),
        sa.Column("unix_time_s", sa.Double(), comment="when the state last changed"),
        sa.ForeignKeyConstraint(
            ["run_number"],
            ["runs.run_number"],
        ),
        sa.PrimaryKeyConstraint("alarm_number"),
        sa.UniqueConstraint("run_number", "rule", "rule_number", "cycle_class", name="alarms_key"),
    )
    op.create_table(
        "batches",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="samples, events or quarantined"),
        sa.Column("run_number", sa.Integer(), autoincrement=False),
        sa.Column("first_seq", sa.BigInteger()),
        sa.Column("last_seq", sa.BigInteger()),
        sa.Column("crc", sa.BigInteger(), nullable=False),
        sa.Column("committed_unix_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_number"],
            ["runs.run_number"],
        ),
        sa.PrimaryKeyConstraint("source", "number"),
    )
    op.create_table(
        "cell_parents",
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=False, comment="a cell that it was built from"),
        sa.ForeignKeyConstraint(
            ["cell"],
            ["cells.cell"],
        ),
        sa.PrimaryKeyConstraint("cell", "parent"),
    )
    op.create_table(
        "channels",
        sa.Column("instrument", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instrument"],
            ["instruments.instrument"],
        ),
        sa.PrimaryKeyConstraint("instrument", "channel"),
    )
    op.create_table(
        "cycles",
        sa.Column("run_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cycle", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "cycle_class", sa.Text(), nullable=False, comment="only like is compared with like"
        ),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column(
            "interrupted", sa.Boolean(), nullable=False, comment="readings are missing from it"
        ),
        sa.Column("charge_Ah", sa.Double()),
        sa.Column("discharge_Ah", sa.Double()),
        sa.Column("charge_Wh", sa.Double()),
        sa.Column("discharge_Wh", sa.Double()),
        sa.Column("coulombic_efficiency", sa.Double(), comment="discharge over charge, a fraction"),
        sa.Column("mean_charge_voltage_V", sa.Double()),
        sa.Column("mean_discharge_voltage_V", sa.Double()),
        sa.Column("voltage_min_V", sa.Double()),
        sa.Column("voltage_max_V", sa.Double()),
        sa.Column("current_min_A", sa.Double()),
        sa.Column("current_max_A", sa.Double()),
        sa.Column("duration_s", sa.Double()),
        sa.Column("end_test_time_s", sa.Double()),
        sa.Column("end_unix_time_s", sa.Double()),
        sa.Column("position_in_class", sa.Integer()),
        sa.Column("comparable", sa.Boolean(), comment="takes part in retention and alarms"),
        sa.Column(
            "judged",
            sa.Boolean(),
            server_default=sa.false(),
            nullable=False,
            comment="alarms have seen it",
        ),
        sa.Column("batch_number", sa.BigInteger(), nullable=False, comment="that told of its end"),
        sa.ForeignKeyConstraint(
            ["run_number"],
            ["runs.run_number"],
        ),
        sa.PrimaryKeyConstraint("run_number", "cycle"),
    )
    op.create_index(
        "cycles_not_judged",
        "cycles",
        ["run_number"],
        sqlite_where=sa.text("NOT judged"),
        postgresql_where=sa.text("NOT judged"),
    )
    op.create_table(
        "retention_references",
        sa.Column("run_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cycle_class", sa.Text(), nullable=False),
        sa.Column(
            "reference_discharge_Ah",
            sa.Double(),
            nullable=False,
            comment="what retention divides by",
        ),
        sa.Column("reference_cycles", sa.Text(), nullable=False, comment="whose median it is: 3-7"),
        sa.ForeignKeyConstraint(
            ["run_number"],
            ["runs.run_number"],
        ),
        sa.PrimaryKeyConstraint("run_number", "cycle_class"),
    )
    op.create_table(
        "steps",
        sa.Column("run_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("visit", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("cycle", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("technique", sa.Text(), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("start_test_time_s", sa.Double()),
        sa.Column("end_test_time_s", sa.Double()),
        sa.Column("end_voltage_V", sa.Double()),
        sa.Column("end_current_A", sa.Double()),
        sa.Column(
            "ended_by", sa.Text(), nullable=False, comment="the condition that won, or limit, stop"
        ),
        sa.Column("charge_Ah", sa.Double()),
        sa.Column("discharge_Ah", sa.Double()),
        sa.Column("charge_Wh", sa.Double()),
        sa.Column("discharge_Wh", sa.Double()),
        sa.ForeignKeyConstraint(
            ["run_number"],
            ["runs.run_number"],
        ),
        sa.PrimaryKeyConstraint("run_number", "visit"),
    )
    op.create_table(
        "alarm_events",
        sa.Column("alarm_event_number", sa.Integer(), nullable=False),
        sa.Column("alarm_number", sa.Integer(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False, comment="raise, clear or acknowledge"),
        sa.Column("from_state", sa.Text(), nullable=False),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("cycle", sa.Integer()),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("reference", sa.Double()),
        sa.Column("actor", sa.Text(), server_default="", nullable=False),
        sa.Column("unix_time_s", sa.Double()),
        sa.Column("committed_unix_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["alarm_number"],
            ["alarms.alarm_number"],
        ),
        sa.PrimaryKeyConstraint("alarm_event_number"),
    )
    op.create_index(op.f("ix_alarm_events_alarm_number"), "alarm_events", ["alarm_number"])
