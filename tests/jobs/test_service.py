"""Jobs from end to end, with a worker and models of a few thousand weights."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from animagic.errors import InputError
from animagic.jobs.service import JobFailed, NoSuchJob, Service, TooMany
from animagic.jobs.settings import Limits, Settings
from animagic.jobs.store import IdempotencyConflict
from animagic.media import iter_video, probe, read_metadata
from animagic.requests import build_request, from_metadata

pytestmark = pytest.mark.integration


def until(true, seconds: float = 300.0) -> None:
    """Wait; a hang becomes a failure."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.01)


def finished(service: Service, job):
    until(lambda: service.get(job.id).finished)
    return service.get(job.id)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(tmp_path_factory.mktemp("server"), threads=1, limits=Limits(queued=8, frames=2000))


@pytest.fixture(scope="module")
def service(settings):
    with Service(settings) as service:
        yield service


@pytest.fixture(scope="module")
def ball(tiny_model):
    """Makes requests: 16 frames are two chunks, of four steps."""

    def request(**options):
        options = {"prompt": "a red ball", "model": str(tiny_model), "frames": 16, "steps": 4, "seed": 5} | options
        return build_request(**options)

    return request


@pytest.fixture(scope="module")
def made(service, ball):
    """A finished job."""
    return finished(service, service.submit(ball()))


async def collected(iterator) -> list:
    return [item async for item in iterator]


def test_a_job_becomes_a_video(service, made):
    folder = service.folder(made.id)
    assert (made.status, made.progress, made.error) == ("completed", 100, None)
    assert made.result["frames"] == probe(folder.video)["frames"] == 16
    assert from_metadata(read_metadata(folder.video)).stored() == made.request
    assert {path.name for path in folder.root.iterdir()} == {
        "request.json", "video.mp4", "stream.mp4", "stream.jsonl", "latents",
    }  # fmt: skip
    with folder.thumbnail().open("rb") as file:
        assert file.read(2) == b"\xff\xd8"
    assert probe(folder.spritesheet())["width"] > probe(folder.thumbnail())["width"]


def test_its_stream_plays_from_any_chunk_on(service, made, tmp_path):
    folder = service.folder(made.id)
    whole = b"".join(asyncio.run(collected(service.stream(made.id))))
    assert whole == folder.stream.read_bytes()
    assert service.mime_type(made.id).startswith("video/mp4; codecs=")
    part = tmp_path / "part.mp4"
    part.write_bytes(b"".join(asyncio.run(collected(service.stream(made.id, 1)))))
    with av.open(part) as film:
        times = [frame.pts * frame.time_base for frame in film.decode(video=0)]
    assert [round(float(time) * 24) for time in times] == list(range(8, 16))
    assert asyncio.run(collected(service.stream(made.id, 7))) == []
    with pytest.raises(InputError, match="the first one is 0"):
        asyncio.run(collected(service.stream(made.id, -1)))


def test_watchers_are_told_everything_in_order(service, ball):
    async def watch():
        job = service.submit(ball(frames=24, seed=6))
        events, chunks = await asyncio.gather(collected(service.events(job.id)), collected(service.stream(job.id)))
        return job, events, chunks

    job, events, chunks = asyncio.run(watch())
    statuses = [event.data["status"] for event in events if event.kind == "status"]
    assert statuses[-2:] == ["in_progress", "completed"]
    assert events[-1].kind == "status"
    assert [event.data["index"] for event in events if event.kind == "chunk"] == [0, 1, 2]
    progress = [event.data for event in events if event.kind == "progress"]
    assert progress[-1]["step"] == progress[-1]["total_steps"]
    assert progress[-1]["num_levels"] == 4
    assert [one["progress"] for one in progress] == sorted(one["progress"] for one in progress)
    assert len(chunks) == 3
    late = asyncio.run(collected(service.events(job.id)))
    assert [event.kind for event in late] == ["chunk", "chunk", "chunk", "progress", "status"]


def test_hundreds_of_watchers_are_told(service, ball):
    async def watch():
        job = service.submit(ball(seed=7))
        return await asyncio.gather(*(collected(service.events(job.id)) for _ in range(300)))

    for events in asyncio.run(watch()):
        assert events[-1].data["status"] == "completed"
        assert sum(event.kind == "chunk" for event in events) == 2


