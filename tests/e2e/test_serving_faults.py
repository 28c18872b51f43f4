"""`animagic serve` when things go wrong around it: killed in the middle, clients that leave."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections import deque

import pytest

import animagic

pytest.importorskip("fastapi", reason="a server needs fastapi: pip install -e '.[serve]'")
SHORT = {"model": "magi1-tiny", "steps": 4, "seed": 7}


@pytest.fixture
def serve(start):
    """Starts `animagic serve` in a folder; returns its process and its address."""

    def serve(folder):
        process = start("serve", "--port", 0, "--folder", folder, "--device", "cpu", "--threads", 1)
        for line in process.stderr:
            if found := re.search(r"serving at (http://\S+?);", line):
                # Its log is read on, or the server would stand still when the pipe is full.
                threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
                return process, found[1]
        pytest.fail("the server did not start")

    return serve


@pytest.mark.slow
def test_a_killed_server_goes_on_to_the_same_bytes(serve, tmp_path):
    asked = {"prompt": "a red ball bounces", **SHORT, "frames": 240}
    process, url = serve(tmp_path / "jobs")
    with animagic.Client(url) as client:
        whole = client.download(client.generate(**asked), tmp_path / "whole.mp4")
        video = client.generate(**asked, wait=False)
        waiting = client.generate(**asked | {"frames": 24}, wait=False)
        while client.get(video).progress < 20:
            time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)  # its worker ends with it
    process.wait()
    _, url = serve(tmp_path / "jobs")
    with animagic.Client(url) as client:
        assert client.get(video).status in ("queued", "in_progress")
        again = client.download(client.wait(video), tmp_path / "again.mp4")
        assert client.wait(waiting).finished
    assert again.read_bytes() == whole.read_bytes()


def test_clients_that_leave_do_no_harm(serve, tmp_path):
    process, url = serve(tmp_path / "jobs")
    host, port = url.removeprefix("http://").split(":")
    with animagic.Client(url) as client:
        video = client.generate("a red ball bounces", wait=False, **SHORT, frames=120)
        client.get(video)
        before = open_files(process)
        for _ in range(5):
            with socket.create_connection((host, int(port))) as connection:
                # Closing without lingering, with something unread, is a reset.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.sendall(f"GET /v1/videos/{video.id}/stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert connection.recv(200).startswith(b"HTTP/1.1 200")
        assert client.wait(video).status == "completed"
        assert b"".join(client.stream(video)).count(b"moof") >= 5
        deadline = time.monotonic() + 20
        while open_files(process) > before + 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert open_files(process) <= before + 1


def open_files(process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))
