"""What becomes of jobs, with a worker of which the test says what it says."""

import dataclasses
import time

import pytest

from animagic.jobs.errors import OutOfSpace
from animagic.jobs.service import NoSuchJob, Service
from animagic.jobs.settings import Settings
from animagic.jobs.store import StoreUnavailable
from animagic.requests import build_request


class Worker:
    """In place of `WorkerProcess`: remembers what it is told."""

    all: list  # that were started
    pid = 1

    def __init__(self, settings, lock, on_message):
        self.told, self.say = [], on_message
        self.all.append(self)

    def send(self, *message):
        self.told.append(message)

    def kill(self):
        self.say("gone", -9)

    def close(self, timeout):
        self.say("gone", 0)


def until(true) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(Worker, "all", [], raising=False)
    monkeypatch.setattr("animagic.jobs.manager.WorkerProcess", Worker)
    monkeypatch.setattr("animagic.jobs.manager.LAST_PATIENCE", 0.1)  # it does not listen
    return Worker.all


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path, drain=0.0)


@pytest.fixture
def service(workers, settings):
    with Service(settings) as service:
        yield service


@pytest.fixture
def submit():
    return lambda service, **options: service.submit(build_request("a ball", "magi1-tiny", frames=24), **options)


def given(worker, job) -> bool:
    return any(message[:2] == ("make", job.id) for message in worker.told)


def test_a_job_whose_worker_dies_is_given_to_another_one_once(service, workers, submit):
    job, other = submit(service), submit(service)
    until(lambda: given(workers[0], job))
    workers[0].kill()
    until(lambda: len(workers) == 2 and given(workers[1], job))
    workers[1].kill()
    until(lambda: service.get(job.id).finished)
    assert service.get(job.id).error[0] == "server_error"
    until(lambda: len(workers) == 3 and given(workers[2], other))


def test_a_worker_that_is_broken_gets_no_other_job(service, workers, submit):
    job, other = submit(service), submit(service)
    until(lambda: given(workers[0], job))
    workers[0].say("broken", job.id, "it could not be made.")
    until(lambda: service.get(job.id).finished)
    assert service.get(job.id).error == ("server_error", "it could not be made.")
    workers[0].kill()
    until(lambda: len(workers) == 2 and given(workers[1], other))
    assert not given(workers[0], other)


def test_what_is_cancelled_stays_so_after_a_crash(workers, settings, submit):
    with Service(settings) as first:
        job = submit(first)
        until(lambda: given(workers[0], job))
        first.cancel(job.id)
        assert workers[0].told[-1] == ("stop", job.id)
    with Service(settings) as again:
        until(lambda: len(workers) == 2 and ("stop", job.id) in workers[1].told)
        workers[1].say("stopped", job.id)
        until(lambda: again.get(job.id).finished)
        assert again.get(job.id).error[0] == "cancelled"


def test_what_a_job_became_is_kept_when_the_database_is_back(service, workers, submit, monkeypatch):
    job, update, tries = submit(service), service.store.update, []
    until(lambda: given(workers[0], job))

    def away(*given, **values):
        tries.append(1)
        if len(tries) < 3:
            raise StoreUnavailable("the database is away")
        return update(*given, **values)

    monkeypatch.setattr(service.store, "update", away)
    workers[0].say("report", job.id, {"step": 1, "total_steps": 2})
    workers[0].say("done", job.id, {"frames": 24}, job.request)
    until(lambda: service.get(job.id).finished)
    assert len(tries) == 3
    assert service.store.get(job.id).status == "completed"


def test_jobs_that_have_expired_go(workers, settings, submit):
    with Service(dataclasses.replace(settings, keep=0.0)) as service:
        job = submit(service)
        until(lambda: given(workers[0], job))
        workers[0].say("done", job.id, {"frames": 24}, job.request)
        until(lambda: not service.folder(job.id).root.exists())
        until(lambda: service.store.get(job.id) is None)
        with pytest.raises(NoSuchJob):
            service.get(job.id)


def test_the_oldest_goes_where_all_take_too_much(workers, settings, submit):
    with Service(dataclasses.replace(settings, disk=25_000)) as service:
        jobs = [submit(service) for _ in range(3)]
        for job in jobs:
            until(lambda job=job: given(workers[0], job))
            (service.folder(job.id).root / "video.mp4").write_bytes(b" " * 10_000)
            workers[0].say("done", job.id, {"frames": 24}, job.request)
        until(lambda: service.store.get(jobs[0].id) is None)
        until(lambda: service.get(jobs[2].id).finished)
        assert [service.store.get(job.id) is None for job in jobs] == [True, False, False]
        job = submit(service)
        until(lambda: given(workers[0], job))
        (service.folder(job.id).root / "video.mp4.resume").write_bytes(b" " * 30_000)
        service._manager._clean()
        with pytest.raises(OutOfSpace):
            submit(service)
