"""The panel that shows a job, and the library of all jobs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .. import requests
from ..errors import AnimagicError, InputError
from ..jobs.job import Job
from ..media import read_metadata
from ..pipelines.options import VideoOptions
from .telling import answered, static


def request_of(job: Job) -> VideoOptions:
    """The request of a job."""
    return requests.from_metadata({"request": job.request}, f"the job {job.id}")


def watch_panel(service: Any) -> gr.HTML:
    """The panel. Its value is {"job": id}, or empty."""

    def facts(owner: str | None, id: str) -> dict[str, Any]:
        """What does not change while a job is made, and where it stands."""
        job = service.get(id, owner)
        request = request_of(job)
        code, message = job.error or (None, None)
        live = "live" in type(request).model_fields
        about = {
            "title": request.title,
            "model": job.model,
            "status": job.status,
            "place": service.store.place(id) if job.status == "queued" else None,
            "code": code,
            "message": message,
            "prompts": {str(at): text for at, text in {0: request.prompt, **request.prompts_at}.items()},
            "live": live,
            "endless": request.endless and request.frames is None,
        }
        return about | (_chunks(request) if live else {})

    def cancel(owner: str | None, id: str) -> dict[str, Any]:
        service.cancel(id, owner)
        return {}

    def end(owner: str | None, id: str) -> dict[str, Any]:
        service.end(id, owner)
        return {}

    def prompt(owner: str | None, id: str, text: str, chunk: int | None) -> dict[str, Any]:
        return {"chunk": service.prompt(id, text, chunk, owner)}

    def metadata(owner: str | None, id: str) -> dict[str, Any]:
        job = service.get(id, owner)
        stored = read_metadata(service.folder(id).video).get("request") if job.status == "completed" else None
        return _told(stored or job.request)

    functions = [answered(function) for function in (facts, cancel, end, prompt, metadata)]
    return gr.HTML(
        {},
        html_template=static("watch.html"),
        js_on_load=static("watch.js"),
        server_functions=functions,
        elem_id="am-watch",
        apply_default_css=False,
    )


def library(service: Any) -> gr.HTML:
    """All jobs as cards, two of which can be compared."""

    def differences(owner: str | None, one: str, other: str) -> dict[str, Any]:
        """The options in which two jobs differ."""
        first, second = (_told(service.get(id, owner).request) for id in (one, other))
        names = dict.fromkeys([*first, *second])
        return {
            name: [first.get(name, "–"), second.get(name, "–")] for name in names if first.get(name) != second.get(name)
        }

    def delete_video(owner: str | None, id: str) -> dict[str, Any]:
        service.delete(id, owner)
        return {}

    return gr.HTML(
        {},
        html_template=static("library.html"),
        js_on_load=static("library.js"),
        server_functions=[answered(differences), answered(delete_video)],
        apply_default_css=False,
    )


def finished_video(service: Any, panel: dict[str, Any] | None, owner: str | None) -> Any:
    """The file of the job that a panel shows. Raises InputError if there is none yet."""
    id = (panel or {}).get("job")
    if not id:
        raise InputError("no video is shown; make one, or choose one in the library.")
    if service.get(id, owner).status != "completed":
        raise InputError("the video is not finished; wait for it, or choose another one in the library.")
    return service.folder(id).video


def _chunks(request: VideoOptions) -> dict[str, int]:
    """How many chunks a video has, and the latent frames of each and of all; nothing if it has no plan yet."""
    try:
        plan, width = requests.job_for(request).drawn_plan(None)
    except AnimagicError:
        return {}
    frames = max(step.span.stop for step in plan.steps())
    return {"chunks": -(-frames // width), "chunk_width": width, "latents": frames}


def _told(stored: dict[str, Any]) -> dict[str, str]:
    """A stored request as it is read by people: what was said in it."""
    from pathlib import Path

    def plain(value: Any) -> str:
        if isinstance(value, dict):
            return "; ".join(f"{plain(key)}: {plain(one)}" for key, one in value.items())
        if isinstance(value, list):
            return "; ".join(map(plain, value))
        if isinstance(value, bool):
            return "yes" if value else "no"
        text = str(value)
        return Path(text).name if "/" in text and Path(text).exists() else text

    return {name: plain(value) for name, value in stored.items() if value not in (None, False, {}, [], "")}
