"""Does the server hold out: many clients that ask, many jobs that wait, a kill in the middle, a client that leaves?

    python benchmarks/serving.py            # writes docs/benchmarks/serving.md, about eight minutes
    python benchmarks/serving.py --quick    # a few clients for a few seconds, writes nothing: does it run?

The server is `animagic serve`, a process of its own with one worker, both on this machine, as are all clients: what
they compute is taken from the server. The times to the first frame of HTTP and of the library take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from magi1_tiny import cpu_name, verdict

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "serving.md"
REQUEST = {"prompt": "a red ball bounces on a green floor", "model": "magi1-tiny", "seed": 7}
SLOWEST, LATER, GROWTH = 0.1, 1.1, 1.1  # seconds; ratios


class Server:
    """`animagic serve` in a folder; a context manager. It can be killed, and started again."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "animagic", "serve", "--port", "0", "--folder", self.folder, "--threads", "1"]
        # A log, for a pipe that nobody reads fills up; a group, so that a kill takes the worker along.
        self.log = self.folder.with_suffix(".log")
        with self.log.open("ab") as log:
            begun = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=_environment())
        while (found := re.search(rb"serving at (http://\S+?);", self.log.read_bytes()[begun:])) is None:
            if self.process.poll() is not None:
                sys.exit(self.log.read_text("utf-8"))
            time.sleep(0.05)
        self.url = found[1].decode()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def mib(self) -> tuple[float, float]:
        """Memory of the server and of its worker."""
        pids = [self.process.pid, *_children(self.process.pid)]
        held = [_resident(pid) for pid in pids]
        return held[0], sum(held[1:])


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        direct = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        threads = Path(f"/proc/{pid}/task").iterdir()
        found = {child for thread in threads for child in map(int, (thread / "children").read_text().split())}
        return [one for child in {*direct, *found} for one in (child, *_children(child))]
    return []


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# ---- load --------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """What many clients saw."""

    seconds: float
    clients: int
    jobs: int
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """(seconds, MiB of the server, MiB of its worker)."""
    finished: int = 0


def load(server: Server, clients: int, jobs: int, seconds: float) -> Load:
    """Clients that each ask for the state of one of the queued jobs, as often as the server says."""
    import animagic

    seen = Load(seconds, clients, jobs)
    with animagic.Client(server.url) as client:
        size = {"frames": 96, "steps": 16}
        ids = [client.generate(**REQUEST | size | {"seed": n}, wait=False).id for n in range(jobs)]
        asyncio.run(_poll_all(server, seen, ids))
        states = [video.status for video in client.list(limit=100)]
        seen.finished = states.count("completed")
        seen.errors += ["a video failed"] * states.count("failed")
        for id in ids:
            client.delete(id)
    return seen


async def _poll_all(server: Server, seen: Load, ids: list[str]) -> None:
    import httpx

    end = time.monotonic() + seen.seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=30, trust_env=False) as http:

        async def poll(number: int) -> None:
            await asyncio.sleep(number / seen.clients)  # they do not begin together
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    answer = await http.get(f"/v1/videos/{ids[number % len(ids)]}")
                    seen.latencies.append(time.monotonic() - began)
                    if answer.status_code != 200:
                        seen.errors.append(str(answer.status_code))
                    pause = float(answer.headers.get("openai-poll-after-ms", 1000)) / 1000
                except httpx.HTTPError as error:
                    seen.errors.append(type(error).__name__)
                    pause = 1.0
                await asyncio.sleep(pause)

        async def watch() -> None:
            while time.monotonic() < end:
                seen.memory.append((seen.seconds - (end - time.monotonic()), *server.mib()))
                await asyncio.sleep(min(5.0, seen.seconds / 4))

        await asyncio.gather(watch(), *(poll(number) for number in range(seen.clients)))


# ---- the first frame ----------------------------------------------------------------------------------------


