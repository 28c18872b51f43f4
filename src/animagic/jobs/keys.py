"""Keys: who may use a server, how urgent their jobs are, and how many they may queue."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import uuid
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from ..errors import InputError
from ..wording import nearest
from .store import Store
from .tables import keys


@dataclass(frozen=True)
class Key:
    """Who may use a server.

    Args:
        id: "key_" and 32 hexadecimal digits: the owner of jobs.
        name: for people; no two keys share one.
        priority: jobs of higher priority are made first; 0 is usual.
        queued: the most unfinished jobs; None: as the server's limits say.
        created_at: seconds since 1970.
    """

    id: str
    name: str
    priority: int
    queued: int | None
    created_at: float


class Keys:
    """The keys of a server. Their tokens are not kept, only what they are recognised by."""

    def __init__(self, store: Store):
        self._database = store.database

    def create(self, name: str, priority: int = 0, queued: int | None = None) -> tuple[Key, str]:
        """A new key, and its token, "ak_" and 64 hexadecimal digits, which nobody can find out later.

        Raises:
            InputError: if the name is taken, or a value is out of range.
        """
        if not (name.isprintable() and 1 <= len(name) <= 100):
            raise InputError("a key's name must have 1 to 100 characters that can be printed.")
        if not -1000 <= priority <= 1000:
            raise InputError(f"a priority of {priority} is out of range: give -1000 to 1000; 0 is usual.")
        if queued is not None and not 1 <= queued <= 1_000_000:
            raise InputError(f"{queued} queued jobs are out of range: give 1 to 1000000.")
        token = "ak_" + secrets.token_hex(32)
        key = Key(f"key_{uuid.uuid4().hex}", name, priority, queued, time.time())
        row = self._database.insert(keys).values(**asdict(key), sha256=_digest(token)).on_conflict_do_nothing()

        def work(connection: sa.Connection) -> str | None:
            connection.execute(row)
            return connection.scalar(sa.select(keys.c.id).where(keys.c.name == name))

        if self._database.write(work) != key.id:
            raise InputError(f"there is a key {name} already: remove it first, or choose another name.")
        return key, token

    def check(self, token: str) -> Key | None:
        """The key of this token; None: there is none."""
        # Looked up by digest: how long that takes tells nothing about a token of 256 random bits.
        digest = _digest(token)
        query = sa.select(keys).where(keys.c.sha256 == digest)
        row = self._database.read(lambda connection: connection.execute(query).first())
        return _key(row) if row and hmac.compare_digest(row.sha256, digest) else None

    def list(self) -> list[Key]:
        """All keys, by name."""
        query = sa.select(keys).order_by(keys.c.name)
        return [_key(row) for row in self._database.read(lambda connection: connection.execute(query).all())]

    def revoke(self, name: str) -> None:
        """Removes a key: from now on its token is refused. Its jobs stay.

        Raises:
            InputError: if there is no key of this name.
        """
        if not self._database.change(sa.delete(keys).where(keys.c.name == name)):
            known = [key.name for key in self.list()]
            raise InputError(f"there is no key {name}{nearest(name, known) if known else ': there are none.'}")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: sa.Row) -> Key:
    return Key(row.id, row.name, row.priority, row.queued, row.created_at)
