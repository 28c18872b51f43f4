"""A service that draws its videos instead of denoising them, and servers around it."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from animagic import zoo
from animagic.errors import InputError
from animagic.jobs.errors import JobFailed, NoSuchJob, TooMany
from animagic.jobs.inputs import fingerprint
from animagic.jobs.job import Job
from animagic.jobs.keys import Keys
from animagic.jobs.service import Model
from animagic.jobs.settings import Limits, Settings
from animagic.jobs.store import Store

CHUNK = 4
"""Frames of a chunk."""


@dataclass(frozen=True)
class Event:
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Piece:
    start: int
    frames: int
    offset: int
    size: int


class DrawnFolder:
    def __init__(self, root: Path):
        self.root, self.chunks, self.mime_type = root, [], None
        self.video, self.stream, self.preview = root / "video.mp4", root / "stream.mp4", root / "preview.jpg"

    def thumbnail(self) -> Path:
        from animagic.media import iter_video, write_image

        write_image(self.root / "thumbnail.jpg", next(iter(iter_video(self.video))))
        return self.root / "thumbnail.jpg"

    spritesheet = thumbnail


class DrawingService:
    """As `animagic.jobs.service.Service`, as far as a server sees it. `gate` holds its work up while it is cleared."""

    def __init__(self, settings: Settings):
        self.settings, self.store = settings, Store(settings.url, wait=0.2)
        self.gate, self.over = threading.Event(), threading.Event()
        self.gate.set()
        self.hold_after = 0
        """Chunks of a video after which the gate is closed."""
        self.folders: dict[str, DrawnFolder] = {}
        self.cancelled: set[str] = set()
        self.heard: list[tuple[np.ndarray, bool]] = []
        self.requests: dict[str, Any] = {}

    def start(self) -> None:
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def stop(self) -> None:
        self.over.set()
        self.gate.set()
        self.thread.join()
        self.store.close()

    def models(self) -> list[Model]:
        from animagic.systems import SYSTEMS

        entries = [zoo.entry(name) for name in zoo.names()]
        rows = [(entry, SYSTEMS[entry.system]) for entry in entries]
        return [
            Model(entry.name, row.name, row.title, entry.summary, row.command, row.options_class, entry.bytes)
            for entry, row in rows
        ]

    def submit(self, request, *, owner="", priority=0, idempotency="", asked=None, remixed_from=None, extends=None):
        if (request.frames or 0) > self.settings.limits.frames:
            raise InputError(f"{request.frames} frames are asked for; the most is {self.settings.limits.frames}.")
        counts = self.store.counts(owner)
        if counts["queued"] + counts["in_progress"] >= self.settings.limits.queued:
            raise TooMany(f"you have {self.settings.limits.queued} unfinished jobs, which is the most.")
        stored = request.stored()
        job = Job(
            f"video_{uuid.uuid4().hex}", "queued", request.model, stored, time.time(), owner, priority,
            asked=asked or {}, remixed_from=remixed_from, extends=extends,
        )  # fmt: skip
        kept = self.store.add(job, idempotency, fingerprint(request) if idempotency else "")
        self.requests[kept.id] = request
        self.folder(kept.id)
        for _, _, path in request.files():
            if Path(path).exists():
                (self.folder(kept.id).root / Path(path).name).write_bytes(Path(path).read_bytes())
        return kept

    def get(self, id, owner=None):
        job = self.store.get(id)
        if job is None or owner not in (None, job.owner):
            raise NoSuchJob(f"there is no video {id[:60]!r}.")
        return job

    def list(self, owner, after=None, limit=20, order="desc"):
        return self.store.list(owner, after, limit, order)

    def cancel(self, id, owner=None):
        job = self.get(id, owner)
        if not job.finished:
            self.cancelled.add(id)
            job = self.store.update(
                id, status="failed", error=("cancelled", "somebody stopped it."), completed_at=time.time()
            )
        return job

    def delete(self, id, owner=None):
        self.cancel(id, owner)
        self.store.delete(id)

    def remix(self, id, prompt, owner=None, *, priority=0, idempotency="", **changes):
        job = self.get(id, owner)
        request = self.requests[id].changed(prompt=prompt, **changes)
        return self.submit(request, owner=job.owner, priority=priority, idempotency=idempotency, remixed_from=id)

    def extend(self, source, prompt, frames, owner=None, *, priority=0, idempotency="", **changes):
        job = self.get(source, owner)
        if zoo.system_of(job.model) != "magi1":
            raise InputError(f"the model {job.model} cannot continue a video.")
        request = self.requests[source].changed(prompt=prompt, frames=job.result["frames"] + frames, **changes)
        return self.submit(request, owner=job.owner, priority=priority, idempotency=idempotency, extends=source)

    def prompt(self, id, text, chunk=None, owner=None):
        job = self.get(id, owner)
        if job.finished:
            raise InputError("the video is finished.")
        return len(self.folder(id).chunks) + 1 if chunk is None else chunk

    def sound(self, id, samples, end):
        self.heard.append((samples, end))

    def folder(self, id):
        root = self.settings.folder / "jobs" / id
        root.mkdir(parents=True, exist_ok=True)
        return self.folders.setdefault(id, DrawnFolder(root))

    def mime_type(self, id):
        return self.folder(id).mime_type

    async def events(self, id) -> AsyncIterator[Event]:
        told, chunks = None, 0
        while True:
            job = self.get(id)
            if job.status != told:
                told = job.status
                yield Event("status", {"status": told})
            for _ in self.folder(id).chunks[chunks:]:
                chunks += 1
                yield Event("chunk", {"chunk": chunks - 1})
                yield Event("progress", job.report or {})
            if job.finished:
                return
            await asyncio.sleep(0.01)

    async def stream(self, id, start=0) -> AsyncIterator[bytes]:
        folder, first = self.folder(id), True
        while True:
            job = self.get(id)
            while start < len(folder.chunks):
                chunk, data = folder.chunks[start], folder.stream.read_bytes()
                if first:
                    yield data[: folder.chunks[0].offset]
                first, start = False, start + 1
                yield data[chunk.offset : chunk.offset + chunk.size]
            if job.status == "failed":
                raise JobFailed(*job.error)
            if job.finished:
                return
            await asyncio.sleep(0.01)

    # ------------------------------------------------------------ the drawing

    def _work(self) -> None:
        while not self.over.wait(0.01):
            if self.gate.is_set() and (job := self.store.claim()):
                self._draw(job)

    def _draw(self, job: Job) -> None:
        from animagic.media import FragmentedMp4

        folder, frames = self.folder(job.id), job.request["frames"] or 8
        encoder = FragmentedMp4(24, 32, 32)
        for start in range(0, frames, CHUNK):
            self.gate.wait()
            if job.id in self.cancelled or self.over.is_set():
                return
            count = min(CHUNK, frames - start)
            data = encoder.write(np.full((count, 32, 32, 3), 9 * start % 255, np.uint8))
            with folder.stream.open("ab") as file:
                offset = file.tell() + (data.index(b"moof") - 4 if start == 0 else 0)
                file.write(data)
                end = file.tell()
            folder.mime_type = encoder.mime_type
            folder.chunks.append(Piece(start, count, offset, end - offset))
            if len(folder.chunks) == self.hold_after:
                self.gate.clear()
            report = {"step": start + count, "total_steps": frames, "frames": start + count, "total_frames": frames}
            try:
                self.store.update(job.id, report={**report, "frames_per_second": 24.0, "seconds_left": 0.5})
            except KeyError:  # it was deleted meanwhile
                return
        folder.video.write_bytes(folder.stream.read_bytes())
        result = {"frames": frames, "height": 32, "width": 32, "fps": 24.0, "seed": job.request["seed"]}
        self.store.update(
            job.id, expected="in_progress", status="completed", result=result, completed_at=time.time()
        )  # fmt: skip


@pytest.fixture
def settings(tmp_path) -> Settings:
    limits = Limits(upload=200_000, pixels=256 * 256, frames=200, seconds=20.0, queued=50, uploads=300_000)
    return Settings(tmp_path / "served", limits=limits)


@pytest.fixture
def service(settings):
    """A service that draws, not started yet: a server does that."""
    settings.folder.mkdir()
    service = DrawingService(settings)
    yield service
    service.gate.set()


@pytest.fixture
def app(service):
    from animagic.server import build

    return build(service, hosts=None)


@pytest.fixture
def client(app):
    """Speaks HTTP with a server that needs no keys."""
    from fastapi.testclient import TestClient

    with TestClient(app) as client:
        yield client


@pytest.fixture
def keyed(service):
    """Makes a client with a key of its own: keyed(name, priority=0, queued=None). Without a name: with none."""
    from fastapi.testclient import TestClient

    from animagic.server import build

    with TestClient(build(service, token_needed=True, hosts=None)) as shared:

        def make(name: str | None = None, **facts):
            token = Keys(service.store).create(name, **facts)[1] if name else ""
            client = TestClient(shared.app)
            client.headers.update({"Authorization": f"Bearer {token}"} if token else {})
            return client

        yield make


@pytest.fixture
def live(service):
    """A server of its own on a port of this machine: the test client gives no answer before it is whole."""
    import uvicorn

    from animagic.server import build

    server = uvicorn.Server(uvicorn.Config(build(service), port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    service.gate.set()
    server.should_exit = True
    thread.join()


@pytest.fixture
def finished():
    """Waits until a video is finished: finished(client, id) -> the video."""

    def wait(client, id: str) -> dict:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            video = client.get(f"/v1/videos/{id}").json()
            if video["status"] in ("completed", "failed"):
                return video
            time.sleep(0.01)
        raise AssertionError(f"{id} is not finished after 30 s")

    return wait


@pytest.fixture
def made(client, finished):
    """Makes a video of 8 frames and waits until it is there: made(**fields) -> the video."""

    def make(**fields) -> dict:
        answer = client.post("/v1/videos", json={"prompt": "a red ball bounces", "frames": 8, **fields})
        assert answer.status_code == 200, answer.text
        return finished(client, answer.json()["id"])

    return make


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    from PIL import Image

    path = tmp_path_factory.mktemp("given") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory, make_moving_clip) -> Path:
    from animagic.media import VideoWriter

    path = tmp_path_factory.mktemp("given") / "clip.mp4"
    with VideoWriter(path, fps=24) as writer:
        writer.write(make_moving_clip(8))
    return path


@pytest.fixture(scope="session")
def voice(tmp_path_factory) -> Path:
    import wave

    path = tmp_path_factory.mktemp("given") / "voice.wav"
    hum = (np.sin(np.arange(8000) * 0.1) * 9000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(hum.tobytes())
    return path
