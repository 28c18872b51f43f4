"""Databases: which can be used, how older ones are brought up to date, and what happens while one is away."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sqlite3
import threading
import uuid

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from animagic.errors import InputError
from animagic.jobs.database import migrate
from animagic.jobs.job import Job
from animagic.jobs.keys import Keys
from animagic.jobs.store import Store, StoreUnavailable
from animagic.jobs.tables import VERSION_TABLE, metadata


def new(owner: str = "") -> Job:
    return Job(f"video_{uuid.uuid4().hex}", "queued", "magi1-tiny", {"prompt": "a ball"}, 1.0, owner)


@pytest.fixture
def open_store():
    """Opens stores, and closes them after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url, wait=15.0: stack.enter_context(contextlib.closing(Store(url, wait)))


# Which can be used


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("jobs.sqlite", "no URL that can be read"),
        ("mysql://localhost/jobs", "of the kind mysql cannot be used"),
        ("sqlite://", "in memory would lose its jobs"),
        ("sqlite:///:memory:", "in memory would lose its jobs"),
    ],
)
def test_what_is_no_database_is_refused(url, sentence):
    with pytest.raises(InputError, match=sentence):
        Store(url)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "jobs.sqlite").write_bytes(b"a letter to my grandmother" * 100)
    with pytest.raises(InputError, match="not a database"):
        Store(f"sqlite:///{tmp_path / 'jobs.sqlite'}")


def test_a_user_who_may_make_no_tables_is_told(postgres):
    with pytest.raises(InputError, match=r"permission denied.*tables may be made"):
        Store(postgres.new_database().replace("animagic@", "guest@"))


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(InputError, match=r"psycopg.*pip install 'animagic\[postgresql\]'"):
        Store("postgresql://localhost/jobs")


def test_a_password_is_never_shown():
    with pytest.raises(StoreUnavailable) as raised:
        Store("postgresql://me:secret@127.0.0.1:1/jobs", wait=0.1)
    assert "me:***@127.0.0.1:1/jobs has not answered for 0.1 seconds" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_folder_is_made(tmp_path, open_store):
    assert open_store(f"sqlite:///{tmp_path / 'a' / 'b' / 'jobs.sqlite'}").claim() is None


# Older and newer ones


def test_the_migrations_make_the_tables_that_are_used(store):
    def differences(connection) -> list:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return compare_metadata(context, metadata)

    assert store.database.write(differences) == []


def test_an_older_database_keeps_its_rows(url, open_store):
    engine = sa.create_engine(url)
    columns = "id, status, model, request, created_at, owner, priority, started_at, report, asked, fingerprint"
    rows = [
        ("video_1", "completed", 10.0, "a", 200.0),
        ("video_2", "completed", 11.0, "b", 100.0),
        ("video_3", "queued", 12.0, "a", None),
        ("video_4", "queued", 13.0, "b", None),
    ]
    with engine.begin() as connection:
        migrate(connection, "1")
        for id, status, created, owner, started in rows:
            connection.execute(
                sa.text(
                    f"INSERT INTO animagic_jobs ({columns}) VALUES (:id, :status, 'magi1-tiny', :request, :created, "
                    ":owner, 0, :started, NULL, '{}', '')"
                ),
                {
                    "id": id, "status": status, "request": '{"prompt": "a ball"}', "created": created,
                    "owner": owner, "started": started,
                },
            )  # fmt: skip
        connection.execute(sa.text("INSERT INTO animagic_uploads VALUES ('file_1', 'a', '\"x.png\"', 3, 5.0)"))
    engine.dispose()
    store = open_store(url)
    kept, more = store.list(None, None, 10, "asc")
    assert not more
    assert [(job.id, job.status, job.created_at, job.owner, job.started_at) for job in kept] == rows
    assert kept[0] == Job("video_1", "completed", "magi1-tiny", {"prompt": "a ball"}, 10.0, "a", started_at=200.0)
    assert store.get_upload("file_1").name == "x.png"
    # Whose turn it is is known from what was started before: b has waited longest.
    assert [store.claim().id, store.claim().id] == ["video_4", "video_3"]
    store.close()
    assert len(open_store(url).list(None, None, 10)[0]) == 4  # and nothing is done twice


