"""What the pipelines of all systems share: a run that is watched, previewed, kept, and handed out piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..media.outputs import Chunk, VideoOutput, check_output_type, joined
from .engine import Clean, Progress, Sampler
from .resume import RunFolder


class Interrupted(Exception):
    """Someone has set `pipe.interrupt`."""


class StreamingPipeline:
    """A pipeline whose `stream` yields chunks; `__call__` joins them. Mixed into a DiffusionPipeline."""

    _callback_tensor_inputs = ["latents"]
    _interrupt = False
    sampling: Any
    vae: Any
    progress_bar: Callable[..., Any]

    @property
    def interrupt(self) -> bool:
        """Set to True (in a callback, or another thread) to end the run after the present step."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    def stream(self, *arguments: Any, **named: Any) -> Iterator[Chunk]:
        raise NotImplementedError  # every system has its own

    def check_call(self, output_type: str, callback_inputs: Sequence[str]) -> None:
        """Raises InputError for a form of output that is not known or needs an autoencoder that is not there."""
        check_output_type(output_type)
        unknown = set(callback_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise InputError(f"callback_on_step_end_tensor_inputs can only be latents, not {sorted(unknown)[0]}.")
        if self.vae is None and output_type != "latent":
            raise InputError("this pipeline has no autoencoder; ask for output_type='latent'.")

    def __call__(self, *arguments: Any, return_dict: bool = True, **named: Any) -> Any:
        """Make the whole video; the arguments are those of `stream`. Returns VideoOutput (`.frames`, `.save`).

        Raises: InputError.
        """
        output_type = named.get("output_type", "pil")
        report = named.pop("on_progress", None)
        bar = None

        def on_progress(progress: Progress) -> None:
            nonlocal bar
            bar = bar or self.progress_bar(total=progress.total_steps)
            bar.update(progress.step - bar.n)
            if report is not None:
                report(progress)

        try:
            chunks = list(self.stream(*arguments, on_progress=on_progress, **named))
        finally:
            if bar is not None:
                bar.close()
        frames = joined(chunks, output_type)
        return VideoOutput(frames=frames, fps=self.sampling.fps) if return_dict else (frames,)


class Watch:
    """Called by the engine after every step: lets callbacks see and change the latents, keeps the run, reports.

    Args:
        pipe: whose `interrupt` ends the run.
        timestep: level -> what a callback is told.
        preview: latents of frames -> uint8 (frames, height, width, 3).
        done, total: steps of earlier runs of the same video, and of all of them (None: this run is all).
    """

    def __init__(
        self,
        pipe: Any,
        sampler: Sampler,
        timestep: Callable[[int], Any],
        preview: Callable[[torch.Tensor], np.ndarray],
        *,
        callback: Callable | None = None,
        resume: RunFolder | None = None,
        state: Callable[[], dict[str, torch.Tensor]] | None = None,
        on_preview: Callable[[Callable[[], np.ndarray]], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        done: int = 0,
        total: int | None = None,
    ):
        self.pipe, self.sampler, self.timestep, self.preview = pipe, sampler, timestep, preview
        self.callback, self.resume, self.state = callback, resume, state or sampler.state_dict
        self.on_preview, self.on_progress = on_preview, on_progress
        self.done, self.total = done, total

    def __call__(self, progress: Progress) -> None:
        frames, timeline = progress.plan_step.span, self.sampler.timeline
        step = self.done + progress.step
        if self.callback is not None:
            level = min(level for window in progress.plan_step.windows for level in window.levels)
            answer = self.callback(self.pipe, step - 1, self.timestep(level), {"latents": timeline.state(frames)})
            if answer and "latents" in answer:
                timeline.write(frames, answer["latents"])
        final = len(progress.plan_step.clean) > 0
        if self.resume is not None and not final:
            self.resume.save_if_due(self.state)
        if self.on_preview is not None:
            self.on_preview(lambda: self.preview(timeline.read(frames)))
        if self.on_progress is not None:
            if self.total is not None and progress.seconds_left is not None and progress.total_steps:
                each = progress.seconds_left / max(progress.total_steps - progress.step, 1)
                progress = replace(progress, step=step, total_steps=self.total, seconds_left=each * (self.total - step))
            self.on_progress(progress)
        if self.pipe.interrupt and not final:  # final frames are handed out first
            raise Interrupted


def kept_clean(
    sampler: Sampler,
    resume: RunFolder | None,
    device: torch.device,
    state: Callable[[], dict[str, torch.Tensor]] | None = None,
    loaded: tuple[dict[str, torch.Tensor] | None, list[Clean]] | None = None,
) -> Iterator[Clean]:
    """Clean frames of a run, those of an earlier part of it first, each kept (with `state`) before it is handed out.

    loaded: what `resume.load` gave, where it is not to be asked now.
    """
    if loaded is None and resume is not None:
        loaded = resume.load(device)
    kept, done = loaded or (None, [])
    if kept is not None:
        sampler.load_state_dict(kept)
    yield from done
    for clean in sampler.run():
        if resume is not None:
            resume.save_clean(clean, (state or sampler.state_dict)())
        yield clean
