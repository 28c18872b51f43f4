"""A file and an endpoint of a stranger neither steer the terminal nor hold the command, and fetch nothing unasked."""

import json
import socket
import threading
import time

import numpy as np
import pytest

from animagic import enhancement
from animagic.errors import InputError
from animagic.media import read_metadata, write_image

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\r\nframes 1"


@pytest.mark.parametrize("as_json", [False, True])
def test_the_metadata_of_a_file_is_shown_not_sent(run, tmp_path, as_json):
    metadata = {"request": {"prompt": EVIL, EVIL: 1}, EVIL: EVIL}
    write_image(tmp_path / "evil.png", np.zeros((8, 8, 3), np.uint8), metadata)
    ran = run("info", "evil.png", *(["--json"] if as_json else []))
    assert ran.code == 0
    assert not set("\x1b\x07\x9b\u202e\r") & set(ran.out)
    if as_json:
        assert json.loads(ran.out)["metadata"] == metadata
    else:
        assert r"\x1b]0;title\x07" in ran.out
        assert not any(line.startswith("frames 1") for line in ran.out.splitlines())


def test_a_name_is_shown_not_sent(run):
    ran = run("info", "\x1b[2Jx.mp4")
    ran.refused(r"\x1b[2jx.mp4 does not exist")
    assert "\x1b" not in ran.err


@pytest.fixture
def endpoint():
    """An endpoint that sends what it is given, piece by piece, with pauses; its address."""
    server = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(pieces, pause) -> str:
        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    if over.wait(pause):
                        return
                    connection.sendall(piece)
                over.wait(10)

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield serve
    over.set()
    server.close()


def drip(text: bytes):
    return [text[i : i + 1] for i in range(len(text))]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"


@pytest.mark.parametrize("pieces", [[HEAD, *drip(b" " * 500)], drip(HEAD), []], ids=["body", "head", "nothing"])
def test_a_slow_endpoint_does_not_hold_the_command(endpoint, pieces):
    enhancer = enhancement.openai_compatible(endpoint(pieces, 0.05), "m", timeout=0.4)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"no answer within 0\.4 s"):
        enhancer("a ball")
    assert time.monotonic() - began < 10


def test_a_deep_answer_is_refused(endpoint):
    body = b"[" * 100_000
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with pytest.raises(InputError, match="is not a chat completion"):
        enhancement.openai_compatible(endpoint([head + body], 0), "m")("a ball")


def test_reproduce_fetches_nothing_unasked(run, tmp_path, generate, monkeypatch):
    assert generate("-o", "made.png.gif", "--frames", "8").code == 0
    stored = read_metadata(tmp_path / "made.png.gif")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("the network was asked"))
    for change in ({"model": "stranger/model"}, {"loras": {"stranger/lora": 1.0}}):
        request = stored["request"] | change
        write_image(tmp_path / "evil.png", np.zeros((8, 8, 3), np.uint8), stored | {"request": request})
        run("reproduce", "evil.png", "-o", "again.gif").refused("stranger/", "--allow-download")
