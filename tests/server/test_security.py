"""Keys, other sites, limits, logs and figures."""

from __future__ import annotations

import contextlib
import hmac
import io
import json
import logging
import zlib

import pytest

PROMPT = {"prompt": "a red ball bounces", "frames": 8}


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# Keys


def test_without_a_key_nothing_is_told(keyed):
    nobody = keyed()
    for token in ("", "Bearer ", "Bearer ak_wrong", "Basic abc"):
        nobody.headers["Authorization"] = token
        for path in ("/v1/videos", "/v1/models", "/metrics", "/openapi.json", "/v1/files", "/"):
            answer = nobody.get(path)
            assert code(answer) == (401, "invalid_api_key"), path
            assert answer.headers["www-authenticate"] == "Bearer"
    assert nobody.get("/healthz").status_code == 200


def test_a_key_sees_only_its_own(keyed, finished, picture):
    one, other = keyed("one"), keyed("other")
    id = one.post("/v1/videos", json=PROMPT).json()["id"]
    finished(one, id)
    file = one.post("/v1/files", files={"file": picture.read_bytes()}).json()["id"]
    assert [len(who.get("/v1/videos").json()["data"]) for who in (one, other)] == [1, 0]
    assert [len(who.get("/v1/files").json()["data"]) for who in (one, other)] == [1, 0]
    for path in ("", "/content", "/stream", "/events", "/preview"):
        assert code(other.get(f"/v1/videos/{id}{path}")) == (404, "not_found")
    for path in ("remix", "cancel", "prompt"):
        assert code(other.post(f"/v1/videos/{id}/{path}", json={"prompt": "a"})) == (404, "not_found")
    extension = {"prompt": "a", "frames": 4, "video": {"id": id}}
    for path in ("extensions", "edits"):
        assert code(other.post(f"/v1/videos/{path}", json=extension)) == (404, "not_found")
    assert code(other.delete(f"/v1/videos/{id}")) == (404, "not_found")
    assert code(other.get("/v1/videos", params={"after": id})) == (400, "invalid_value")
    assert code(other.post("/v1/videos", json={**PROMPT, "image": file})) == (404, "file_not_found")
    assert code(other.delete(f"/v1/files/{file}")) == (404, "file_not_found")
    assert one.post("/v1/videos", json={**PROMPT, "image": file}).status_code == 200


def test_a_key_has_a_priority_and_a_limit(keyed, service):
    service.gate.clear()
    hurried, slow = keyed("hurried", priority=5, queued=2), keyed("slow")
    first = slow.post("/v1/videos", json=PROMPT).json()["id"]
    for _ in range(2):
        assert hurried.post("/v1/videos", json=PROMPT).status_code == 200
    answer = hurried.post("/v1/videos", json=PROMPT)
    assert code(answer) == (429, "too_many_jobs")
    assert int(answer.headers["retry-after"]) > 0
    assert slow.get(f"/v1/videos/{first}").json()["queue_position"] == 2


def test_the_limit_of_all_keys(client, service):
    service.gate.clear()
    answers = [client.post("/v1/videos", json=PROMPT) for _ in range(51)]
    assert [answer.status_code for answer in answers[-2:]] == [200, 429]