def test_a_newer_database_is_left_alone(url, store):
    store.database.write(lambda c: c.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '999'")))
    with pytest.raises(InputError, match="newer version of Animagic"):
        Store(url)


# While it is away


def every_call(store: Store, job: Job) -> list:
    """Calls of all kinds, each in a thread of its own."""
    return [
        lambda: store.get(job.id) == job,
        lambda: store.list(None, None, 1)[0] != [],
        lambda: store.place(job.id) is not None,
        lambda: store.add(new("b")).owner == "b",
        lambda: store.update(job.id, expires_at=None) == job,
        lambda: Keys(store).create("laptop")[0].name == "laptop",
        lambda: Keys(store).check("ak_0") is None,
    ]


def answers(store: Store, job: Job, meanwhile) -> list:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(call) for call in every_call(store, job)]
        meanwhile()
        return [future.result() for future in futures]


def test_calls_wait_for_postgresql(postgres, open_store):
    url = postgres.new_database()
    store = open_store(url, wait=60.0)
    job = store.add(new("a"))
    quick = open_store(url, wait=0.2)
    postgres.stop()
    try:
        for call in every_call(quick, job):
            with pytest.raises(StoreUnavailable, match="try again later"):
                call()
        with pytest.raises(StoreUnavailable):
            Store(url, wait=0.2)
    finally:
        assert all(answers(store, job, postgres.start))
    assert all(call() for call in every_call(quick, job)[:3])


def test_a_connection_that_breaks_is_made_anew(postgres, open_store):
    store = open_store(postgres.new_database())
    job = store.add(new("a"))
    end = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    for _ in range(3):
        with contextlib.suppress(StoreUnavailable):
            Store(store.database.name, wait=0.1).database.read(lambda c: c.execute(end))
        assert store.get(job.id) == job


def test_calls_wait_for_a_locked_sqlite_file(tmp_path, open_store):
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    store, quick = open_store(url, wait=60.0), open_store(url, wait=0.2)
    job = store.add(new("a"))
    other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    assert quick.get(job.id) == job  # readers need not wait
    with pytest.raises(StoreUnavailable, match="locked"):
        quick.add(new())
    assert all(answers(store, job, lambda: other.execute("ROLLBACK")))
    other.close()


def test_a_full_disk(mount, tmp_path, open_store):
    disk = mount(tmp_path / "disk", "size=1m")
    store = open_store(f"sqlite:///{disk / 'jobs.sqlite'}", wait=0.2)
    job = store.add(new("a"))
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(StoreUnavailable, match="disk is full"):
        store.add(Job("video_1", "queued", "m", {"prompt": "x" * 100_000}, 1.0))
    assert store.get(job.id) == job
    filler.unlink()
    assert store.add(new("b")).owner == "b"
    store.close()


def test_who_waits_gives_up_when_the_store_is_closed(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'jobs.sqlite'}", wait=3600.0)
    other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.claim)
        store.close()
        with pytest.raises(StoreUnavailable):
            waiting.result()
    other.close()


@pytest.fixture
def break_next_commit(store, monkeypatch):
    """The connection breaks after a commit was carried out and before anybody was told."""
    dialect = store.database._writing.dialect
    commit = dialect.do_commit
    broken = threading.Event()

    def commit_and_break(connection) -> None:
        commit(connection)
        if not broken.is_set():
            broken.set()
            raise dialect.dbapi.OperationalError("server closed the connection unexpectedly")

    yield lambda: monkeypatch.setattr(dialect, "do_commit", commit_and_break)
    assert broken.is_set()


def test_a_claim_that_was_kept_unheard_is_not_lost(store, break_next_commit):
    first, second = (store.add(new()).id for _ in range(2))
    break_next_commit()
    assert store.claim().id == first
    assert store.claim().id == second


def test_a_job_that_was_kept_unheard_is_not_added_twice(store, break_next_commit):
    break_next_commit()
    job = store.add(new(), "key", "print")
    assert store.list(None, None, 10) == ([job], False)


def test_a_deletion_that_was_kept_unheard_is_one(store, break_next_commit):
    job = store.add(new())
    break_next_commit()
    assert store.delete(job.id)


def test_a_key_that_was_kept_unheard_is_known(store, break_next_commit):
    break_next_commit()
    key, token = Keys(store).create("laptop")
    assert Keys(store).check(token) == key
