"""The clients with our own server, its worker and an embedded model."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import pytest

import animagic
from animagic.client import VideoFailed
from animagic.media import count_frames, read_image

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
SHORT = {"model": "magi1-tiny", "frames": 48, "steps": 4, "seed": 7}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a server that makes videos."""
    pytest.importorskip("fastapi", reason="a server needs fastapi: pip install -e '.[serve]'")
    import uvicorn

    from animagic.jobs.service import Service
    from animagic.jobs.settings import Settings
    from animagic.server import build

    service = Service(Settings(tmp_path_factory.mktemp("server"), device="cpu", threads=1))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build(service), log_level="warning", ws="websockets-sansio"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(url):
    with animagic.Client(url) as client:
        yield client


@pytest.fixture(scope="module")
def video(client):
    """One that is there."""
    seen = []
    video = client.generate("a red ball bounces", on_progress=seen.append, **SHORT)
    assert [one.progress for one in seen] == sorted(one.progress for one in seen)
    return video


def test_a_video_is_made_and_fetched(client, video, tmp_path):
    assert (video.status, video.progress, video.prompt) == ("completed", 100, "a red ball bounces")
    path = client.download(video, tmp_path / "ball.mp4")
    assert count_frames(path) == 48
    assert animagic.media.read_metadata(path)["request"]["seed"] == 7
    assert read_image(client.download(video, tmp_path / "ball.jpg", "thumbnail")).shape[2] == 3
    assert video.id in [one.id for one in client.list(limit=5)]


def test_the_same_is_not_made_twice(client):
    first = client.generate("a red ball bounces", wait=False, idempotency="one", **SHORT)
    assert client.generate("a red ball bounces", wait=False, idempotency="one", **SHORT).id == first.id
    with pytest.raises(animagic.InputError):
        client.generate("a blue cube", wait=False, idempotency="one", **SHORT)
    client.delete(first)


def test_it_is_seen_while_it_is_made(client, tmp_path):
    video = client.generate("a blue cube", wait=False, **SHORT)
    with (tmp_path / "stream.mp4").open("wb") as file:
        file.writelines(client.stream(video))
    assert count_frames(tmp_path / "stream.mp4") == 48
    whole = (tmp_path / "stream.mp4").read_bytes()
    assert 0 < len(b"".join(client.stream(video, start=1))) < len(whole)


def test_events_tell_how_far_it_is(client):
    video = client.generate("a green star", wait=False, **SHORT)
    events = list(client.events(video))
    assert {"status", "progress", "chunk"} <= {event.kind for event in events}
    status = [event.data["status"] for event in events if event.kind == "status"]
    assert status[-1] == "completed"


def test_a_picture_is_sent_and_begins_to_move(client, tmp_path):
    photo = ROOT / "docs" / "assets" / "portrait.png"
    video = client.generate("it moves", image=photo, **SHORT)
    assert video.status == "completed"


def test_a_video_goes_on_and_another_is_made_of_it(client, video, tmp_path):
    longer = client.extend(video, "it rolls", frames=24)
    path = client.download(longer, tmp_path / "longer.mp4")
    assert count_frames(path) in (24, 72)
    remix = client.remix(video, "a red ball bounces", seed=7)
    assert count_equal_frames_of(client, remix, video, tmp_path) == 48


def count_equal_frames_of(client, first, second, folder) -> int:
    from animagic.requests import count_equal_frames as count

    paths = [client.download(one, folder / f"{one.id}.mp4") for one in (first, second)]
    return count(*paths)[0]


def test_a_video_is_stopped(client):
    video = client.generate("a red ball bounces", wait=False, **SHORT | {"frames": 960})
    client.cancel(video)
    with pytest.raises(VideoFailed) as failed:
        client.wait(video)
    assert failed.value.code == "cancelled"
    with pytest.raises(VideoFailed):
        list(client.stream(video))
    client.delete(video)


def test_what_the_server_refuses_is_its_sentence(client):
    with pytest.raises(animagic.InputError, match="steps"):
        client.generate("a red ball", **SHORT | {"steps": 0})
    with pytest.raises(animagic.InputError, match="no model"):
        client.generate("a red ball", "nothing-tiny")
    assert {"magi1-tiny", "magicinfinite-tiny"} <= {model["id"] for model in client.models()}


def test_a_prompt_changes_over_the_wire(client, tmp_path):
    with client.live("a red ball", **SHORT | {"frames": 120}) as live, (tmp_path / "live.mp4").open("wb") as file:
        for fragment in live:
            if fragment.chunk == 0 and fragment.frames:
                event = live.prompt("a blue cube")
            file.write(fragment.data)
    assert count_frames(tmp_path / "live.mp4") == 120
    assert live.begins[event] >= 1
    assert client.get(live.id).status == "completed"


def test_it_is_the_same_for_asyncio(url, tmp_path):
    async def make():
        async with animagic.AsyncClient(url) as client:
            videos = await asyncio.gather(*(client.generate("a red ball", **SHORT | {"frames": 24}) for _ in range(2)))
            return [await client.download(one, tmp_path / f"{one.id}.mp4") for one in videos]

    paths = asyncio.run(make())
    assert [count_frames(path) for path in paths] == [24, 24]
