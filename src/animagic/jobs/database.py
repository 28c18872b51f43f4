"""A database by its URL, brought up to date: SQLite or PostgreSQL. Calls wait while it is away."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url

from ..errors import AnimagicError, InputError, first_line

T = TypeVar("T")

_DRIVERS = {
    "sqlite": {"isolation_level": None, "timeout": 1.0},  # None: transactions begin as we say, not as the driver does
    # Milliseconds, then seconds. A machine that has vanished would otherwise be waited for for hours.
    "postgresql": {"tcp_user_timeout": 10_000, "connect_timeout": 3},
}
_AT_CONNECT = {
    "sqlite": ["PRAGMA journal_mode = WAL"],
    "postgresql": ["SET lock_timeout = '3s'", "SET statement_timeout = '10s'"],
}
_MIGRATING = threading.Lock()  # Alembic's context is one for all threads
_MIGRATION_LOCK = 0x616E696D61676963  # any number that nobody else takes: "animagic"


class StoreUnavailable(AnimagicError):
    """The database has not answered for as long as calls wait; trying again later may help."""


class Database:
    """A database by its URL, brought up to date. Threads may share it; every call is a transaction of its own.

    Args:
        url: as SQLAlchemy has them: "sqlite:////folder/jobs.sqlite", "postgresql+psycopg://user:password@host/name".
        wait: seconds that a call waits for a database that is away or locked.

    Raises:
        InputError: if the URL means no database that can be used.
        StoreUnavailable: if it does not answer.
    """

    def __init__(self, url: str, wait: float = 15.0):
        self.wait = wait
        self._closed = threading.Event()
        parsed = _parse(url)
        self.name = parsed.render_as_string()  # without its password
        kind = self.kind = parsed.get_backend_name()
        self.insert = postgresql.insert if kind == "postgresql" else sqlite.insert  # they know what a conflict is
        if kind == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            # SQLite has one writer at a time. Here they queue; at its lock they would sleep and wake at random.
            self._writing = self._engine(parsed, **({"pool_size": 1, "max_overflow": 0} if kind == "sqlite" else {}))
        except ModuleNotFoundError as error:
            raise InputError(
                f"{self.name} needs the package {error.name}: pip install 'animagic[postgresql]'."
            ) from error
        if kind == "sqlite":
            self._reading = self._engine(parsed)
            # At once: a transaction that reads first and wants to write then may find that it is too late.
            sa.event.listen(self._writing, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        else:
            self._reading = self._writing.execution_options(isolation_level="AUTOCOMMIT")
        try:
            with _MIGRATING:
                self.write(self._migrate)
        except exc.DatabaseError as error:
            raise InputError(
                f"the database {self.name} cannot be used ({first_line(error.orig or error)}): "
                "give one that is empty, and in which tables may be made."
            ) from error

    def read(self, work: Callable[[Connection], T]) -> T:
        """What work returns, given a connection. It may be called again, and changes nothing."""
        return self._insist(self._reading, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """What work returns, given a connection in a transaction. It may be called again, even if the first call's
        changes were kept: when a connection breaks during a commit, nobody knows."""
        return self._insist(self._writing, work)

    def change(self, statement: sa.Update | sa.Delete) -> int:
        """How many rows a statement changed that changes nothing when it is carried out again."""
        counts: list[int] = []  # of each attempt: if one was kept after all, those after it find nothing
        self.write(lambda connection: counts.append(connection.execute(statement).rowcount))
        return max(counts)

    def close(self) -> None:
        """Closes its connections; calls that wait give up."""
        self._closed.set()
        self._reading.dispose()
        self._writing.dispose()

    def _engine(self, url: URL, **pool: int) -> sa.Engine:
        engine = sa.create_engine(
            url,
            connect_args=_DRIVERS[self.kind],
            # Other than Python, PostgreSQL and clients know no NaN.
            json_serializer=functools.partial(json.dumps, allow_nan=False),
            pool_timeout=self.wait,
            **pool,
        )

        @sa.event.listens_for(engine, "connect")
        def prepare(connection: Any, record: Any) -> None:
            cursor = connection.cursor()
            for statement in _AT_CONNECT[self.kind]:
                cursor.execute(statement)
            cursor.close()
            connection.commit()

        return engine

    def _insist(self, engine: sa.Engine, work: Callable[[Connection], T]) -> T:
        end = time.monotonic() + self.wait
        pause = 0.05
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except (exc.DBAPIError, exc.TimeoutError) as error:
                if not _is_away(error):
                    raise
                if time.monotonic() + pause > end or self._closed.wait(pause):
                    raise StoreUnavailable(
                        f"the database {self.name} has not answered for {self.wait:g} seconds "
                        f"({first_line(getattr(error, 'orig', None) or error)}): start it, or try again later."
                    ) from error
                pause = min(1.0, 1.5 * pause)

    def _migrate(self, connection: Connection) -> None:
        from alembic.util import CommandError

        if self.kind == "postgresql":
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            # Of servers that start at the same time, one migrates. SQLite's transaction sees to that already.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        try:
            migrate(connection)
        except CommandError as error:
            raise InputError(
                f"the database {self.name} is of a newer version of Animagic than this one: "
                "pip install --upgrade animagic."
            ) from error


def migrate(connection: Connection, version: str = "head") -> None:
    """Brings a database up to a version, in the transaction of the connection."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "animagic.jobs:migrations")
    command.upgrade(config, version)


def _is_away(error: Exception) -> bool:
    """Whether the database could not be reached, was locked, or has broken off; all of which may pass."""
    if isinstance(error, exc.DBAPIError):
        return error.connection_invalidated or isinstance(error, (exc.OperationalError, exc.InterfaceError))
    return True  # no connection came free


def _parse(url: str) -> URL:
    wanted = 'give "sqlite:////folder/jobs.sqlite" or "postgresql+psycopg://user:password@host/name".'
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
    except exc.ArgumentError as error:
        raise InputError(f"the database is no URL that can be read: {wanted}") from error
    if kind not in _DRIVERS:
        raise InputError(f"a database of the kind {kind} cannot be used: {wanted}")
    if kind == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InputError(f"a database in memory would lose its jobs: {wanted}")
    if kind == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")  # "postgresql://", as providers write it, means another
    return parsed
