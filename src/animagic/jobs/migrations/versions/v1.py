"""Jobs, keys and uploaded files."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    json = sa.JSON(none_as_null=True)
    op.create_table(
        "animagic_jobs",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("id", sa.String(100), nullable=False, unique=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("request", json, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("completed_at", sa.Double),
        sa.Column("expires_at", sa.Double),
        sa.Column("report", json),
        sa.Column("error", json),
        sa.Column("remixed_from", sa.String(100)),
        sa.Column("extends", sa.String(100)),
        sa.Column("asked", json, nullable=False),
        sa.Column("result", json),
        sa.Column("idempotency", sa.String(64)),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.UniqueConstraint("owner", "idempotency"),
    )
    op.create_index("animagic_jobs_status", "animagic_jobs", ["status"])
    op.create_index("animagic_jobs_owner", "animagic_jobs", ["owner", "number"])
    op.create_table(
        "animagic_keys",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("queued", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "animagic_uploads",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("owner", sa.String(100), nullable=False, index=True),
        sa.Column("name", json, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
