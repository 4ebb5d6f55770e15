"""An alarm may be about a node; it can be set aside; what people were told of it is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    if sqlite:
        # The table is made anew there, and nothing may point to it meanwhile.
        op.execute("CREATE TEMPORARY TABLE alarm_events_kept AS SELECT * FROM alarm_events")
        op.execute("DELETE FROM alarm_events")
    with op.batch_alter_table("alarms") as alarms:
        alarms.alter_column("run_number", existing_type=sa.Integer(), nullable=True)
        alarms.add_column(
            sa.Column(
                "subject",
                sa.Text(),
                server_default="",
                nullable=False,
                comment="'' for a run, else 'node lab1'",
            )
        )
        alarms.add_column(
            sa.Column("shelved_until_unix_s", sa.Double(), comment="then it comes back by itself")
        )
        alarms.add_column(
            sa.Column(
                "aside_actor",
                sa.Text(),
                server_default="",
                nullable=False,
                comment="who shelved it or took it out of service",
            )
        )
        alarms.add_column(
            sa.Column(
                "aside_reason",
                sa.Text(),
                server_default="",
                nullable=False,
                comment="why it is shelved, suppressed or out of service",
            )
        )
    if sqlite:
        op.execute("INSERT INTO alarm_events SELECT * FROM alarm_events_kept")
        op.execute("DROP TABLE alarm_events_kept")
    else:
        op.alter_column(
            "alarm_events",
            "trigger",
            existing_type=sa.Text(),
            existing_nullable=False,
            existing_comment="raise, clear or acknowledge",
            comment="a trigger of labctl.alarms.states",
        )
    op.create_index(
        "alarms_of_subjects",
        "alarms",
        ["subject", "rule", "rule_number", "cycle_class"],
        unique=True,
        sqlite_where=sa.text("run_number IS NULL"),
        postgresql_where=sa.text("run_number IS NULL"),
    )
    op.create_table(
        "notices",
        sa.Column("alarm_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "raise_number",
            sa.Integer(),
            nullable=False,
            comment="the alarm_event that people were last told of",
        ),
        sa.Column("told_unix_s", sa.Double(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False, comment="told of this event"),
        sa.ForeignKeyConstraint(["alarm_number"], ["alarms.alarm_number"]),
        sa.PrimaryKeyConstraint("alarm_number"),
    )
    op.create_table(
        "notifications",
        sa.Column("notification_number", sa.Integer(), nullable=False),
        sa.Column("created_unix_s", sa.Double(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("alarms", sa.Text(), nullable=False, comment="their numbers: 1-3 7"),
        sa.PrimaryKeyConstraint("notification_number"),
    )
    op.create_table(
        "deliveries",
        sa.Column("notification_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target", sa.Text(), nullable=False, comment="a digest of the address"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_unix_s", sa.Double(), nullable=False),
        sa.Column("delivered_unix_s", sa.Double(), comment="empty until it is delivered"),
        sa.Column("problem", sa.Text(), nullable=False, comment="of the last try"),
        sa.ForeignKeyConstraint(["notification_number"], ["notifications.notification_number"]),
        sa.PrimaryKeyConstraint("notification_number", "target"),
    )
    op.create_index(
        "deliveries_due",
        "deliveries",
        ["next_try_unix_s"],
        sqlite_where=sa.text("delivered_unix_s IS NULL"),
        postgresql_where=sa.text("delivered_unix_s IS NULL"),
    )
