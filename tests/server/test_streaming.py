"""Videos while they are made."""

from __future__ import annotations

import io
import json
import threading

import av
import pytest

PROMPT = {"prompt": "a red ball bounces", "frames": 12}


def frames_in(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_stream_has_every_frame(client, made):
    answer = client.get(f"/v1/videos/{made(frames=12)['id']}/stream")
    assert answer.headers["content-type"].startswith("video/mp4")
    assert frames_in(answer.content) == 12


def test_a_stream_begins_with_a_chunk(client, made):
    id = made(frames=12)["id"]
    assert frames_in(client.get(f"/v1/videos/{id}/stream", params={"from": 1}).content) == 8
    answer = client.get(f"/v1/videos/{id}/stream", params={"from": 9})
    assert (answer.status_code, answer.json()["error"]["code"]) == (416, "no_such_chunk")
    for start in (-1, "x", 2**40):
        assert client.get(f"/v1/videos/{id}/stream", params={"from": start}).status_code == 400


def test_the_stream_of_a_video_that_failed(client, service):
    service.gate.clear()
    id = client.post("/v1/videos", json=PROMPT).json()["id"]
    client.post(f"/v1/videos/{id}/cancel")
    answer = client.get(f"/v1/videos/{id}/stream")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "video_failed")


def test_frames_come_before_the_video_is_whole(live, service):
    import httpx

    service.hold_after = 1
    with httpx.Client(base_url=live, timeout=20) as client:
        id = client.post("/v1/videos", json=PROMPT).json()["id"]
        with client.stream("GET", f"/v1/videos/{id}/stream") as answer:
            pieces = answer.iter_bytes()
            first = next(pieces) + next(pieces)  # the head, and the chunk
            assert frames_in(first) == 4
            assert client.get(f"/v1/videos/{id}").json()["status"] == "in_progress"
            service.gate.set()
            assert frames_in(first + b"".join(pieces)) == 12


def test_a_client_that_goes_harms_nobody(live, service, finished):
    import httpx

    with httpx.Client(base_url=live, timeout=20) as client:
        service.gate.clear()
        id = client.post("/v1/videos", json={**PROMPT, "frames": 40}).json()["id"]
        service.gate.set()
        with client.stream("GET", f"/v1/videos/{id}/stream") as answer:
            next(answer.iter_bytes())
        with client.stream("GET", f"/v1/videos/{id}/events") as answer:
            next(answer.iter_lines())
        assert finished(client, id)["status"] == "completed"
        assert client.get("/healthz").json()["status"] == "ok"


def test_whoever_hangs_up_has_a_video_in_one_call_stopped(live, service):
    import httpx

    service.gate.clear()
    with httpx.Client(base_url=live, timeout=20) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/videos/sync", json=PROMPT, timeout=0.5)
        for _ in range(100):
            video = client.get("/v1/videos").json()["data"][0]
            if video["status"] == "failed":
                break
            threading.Event().wait(0.1)
    assert video["error"]["code"] == "cancelled"


def test_events_until_it_is_finished(client, service):
    service.gate.clear()
    id = client.post("/v1/videos", json=PROMPT).json()["id"]
    service.gate.set()
    answer = client.get(f"/v1/videos/{id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n") if not block.startswith(":")]
    kinds = [lines[0].removeprefix("event: ") for lines in events]
    states = [json.loads(lines[1].removeprefix("data: ")) for lines in events if lines[0] == "event: status"]
    assert {"status", "chunk", "progress"} == set(kinds)
    assert [video["status"] for video in states][-1] == "completed"
    assert all(video["object"] == "video" for video in states)


def test_a_preview_is_there_or_it_is_not(client, made, service):
    id = made()["id"]
    assert client.get(f"/v1/videos/{id}/preview").json()["error"]["code"] == "no_preview"
    service.folder(id).preview.write_bytes(b"\xff\xd8")
    assert client.get(f"/v1/videos/{id}/preview").headers["content-type"] == "image/jpeg"


@pytest.mark.anyio
async def test_silence_is_filled():
    import asyncio

    from animagic.server.streaming import with_pauses

    async def slow():
        yield 1
        await asyncio.sleep(0.2)
        yield 2

    found = [item async for item in with_pauses(slow(), 0.05)]
    assert found[0] == 1
    assert found[-1] == 2
    assert None in found[1:-1]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
