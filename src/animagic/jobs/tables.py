"""The tables of the newest version; `migrations` makes them."""

from __future__ import annotations

import sqlalchemy as sa

VERSION_TABLE = "animagic_version"

metadata = sa.MetaData()
_json = sa.JSON(none_as_null=True)

jobs = sa.Table(
    "animagic_jobs",
    metadata,
    # The order in which jobs came. Clocks go backwards, and ids are random.
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", sa.String(100), nullable=False, unique=True),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("request", _json, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("owner", sa.String(100), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("report", _json),
    sa.Column("error", _json),
    sa.Column("remixed_from", sa.String(100)),
    sa.Column("extends", sa.String(100)),
    sa.Column("asked", _json, nullable=False),
    sa.Column("result", _json),
    sa.Column("idempotency", sa.String(64)),  # SHA-256 of the key; NULL: none, of which there may be many
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("claim", sa.String(32)),  # of the call of `claim` that started it
    sa.UniqueConstraint("owner", "idempotency"),
    sa.Index("animagic_jobs_status", "status"),
    sa.Index("animagic_jobs_owner", "owner", "number"),
)

# Owner -> the turn in which a job of theirs was last started; the lowest one is next.
turns = sa.Table(
    "animagic_turns",
    metadata,
    sa.Column("owner", sa.String(100), primary_key=True),
    sa.Column("turn", sa.BigInteger, nullable=False),
)

keys = sa.Table(
    "animagic_keys",
    metadata,
    sa.Column("id", sa.String(100), primary_key=True),
    sa.Column("name", sa.String(100), nullable=False, unique=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("queued", sa.Integer),
    sa.Column("created_at", sa.Double, nullable=False),
)

uploads = sa.Table(
    "animagic_uploads",
    metadata,
    sa.Column("id", sa.String(100), primary_key=True),
    sa.Column("owner", sa.String(100), nullable=False, index=True),
    # As JSON: a file's name may have characters that no column of texts takes.
    sa.Column("name", _json, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
