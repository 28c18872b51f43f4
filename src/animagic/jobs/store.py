"""Where jobs are kept: in SQLite or PostgreSQL, so that they outlive the server."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
import math
import re
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..errors import InputError
from .database import Database, StoreUnavailable
from .job import Job, Status
from .tables import jobs, turns, uploads

__all__ = ["IdempotencyConflict", "Store", "StoreUnavailable", "Upload"]

_FIELDS = [jobs.c[field.name] for field in dataclasses.fields(Job)]
_QUEUED = jobs.c.status == "queued"
_FINISHED = jobs.c.status.in_(["completed", "failed"])
_TURN = sa.func.coalesce(turns.c.turn, 0)
# A job that has been started before lost its server: it goes first. Then as `Store.claim` says.
_ORDER = (jobs.c.started_at.is_(None), jobs.c.started_at, jobs.c.priority.desc(), _TURN, jobs.c.number)
_WITH_TURNS = jobs.outerjoin(turns, turns.c.owner == jobs.c.owner)

_Places = tuple[float, dict[str, int]]  # known until when, and id -> place
_UNKNOWN: _Places = (-math.inf, {})

Jobs = list[Job]
Rows = Sequence[Row]


class IdempotencyConflict(InputError):
    """An idempotency key was used before, for another request."""


@dataclass(frozen=True)
class Upload:
    """A file that was sent ahead of the requests that name it.

    Args:
        id: "file_" and 32 hexadecimal digits.
        owner: id of the key that it came with; "" where no key is needed.
        name: that it had where it came from. It may hold anything: never a path.
        bytes: its size.
        created_at: seconds since 1970.
    """

    id: str
    owner: str
    name: str
    bytes: int
    created_at: float


Uploads = list[Upload]


class Store:
    """Jobs and uploads in a database. Threads and processes may share it; calls block, and are short.

    Every call waits while the database is away, and raises StoreUnavailable if it does not come back.

    Args:
        url, wait: see `Database`, which also says what is raised.
    """

    def __init__(self, url: str, wait: float = 15.0):
        self.database = Database(url, wait)
        self._places = _UNKNOWN

    def close(self) -> None:
        self.database.close()

    def add(self, job: Job, idempotency: str = "", fingerprint: str = "") -> Job:
        """Keeps a new job; or returns the one that its owner added with the same idempotency key.

        Args:
            idempotency: a key that the client chose for this request; "": none.
            fingerprint: of the request, so that another one with the same key is noticed.

        Raises:
            IdempotencyConflict: if the earlier request's fingerprint differs.
        """
        key = _key(idempotency)
        values = {**dataclasses.asdict(job), "idempotency": key, "fingerprint": fingerprint}
        insert = self.database.insert(jobs).values(values).on_conflict_do_nothing()
        same = jobs.c.id == job.id
        if key:
            same |= (jobs.c.owner == job.owner) & (jobs.c.idempotency == key)
        query = sa.select(*_FIELDS, jobs.c.fingerprint).where(same)

        def work(connection: Connection) -> Row:
            while True:  # the one in its way may be deleted before it is read
                connection.execute(insert)
                if row := connection.execute(query).first():
                    return row

        row = self.database.write(work)
        self._places = _UNKNOWN
        found = _job(row)
        if row.fingerprint != fingerprint:
            raise IdempotencyConflict(
                f"the idempotency key was used before, for another request (job {found.id}): "
                "give each request a key of its own."
            )
        return found

    def earlier(self, owner: str, idempotency: str) -> Job | None:
        """The job that this owner added with an idempotency key, if there is one; without a key there is none."""
        if not idempotency:
            return None
        same = (jobs.c.owner == owner) & (jobs.c.idempotency == _key(idempotency))
        row = self.database.read(lambda connection: connection.execute(_select().where(same)).first())
        return _job(row) if row else None

    def get(self, id: str) -> Job | None:
        """The job with this id, if there is one."""
        if not _is_id(id):
            return None
        row = self.database.read(lambda connection: connection.execute(_select().where(jobs.c.id == id)).first())
        return _job(row) if row else None

    def list(
        self, owner: str | None, after: str | None = None, limit: int = 20, order: Literal["asc", "desc"] = "desc"
    ) -> tuple[Jobs, bool]:
        """Jobs in the order in which they were added, and whether there are more.

        Args:
            owner: whose; None: everybody's.
            after: id of the job before the first one; None: from the start.
            limit: the most jobs.
            order: "asc": the oldest first, "desc": the newest first.

        Raises:
            InputError: if there is no job `after`, or it is somebody else's.
        """
        whose = sa.true() if owner is None else jobs.c.owner == owner
        number = jobs.c.number

        def work(connection: Connection) -> Rows | None:
            query = _select().where(whose).order_by(number.asc() if order == "asc" else number.desc())
            if after is not None:
                start = _is_id(after) and connection.scalar(sa.select(number).where(whose, jobs.c.id == after))
                if not start:
                    return None
                query = query.where(number > start if order == "asc" else number < start)
            return connection.execute(query.limit(limit + 1)).all()

        rows = self.database.read(work)
        if rows is None:
            raise InputError(f"there is no video {after} to go on after: leave after away to begin with the first one.")
        return [_job(row) for row in rows[:limit]], len(rows) > limit

    def claim(self) -> Job | None:
        """The next queued job, which is in progress from now on; None: there is none. No two callers get the same.

        First come jobs whose server died (see `requeue`). Then those of higher priority; among these, one of the owner
        who has waited longest since one of theirs was started; of these, the oldest.
        """
        token = uuid.uuid4().hex
        attempt = itertools.count()
        following = _select().select_from(_WITH_TURNS).where(_QUEUED).order_by(*_ORDER).limit(1)
        now = time.time()

        def work(connection: Connection) -> Job | None:
            again = next(attempt)  # the one before it may have been kept after all
            if again and (row := connection.execute(_select().where(jobs.c.claim == token)).first()):
                return _job(row)
            while row := connection.execute(following).first():
                job = dataclasses.replace(_job(row), status="in_progress", started_at=row.started_at or now)
                claimed = sa.update(jobs).where(jobs.c.id == job.id, _QUEUED)
                values = {"status": job.status, "started_at": job.started_at, "claim": token}
                if connection.execute(claimed.values(values)).rowcount:  # else somebody else was quicker
                    self._take_turn(connection, job.owner)
                    return job
            return None

        claimed = self.database.write(work)
        self._places = _UNKNOWN
        return claimed

    def _take_turn(self, connection: Connection, owner: str) -> None:
        last = sa.select(sa.func.coalesce(sa.func.max(turns.c.turn), 0) + 1).scalar_subquery()
        row = self.database.insert(turns).values(owner=owner, turn=last)
        connection.execute(row.on_conflict_do_update(index_elements=["owner"], set_={"turn": row.excluded.turn}))

    def requeue(self) -> int:
        """At the start of a server: jobs in progress, whose server has died, wait in front of all others. How many."""
        again = sa.update(jobs).where(jobs.c.status == "in_progress").values(status="queued")
        count = self.database.change(again)
        self._places = _UNKNOWN
        return count

    def update(self, id: str, *, expected: Status | None = None, **values: Any) -> Job:
        """Changes fields of a job; returns what it is then.

        Args:
            expected: the status that it must have; if it has another, it is returned as it is.
            values: the new values, by the names of `Job`.

        Raises:
            KeyError: if there is no such job.
        """
        changed = sa.update(jobs).where(jobs.c.id == id).values(values)
        if expected is not None:
            changed = changed.where(jobs.c.status == expected)

        def work(connection: Connection) -> Row | None:
            connection.execute(changed)
            return connection.execute(_select().where(jobs.c.id == id)).first()

        row = self.database.write(work) if _is_id(id) else None
        if "status" in values or "priority" in values:
            self._places = _UNKNOWN
        if row is None:
            raise KeyError(id)
        return _job(row)

    def place(self, id: str) -> int | None:
        """How many jobs are started before this one, if none is added; None: it is not queued.

        At most a second old: of changes by other processes it may not know yet.
        """
        places = self.places()
        if id not in places and _is_id(id):
            self._places = _UNKNOWN  # another process may have added it
            places = self.places()
        return places.get(id)

    def places(self) -> dict[str, int]:
        """The queued jobs, in the order in which they will be started: id -> how many are before it."""
        known_until, places = self._places
        if time.monotonic() > known_until:
            columns = (jobs.c.id, jobs.c.owner, jobs.c.priority, jobs.c.started_at, _TURN.label("turn"), jobs.c.number)
            queued = sa.select(*columns).select_from(_WITH_TURNS).where(_QUEUED).order_by(*_ORDER)
            rows = self.database.read(lambda connection: connection.execute(queued).all())
            places = {id: place for place, id in enumerate(_in_turn(rows))}
            self._places = (time.monotonic() + 1.0, places)
        return places

    def counts(self, owner: str | None = None) -> dict[Status, int]:
        """How many jobs there are of each status; of one owner, or of all."""
        query = sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        found: dict[str, int] = dict(self.database.read(lambda connection: connection.execute(query).tuples().all()))
        return {status: found.get(status, 0) for status in get_args(Status)}

    def expired(self, now: float) -> Jobs:
        """Finished jobs whose time is over."""
        return self._jobs(_select().where(_FINISHED, jobs.c.expires_at <= now).order_by(jobs.c.expires_at))

    def oldest_finished(self) -> Jobs:
        """Finished jobs, the one that was finished first at the front."""
        return self._jobs(_select().where(_FINISHED).order_by(jobs.c.completed_at, jobs.c.number))

    def delete(self, id: str) -> bool:
        """Whether there was such a job; now there is none."""
        gone = _is_id(id) and self.database.change(sa.delete(jobs).where(jobs.c.id == id)) > 0
        self._places = _UNKNOWN
        return gone

    def add_upload(self, upload: Upload) -> Upload:
        """Keeps what is known of a file that was sent."""
        row = self.database.insert(uploads).values(dataclasses.asdict(upload)).on_conflict_do_nothing()
        self.database.write(lambda connection: connection.execute(row))
        return upload

    def get_upload(self, id: str) -> Upload | None:
        """The upload with this id, if there is one."""
        if not _is_id(id):
            return None
        query = sa.select(uploads).where(uploads.c.id == id)
        row = self.database.read(lambda connection: connection.execute(query).first())
        return Upload(**row._mapping) if row else None

    def uploads(self, owner: str | None = None) -> Uploads:
        """Uploads of one owner, or of all; the oldest first."""
        query = sa.select(uploads).order_by(uploads.c.created_at, uploads.c.id)
        if owner is not None:
            query = query.where(uploads.c.owner == owner)
        return [Upload(**row._mapping) for row in self.database.read(lambda c: c.execute(query).all())]

    def delete_upload(self, id: str) -> bool:
        """Whether there was such an upload; now there is none."""
        gone = sa.delete(uploads).where(uploads.c.id == id)
        return _is_id(id) and self.database.change(gone) > 0

    def _jobs(self, query: sa.Select) -> Jobs:
        return [_job(row) for row in self.database.read(lambda connection: connection.execute(query).all())]


def _select() -> sa.Select:
    return sa.select(*_FIELDS)


def _job(row: Row) -> Job:
    values = {column.name: getattr(row, column.name) for column in _FIELDS}
    return Job(**{**values, "error": values["error"] and tuple(values["error"])})


def _key(idempotency: str) -> str | None:
    return hashlib.sha256(idempotency.encode("utf-8", "surrogatepass")).hexdigest() if idempotency else None


def _is_id(text: str) -> bool:
    """Whether it may be an id. What clients send as one may hold characters that a database refuses."""
    return re.fullmatch(r"[\w-]{1,100}", text, re.ASCII) is not None


def _in_turn(rows: Rows) -> Iterator[str]:
    """Ids in the order in which `Store.claim` will take them. rows: the queued jobs, by `_ORDER`."""
    last = {row.owner: row.turn for row in rows}
    count = itertools.count(max(last.values(), default=0) + 1)
    for (_, again), group in itertools.groupby(rows, lambda row: (row.priority, row.started_at is not None)):
        waiting: dict[str, deque[Row]] = {}
        for row in group:
            if again:
                last[row.owner] = next(count)
                yield row.id
            else:
                waiting.setdefault(row.owner, deque()).append(row)
        heap = [(last[owner], queue[0].number, owner) for owner, queue in waiting.items()]
        heapq.heapify(heap)
        while heap:
            _, _, owner = heapq.heappop(heap)
            last[owner] = next(count)
            yield waiting[owner].popleft().id
            if waiting[owner]:
                heapq.heappush(heap, (last[owner], waiting[owner][0].number, owner))
