"""Videos while they are made: as a file that plays meanwhile, and as events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from ..jobs.errors import JobFailed
from ..jobs.service import Service
from .answers import CallerOf, ServiceOf, video_of
from .errors import ApiError
from .security import CutOff

router = APIRouter(prefix="/v1/videos", tags=["videos"])
T = TypeVar("T")
SILENCE = 15.0
"""Seconds without an event after which a comment is sent, so that nothing in between hangs up."""


@router.get("/{id}/stream", response_class=Response)
async def stream(
    id: str,
    service: ServiceOf,
    caller: CallerOf,
    start: Annotated[int, Query(alias="from", ge=0, lt=2**31, description="The chunk to begin with.")] = 0,
) -> Response:
    """The video as fragmented MP4 that plays while it is made. It ends when the video is whole."""
    job = await anyio.to_thread.run_sync(service.get, id, caller.sees)
    kind = "video/mp4"
    if job.status == "completed" and start == 0:
        return FileResponse(service.folder(id).stream, media_type=kind)  # players may jump in it
    pieces = service.stream(id, start)
    try:
        first = await anext(pieces)
    except StopAsyncIteration:
        raise ApiError(416, f"the video {id} has no chunk {start}.", "no_such_chunk", "from") from None
    except JobFailed as error:
        raise ApiError(404, f"the video {id} was not made: {error}", "video_failed") from error
    return StreamingResponse(_joined(service, id, first, pieces), media_type=service.mime_type(id) or kind)


async def _joined(service: Service, id: str, first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    try:
        async for piece in others:
            yield piece
    except JobFailed as error:
        raise CutOff(str(error)) from error
    if not (await anyio.to_thread.run_sync(service.get, id)).finished:
        raise CutOff("the server is stopping.")


@router.get("/{id}/events", response_class=StreamingResponse)
async def events(id: str, service: ServiceOf, caller: CallerOf) -> Response:
    """Server-sent events: `status` with the video, `progress`, `preview`, `chunk`, `note`, until it is finished."""
    await anyio.to_thread.run_sync(service.get, id, caller.sees)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_lines(service, id), media_type="text/event-stream", headers=headers)


async def _lines(service: Service, id: str) -> AsyncIterator[str]:
    async for event in with_pauses(service.events(id), SILENCE):
        if event is None:
            yield ": still there\n\n"
            continue
        data = event.data
        if event.kind == "status":
            data = await anyio.to_thread.run_sync(lambda: video_of(service.get(id)))
        elif event.kind == "preview":
            data = {**data, "url": f"/v1/videos/{id}/preview"}
        yield f"event: {event.kind}\ndata: {json.dumps(data)}\n\n"


async def with_pauses(items: AsyncIterator[T], seconds: float) -> AsyncIterator[T | None]:
    """The items; None whenever there was none for so many seconds."""
    waiting: asyncio.Future[Any] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(items))
            if not (await asyncio.wait({waiting}, timeout=seconds))[0]:
                yield None
                continue
            try:
                item = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield item
    finally:
        if waiting is not None:
            waiting.cancel()


@router.get("/{id}/preview", response_class=FileResponse)
def preview(id: str, service: ServiceOf, caller: CallerOf) -> Response:
    """A picture of what is being made."""
    service.get(id, caller.sees)
    path = service.folder(id).preview
    try:
        return Response(path.read_bytes(), media_type="image/png" if path.suffix == ".png" else "image/jpeg")
    except FileNotFoundError:
        raise ApiError(404, f"the video {id} has no preview now.", "no_preview") from None