def first_frames(server: Server, rounds: int, frames: int) -> tuple[list[float], list[float]]:
    """Seconds to the first frames, models loaded: over HTTP, and of the library; round by round.

    The library's side is a process of its own that loads the model once and waits for its turn.
    """
    command = [sys.executable, __file__, "--library", str(frames)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=_environment()) as library:
        assert library.stdin is not None
        assert library.stdout is not None
        over_http, alone = [], []
        for number in range(rounds + 1):
            library.stdin.write(f"{number}\n")
            library.stdin.flush()
            alone.append(float(library.stdout.readline()))
            over_http.append(_first_fragment(server, number, frames))
        library.stdin.close()
    return over_http[1:], alone[1:]  # the first round loads the model


def _first_fragment(server: Server, seed: int, frames: int) -> float:
    """Seconds from asking for a video until the first pictures of its stream are here."""
    import animagic

    with animagic.Client(server.url) as client:
        began, held = time.monotonic(), b""
        video = client.generate(**REQUEST | {"frames": frames, "seed": seed}, wait=False)
        stream = client.stream(video)
        while b"mdat" not in held:
            held += next(stream)
        took = time.monotonic() - began
        for _ in stream:
            pass
        client.delete(video)
    return took


def library(frames: int) -> None:
    """The same video by `requests.generate`, for every line that is read; prints the seconds to the first frames."""
    from animagic import requests

    pipe = requests.load_pipeline(str(REQUEST["model"]))
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            told: list[float] = []
            began = time.monotonic()
            request = requests.build_request(**REQUEST | {"frames": frames, "seed": int(line)})
            requests.generate(
                request,
                Path(folder) / f"{int(line)}.mp4",
                pipe=pipe,
                resume=True,  # as the server does
                on_frames=lambda *new, told=told, began=began: told.append(time.monotonic() - began),
            )
            print(told[0], flush=True)


# ---- faults -------------------------------------------------------------------------------------------------


def killed(folder: Path, frames: int, steps: int) -> tuple[bool, int, float]:
    """Kill the server and its worker in the middle of a job, and start it again.

    Returns whether the video has the bytes of one that nobody disturbed, how far it was, and the seconds from the kill
    until the video was there.
    """
    import animagic

    asked = REQUEST | {"frames": frames, "steps": steps}
    with Server(folder) as server, animagic.Client(server.url) as client:
        whole = _digest(client, client.generate(**asked), folder)
        video = client.generate(**asked, wait=False)
        while (at := client.get(video).progress) < 40:
            time.sleep(0.1)
        server.kill()
        since = time.monotonic()
        server.start()
        with animagic.Client(server.url) as again:
            return _digest(again, again.wait(video), folder) == whole, at, time.monotonic() - since


