"""Jobs as the objects that clients get: OpenAI's video, and what it leaves out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from .. import zoo
from ..jobs.job import Job
from ..jobs.service import Service
from ..pipelines.options import default_of, option_of
from ..systems import SYSTEMS
from .fields import defaults, offered
from .security import Caller


def service_of(request: Request) -> Service:
    return request.app.state.service


def caller_of(request: Request) -> Caller:
    return request.scope["state"]["caller"]


ServiceOf = Annotated[Service, Depends(service_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]


def video_of(job: Job, place: int | None = None) -> dict[str, Any]:
    """The object of a job. place: how many jobs are in front of it."""
    report, result, asked = job.report or {}, job.result or {}, job.asked
    frames, fps, height, width = _measures(job)
    return {
        "id": job.id,
        "object": "video",
        "model": job.model,
        "status": job.status,
        "progress": job.progress,
        "created_at": int(job.created_at),
        "completed_at": _whole(job.completed_at),
        "expires_at": _whole(job.expires_at),
        "error": job.error and {"code": job.error[0], "message": job.error[1]},
        "prompt": job.request.get("prompt"),
        "remixed_from_video_id": job.remixed_from,
        "seconds": str(asked.get("seconds") or f"{round(frames / fps, 2):g}"),
        "size": str(asked.get("size") or f"{width}x{height}"),
        # What follows is ours.
        "extended_from_video_id": job.extends,
        "frames": result.get("frames", report.get("frames", 0)),
        "total_frames": frames,
        "fps": fps,
        "frames_per_second": report.get("frames_per_second"),
        "seconds_left": report.get("seconds_left"),
        "queue_position": place,
        "seed": job.request.get("seed"),
        "options": _options(job),
    }


def _whole(time: float | None) -> int | None:
    return None if time is None else int(time)


def _measures(job: Job) -> tuple[int, float, int, int]:
    """Frames, frames per second, height and width, as far as they are known by now."""
    usual = defaults(job.model)
    facts = (job.result or {}, job.request)
    fps, height, width = (
        next((found for fact in facts if (found := fact.get(name))), getattr(usual, name))
        for name in ("fps", "height", "width")
    )
    told = ((job.result or {}).get("frames"), (job.report or {}).get("total_frames"), job.request.get("frames"))
    return next((frames for frames in told if frames), usual.num_frames), float(fps), height, width


def _options(job: Job) -> dict[str, Any]:
    """The options that were given, but for files: their paths are nobody's business."""
    fields = offered(SYSTEMS[zoo.system_of(job.model)].options_class)
    given = {name: job.request.get(name) for name in fields if name not in ("prompt", "seed")}
    return {
        name: value
        for name, value in given.items()
        if not (option_of(fields[name]).file and not option_of(fields[name]).weights)  # type: ignore[union-attr]
        and value not in (None, [], {}, default_of(fields[name]))
    }


def poll_after(job: Job) -> int:
    """Milliseconds after which asking again may bring news."""
    left = (job.report or {}).get("seconds_left")
    if job.status == "queued" or left is None:
        return 1000
    return round(min(5000, max(250, 1000 * left / 4)))


def answer(service: Service, job: Job) -> JSONResponse:
    place = service.store.place(job.id) if job.status == "queued" else None
    headers = {} if job.finished else {"openai-poll-after-ms": str(poll_after(job))}
    return JSONResponse(video_of(job, place), headers=headers)