def test_tokens_are_compared_in_constant_time(keyed, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert keyed("one").get("/v1/videos").status_code == 200
    assert len(compared) == 1


def test_a_browser_signs_in_by_a_link(keyed):
    one = keyed("one")
    token = one.headers.pop("Authorization").removeprefix("Bearer ")
    assert one.get("/v1/videos").status_code == 401
    assert one.get("/", params={"key": "ak_wrong"}).status_code == 401
    answer = one.get("/", params={"key": token}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert one.get("/v1/videos").status_code == 200
    answer = one.post("/v1/videos", json=PROMPT, headers={"Origin": "https://evil.example"})
    assert code(answer) == (403, "cross_site")


def test_a_socket_needs_a_key(keyed):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), keyed().websocket_connect("/v1/realtime/video"):
        pass
    with keyed("one").websocket_connect("/v1/realtime/video") as socket:
        socket.send_json({"type": "session.start", **PROMPT})
        assert socket.receive_json()["type"] == "video.start"


# Other sites


@pytest.fixture
def local(service):
    """A server that is only meant for this machine."""
    from fastapi.testclient import TestClient

    from animagic.server import build

    with TestClient(build(service), base_url="http://127.0.0.1:8000") as client:
        yield client


def test_pages_of_other_sites_can_ask_for_nothing(local):
    from starlette.websockets import WebSocketDisconnect

    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert code(local.post("/v1/videos", json=PROMPT, headers=headers)) == (403, "cross_site")
        with pytest.raises(WebSocketDisconnect), local.websocket_connect("/v1/realtime/video", headers=headers):
            pass
    assert local.post("/v1/videos", json=PROMPT, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    answer = local.get("/v1/videos", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert local.options("/v1/videos", headers={"Origin": "https://evil.example"}).status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "[::1", "127.0.0.1.evil.example"])
def test_a_name_that_leads_here_is_not_enough(local, host):
    assert code(local.get("/v1/videos", headers={"Host": host})) == (403, "wrong_host")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_this_machine_has_several_names(local, host):
    assert local.get("/v1/videos", headers={"Host": host}).status_code == 200


# Paths


@pytest.mark.parametrize(
    "id",
    [
        "..%2f..%2fetc%2fpasswd",
        "..",
        "%2e%2e",
        "video_%00",
        "video_" + "a" * 5000,
        "%ed%a0%80",
        "video_\u00e9",
        "a%0d%0ab",
    ],
)
def test_tricks_with_paths(client, id):
    for path in ("", "/content", "/stream", "/events", "/preview"):
        answer = client.get(f"/v1/videos/{id}{path}")
        assert answer.status_code == 404 or answer.json().get("object") == "list", answer.text
    assert client.delete(f"/v1/videos/{id}").status_code in (404, 405)
    assert client.get(f"/v1/files/{id}").status_code == 404 or id in ("..", "%2e%2e")


def test_the_name_of_a_file_is_no_path(client, service, picture):
    for name in ("../../../tmp/x.png", "/etc/passwd", "a\\b.png", "x" * 3000):
        answer = client.post("/v1/videos", data={"prompt": "a"}, files={"image": (name, picture.read_bytes())})
        assert answer.status_code == 200, answer.text
    inside = [path for path in service.settings.folder.rglob("*") if path.is_file() and path.suffix == ".png"]
    assert len(inside) == 4
    assert all(path.resolve().is_relative_to(service.settings.folder.resolve()) for path in inside)


# Limits


def png(width: int, height: int) -> bytes:
    """A picture of one colour: few bytes, many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    rows = zlib.compress(bytes((width + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def send(client, data: bytes, field: str = "image", **body):
    return client.post("/v1/videos", data={"prompt": "a", **body}, files={field: data})


def test_a_picture_that_would_burst_is_not_decoded(client, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    for width, height in ((257, 256), (20_000, 20_000)):
        assert code(send(client, png(width, height))) == (413, "file_too_large")
    assert send(client, png(256, 256)).status_code == 200


def test_a_film_with_too_many_frames_pixels_or_seconds(client, tmp_path):
    import av
    import numpy as np

    def film(frames: int, side: int, fps: int) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", "mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "50"})
            stream.width = stream.height = side
            picture = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), "rgb24")
            for index in range(frames):
                picture.pts = index
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return file.getvalue()

    assert send(client, film(8, 64, 24), "video").status_code == 200
    for data in (film(201, 64, 24), film(2, 512, 24), film(30, 64, 1)):
        assert code(send(client, data, "video")) == (413, "file_too_large")


def test_a_sound_that_is_too_long(client, picture):
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(4000)
        sound.writeframes(bytes(4000 * 21))
    body = {"model": "magicinfinite-tiny", "image": f"data:image/png;base64,{_base64(picture.read_bytes())}"}
    assert code(send(client, file.getvalue(), "audio", **body)) == (413, "file_too_large")


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 9 RTP/AVP 96\r\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"MZ" + bytes(200),
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"",
    ],
)
def test_files_that_lead_elsewhere_or_are_none_of_ours(client, data):
    answer = send(client, data, "video")
    assert code(answer) == (400, "invalid_file")
    assert "/" not in answer.json()["error"]["message"].replace("/etc", "")


def test_an_upload_is_cut_off_while_it_arrives(live, service):
    import socket

    host, port = live.removeprefix("http://").split(":")
    head = (
        f"POST /v1/videos HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    sent, answer = 0, b""
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        wire.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(part), part))
        while not answer and sent < 100_000_000:
            try:
                wire.sendall(b"10000\r\n" + bytes(65_536) + b"\r\n")
                sent += 65_536
                wire.setblocking(False)
                answer = wire.recv(100_000)
            except BlockingIOError:
                continue
            except ConnectionError:
                break
            finally:
                wire.settimeout(20)
        with contextlib.suppress(ConnectionError):
            while more := wire.recv(100_000):
                answer += more
    assert sent < 100_000_000
    # The server closes with much of the body unread; the network may then drop its answer, or the end of it.
    assert answer[:13] in (b"", b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer or not answer.partition(b"\r\n\r\n")[2]
    assert not list((service.settings.folder / "incoming").iterdir())


def test_a_body_that_says_it_is_too_large_is_not_read(client):
    headers = {"Content-Type": "application/json", "Content-Length": str(10**12)}
    assert code(client.post("/v1/videos", content=b"{}", headers=headers)) == (413, "body_too_large")


def test_a_file_beyond_the_limit_and_all_files_together(client):
    noise = bytes(range(256)) * 600
    assert code(client.post("/v1/files", files={"file": png(8, 8) + noise * 2})) == (413, "file_too_large")
    assert client.post("/v1/files", files={"file": png(8, 8) + noise}).status_code == 200
    assert code(client.post("/v1/files", files={"file": png(8, 8) + noise})) == (413, "uploads_full")


def test_a_client_that_sends_nothing_is_not_waited_for(client, monkeypatch):
    import anyio

    from animagic.server import bodies

    monkeypatch.setattr(bodies, "PATIENCE", 0.05)

    async def silent(self):
        await anyio.sleep(5)
        yield b""

    monkeypatch.setattr("starlette.requests.Request.stream", silent)
    assert code(client.post("/v1/videos", json=PROMPT)) == (408, "timeout")


def test_forms_that_are_none(client):
    for kind, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b; charset=unicode_escape",
         b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\\ud800\r\n--b--\r\n'),
        ("multipart/form-data; boundary=b",
         b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\0\r\n--b--\r\n'),
        ("multipart/form-data; boundary=b",
         b"".join(b'--b\r\nContent-Disposition: form-data; name="x%d"\r\n\r\n\r\n' % i for i in range(300)) + b"--b--"),
    ):  # fmt: skip
        answer = client.post("/v1/videos", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 400, (kind, answer.text)


# The store, the log, the figures


def test_a_store_that_is_away(client, service, monkeypatch):
    from animagic.jobs.store import StoreUnavailable

    def away(*arguments, **named):
        raise StoreUnavailable("the database does not answer.")

    for name in ("get", "list", "counts", "add"):
        monkeypatch.setattr(service.store, name, away)
    for answer in (
        client.get("/v1/videos"),
        client.get("/v1/videos/video_1"),
        client.post("/v1/videos", json=PROMPT),
        client.get("/healthz"),
        client.get("/metrics"),
    ):
        assert code(answer) == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) > 0


def test_a_fault_of_ours_is_told_without_its_inside(client, service, monkeypatch, caplog):
    def fault(*arguments):
        raise RuntimeError("the secret of /root")

    monkeypatch.setattr(service, "list", fault)
    caplog.set_level(logging.INFO, "animagic.server")
    answer = client.get("/v1/videos")
    assert code(answer) == (500, "internal_error")
    assert "secret" not in answer.text
    line = json.loads(caplog.records[-1].message)
    assert "the secret of /root" in line["fault"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["request_id"] in answer.json()["error"]["message"]


def test_every_request_has_a_line(keyed, caplog):
    caplog.set_level(logging.INFO, "animagic.server")
    one = keyed("one")
    one.get("/v1/videos?after=secret", headers={"X-Request-Id": "trace-1"})
    line = json.loads(caplog.records[-1].message)
    assert {name: line[name] for name in ("request_id", "method", "path", "status", "key")} == {
        "request_id": "trace-1", "method": "GET", "path": "/v1/videos", "status": 400, "key": "one"
    }  # fmt: skip
    assert line["seconds"] > 0
    assert not any("ak_" in record.message or "secret" in record.message for record in caplog.records)
    answer = one.get("/v1/videos", headers={"X-Request-Id": 'bad" id'})
    assert answer.headers["x-request-id"].startswith("req_")


def test_figures_for_prometheus(client, made):
    made()
    client.get("/nowhere")
    figures = client.get("/metrics")
    assert figures.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'animagic_jobs{status="completed"} 1.0',
        "animagic_queue_length 0.0",
        'animagic_seconds_per_frame{model="magi1-tiny"}',
        'animagic_request_seconds_count{method="POST",path="/v1/videos",status="200"} 1.0',
        'animagic_request_seconds_count{method="GET",path="other",status="404"} 1.0',
        'animagic_peak_memory_bytes{process="server"}',
    ):
        assert line in figures.text
