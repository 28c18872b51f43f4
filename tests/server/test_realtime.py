"""Live frames, prompts and sound over a WebSocket."""

from __future__ import annotations

import io
import json

import av
import numpy as np
import pytest
from starlette.websockets import WebSocketDisconnect

START = {"type": "session.start", "prompt": "a red ball bounces", "num_frames": 12}


@pytest.fixture
def socket(client):
    with client.websocket_connect("/v1/realtime/video") as socket:
        yield socket


def until(socket, kind: str) -> dict:
    """The next message of a kind; bytes in between are left out."""
    while True:
        message = socket.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"])
        if message.get("text") and (found := json.loads(message["text"]))["type"] == kind:
            return found


def test_a_session_sends_each_chunk_behind_its_facts(socket):
    socket.send_json({**START, "format": "m4s", "width": 64, "height": 48, "fps": 24, "seed": 3})
    start = socket.receive_json()
    assert (start["type"], start["format"], start["width"], start["height"]) == ("video.start", "m4s", 64, 48)
    assert start["config"] == {
        "model": "magi1-tiny", "prompt": START["prompt"], "seed": 3,
        "frames": 12, "width": 64, "height": 48, "fps": 24.0,
    }  # fmt: skip
    video, frames = b"", 0
    for index in range(3):
        facts = socket.receive_json()
        assert (facts["type"], facts["kind"]) == ("video.chunk_metadata", "media")
        assert (facts["transport_chunk_index"], facts["start"]) == (index, frames)
        assert facts["mime_type"].startswith("video/mp4")
        data = socket.receive_bytes()
        assert facts["byte_length"] == len(data)
        video, frames = video + data, frames + facts["num_frames"]
    done = socket.receive_json()
    assert {name: done[name] for name in ("type", "chunks", "frames", "stopped")} == {
        "type": "session.done", "chunks": 3, "frames": 12, "stopped": False
    }  # fmt: skip
    with av.open(io.BytesIO(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
    with pytest.raises(WebSocketDisconnect):
        socket.receive_json()


def test_the_prompt_changes_once_per_event(socket, service):
    service.gate.clear()
    socket.send_json(START)
    socket.receive_json()
    event = {"type": "session.interaction", "interaction": {"event_id": "e1", "event": {"prompt": "it falls"}}}
    for _ in range(2):
        socket.send_json(event)
        queued = socket.receive_json()
        assert (queued["type"], queued["event_id"], queued["chunk"]) == ("session.interaction.queued", "e1", 1)
    event["interaction"]["event"]["prompt"] = "it rises"
    socket.send_json(event)
    assert (error := socket.receive_json())["code"] == "event_id_conflict"
    assert error["event_id"] == "e1"
    service.gate.set()
    assert [until(socket, "video.chunk_metadata")["started_event_ids"] for _ in range(2)] == [[], ["e1"]]
    until(socket, "session.done")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "session.interaction"},
        {"type": "session.interaction", "interaction": 3},
        {"type": "session.interaction", "interaction": {"event": {}}},
        {"type": "session.interaction", "interaction": {"event": {"prompt": "a", "multi_modal_data": {}}}},
        {"type": "session.interaction", "interaction": {"event": {"prompt": "a"}, "transition_chunks": 2}},
        {"type": "session.interaction", "interaction": {"event": {"prompt": "a"}, "event_id": [1]}},
        {"type": "session.dance"},
        {"type": 3},
        [],
    ],
)
def test_a_message_that_is_wrong_ends_nothing(socket, service, message):
    service.gate.clear()
    socket.send_json(START)
    socket.receive_json()
    socket.send_json(message)
    assert socket.receive_json()["type"] == "error"
    socket.send_text("x" * 200_000)
    assert socket.receive_json()["code"] == "message_too_large"
    socket.send_json({"type": "session.ping"})
    assert socket.receive_json()["type"] == "session.pong"
    service.gate.set()
    until(socket, "session.done")


def test_stop_ends_it(socket, service):
    service.gate.clear()
    socket.send_json(START)
    id = socket.receive_json()["id"]
    socket.send_json({"type": "session.stop"})
    assert until(socket, "session.done")["stopped"]
    assert service.get(id).error[0] == "cancelled"


def test_a_live_voice(socket, service):
    service.gate.clear()
    socket.send_json(START)
    socket.receive_json()
    socket.send_bytes(np.full(160, 0.5, "<f4").tobytes())
    socket.send_json({"type": "session.sound_end"})
    for wrong in (b"abc", np.full(4, np.nan, "<f4").tobytes()):
        socket.send_bytes(wrong)
        assert socket.receive_json()["code"] == "invalid_sound"
    (samples, end), (rest, ended) = service.heard
    assert (len(samples), samples[0], end, len(rest), ended) == (160, 0.5, False, 0, True)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({**START, "format": "webm"}, "invalid_value"),
        ({**START, "model": "none"}, "model_not_found"),
        ({**START, "image": "http://example.org/x.png"}, "url_not_fetched"),
        ({**START, "colour": "red"}, "unknown_parameter"),
        ({"type": "session.ping"}, "invalid_message"),
        ({"prompt": "a"}, "invalid_message"),
        (["session.start"], "invalid_message"),
    ],
)
def test_a_session_that_cannot_begin(client, first, code):
    with client.websocket_connect("/v1/realtime/video") as socket:
        socket.send_json(first)
        assert (error := socket.receive_json())["code"] == code
        assert error["type"] == "error"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_json()


def test_a_session_that_says_nothing_ends(client, monkeypatch):
    monkeypatch.setattr("animagic.server.realtime.START_IN", 0.05)
    with client.websocket_connect("/v1/realtime/video") as socket:
        assert socket.receive_json()["code"] == "start_timeout"


def test_whoever_goes_has_the_video_stopped(client, service):
    service.gate.clear()
    with client.websocket_connect("/v1/realtime/video") as socket:
        socket.send_json({**START, "num_frames": 200})
        id = socket.receive_json()["id"]
    assert service.get(id).error[0] == "cancelled"
