"""MagicAnimate the way the original makes it, with our networks: what `magicanimate_tiny.py` measures ours beside.

Each window is denoised with the text of every frame, with the picture's features copied for every frame, and looking
for both halves of guidance, of which the unguided one is then replaced; residuals of the ControlNet are made for all
frames, in windows without overlap, and kept. Each of SAVINGS leaves out a part of that work.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

SAVINGS = {
    "step": "the picture is encoded once a step, not once a window",
    "half": "for one half of guidance, not for both",
    "look": "the half without the picture does not look at it first",
    "project": "features are projected once a video, not copied for every frame",
    "text": "so is the text",
    "down": "the way down, which both halves share, is computed once",
}
"""In the order in which they are added. The published code has the first."""
PUBLISHED = ("step",)


class CopyingProcessor(AttnProcessor2_0):
    """Self-attention to a frame and to a picture whose features are copied for every frame of both halves."""

    def __init__(self, name: str, clip: Any, looks_alone: bool):
        super().__init__()
        self.name, self.clip, self.looks_alone = name, clip, looks_alone

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *arguments: Any, **others: Any) -> torch.Tensor:
        features, half = self.clip.references[self.name], len(hidden_states) // 2
        if len(features) == 1:
            features = features.repeat(2, 1, 1)
        copies = features.repeat_interleave(self.clip.num_frames, dim=0)
        alone = super().__call__(attn, hidden_states[:half])
        if self.looks_alone:
            both = super().__call__(attn, hidden_states, torch.cat([hidden_states, copies], dim=1))
            return torch.cat([alone, both[half:]])
        looking = hidden_states[half:]
        return torch.cat([alone, super().__call__(attn, looking, torch.cat([looking, copies[half:]], dim=1))])


def set_processors(unet: Any, savings: Collection[str]) -> dict[str, Any]:
    """Have a MagicAnimateUNet compute with these savings; returns the processors that it had."""
    had = dict(unet.attn_processors)
    made = dict(had)
    for name, processor in had.items():
        if "attn2" in name and "text" not in savings:
            made[name] = AttnProcessor2_0()
        elif hasattr(processor, "clip") and "project" not in savings:
            made[name] = CopyingProcessor(processor.name, processor.clip, looks_alone="look" not in savings)
    unet.set_attn_processor(made)
    return had


@torch.no_grad()
def animate(
    pipe: Any,
    noise: torch.Tensor,
    picture: torch.Tensor,
    poses: torch.Tensor,
    text: torch.Tensor,
    windows: list[list[int]],
    steps: int,
    scale: float,
    savings: Collection[str] = PUBLISHED,
) -> torch.Tensor:
    """Latents like `noise`, (1, channels, frames, height, width).

    Args:
        picture: (1, channels, height, width) latents. poses: (frames, 3, pixels high, wide) in 0..1.
        text: (1, length, channels). windows: of every step. scale: of guidance.
    """
    had = set_processors(pipe.unet, savings)
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    latents, frames, together = noise * scheduler.init_noise_sigma, noise.shape[2], len(windows[0])
    halves = 1 if "half" in savings else 2
    try:
        for timestep in scheduler.timesteps:
            residuals: dict[int, list[torch.Tensor]] = {}
            for first in range(0, frames, together):
                part = range(first, min(first + together, frames))
                rows = latents[0, :, part.start : part.stop].transpose(0, 1)
                repeated = text.repeat(len(part), 1, 1)
                down, middle = pipe.controlnet(
                    rows, timestep, repeated, poses[part.start : part.stop], return_dict=False
                )
                for i, frame in enumerate(part):
                    residuals[frame] = [one[i : i + 1].clone() for one in (*down, middle)]

            def encode(timestep: torch.Tensor = timestep) -> dict[str, torch.Tensor]:
                rows = picture.repeat(halves, 1, 1, 1)
                return pipe.appearance_encoder(rows, timestep, text.repeat(halves, 1, 1))

            seen = encode()
            total, count = noise.new_zeros(2, *noise.shape[1:]), noise.new_zeros(frames)
            for number, window in enumerate(windows):
                if number and "step" not in savings:
                    seen = encode()
                total[:, :, window] += denoise(
                    pipe.unet, latents[:, :, window], timestep, text, seen, residuals, window, savings
                )
                count[window] += 1
            alone, looking = (total / count[:, None, None]).chunk(2)
            latents = scheduler.step(alone + scale * (looking - alone), timestep, latents).prev_sample
    finally:
        pipe.unet.set_attn_processor(had)
    return latents


def denoise(
    unet: Any,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: torch.Tensor,
    seen: dict[str, torch.Tensor],
    residuals: dict[int, list[torch.Tensor]],
    window: list[int],
    savings: Collection[str],
) -> torch.Tensor:
    """The predictions of both halves, (2, channels, frames, height, width)."""
    copies = 1 if "down" in savings else 2
    *down, middle = (torch.cat([*one] * copies) for one in zip(*(residuals[frame] for frame in window), strict=True))
    if "project" in savings:
        seen = {name: features[-1:] for name, features in seen.items()}
    return unet(
        latents.repeat(copies, 1, 1, 1, 1),
        timestep,
        text.repeat(copies, 1, 1),
        references=seen,
        also_alone=copies == 1,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
