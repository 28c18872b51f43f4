"""Videos in OpenAI's shape: made, listed, fetched, changed, continued and deleted."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from ..errors import InputError
from ..jobs.job import Job
from ..jobs.service import Service
from . import fields
from .answers import CallerOf, ServiceOf, answer, video_of
from .bodies import inbox, read_body
from .errors import ApiError, unusable
from .handing_in import Make, edited, extended, handed_in, new_video, remixed

router = APIRouter(prefix="/v1/videos", tags=["videos"])
_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".png": "image/png"}
_MOST_LISTED = 100
PROMPT = {"prompt": {"type": "string", "description": "What the video should show from now on."}}
SOURCE = {
    "video": {
        "description": "The video to begin from: a file, or the id of a completed one.",
        "anyOf": [{"type": "string"}, {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}],
    }
}


def body(extra: dict[str, Any], required: tuple[str, ...] = (), options: bool = True) -> dict[str, Any]:
    """The description of a body for OpenAPI: JSON, or a form with the same names."""
    object = {"type": "object", "properties": extra, "required": list(required)}
    schema = fields.request_schema(extra, required) if options else object
    kinds = ("application/json", "multipart/form-data")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


async def _made(request: Request, service: Service, caller: Any, make: Make) -> Response:
    job = await handed_in(request, service, caller, make)
    return await anyio.to_thread.run_sync(answer, service, job)


@router.post("", openapi_extra=body(fields.OPENAI))
async def create(request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Ask for a video; the answer is a job that is queued."""
    return await _made(request, service, caller, new_video)


@router.post("/edits", openapi_extra=body(fields.OPENAI | SOURCE, ("prompt", "video")))
async def edit(request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Make a video anew, as another prompt says; `strength` says how far it is left behind."""
    return await _made(request, service, caller, edited)


@router.post("/extensions", openapi_extra=body(fields.OPENAI | SOURCE, ("prompt", "video")))
async def extend(request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Continue a video for so many `seconds` or `frames` more."""
    return await _made(request, service, caller, extended)


@router.post("/sync", openapi_extra=body(fields.OPENAI))
async def create_and_wait(request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Ask for a video; the answer is the video. Whoever hangs up has it stopped."""
    job = await handed_in(request, service, caller, new_video)
    waiting = asyncio.ensure_future(_until_finished(service, job.id))
    try:
        while not (await asyncio.wait({waiting}, timeout=1.0))[0]:
            if await request.is_disconnected():
                await anyio.to_thread.run_sync(service.cancel, job.id)
                raise ClientDisconnect
        await waiting
    finally:
        waiting.cancel()
    job = await anyio.to_thread.run_sync(service.get, job.id)
    if job.status != "completed":
        code, message = job.error or ("failed", "the video was not made.")
        raise ApiError(500, message, code)
    headers = {"X-Video-Id": job.id, "X-Model": job.model}
    return FileResponse(service.folder(job.id).video, media_type="video/mp4", headers=headers)


async def _until_finished(service: Service, id: str) -> None:
    async for _ in service.events(id):
        pass


@router.api_route("/characters", methods=["POST"])
@router.get("/characters/{id}")
def characters(id: str = "") -> Response:
    """Characters are not kept here."""
    raise ApiError(
        400,
        "characters are not kept here: send a picture of the person as image and how they move as video, "
        "with a model of MagicAnimate.",
        "not_supported",
    )


@router.get("")
def list_videos(
    service: ServiceOf,
    caller: CallerOf,
    after: Annotated[str | None, Query(description="Id of the last video of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST_LISTED)] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="By time: desc has the newest first.")] = "desc",
) -> dict[str, Any]:
    """The videos of the key, a page at a time."""
    jobs, more = service.list(caller.sees, after, limit, order)
    data = [video_of(job) for job in jobs]
    ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ids, "has_more": more}


@router.get("/{id}")
def retrieve(id: str, service: ServiceOf, caller: CallerOf) -> Response:
    """How far a video is; the header `openai-poll-after-ms` says when it is worth asking again."""
    return answer(service, service.get(id, caller.sees))


@router.delete("/{id}")
def delete(id: str, service: ServiceOf, caller: CallerOf) -> dict[str, Any]:
    """Delete a video; one that is being made is stopped first."""
    service.delete(id, caller.sees)
    return {"id": id, "deleted": True, "object": "video.deleted"}


@router.get("/{id}/content")
def content(
    id: str,
    service: ServiceOf,
    caller: CallerOf,
    variant: Annotated[Literal["video", "thumbnail", "spritesheet"], Query(description="What of it.")] = "video",
) -> Response:
    """The finished video as MP4, or pictures of it as JPEG."""
    job = completed(service, id, caller.sees)
    folder = service.folder(job.id)
    path = {"video": lambda: folder.video, "thumbnail": folder.thumbnail, "spritesheet": folder.spritesheet}[variant]()
    name = f"{job.id}{'' if variant == 'video' else '-' + variant}{path.suffix}"
    kind = _TYPES[path.suffix]
    return FileResponse(path, media_type=kind, filename=name, content_disposition_type="inline")


def completed(service: Service, id: str, owner: str | None) -> Job:
    """A job whose video is there. Raises ApiError, NoSuchJob."""
    job = service.get(id, owner)
    if job.status == "failed":
        raise ApiError(404, f"the video {id} was not made: {(job.error or ('', 'it failed'))[1]}", "video_failed")
    if job.status != "completed":
        raise ApiError(
            404, f"the video {id} is not ready yet; GET /v1/videos/{id} says how far it is.", "video_not_ready"
        )
    return job


@router.post("/{id}/remix", openapi_extra=body(fields.OPENAI, ("prompt",)))
async def remix(id: str, request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Make a video again with another prompt, and with other options where they are given."""
    return await _made(request, service, caller, partial(remixed, id))


@router.post("/{id}/cancel")
def cancel(id: str, service: ServiceOf, caller: CallerOf) -> Response:
    """Stop a video that is queued or being made; it becomes failed, with the code "cancelled"."""
    return answer(service, service.cancel(id, caller.sees))


@router.post(
    "/{id}/prompt",
    openapi_extra=body(PROMPT | {"chunk": {"type": "integer", "minimum": 0}}, ("prompt",), options=False),
)
async def say(id: str, request: Request, service: ServiceOf, caller: CallerOf) -> dict[str, int]:
    """Give a video that is being made another prompt, from a chunk on: by itself, from the next one."""
    with inbox(service, caller.sees) as box:
        given = {name: fields.only(value, name) for name, value in (await read_body(request, box)).items()}
    text, chunk = given.pop("prompt", None), given.pop("chunk", None)
    if given or not isinstance(text, str):
        raise unusable("give a prompt, and the chunk from which on it counts.", "prompt")
    try:
        chunk = None if chunk is None else int(chunk)
    except (TypeError, ValueError, OverflowError) as error:
        raise unusable("the chunk must be a whole number.", "chunk") from error
    if chunk is not None and not 0 <= chunk < 2**31:
        raise InputError(f"there is no chunk {chunk}: give 0 or more.")
    return {"chunk": await anyio.to_thread.run_sync(service.prompt, id, text, chunk, caller.sees)}