def test_a_running_job_is_cancelled_at_its_next_step(service, ball):
    job = service.submit(ball(frames=1600))
    folder = service.folder(job.id)
    until(lambda: folder.chunks)
    service.cancel(job.id)
    job = finished(service, job)
    assert (job.status, job.error[0]) == ("failed", "cancelled")
    assert not folder.video.exists()
    assert {path.name for path in folder.root.iterdir()} <= {
        "request.json", "prompts.json", "stream.mp4", "stream.jsonl", "latents",
    }  # fmt: skip
    with pytest.raises(JobFailed) as failure:
        asyncio.run(collected(service.stream(job.id)))
    assert failure.value.code == "cancelled"
    assert service.cancel(job.id).error == job.error


def test_a_queued_job_is_cancelled_at_once_and_a_running_one_deleted(service, ball):
    running = service.submit(ball(frames=1600))
    queued = service.submit(ball())
    assert service.cancel(queued.id).error[0] == "cancelled"
    until(lambda: service.get(running.id).status == "in_progress")
    service.delete(running.id)
    assert not service.folder(running.id).root.exists()
    with pytest.raises(NoSuchJob):
        service.get(running.id)


def test_only_the_owner_sees_a_job(service, made):
    with pytest.raises(NoSuchJob):
        service.get(made.id, owner="somebody else")
    assert service.list("somebody else") == ([], False)
    for method in (service.cancel, service.delete, service.mime_type, service.end):
        with pytest.raises(NoSuchJob):
            method(made.id, owner="somebody else")


def test_a_request_that_cannot_be_is_refused_or_fails_with_a_sentence(service, ball, tmp_path):
    with pytest.raises(InputError, match="at most 2000"):
        service.submit(ball(frames=2001))
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(InputError.__base__):
        service.submit(ball(image=str(tmp_path / "no.png")))
    job = finished(service, service.submit(ball(height=33, width=48)))
    assert job.error[0] == "invalid_request"
    assert "multiples of" in job.error[1]
    assert not service.folder(job.id).video.exists()


def test_input_files_are_copied(service, ball, make_moving_clip, tmp_path):
    from animagic.media import write_image

    picture = tmp_path / "a picture.png"
    write_image(picture, make_moving_clip()[0])
    job = service.submit(ball(image=str(picture)))
    picture.unlink()
    assert Path(job.request["image"]).parent == service.folder(job.id).inputs
    assert finished(service, job).status == "completed"


def test_the_same_request_with_the_same_key_is_made_once(service, tiny_model):
    def request(prompt="a red ball"):
        return build_request(prompt, str(tiny_model), frames=16, steps=4)  # each with a seed of its own

    first = service.submit(request(), owner="ann", idempotency="key")
    assert service.submit(request(), owner="ann", idempotency="key").id == first.id
    assert service.submit(request(), owner="bob", idempotency="key").id != first.id
    with pytest.raises(IdempotencyConflict):
        service.submit(request("a blue ball"), owner="ann", idempotency="key")


def test_nobody_fills_the_queue(service, ball):
    running = service.submit(ball(frames=1600), owner="eve")
    jobs = [service.submit(ball(), owner="eve") for _ in range(6)]
    jobs.append(service.submit(ball(), owner="eve", idempotency="key"))
    assert service.submit(ball(), owner="eve", idempotency="key").id == jobs[-1].id  # it is there already
    with pytest.raises(TooMany, match="8 unfinished videos"):
        service.submit(ball(), owner="eve")
    for job in [*jobs, running]:
        service.delete(job.id)


def test_a_remix_has_another_prompt(service, made):
    job = service.remix(made.id, "a blue cat", asked={"seconds": "4"})
    assert job.remixed_from == made.id
    assert job.asked == {"seconds": "4"}
    assert {**job.request, "prompt": "a red ball"} == made.request


def test_a_video_is_extended(service, made):
    job = finished(service, service.extend(made.id, "a blue cat", 10))
    assert job.extends == made.id
    assert job.result["frames"] == 26
    before, after = (list(iter_video(service.folder(id).video)) for id in (made.id, job.id))
    assert np.abs(np.stack(before).astype(int) - np.stack(after[:16])).mean() < 2  # that they are equal: see MAGI-1
    with pytest.raises(InputError, match="at least 1"):
        service.extend(made.id, "a blue cat", 0)


