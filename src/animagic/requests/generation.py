"""The one function that makes and writes a video, whichever system makes it; metadata; fingerprints of inputs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import InputError, MediaError
from ..pipelines.options import VideoOptions
from .kept import forget_unbegun, resume_folder, run_note
from .request import Report, Result, build_request, hint, input_files, job_for

if TYPE_CHECKING:
    import numpy as np

    from ..parallel.processes import Group
    from ..pipelines.job import Job, LiveVoice
    from ..timeline.plan import Step


def pipeline_for(
    request: VideoOptions, device: str | None = None, *, allow_pickle: bool = False, fitted: Any = None
) -> Any:
    """The pipeline that a request names: a model's, or that of an original configuration file, on a device.

    Args:
        allow_pickle: read original weights that are pickle files, too.
        fitted: how it is made to fit into memory, from the request's job.
    Raises: InputError, CheckpointError.
    """
    return job_for(request).load(device, allow_pickle, fitted)


def load_pipeline(model: str, device: str | None = None) -> Any:
    """The pipeline of a model, on a device, without messages of other libraries. Raises InputError, CheckpointError."""
    return pipeline_for(build_request("any", model), device)


def _fingerprint(path: str) -> str:
    """The SHA-256 of a file, read piece by piece; "" of a folder."""
    if not Path(path).is_file():
        return ""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def metadata(request: VideoOptions, plan: Any, fingerprints: dict[str, str]) -> dict[str, Any]:
    """The metadata of a file: request, plan, versions, fingerprints of the inputs."""
    import diffusers
    import torch

    return {
        "made_with": f"animagic {__version__}",
        "versions": {"animagic": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        "request": request.stored(),
        "plan": {"kind": type(plan).__name__, **{k: v for k, v in vars(plan).items() if not k.startswith("_")}},
        "inputs": fingerprints,
    }


def check_inputs(request: VideoOptions, stored: dict[str, Any]) -> None:
    """Raises InputError if an input file is no longer the one that `stored` metadata speaks of."""
    files, fingerprints = input_files(request), stored.get("inputs") or {}
    if not isinstance(fingerprints, dict):
        raise InputError("the file does not say which inputs it was made from; its notes are damaged.")
    for name, fingerprint in fingerprints.items():
        path = files.get(name)
        if path and fingerprint and _fingerprint(path) != fingerprint:
            what = name.replace("_", " ")
            raise InputError(f"the {what} {path} is missing or has changed since; the same frames cannot be made.")


def levels_after(step: Step, num_levels: int) -> tuple[int, ...]:
    """How far each latent frame of a step has come after it: its index in the noise schedule, `num_levels`: clean."""
    levels = dict.fromkeys(step.span, num_levels)
    for window in step.windows:
        levels |= {f: min(level + 1, num_levels) for f, level in zip(window.frames, window.levels, strict=True)}
    return tuple(levels.values())


class Sampled:
    """About twelve evenly spaced frames of a video of any length, in little memory."""

    def __init__(self, count: int = 12):
        self.count, self.every, self.index = count, 1, 0
        self.frames: list[np.ndarray] = []

    def add(self, frames: np.ndarray) -> None:
        for frame in frames:
            if self.index % self.every == 0:
                self.frames.append(frame)
            self.index += 1
            if len(self.frames) == 2 * self.count:  # too dense: every second one goes
                self.frames, self.every = self.frames[::2], self.every * 2


def generate(
    request: VideoOptions,
    output: str | Path,
    *,
    pipe: Any = None,
    device: str | None = None,
    contact_sheet: str | Path | None = None,
    preview: str | Path | None = None,
    resume: bool = False,
    allow_pickle: bool = False,
    on_report: Callable[[Report], None] | None = None,
    on_begin: Callable[[Job], None] | None = None,
    on_frames: Callable[[np.ndarray, int], None] | None = None,
    latents: str | Path | None = None,
    live: Any = None,
    voice: LiveVoice | None = None,
    stop: Callable[[], bool] | None = None,
    memory: int | None = None,
    on_note: Callable[[str], None] | None = None,
    group: Group | None = None,
) -> Result:
    """Carry out a request and write the video while it is made.

    Args:
        output: where; the suffix chooses the format.
        pipe: what `pipeline_for` gave for this model and its files, to save loading it; else it is loaded on `device`.
        contact_sheet: a PNG of evenly spaced frames, to look at.
        preview: a PNG that shows what is being made, renewed every second or less often, removed at the end.
        resume: keep the run in `<output>.resume`, and continue from it if it is there.
        allow_pickle: see `pipeline_for`.
        on_report: called after every step.
        on_begin: called when all is checked and nothing made, with the job: its fps, sound and size are those of
            the video.
        on_frames: called with final frames, uint8 (F, H, W, 3), as they are written, and the number of the first.
            A run that goes on gives those before, too.
        latents: a folder that gets what the frames were decoded from, where the system can continue a video from it.
        live: asked for the prompt while the video is made, in place of the request's; what it says goes into the file.
        voice: arrives while the video is made, where the request has a voice that is `animagic.pipelines.voices.LIVE`.
        stop: asked after every step of a video whose end is not known; True ends it with the frames that are final.
        memory: bytes that may be used on the device (by this process, on a CPU); what makes the video fit is
            chosen, and told to `on_note`. It changes no frame but by `tiling`, which the stored request then has.
        on_note: told in lines what was chosen and found, of prompts that the model cannot draw, and what was measured.
        group: processes that make the video together, of which this is the main one; the others call `assist`.

    Nothing is left half-written: the file appears under its name when it is whole.
    Raises: InputError, MediaError, CheckpointError; KeyboardInterrupt passes through.
    """
    import numpy as np
    from safetensors import SafetensorError

    from ..media import VideoWriter, write_image
    from ..media import contact_sheet as draw_sheet
    from ..media.files import check_writable
    from ..media.keeping import check_apart, check_ours
    from ..media.outputs import to_bytes
    from ..pipelines.continuing import KeptLatents
    from ..timeline import RunFolder

    began = time.monotonic()
    written = {"output": output, "contact sheet": contact_sheet, "preview": preview}
    check_apart({"model": request.model} | input_files(request), written)
    for path in (contact_sheet, preview):  # now, not after hours of work
        if path is not None:
            if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
                raise MediaError(f"{path} ends in {Path(path).suffix!r}: a picture is written as .png or .jpg.")
            check_writable(Path(path))
    if preview is not None:
        check_ours(Path(preview), _is_preview)
    VideoWriter(output, fps=24)  # refuses what it could not write
    fitted = None
    job = job_for(request, live)
    job.on_note = on_note or job.on_note
    job.voice = voice
    if memory is not None:
        if pipe is not None:
            raise InputError("memory is for loading a model; give either that or a loaded pipe.")
        fitted = job.fit(memory, device)
        job.request = request = request.changed(tiling=fitted.techniques.tiling)
        if on_note is not None:
            on_note(str(fitted))
    if request.endless and request.frames is None and Path(output).suffix.lower() not in (".mp4", ".webm"):
        raise MediaError(f"{output} cannot hold a video without an end; write an .mp4 or .webm.")
    if fitted is None:
        job.check_memory(device)
    pipe = pipe or job.load(device, allow_pickle, fitted)
    if group is not None:
        pipe.parallel_map = group.map
    job.begin(pipe)  # everything that can be wrong is refused before a file is begun
    request = job.request
    if on_note is not None and (line := hint(request)) is not None:
        on_note(line)
    fps = request.fps or job.fps
    fingerprints = {name: _fingerprint(path) for name, path in input_files(request).items()}

    keeping = None if latents is None or not job.can_be_continued else KeptLatents(Path(latents))
    sampled, frames = Sampled(), 0
    total_frames = None if request.frames is None else request.frames - job.hidden
    open_end = request.endless or total_frames is None
    next_preview = 0.0

    def report(progress: Any) -> None:
        if open_end and stop is not None and stop():
            pipe.interrupt = True
        done = max(frames, progress.clean_frames * job.frames_per_latent)
        done = done if total_frames is None else min(done, total_frames)
        if on_report is not None:
            speed = done / progress.seconds if progress.seconds else 0.0
            on_report(
                Report(
                    progress.step,
                    progress.total_steps,
                    done,
                    total_frames,
                    speed,
                    progress.seconds_left,
                    levels_after(progress.plan_step, plan.num_steps),
                    progress.plan_step.span.start,
                    plan.num_steps,
                )
            )

    def show(decode: Callable[[], np.ndarray]) -> None:
        nonlocal next_preview
        if preview is not None and (now := time.monotonic()) >= next_preview:
            write_image(preview, draw_sheet(decode()), {_PREVIEW: str(output)})
            done = time.monotonic()
            next_preview = done + max(1.0, 20 * (done - now))  # decoding must not take much of the time

    with ExitStack() as stack:
        kept = None
        if resume:
            kept = RunFolder(resume_folder(Path(output)), run_note(request, fingerprints, Path(output)))
        if kept is not None:
            stack.enter_context(kept.held())
            stack.push(partial(forget_unbegun, kept))
        if preview is not None:
            stack.callback(_remove_preview, Path(preview))
        stack.enter_context(job.adapted(allow_pickle))
        plan = job.plan()
        if on_begin is not None:
            on_begin(job)
        heard = job.sound if Path(output).suffix.lower() in (".mp4", ".webm") else None
        about = metadata(request, plan, fingerprints)
        writer = VideoWriter(output, fps, metadata=about, sound=heard, sound_start=job.sound_start)
        stack.enter_context(writer)
        try:
            for chunk in job.stream(report, show if preview is not None else None, kept):
                if keeping is not None:
                    keeping.add(chunk, job.frames_per_latent)
                pixels = to_bytes(chunk.frames[0])[max(job.hidden - chunk.start, 0) :]
                if total_frames is not None:
                    pixels = pixels[: total_frames - frames]
                if not len(pixels):
                    continue
                pixels = job.shown(pixels, frames)
                if on_frames is not None:
                    on_frames(pixels, frames)
                writer.write(pixels)
                sampled.add(pixels)
                frames += len(pixels)
                if frames == total_frames:
                    break
            if not frames:
                raise KeyboardInterrupt  # stopped before anything was final
            request = job.as_made(frames)
            if live is not None:
                later = {start: text for start, text in live.said.items() if start}
                request = request.changed(prompt=live.said[0], prompts_at=later)
            writer.metadata = metadata(request, plan, fingerprints) | job.measured()
        except SafetensorError as error:
            full = "No space left" in str(error)
            reason = "the disk is full, so free some space and try again" if full else str(error)
            raise MediaError(f"the run cannot be kept in {resume_folder(Path(output))}: {reason}.") from error
    if contact_sheet is not None:
        write_image(contact_sheet, draw_sheet(np.stack(sampled.frames)))
    if kept is not None and not (request.endless and stop is not None and stop()):  # that one can still go on
        kept.remove()
    for line in job.summary():
        job.on_note(line)
    height, width = job.output_size
    return Result(
        output=str(output),
        frames=frames,
        height=height,
        width=width,
        fps=fps,
        seed=request.seed,
        seconds=round(time.monotonic() - began, 3),
        contact_sheet=None if contact_sheet is None else str(contact_sheet),
    )


_PREVIEW = "preview of"
_MOST_DRAWN = 100_000


def _is_preview(picture: Path) -> bool:
    """Whether a picture is the preview of an earlier run."""
    from ..media import read_metadata

    try:
        return _PREVIEW in read_metadata(picture)
    except MediaError:
        return False


def _remove_preview(picture: Path) -> None:
    if _is_preview(picture):
        picture.unlink()


def assist(request: VideoOptions, group: Group, *, device: str | None = None, allow_pickle: bool = False) -> None:
    """Help the main process of a group to make a video. Raises: as `generate`."""
    job = job_for(request)
    pipe = job.load(device, allow_pickle)
    pipe.parallel_map = group.map
    job.begin(pipe)
    with job.adapted(allow_pickle):
        for _ in pipe.stream(job.request.prompt, **job.arguments() | {"output_type": "latent"}):
            pass


def count_equal_frames(first: str | Path, second: str | Path) -> tuple[int, int]:
    """How many frames of two videos are equal, and of how many (the longer one's)."""
    from itertools import zip_longest

    import numpy as np

    from ..media import iter_video

    equal = total = 0
    for a, b in zip_longest(iter_video(first), iter_video(second)):
        total += 1
        equal += a is not None and b is not None and np.array_equal(a, b)
    return int(equal), total


def draw_plan(request: VideoOptions, kind: str | None, output: str | Path) -> dict[str, int]:
    """Draw the plan that a request would follow; returns its counts. No weights are read.

    Args:
        kind: None: the system's own plan; "whole": all frames at once, to compare with.
    Raises: InputError, MediaError, CheckpointError.
    """
    import numpy as np

    from ..media import write_image
    from ..media.keeping import check_apart
    from ..timeline.drawing import draw_plan as draw

    check_apart({"model": request.model} | input_files(request), {"picture": output})
    plan, spacing = job_for(request).drawn_plan(kind)
    if plan.total_steps is not None and plan.total_steps > _MOST_DRAWN:
        raise InputError(
            f"the plan has {plan.total_steps} steps; {_MOST_DRAWN} can be drawn: give fewer --frames or --steps."
        )
    write_image(output, np.asarray(draw(plan, spacing)))
    return asdict(plan.describe())
