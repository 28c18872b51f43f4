"""The store of jobs, on SQLite and on PostgreSQL."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import random
import threading
import uuid

import pytest

from animagic.errors import InputError
from animagic.jobs.job import Job
from animagic.jobs.store import IdempotencyConflict, Store, Upload


def new(owner: str = "", **values) -> Job:
    values = {"request": {"prompt": "a ball"}, "created_at": 1.5, **values}
    return Job(f"video_{uuid.uuid4().hex}", "queued", "magi1-tiny", owner=owner, **values)


def claims(store: Store) -> list[str]:
    found = []
    while job := store.claim():
        found.append(job.id)
    return found


# What is kept


def test_a_job_comes_back_as_it_was(store, url):
    job = new(
        "key_1",
        request={"prompt": "ein Ball \0 \ud800 🎈", "seed": 2**64 - 1, "image": None, "guidance": 7.5},
        priority=-3,
        expires_at=1e10 + 0.125,
        remixed_from="video_1",
        extends="video_2",
        asked={"seconds": "4"},
    )
    assert store.add(job) == job
    assert store.get(job.id) == job
    done = {"result": {"frames": 24}, "error": ("cancelled", "it was stopped."), "report": {"step": 3}}
    changed = store.update(job.id, status="failed", completed_at=2.5, **done)
    assert changed == dataclasses.replace(job, status="failed", completed_at=2.5, **done)
    other = Store(url)
    assert other.get(job.id) == changed
    other.close()


def test_what_is_not_there(store):
    for id in ("video_0", "", "video_\0", "video_\ud800", "video_ä", "a" * 10_000, "' OR 1=1 --"):
        assert store.get(id) is None
        assert store.get_upload(id) is None
        assert store.place(id) is None
        assert store.delete(id) is False
        assert store.delete_upload(id) is False
        with pytest.raises(KeyError):
            store.update(id, status="failed")
        with pytest.raises(InputError, match="no video"):
            store.list(None, after=id)
    assert store.claim() is None


def test_a_change_only_from_the_status_that_is_expected(store):
    job = store.add(new())
    running = store.claim()
    assert store.update(job.id, expected="queued", status="failed") == running
    assert store.update(job.id, expected="in_progress", status="failed").status == "failed"


def test_numbers_that_json_lacks_are_refused_alike(store):
    job = store.add(new())
    with pytest.raises(Exception, match="JSON compliant"):
        store.update(job.id, report={"seconds_left": float("nan")})


def test_uploads(store):
    first = store.add_upload(Upload("file_1", "a", "nul \0 and \ud800.png", 2**40, 1.0))
    second = store.add_upload(Upload("file_2", "b", "x.png", 1, 2.0))
    assert store.get_upload("file_1") == first
    assert store.uploads() == [first, second]
    assert store.uploads("b") == [second]
    assert store.delete_upload("file_1")
    assert not store.delete_upload("file_1")
    assert store.uploads() == [second]


# Lists


def test_lists_page_by_page(store):
    mine = [store.add(new("a")) for _ in range(5)]
    theirs = store.add(new("b"))
    assert store.list("a", None, 5, "asc") == (mine, False)
    assert store.list("a", None, 2, "asc") == (mine[:2], True)
    assert store.list("a", mine[1].id, 2, "asc") == (mine[2:4], True)
    assert store.list("a", mine[3].id, 2, "asc") == (mine[4:], False)
    assert store.list("a", mine[2].id, 9, "desc") == (mine[1::-1], False)
    assert store.list(None, None, 1, "desc") == ([theirs], True)
    with pytest.raises(InputError, match="no video"):
        store.list("a", theirs.id)


def test_counts(store):
    for owner in "aab":
        store.add(new(owner))
    store.claim()
    assert store.counts() == {"queued": 2, "in_progress": 1, "completed": 0, "failed": 0}
    assert store.counts("b") == {"queued": 1, "in_progress": 0, "completed": 0, "failed": 0}


def test_what_may_go(store):
    old, kept, new_one, running = (store.add(new()) for _ in range(4))
    store.update(new_one.id, status="failed", completed_at=30.0, expires_at=300.0)
    store.update(old.id, status="completed", completed_at=10.0, expires_at=100.0)
    store.update(kept.id, status="completed", completed_at=20.0)
    assert [job.id for job in store.expired(99.0)] == []
    assert [job.id for job in store.expired(100.0)] == [old.id]
    assert [job.id for job in store.expired(1e12)] == [old.id, new_one.id]
    assert [job.id for job in store.oldest_finished()] == [old.id, kept.id, new_one.id]
    assert store.delete(old.id)
    assert not store.delete(old.id)
    assert store.get(old.id) is None
    assert store.get(running.id) is not None


# Idempotency


def test_a_request_that_is_sent_twice_is_one_job(store):
    first = store.add(new("a"), "key", "print")
    assert store.add(new("a"), "key", "print") == first
    other = store.add(new("b"), "key", "another")
    assert other.id != first.id
    with pytest.raises(IdempotencyConflict, match=f"used before, for another request.*{first.id}"):
        store.add(new("a"), "key", "another")
    assert len(store.list(None, None, 10, "asc")[0]) == 2
    store.delete(first.id)
    assert store.add(new("a"), "key", "another").id != first.id


def test_no_idempotency_key_is_none(store):
    assert store.add(new()).id != store.add(new()).id


def test_the_same_request_many_times_at_once(store):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: store.add(new("a"), "odd \0 \ud800 key", "print").id, range(24)))
    assert len(set(found)) == 1
    assert store.counts()["queued"] == 1


# The queue


def test_the_oldest_first_and_in_progress(store):
    jobs = [store.add(new()) for _ in range(3)]
    claimed = store.claim()
    assert claimed == dataclasses.replace(jobs[0], status="in_progress", started_at=claimed.started_at)
    assert claimed.started_at > 1e9
    assert store.get(jobs[0].id) == claimed
    assert claims(store) == [jobs[1].id, jobs[2].id]


def test_owners_take_turns(store):
    a = [store.add(new("a")).id for _ in range(3)]
    b = [store.add(new("b")).id for _ in range(2)]
    assert store.claim().id == a[0]
    c = store.add(new("c")).id
    assert claims(store) == [b[0], c, a[1], b[1], a[2]]


def test_nobody_gains_a_turn_by_deleting_jobs(store):
    a = [store.add(new("a")).id for _ in range(2)]
    b = store.add(new("b")).id
    assert store.claim().id == a[0]
    store.delete(a[0])
    assert claims(store) == [b, a[1]]


def test_higher_priority_first(store):
    usual = [store.add(new("a", priority=0)).id, store.add(new("b", priority=0)).id]
    low = store.add(new("a", priority=-1)).id
    high = [store.add(new("a", priority=5)).id for _ in range(2)]
    assert claims(store) == [*high, usual[1], usual[0], low]


def test_after_a_crash_what_ran_goes_first(store, url):
    jobs = [store.add(new("a", priority=9 - i)).id for i in range(4)]
    started = [store.claim() for _ in range(2)]
    store.update(jobs[1], status="completed")
    store.close()
    again = Store(url)
    urgent = again.add(new("b", priority=99)).id
    assert again.requeue() == 1
    assert again.requeue() == 0
    assert again.place(jobs[0]) == 0
    assert again.claim() == started[0]
    assert claims(again) == [urgent, jobs[2], jobs[3]]
    again.close()


def test_the_place_is_where_a_job_comes_out(store):
    random.seed(5)
    draw = random.choice
    for _ in range(6):
        store.add(new(draw("abc"), priority=draw([0, 1])))
    for _ in range(5):
        store.claim()
    for _ in range(12):
        store.add(new(draw("abcde"), priority=draw([0, 0, 1, 2])))
    store.requeue()
    waiting = [job.id for job in store.list(None, None, 99, "asc")[0] if job.status == "queued"]
    places = {store.place(id): id for id in waiting}
    assert claims(store) == [places[place] for place in range(len(waiting))]
    assert store.place(waiting[0]) is None


def test_places_of_jobs_that_another_server_added(store, url):
    store.add(new())
    assert store.place("video_0") is None
    other = Store(url)
    id = other.add(new()).id
    other.close()
    assert store.place(id) == 1


def test_threads_never_get_the_same_job(store):
    jobs = {store.add(new(owner)).id for owner in "abcd" * 15}
    start = threading.Barrier(6)

    def work(_) -> list[str]:
        start.wait()
        return claims(store)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = [id for part in pool.map(work, range(6)) for id in part]
    assert len(found) == len(jobs)
    assert set(found) == jobs


def _add_and_claim(url: str) -> tuple[list[str], list[str]]:
    store = Store(url)
    try:
        return [store.add(new(owner)).id for owner in "ab" * 10], claims(store)
    finally:
        store.close()


def test_processes_open_a_new_database_at_once_and_share_its_queue(url):
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(_add_and_claim, [url] * 2))
    added = {id for ids, _ in done for id in ids}
    claimed = [id for _, ids in done for id in ids]
    assert len(added) == len(claimed) == 40
    assert set(claimed) == added
