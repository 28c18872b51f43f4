"""The benchmark of the store of jobs, with few calls."""

from __future__ import annotations

import pytest

pytest.importorskip("sqlalchemy", reason="jobs need SQLAlchemy: pip install -e '.[serve]'")


def test_every_call_is_measured(script, rows):
    measured = rows(script("jobs_store.py", "--quick"))
    assert {row[0] for row in measured} == {"SQLite"}
    assert [row[1].split("`")[1] for row in measured] == ["get", "list", "place", "Keys.check", "update", "add"]
    assert all(float(cell) > 0 for row in measured for cell in row[2:])
