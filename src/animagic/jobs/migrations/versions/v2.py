"""Whose turn it is is kept beside the jobs, so that nobody gains a turn by deleting them; and who claimed a job."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    op.add_column("animagic_jobs", sa.Column("claim", sa.String(32)))
    turns = op.create_table(
        "animagic_turns",
        sa.Column("owner", sa.String(100), primary_key=True),
        sa.Column("turn", sa.BigInteger, nullable=False),
    )
    started = "SELECT owner FROM animagic_jobs WHERE started_at IS NOT NULL GROUP BY owner ORDER BY max(started_at)"
    owners = op.get_bind().scalars(sa.text(started)).all()
    op.bulk_insert(turns, [{"owner": owner, "turn": turn} for turn, owner in enumerate(owners, 1)])
