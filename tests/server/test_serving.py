"""The commands `serve` and `serve keys`; and a server as it is started, with the embedded model."""

from __future__ import annotations

import json
import re
import signal
import threading
import time

import pytest

from animagic.cli.serving import parse_time
from animagic.errors import InputError


def test_keys_are_made_listed_and_removed(run):
    made = run("serve", "keys", "add", "alice", "--priority", 5, "--queued", 20, "--json")
    assert re.fullmatch(r"ak_[0-9a-f]{64}", json.loads(made.out)["key"])
    assert re.fullmatch(r"ak_[0-9a-f]{64}\n", run("serve", "keys", "add", "bob").out)
    listed = run("serve", "keys", "list")
    assert listed.out == "alice  (priority 5, at most 20 unfinished)\nbob  (priority 0)\n"
    assert json.loads(run("serve", "keys", "list", "--json").out)["keys"][0]["name"] == "alice"
    run("serve", "keys", "add", "bob").refused("bob already")
    assert run("serve", "keys", "remove", "bob").code == 0
    run("serve", "keys", "remove", "bob").refused("no key bob", "alice")


def test_another_address_needs_a_key(run):
    run("serve", "--host", "0.0.0.0").refused("0.0.0.0", "animagic serve keys add NAME")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keep", "forever"], "'forever' is not a time"),
        (["--disk", "much"], "'much' is not an amount"),
        (["--memory", "12"], "'12' is not an amount"),
        (["--max-size", "big"], "'big' is not understood"),
        (["--max-frames", "0"], "max-frames"),
        (["--database", "mysql://x"], "mysql"),
    ],
)
def test_what_cannot_be_used_is_refused(run, words, said):
    run("serve", *words).refused(said)


def test_times():
    assert [parse_time(text) for text in ("7d", "12h", "1.5m", " 90S ")] == [604_800, 43_200, 90, 90]
    for text in ("7", "d", "-1d", "0s", "1e9d", "999999999999d"):
        with pytest.raises(InputError):
            parse_time(text)


@pytest.fixture
def served(start):
    """Starts `animagic serve WORDS` on a free port; returns the process and its address."""

    def serve(*words):
        process = start("serve", "--port", 0, *words)
        for line in process.stderr:
            if found := re.search(r"http://[\d.]+:\d+", line):
                # Its log is read on, or the server would wait for that.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return process, found[0]
        raise AssertionError(f"it has ended: {process.wait()}")

    return serve


TINY = {"prompt": "a red ball bounces", "model": "magi1-tiny-distilled", "steps": 4, "frames": 48, "seed": 7}


def finished(client, id: str) -> dict:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        video = client.get(f"/v1/videos/{id}").json()
        if video["status"] in ("completed", "failed"):
            return video
        time.sleep(0.1)
    raise AssertionError(video)


@pytest.mark.integration
def test_a_server_makes_streams_continues_and_ends(served, frames_of, tmp_path):
    import httpx

    process, url = served("--threads", 1)
    with httpx.Client(base_url=url, timeout=300) as client:
        id = client.post("/v1/videos", json=TINY).json()["id"]
        kinds, states = [], []
        with client.stream("GET", f"/v1/videos/{id}/events") as events:
            for line in events.iter_lines():
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
                elif line.startswith("data: ") and kinds[-1] == "status":
                    states.append(json.loads(line.removeprefix("data: "))["status"])
        assert states[-1] == "completed"
        assert {"status", "progress", "chunk"} <= set(kinds)
        (tmp_path / "video.mp4").write_bytes(client.get(f"/v1/videos/{id}/content").content)
        (tmp_path / "stream.mp4").write_bytes(client.get(f"/v1/videos/{id}/stream").content)
        assert len(frames_of(tmp_path / "video.mp4")) == len(frames_of(tmp_path / "stream.mp4")) == 48
        for variant in ("thumbnail", "spritesheet"):
            answer = client.get(f"/v1/videos/{id}/content", params={"variant": variant})
            assert answer.headers["content-type"] == "image/jpeg"
        longer = {"prompt": "it falls", "frames": 24, "video": {"id": id}}
        video = client.post("/v1/videos/extensions", json=longer).json()
        assert (video["extended_from_video_id"], video["total_frames"]) == (id, 72)
        assert finished(client, video["id"])["status"] == "completed"
        assert 'animagic_seconds_per_frame{model="magi1-tiny-distilled"}' in client.get("/metrics").text
        # It ends while a video is being made, which goes on at the next start.
        unfinished = client.post("/v1/videos", json={**TINY, "frames": 96}).json()["id"]
        while client.get(f"/v1/videos/{unfinished}").json()["status"] == "queued":
            time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    process, url = served("--threads", 1)
    with httpx.Client(base_url=url, timeout=300) as client:
        assert finished(client, unfinished)["status"] == "completed"
        assert client.delete(f"/v1/videos/{unfinished}").json()["deleted"]


@pytest.mark.integration
def test_a_prompt_changes_over_a_socket(served):
    import asyncio

    import websockets

    async def session(url: str) -> tuple[dict, dict, list[dict]]:
        async with websockets.connect(url.replace("http", "ws") + "/v1/realtime/video", max_size=None) as socket:
            await socket.send(json.dumps({"type": "session.start", **TINY}))
            begun = json.loads(await socket.recv())
            change = {"event_id": "e1", "event": {"prompt": "a blue square falls"}}
            await socket.send(json.dumps({"type": "session.interaction", "interaction": change}))
            messages = [json.loads(text) async for text in socket if isinstance(text, str)]
            queued = next(message for message in messages if message["type"] == "session.interaction.queued")
            return begun, queued, messages

    _, url = served("--threads", 1)
    begun, queued, messages = asyncio.run(session(url))
    chunks = [message for message in messages if message["type"] == "video.chunk_metadata"]
    assert begun["fps"] == 24
    assert sum(chunk["num_frames"] for chunk in chunks) == 48
    assert queued["chunk"] >= 0
    assert messages[-1]["type"] == "session.done"