def _digest(client: Any, video: Any, folder: Path) -> str:
    path = client.download(video, folder.with_suffix(".mp4"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def client_gone(server: Server, times: int, frames: int) -> tuple[str, int]:
    """Clients that hang up in the middle of a stream, by a reset; the status of the video, and files left open."""
    import animagic

    host, port = server.url.removeprefix("http://").split(":")
    with animagic.Client(server.url) as client:
        before = _open_files(server)
        video = client.generate(**REQUEST | {"frames": frames}, wait=False)
        for _ in range(times):
            with socket.create_connection((host, int(port))) as connection:
                # Closing with something unread, and without lingering, is a reset.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.sendall(f"GET /v1/videos/{video.id}/stream HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                connection.recv(200)
        status = client.wait(video).status
        time.sleep(1)
        left = _open_files(server) - before
        client.delete(video)
    return status, left


def _open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


# ---- the page -----------------------------------------------------------------------------------------------


def share(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def page(seen: Load, firsts: tuple[list[float], list[float]], kill: Any, gone: Any, busy: float) -> str:
    over_http, alone = firsts
    ratio = median(a / b for a, b in zip(over_http, alone, strict=True))
    p50, p95, p99 = (1000 * share(seen.latencies, part) for part in (0.5, 0.95, 0.99))
    settled = seen.memory[len(seen.memory) // 4 :] or seen.memory
    growth = settled[-1][1] / settled[0][1]
    cores = os.cpu_count() or 1
    shown = seen.memory[:: max(1, len(seen.memory) // 6)]
    lines = [
        "# The server under load, and its faults",
        "",
        "Written by `benchmarks/serving.py`, which measures everything on this page in one run.",
        "",
        f"`animagic serve` with SQLite and one worker thread, magi1-tiny. {cpu_name()}, {cores} cores, shared by "
        f"server, worker and all clients; {datetime.date.today()}.",
        "",
        *(
            [
                f"**The machine was busy with other work** (load {busy:.1f} a core before the run): "
                "times are too long.",
                "",
            ]
            if busy > 0.2
            else []
        ),
        "## Load",
        "",
        f"{seen.clients} clients ask for the state of {seen.jobs} jobs for {seen.seconds:.0f} s, as often as the "
        f"server says, while the jobs are made one after the other.",
        "",
        "| status calls | p50, ms | p95, ms | p99, ms | slowest, ms | errors | videos made meanwhile |",
        "|---:|---:|---:|---:|---:|---:|---:|",
        f"| {len(seen.latencies)} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {1000 * max(seen.latencies):.0f} | "
        f"{len(seen.errors)} | {seen.finished} |",
        "",
        "| after, s | server, MiB | worker, MiB |",
        "|---:|---:|---:|",
        *(f"| {at:.0f} | {own:.1f} | {worker:.1f} |" for at, own, worker in shown),
        "",
        f"- Errors: {len(seen.errors)}; target: none: {verdict(not seen.errors)}.",
        f"- p95 of status calls: {p95:.1f} ms; target: under {1000 * SLOWEST:.0f} ms: {verdict(p95 < 1000 * SLOWEST)}.",
        f"- Memory of the server, at the end against a quarter of the time: {growth:.3f} x; target: at most {GROWTH}: "
        f"{verdict(growth <= GROWTH)}.",
        "",
        "## The first frame",
        "",
        "Seconds until the first pictures are there, with the model loaded and its own steps: from `POST` to the first "
        "fragment of the stream, and from calling `requests.generate`, which is what the command runs, to its first "
        "frames.",
        "",
        "| | median, s | each round, s |",
        "|---|---:|---|",
        *(
            f"| {name} | {median(took):.2f} | {', '.join(f'{one:.2f}' for one in took)} |"
            for name, took in (("HTTP", over_http), ("the command's", alone))
        ),
        "",
        f"- HTTP takes {ratio:.2f} x as long; target: at most {LATER}: {verdict(ratio <= LATER)}.",
        "",
        "## Faults",
        "",
        "| what happens | what comes of it |",
        "|---|---|",
        f"| `kill -9` of server and worker at {kill[1]} %, and a new start | "
        f"{'the same bytes as without' if kill[0] else '**other bytes**'}, {kill[2]:.0f} s after the kill |",
        f"| {gone[2]} clients reset their connection in the middle of a stream | the video is {gone[0]}; "
        f"{gone[1]} files stay open |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds of everything; writes nothing")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0, help="of the load")
    parser.add_argument("--rounds", type=int, default=5, help="of the first frame")
    parser.add_argument("--library", type=int, metavar="FRAMES", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.library:
        library(asked.library)
        return
    if asked.quick:
        asked.clients, asked.jobs, asked.seconds, asked.rounds = 5, 2, 4.0, 1
    frames, steps, times = (24, 4, 2) if asked.quick else (96, 16, 20)
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        with Server(Path(folder) / "load") as server:
            firsts = first_frames(server, asked.rounds, frames)
            gone = (*client_gone(server, times, frames), times)
            seen = load(server, asked.clients, asked.jobs, asked.seconds)
        kill = killed(Path(folder) / "kill", 2 * frames, steps)
    text = page(seen, firsts, kill, gone, busy)
    print(text)
    print(json.dumps({"errors": seen.errors[:20]}), file=sys.stderr)
    if not asked.quick:
        REPORT.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
