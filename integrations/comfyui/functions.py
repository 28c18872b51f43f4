"""What the nodes do: tensors and texts in, files and tensors out. No ComfyUI in sight."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from animagic import requests
from animagic.errors import InputError
from animagic.jobs.models import WarmModels
from animagic.media import read_image
from animagic.systems import System

from .inputs import Widget, options_from

Step = Callable[[int, int | None, Image.Image | None], None]
"""Told the step, of how many, and a picture of what is being made, where there is a new one."""


class Model:
    """A model and the weights that are loaded for it."""

    def __init__(self, name: str, device: str | None):
        self.name, self.system = name, requests.system_of(name)
        self.warm = WarmModels(device, None)

    def check(self, system: System) -> None:
        """Raises InputError if it is of another system."""
        if self.system.name != system.name:
            raise InputError(
                f"{self.name} is a model of {self.system.title}; connect it to the node of {self.system.title}."
            )


@dataclass(frozen=True)
class Made:
    """A video: its file, and its frames, float32 (F, H, W, 3) from 0 to 1."""

    path: Path
    frames: torch.Tensor


def load(name: str, other: str, device: str) -> Model:
    """A model of the register by name, or another: a folder, a hub id, an original configuration file.

    Raises: InputError, CheckpointError.
    """
    return Model(other.strip() or name, None if device == "default" else device)


def make(
    model: Model,
    widgets: Sequence[Widget],
    values: Mapping[str, Any],
    output: Path,
    on_step: Step,
    every: float = 0.5,
) -> Made:
    """Make a video.

    Args:
        values: what the node was given, by the names of its `widgets`.
        output: an .mp4 to write.
        every: seconds from one picture to the next, until there are finished frames.
    Raises: InputError, CheckpointError, MediaError; what `on_step` raises ends it.
    """
    frames: list[np.ndarray] = []
    at: tuple[int, int | None] = (0, None)
    shown = 0.0

    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        preview = inputs / "preview.png"

        def report(report: requests.Report) -> None:
            nonlocal at, shown
            at, picture = (report.step, report.total_steps), None
            if not frames and preview.exists() and time.monotonic() - shown >= every:
                picture, shown = Image.fromarray(read_image(preview)), time.monotonic()
            on_step(*at, picture)

        def finished(new: np.ndarray, start: int) -> None:
            frames.append(new)
            on_step(*at, Image.fromarray(new[-1]))

        options = options_from(widgets, values, inputs)
        request = requests.build_request(options.pop("prompt", ""), model.name, **options)
        pipe = model.warm.get(request, inputs, None, None)
        requests.generate(
            request,
            output,
            pipe=pipe,
            preview=preview,
            on_report=report,
            on_frames=finished,
        )
    return Made(output, torch.from_numpy(np.concatenate(frames)).float() / 255)


def draw_plan(model: Model, widgets: Sequence[Widget], values: Mapping[str, Any]) -> tuple[torch.Tensor, str]:
    """The plan of a request as a picture, (1, H, W, 3), and its counts in lines. Raises InputError, CheckpointError."""
    with tempfile.TemporaryDirectory() as folder:
        own = [widget for widget in widgets if widget.field in model.system.options_class.model_fields]
        options = options_from(own, values, Path(folder))
        picture = Path(folder) / "plan.png"
        counts = requests.draw_plan(requests.build_request("any", model.name, **options), None, picture)
        lines = [f"{name.replace('_', ' ')}: {count}" for name, count in counts.items()]
        return torch.from_numpy(read_image(picture))[None].float() / 255, "\n".join(lines)
