"""A service that makes moving stripes: the contract of `jobs.Service` as far as the page needs it, and its routes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from animagic import requests, zoo
from animagic.errors import InputError
from animagic.jobs.job import Job
from animagic.jobs.settings import Settings
from animagic.media import FragmentedMp4, VideoWriter, write_image
from animagic.systems import SYSTEMS

CHUNK, CHUNKS, STEPS = 24, 6, 4


class FakeService:
    """Makes `CHUNKS` chunks of a second each, `pace` seconds a chunk, whatever is asked for."""

    def __init__(self, folder: Path, pace: float = 1.0):
        self.settings, self.pace = Settings(folder), pace
        self.jobs: dict[str, Job] = {}
        self.parts: dict[str, list[bytes]] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.cancelled: set[str] = set()
        self.prompts: list[tuple[str, int | None]] = []
        self.store = SimpleNamespace(place=lambda id: 0)

    def models(self) -> list[Any]:
        return [
            SimpleNamespace(
                name=name, system=zoo.system_of(name), summary=zoo.entry(name).summary,
                command=SYSTEMS[zoo.system_of(name)].command,
            )
            for name in zoo.names()
        ]  # fmt: skip

    def submit(self, request: Any, *, owner: str = "", **_: Any) -> Job:
        requests.job_for(request)
        job = Job(f"video_{uuid.uuid4().hex}", "queued", request.model, request.stored(), time.time(), owner)
        self.jobs[job.id], self.parts[job.id] = job, []
        threading.Thread(target=self._run, args=(job.id, request), daemon=True).start()
        return job

    def _run(self, *about: Any) -> None:
        with contextlib.suppress(InterruptedError):
            self._make(*about)

    def _make(self, id: str, request: Any) -> None:
        self._set(id, status="in_progress")
        stream = FragmentedMp4(24, 64, 64)
        folder = self.folder(id)
        y, x = np.mgrid[:64, :64]
        with VideoWriter(folder.video, 24, metadata={"request": request.stored()}) as writer:
            for chunk in range(CHUNKS):
                for step in range(STEPS):
                    if id in self.cancelled:
                        self._set(id, status="failed", error=("cancelled", "it was cancelled."))
                        raise InterruptedError
                    levels = [level for ahead in range(min(4, CHUNKS - chunk)) for level in [12 - 4 * ahead + step] * 6]
                    done = chunk * STEPS + step
                    self.reports[id] = {
                        "step": done, "total_steps": CHUNKS * STEPS, "frames": chunk * CHUNK,
                        "total_frames": CHUNK * CHUNKS, "frames_per_second": 24 / self.pace,
                        "seconds_left": self.pace * (CHUNKS - done / STEPS), "start": chunk * 6, "num_levels": 16,
                        "levels": [max(0, level) for level in levels],
                    }  # fmt: skip
                    time.sleep(self.pace / STEPS)
                t = np.arange(chunk * CHUNK, (chunk + 1) * CHUNK)[:, None, None]
                shades = np.sin((x + y + 3 * t) / 6), np.sin((x - y) / 9), np.cos((y + 2 * t) / 8)
                frames = np.stack([np.broadcast_to((shade + 1) * 110, (CHUNK, 64, 64)) for shade in shades], -1)
                frames = frames.astype(np.uint8)
                writer.write(frames)
                self.parts[id].append(stream.write(frames))
        write_image(folder.root / "thumbnail.png", frames[0])
        self._set(id, status="completed", completed_at=time.time())

    def _set(self, id: str, **values: Any) -> None:
        self.jobs[id] = dataclasses.replace(self.jobs[id], **values)

    def get(self, id: str, owner: str | None = None) -> Job:
        if id not in self.jobs:
            raise InputError(f"there is no job {id}.")
        return dataclasses.replace(self.jobs[id], report=self.reports.get(id))

    def cancel(self, id: str, owner: str | None = None) -> Job:
        self.cancelled.add(id)
        return self.get(id)

    def delete(self, id: str, owner: str | None = None) -> None:
        del self.jobs[id]

    def prompt(self, id: str, text: str, chunk: int | None = None, owner: str | None = None) -> int:
        self.prompts.append((text, chunk))
        return chunk or 0

    def folder(self, id: str) -> Any:
        root = self.settings.folder / id
        root.mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(root=root, video=root / "video.mp4")


def routes(service: FakeService) -> Any:
    """A FastAPI server with the routes that the page's scripts read."""
    import fastapi
    from fastapi.responses import FileResponse, StreamingResponse

    api = fastapi.FastAPI()

    def told(job: Job) -> dict[str, Any]:
        error = job.error and {"code": job.error[0], "message": job.error[1]}
        about = {name: getattr(job, name) for name in ("id", "status", "model", "progress", "created_at")}
        return about | {"error": error, "prompt": job.request["prompt"]}

    @api.get("/v1/videos")
    def listed(limit: int = 20, after: str | None = None, order: str = "desc") -> dict[str, Any]:
        return {"data": [told(service.get(id)) for id in reversed(service.jobs)], "has_more": False}

    @api.get("/v1/videos/{id}/content")
    def content(id: str, variant: str = "video") -> FileResponse:
        return FileResponse(service.folder(id).root / ("thumbnail.png" if variant == "thumbnail" else "video.mp4"))

    @api.get("/v1/videos/{id}/stream")
    def stream(id: str) -> StreamingResponse:
        async def parts():
            sent = 0
            while not (service.get(id).finished and sent == len(service.parts[id])):
                if sent < len(service.parts[id]):
                    yield service.parts[id][sent]
                    sent += 1
                else:
                    await asyncio.sleep(0.05)

        return StreamingResponse(parts(), media_type="video/mp4")

    @api.get("/v1/videos/{id}/events")
    def events(id: str) -> StreamingResponse:
        async def lines():
            report, status = None, None
            while True:
                job = service.get(id)
                if job.report != report:
                    report = job.report
                    yield f"event: progress\ndata: {json.dumps(report)}\n\n"
                if job.status != status:
                    status = job.status
                    yield f"event: status\ndata: {json.dumps(told(job))}\n\n"
                if job.finished:
                    return
                await asyncio.sleep(0.05)

        return StreamingResponse(lines(), media_type="text/event-stream")

    return api
