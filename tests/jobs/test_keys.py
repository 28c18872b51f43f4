"""Keys and their tokens, on SQLite and on PostgreSQL."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from animagic.errors import InputError
from animagic.jobs.keys import Keys


@pytest.fixture
def keys(store) -> Keys:
    return Keys(store)


def test_a_key_is_known_by_its_token(keys):
    key, token = keys.create("Ana's laptop", priority=2, queued=5)
    other, another = keys.create("batch")
    assert re.fullmatch("ak_[0-9a-f]{64}", token)
    assert (key.name, key.priority, key.queued) == ("Ana's laptop", 2, 5)
    assert (other.priority, other.queued) == (0, None)
    assert keys.check(token) == key
    assert keys.check(another) == other
    assert keys.list() == [key, other]
    for wrong in ("", token[:-1], token.upper(), f"{token} ", "ak_\0", "\ud800", key.id):
        assert keys.check(wrong) is None


def test_a_token_is_not_kept(keys, store):
    _, token = keys.create("a")

    def everything(connection) -> str:
        tables = sa.inspect(connection).get_table_names()
        return repr([connection.execute(sa.text(f"SELECT * FROM {table}")).all() for table in tables])

    kept = store.database.read(everything)
    assert "'a'" in kept
    assert token[3:] not in kept


def test_a_revoked_key_is_refused(keys):
    key, token = keys.create("a")
    keys.revoke("a")
    assert keys.check(token) is None
    assert keys.list() == []
    again, _ = keys.create("a")
    assert again.id != key.id


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "taken"}, "there is a key taken already"),
        ({"name": ""}, "1 to 100 characters"),
        ({"name": "a\nb"}, "1 to 100 characters"),
        ({"name": "a" * 101}, "1 to 100 characters"),
        ({"name": "a", "priority": 1001}, "priority of 1001 is out of range"),
        ({"name": "a", "queued": 0}, "0 queued jobs are out of range"),
    ],
)
def test_wrong_values_are_refused(keys, values, sentence):
    keys.create("taken")
    with pytest.raises(InputError, match=sentence):
        keys.create(**values)
    assert [key.name for key in keys.list()] == ["taken"]


def test_an_unknown_name(keys):
    with pytest.raises(InputError, match="no key laptop: there are none"):
        keys.revoke("laptop")
    keys.create("laptop")
    with pytest.raises(InputError, match="did you mean laptop"):
        keys.revoke("lapptop")
