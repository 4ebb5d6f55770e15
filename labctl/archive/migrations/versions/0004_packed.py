"""Runs whose samples are in a file have a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "packed_runs",
        sa.Column("run_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="moving, packed, or removed by policy"
        ),
        sa.Column(
            "folder", sa.Text(), nullable=False, comment="'' for the one beside the SQLite file"
        ),
        sa.Column("file", sa.Text(), nullable=False, comment="Parquet, sorted by seq"),
        sa.Column("rows", sa.BigInteger(), nullable=False, comment="so many samples are in it"),
        sa.Column("size_B", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column(
            "crc32", sa.Text(), nullable=False, comment="of its footer and each of its row groups"
        ),
        sa.Column("last_cycle", sa.Integer(), nullable=False),
        sa.Column("last_test_time_s", sa.Double(), nullable=False),
        sa.Column("packed_unix_s", sa.Double(), nullable=False),
        sa.Column("packed_by", sa.Text(), nullable=False),
        sa.Column("removed_unix_s", sa.Double()),
        sa.Column("removed_by", sa.Text()),
        sa.ForeignKeyConstraint(["run_number"], ["runs.run_number"]),
        sa.PrimaryKeyConstraint("run_number"),
    )
