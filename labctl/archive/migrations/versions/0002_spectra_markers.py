"""Spectra and markers have tables; a cell has a type; an event need not have a time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "spectra",
        sa.Column("run_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "spectrum",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="of the run, from 1",
        ),
        sa.Column(
            "point",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="in the order measured",
        ),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("cycle", sa.Integer(), nullable=False, comment="0 outside any cycle"),
        sa.Column(
            "after_seq", sa.BigInteger(), nullable=False, comment="the last sample before it"
        ),
        sa.Column("test_time_s", sa.Double(), comment="since the run began"),
        sa.Column("unix_time_s", sa.Double(), nullable=False),
        sa.Column("frequency_Hz", sa.Double()),
        sa.Column("impedance_real_ohm", sa.Double()),
        sa.Column("impedance_imag_ohm", sa.Double(), comment="negative for a capacitor"),
        sa.Column("voltage_V", sa.Double(), comment="the working point"),
        sa.Column("current_A", sa.Double(), comment="the working point"),
        sa.Column("temperature_degC", sa.Double()),
        sa.ForeignKeyConstraint(["run_number"], ["runs.run_number"]),
        sa.PrimaryKeyConstraint("run_number", "spectrum", "point"),
    )
    op.create_table(
        "markers",
        sa.Column("run_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("batch_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "position", sa.Integer(), autoincrement=False, nullable=False, comment="in its batch"
        ),
        sa.Column("marker", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False, comment="sent or received"),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="the sample that it was set at"),
        sa.Column("cycle", sa.Integer(), nullable=False, comment="0 outside any cycle"),
        sa.Column("test_time_s", sa.Double(), comment="since the run began"),
        sa.Column("unix_time_s", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False, comment="who sent what was received"),
        sa.ForeignKeyConstraint(["run_number"], ["runs.run_number"]),
        sa.PrimaryKeyConstraint("run_number", "batch_number", "position"),
    )
    op.add_column(
        "cells",
        sa.Column(
            "cell_type",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="of the lab's configuration",
        ),
    )
    with op.batch_alter_table("events") as events:
        events.alter_column(
            "unix_time_s",
            existing_type=sa.Double(),
            nullable=True,
            comment="empty where the event has none of its own",
        )
