"""The calls of both clients: what is sent, what comes back, what is raised."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import animagic
from animagic.client import RequestRefused, ServerError, VideoFailed


def test_a_video_is_asked_for_and_waited_for(client, server):
    seen = []
    video = client.generate("a ball", "magi1-tiny", frames=24, prompts_at={2: "it jumps"}, on_progress=seen.append)
    assert (video.status, video.progress, video.prompt, video.model) == ("completed", 100, "a ball", "magi1-tiny")
    assert [one.progress for one in seen] == [50, 100]
    asked = {"prompt": "a ball", "model": "magi1-tiny", "frames": 24, "prompts_at": {"2": "it jumps"}}
    assert server.asked[video.id] == asked
    assert server.headers["authorization"] == "Bearer ak_secret"


def test_without_waiting_it_is_queued(client, server):
    video = client.generate("a ball", wait=False)
    assert video.status == "queued"
    assert not video.finished
    assert client.wait(video).finished


def test_files_are_uploaded_wherever_they_stand(client, server, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"picture")
    photo = tmp_path / "photo.png"
    video = client.generate("x", image=photo, audio=[b"sound", "silence"], controls={0: photo}, wait=False)
    asked = server.asked[video.id]
    assert asked["image"] == {"file_id": "file_0"}
    assert asked["audio"] == [{"file_id": "file_1"}, "silence"]
    assert asked["controls"] == {"0": {"file_id": "file_2"}}
    assert server.files["file_0"] == ("photo.png", b"picture")
    assert server.files["file_1"] == ("audio", b"sound")


def test_the_same_key_is_the_same_video(client):
    first = client.generate("a ball", idempotency="mine", wait=False)
    assert client.generate("a ball", idempotency="mine", wait=False).id == first.id
    assert client.generate("a ball", wait=False).id != first.id


def test_videos_made_from_another(client, server):
    first = client.generate("a ball", wait=False)
    remix = client.remix(first, "a cube", seed=3)
    assert server.asked[remix.id] == {"prompt": "a cube", "seed": 3}
    extension = client.extend(first.id, "it stops", frames=24)
    assert server.asked[extension.id] == {"prompt": "it stops", "video": {"id": first.id}, "frames": 24}


def test_videos_that_are_there(client):
    ids = [client.generate("a ball", wait=False).id for _ in range(3)]
    assert [video.id for video in client.list(limit=2)] == ids[:0:-1]
    assert client.cancel(ids[0]).error == ("cancelled", "the video was cancelled.")
    client.delete(ids[0])
    with pytest.raises(RequestRefused, match="there is no such video") as refused:
        client.get(ids[0])
    assert refused.value.status == 404
    assert client.get(ids[1]).status == "in_progress"
    assert client.prompt(ids[1], "it jumps") == 3
    assert client.prompt(ids[1], "it jumps", chunk=7) == 7
    assert client.models() == [{"id": "magi1-tiny"}]


def test_a_download_is_whole_or_absent(client, server, tmp_path):
    video = client.generate("a ball")
    assert client.download(video, tmp_path / "ball.mp4").read_bytes() == b"video" * 1000
    client.download(video, str(tmp_path / "ball.jpg"), "thumbnail")
    assert (tmp_path / "ball.jpg").read_bytes() == b"thumbnail" * 1000
    with pytest.raises(animagic.MediaError, match="is not a folder"):
        client.download(video, tmp_path / "nowhere" / "ball.mp4")
    assert {file.name for file in tmp_path.iterdir()} == {"ball.mp4", "ball.jpg"}


def test_a_download_that_breaks_off_leaves_nothing(server, tmp_path):
    server.breaks = True
    with animagic.Client(server.url, retries=0) as client:
        video = client.generate("a ball")
        with pytest.raises(ServerError):
            client.download(video, tmp_path / "ball.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_comes_from_a_chunk_on(client):
    video = client.generate("a ball", wait=False)
    assert b"".join(client.stream(video)) == b"chunk 0;chunk 1;chunk 2;"
    assert b"".join(client.stream(video, start=2)) == b"chunk 2;"


def test_a_stream_that_breaks_off_says_why(client, server):
    video = client.generate("a ball", wait=False)
    server.breaks = True
    with pytest.raises(ServerError, match="broke"):
        client.stream(video)
    server.fails = True
    with pytest.raises(VideoFailed, match="the size is odd"):
        client.stream(video)


def test_events_are_read(client):
    events = client.events(client.generate("a ball", wait=False))
    assert [event.kind for event in events] == ["status", "progress", "status"]
    assert events[-1].data == {"progress": 100}


def test_a_busy_server_is_asked_again_when_it_says(client, server, monkeypatch):
    waited = []
    monkeypatch.setattr("animagic.client.core._pause", lambda answer, attempt: waited.append(_after(answer)) or 0)
    server.answers = [(429, {"retry-after": "7"}), (503, {"retry-after": "9"})]
    assert client.generate("a ball", wait=False).status == "queued"
    assert waited == ["7", "9"]
    assert server.calls["POST videos"] == 3


def _after(answer) -> str:
    return answer.headers["retry-after"]


def test_it_gives_up_with_the_servers_sentence(server, monkeypatch):
    monkeypatch.setattr("animagic.client.core._pause", lambda answer, attempt: 0)
    with animagic.Client(server.url, retries=1) as client:
        server.answers = [(429, {}), (429, {})]
        with pytest.raises(RequestRefused, match="not now"):
            client.generate("a ball")
        server.answers = [(503, {}), (503, {})]
        with pytest.raises(ServerError, match="not now"):
            client.generate("a ball")
        server.answers = [(500, {})]
        with pytest.raises(ServerError, match="500"):
            client.generate("a ball")
    assert server.calls["POST videos"] == 5


def test_what_is_refused_is_an_input_error(client):
    with pytest.raises(animagic.InputError, match=r"^the prompt is empty; say what the video should show\.$"):
        client.generate(" ")
    with pytest.raises(animagic.InputError, match="no file"):
        client.generate("x", image=Path("missing.png"))
    with pytest.raises(animagic.InputError, match="cannot be sent"):
        client.generate("x", frames=object())
    with pytest.raises(animagic.InputError, match="not the id of a video"):
        client.get("../models")


def test_a_video_that_fails_is_raised(client, server):
    server.fails = True
    with pytest.raises(VideoFailed, match="the size is odd") as failed:
        client.generate("a ball")
    assert failed.value.code == "invalid_input"
    assert failed.value.video.status == "failed"


def test_a_server_that_is_not_there_is_named():
    with animagic.Client("http://127.0.0.1:9", retries=0) as client, pytest.raises(ServerError, match="animagic serve"):
        client.generate("a ball")


def test_address_and_key_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("ANIMAGIC_URL", server.url)
    monkeypatch.setenv("ANIMAGIC_KEY", "ak_other")
    with animagic.Client() as client:
        client.models()
    assert server.headers["authorization"] == "Bearer ak_other"
    with pytest.raises(animagic.InputError, match="begin with http"):
        animagic.Client("localhost:8000")


def test_the_client_needs_no_network_libraries():
    code = (
        "import animagic, sys; animagic.Client('http://127.0.0.1:9');"
        "print({'torch', 'diffusers', 'transformers', 'av', 'numpy', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.stdout == "set()\n", done.stderr
