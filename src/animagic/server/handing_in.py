"""From the body of a request to a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from fastapi import Request

from .. import zoo
from ..errors import InputError
from ..jobs.errors import TooMany
from ..jobs.job import Job
from ..jobs.service import Service
from ..media import count_frames
from . import fields
from .bodies import Inbox, inbox, read_body
from .errors import ApiError, unusable
from .security import Caller

Make = Callable[["Order"], Job]


class Order:
    """A request for a job, read from its body.

    Args:
        given: its fields. box: its files. idempotency: the client's key for it.
    """

    def __init__(self, service: Service, caller: Caller, given: dict[str, Any], box: Inbox, idempotency: str):
        self.service, self.caller, self.given, self.box = service, caller, given, box
        self.idempotency = idempotency

    def model(self, default: str | None = None) -> Any:
        """The model that is asked for. Raises ApiError."""
        models = {model.name: model for model in self.service.models()}
        asked = fields.only(self.given.get("model"), "model")
        name = asked or default or (zoo.DEFAULT if zoo.DEFAULT in models else next(iter(models)))
        if not isinstance(name, str) or name not in models:
            message = f"there is no model {str(name)[:60]}; there are {', '.join(models)}."
            raise ApiError(404, message, "model_not_found", "model")
        return models[name]

    def options(self, default: str | None = None, **more: Any) -> Any:
        """The request for a video. more: fields beside those that are given. Raises ApiError, InputError."""
        model = self.model(default)
        return fields.read(model.options_class, model.name, {**self.given, **more}, self.box.take)

    def submit(self, options: Any) -> Job:
        self.check_queue()
        words = {name: fields.only(self.given[name], name) for name in ("seconds", "size") if name in self.given}
        asked = {name: str(word) for name, word in words.items() if word is not None}
        sender = {"owner": self.caller.owner, **self.sender()}
        return fields.named(type(options), self.service.submit, options, asked=asked, **sender)

    def sender(self) -> dict[str, Any]:
        return {"priority": self.caller.priority, "idempotency": self.idempotency}

    def check_queue(self) -> None:
        """Raises TooMany where the key has a limit of its own; the service knows the one of all keys."""
        most = self.caller.queued
        if most is not None:
            counts = self.service.store.counts(self.caller.owner)
            if counts.get("queued", 0) + counts.get("in_progress", 0) >= most:
                raise TooMany(f"the key {self.caller.name} has {most} unfinished jobs, which is the most it may have.")

    def prompt(self) -> str:
        prompt = fields.only(self.given.pop("prompt", None), "prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise unusable("the prompt is missing; say what the video should show.", "prompt")
        return prompt

    def source(self) -> Job | Any:
        """The video that is edited or continued: a finished job, or a file (`fields.Taken`). Raises ApiError."""
        video = self.given.pop("video", None)
        video = fields.only(video, "video")
        if video is None:
            raise unusable("the video is missing: give its id or a file.", "video")
        id = video.get("id") if isinstance(video, Mapping) else video
        if not isinstance(id, str) or isinstance(id, Path) or not id.startswith("video_"):
            return self.box.take(video, "video")
        job = self.service.get(id, self.caller.sees)
        if job.status != "completed":
            raise ApiError(400, f"the video {job.id} is not completed; wait until it is.", "video_not_ready", "video")
        return job


async def handed_in(request: Request, service: Service, caller: Caller, make: Make) -> Job:
    """The job that `make` makes of a request. Raises ApiError, InputError."""
    with inbox(service, caller.sees) as box:
        given = await read_body(request, box)
        order = Order(service, caller, given, box, idempotency_of(request))
        return await anyio.to_thread.run_sync(partial(make, order))


def idempotency_of(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if len(key) > 255:
        raise unusable("the Idempotency-Key is longer than 255 characters.")
    return key


def new_video(order: Order) -> Job:
    return order.submit(order.options())


def remixed(id: str, order: Order) -> Job:
    source = order.service.get(id, order.caller.sees)
    prompt, kind = order.prompt(), type_of(order.service, source)
    order.check_queue()
    order.given.pop("model", None)
    changes = fields.changes(kind, source.model, order.given, order.box.take)
    return fields.named(kind, order.service.remix, id, prompt, order.caller.sees, **order.sender(), **changes)


def edited(order: Order) -> Job:
    """A video made anew from another: by a system that can leave a clip behind as far as it is told."""
    source = order.source()
    able = [model.name for model in order.service.models() if "strength" in model.options_class.model_fields]
    if not able:
        raise ApiError(400, "no model here can edit a video.", "not_supported")
    if isinstance(source, Job):
        path: Any = order.service.folder(source.id).video
        return order.submit(order.options(source.model if source.model in able else able[0], video=_copy(path, order)))
    return order.submit(order.options(able[0], video=Path(source.path)))


def _copy(path: Path, order: Order) -> Path:
    copy = order.box.new()
    copy.symlink_to(path)
    return copy


def extended(order: Order) -> Job:
    """A video that goes on: from the latents of a job, or from a clip."""
    source, prompt = order.source(), order.prompt()
    if isinstance(source, Job):
        kind = type_of(order.service, source)
        order.given.pop("model", None)
        order.check_queue()
        changes = fields.changes(kind, source.model, order.given, order.box.take)
        frames = _new_frames(changes.pop("frames", None))
        changes.pop("fps", None)  # it goes on as it began
        about = {**order.sender(), **changes}
        return fields.named(kind, order.service.extend, source.id, prompt, frames, order.caller.sees, **about)
    model = order.model()
    changes = fields.changes(model.options_class, model.name, order.given, order.box.take)
    shown = count_frames(source.path, changes.get("fps") or fields.defaults(model.name).fps)
    order.given = {
        name: value for name, value in order.given.items() if name not in ("seconds", "frames", "num_frames")
    }
    frames = shown + _new_frames(changes.get("frames"))
    return order.submit(order.options(prompt=prompt, video=Path(source.path), frames=frames))


def _new_frames(frames: Any) -> int:
    try:
        count = int(frames)
    except (TypeError, ValueError, OverflowError):
        count = 0
    if count < 1:
        raise unusable("say how much is to be added: seconds, or frames.", "seconds")
    return count


def type_of(service: Service, job: Job) -> Any:
    """The options class of a job. Raises InputError if its model is gone."""
    for model in service.models():
        if model.name == job.model:
            return model.options_class
    raise InputError(f"the model {job.model} is not here any more.")
