"""A system in a few lines: a square moves over a dark ground; there is no network, and its latents are the pixels."""

from typing import Annotated

import torch
from annotated_types import Ge, Le

from animagic.pipelines.base import Sampling, VideoPipeline
from animagic.pipelines.job import Job
from animagic.pipelines.options import Option, VideoOptions
from animagic.systems import System


class SquareOptions(VideoOptions):
    speed: Annotated[int, Ge(0), Le(8), Option("Pixels that the square moves in a frame.")] = 1


class SquarePipeline(VideoPipeline):
    sampling = Sampling(num_frames=8, height=32, width=32, fps=12, num_inference_steps=4)

    def denoiser(self, prompt, plan, sampling, *, speed=1):
        colour = torch.tensor([1.0, -1.0, -1.0] if "red" in prompt else [-1.0, -1.0, 1.0])

        def velocity(latents, window):
            picture = torch.full_like(latents, -1)
            for i, frame in enumerate(window.frames):
                picture[:, :, i, 12:20, speed * frame : speed * frame + 8] = colour[:, None, None]
            left = 1 - torch.tensor(window.levels) / plan.num_steps
            return (picture - latents) / left.clamp_min(1e-6)[:, None, None]

        return velocity


SQUARE = System(
    name="square",
    title="Square",
    options=SquareOptions,
    job=Job,
    classes={"SquarePipeline": SquarePipeline},
    pipelines={"text": "SquarePipeline"},
)