def test_the_prompt_changes_while_the_video_is_made_and_it_can_be_made_again(service, ball, tmp_path, tiny_pipe):
    from animagic.requests import count_equal_frames, generate

    job = service.submit(ball(frames=400, prompts_at={49: "a red square"}))
    until(lambda: service.folder(job.id).chunks)
    chunk = service.prompt(job.id, "a blue cat")
    assert chunk > 1
    prompts = {str(chunk): "a blue cat", "49": "a red square"}
    assert service.get(job.id).request["prompts_at"] == prompts
    with pytest.raises(InputError, match="is begun already"):
        service.prompt(job.id, "a green cat", 0)
    with pytest.raises(InputError, match="has 50 chunks"):
        service.prompt(job.id, "a green cat", 50)
    job = finished(service, job)
    assert job.request["prompts_at"] == prompts
    with pytest.raises(InputError, match="finished"):
        service.prompt(job.id, "a green cat")
    video = service.folder(job.id).video
    generate(from_metadata(read_metadata(video)), tmp_path / "again.mp4", pipe=tiny_pipe)
    assert count_equal_frames(video, tmp_path / "again.mp4") == (400, 400)


def test_a_queued_job_takes_another_prompt(service, ball):
    running, job = service.submit(ball(frames=1600)), service.submit(ball())
    assert service.prompt(job.id, "a blue cat") == 0
    assert service.prompt(job.id, "a green ball", 1) == 1
    with pytest.raises(InputError, match="has 2 chunks"):
        service.prompt(job.id, "a green ball", 2)
    service.delete(running.id)
    request = finished(service, job).request
    assert (request["prompt"], request["prompts_at"]) == ("a blue cat", {"1": "a green ball"})


def test_a_video_without_an_end_is_ended(service, ball):
    job = service.submit(ball(endless=True, frames=None))
    until(lambda: len(service.folder(job.id).chunks) > 1)
    service.end(job.id)
    job = finished(service, job)
    assert job.status == "completed"
    assert job.result["frames"] == job.request["frames"] >= 16
    assert b"".join(asyncio.run(collected(service.stream(job.id)))) == service.folder(job.id).stream.read_bytes()


def test_a_worker_that_dies_is_replaced_once(service, ball):
    job = service.submit(ball(frames=1600, seed=8))
    for died in range(2):
        until(lambda: service._manager.worker is not None)
        until(lambda chunks=3 * died: len(service.folder(job.id).chunks) > chunks)
        before = service._manager.worker
        os.kill(before, signal.SIGKILL)
        until(lambda before=before: service._manager.worker != before)
    job = finished(service, job)
    assert job.error[0] == "server_error"
    assert "died twice" in job.error[1]
    assert finished(service, service.submit(ball(seed=9))).status == "completed"


SERVER = """
import sys, time
from pathlib import Path
from animagic.jobs.service import Service
from animagic.jobs.settings import Settings
from animagic.requests import build_request
service = Service(Settings(Path(sys.argv[1]), threads=1))
service.start()
service.submit(build_request("a red ball", sys.argv[2], frames=480, steps=4, seed=5))
time.sleep(600)
"""


def test_a_server_that_is_killed_and_then_stopped_goes_on_to_the_same_bytes(service, ball, tiny_model, tmp_path):
    whole = service.folder(finished(service, service.submit(ball(frames=480))).id)
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path), str(tiny_model)])
    try:
        until(lambda: [line for path in tmp_path.glob("jobs/*/stream.jsonl") for line in path.open()][3:])
    finally:
        server.kill()
    server.wait()
    (root,) = tmp_path.glob("jobs/*")
    assert not (root / "video.mp4").exists()
    with (root / "stream.jsonl").open("a") as table:
        table.write('{"start":')  # as if it had been killed while it wrote
    settings = dataclasses.replace(service.settings, folder=tmp_path, drain=0.0)
    with Service(settings) as again:
        (job,), _ = again.list()
        known = len(again.folder(job.id).chunks)
        until(lambda: len(again.folder(job.id).chunks) > known)
    assert not again.folder(job.id).video.exists()  # it was stopped in good order, but at once
    with Service(settings) as again:
        seen = len(again.folder(job.id).chunks)
        rest = b"".join(asyncio.run(collected(again.stream(job.id, seen))))
        assert again.get(job.id).status == "completed"
        folder = again.folder(job.id)
    assert folder.video.read_bytes() == whole.video.read_bytes()
    assert folder.stream.read_bytes() == whole.stream.read_bytes()
    head = whole.head.size
    assert rest == whole.stream.read_bytes()[:head] + whole.stream.read_bytes()[whole.chunks[seen].offset :]


def test_two_servers_do_not_share_a_folder(service):
    from animagic.jobs.lock import FolderLock

    with pytest.raises(InputError, match="another server uses"):
        FolderLock(service.settings.folder, wait=0.0)
