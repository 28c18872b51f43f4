"""MagicInfinite's settings, and its transformer as the engine's denoiser."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ...errors import InputError
from ...pipelines.base import Sampling
from ...timeline import Denoiser, MovingFront, NestedGuidance, Plan, ShiftingWindow, WholeClip, Window

GROUP = 4
"""Video frames of a latent frame; the first latent frame stands for one."""


def latents_of(frames: int) -> int:
    """Latent frames of a video of so many frames."""
    return 1 + -(-(frames - 1) // GROUP)


def shifted_times(steps: int, shift: float, start: float = 0.0) -> Tensor:
    """The times from `start` (0: noise) to 1 (clean) of so many steps, (steps + 1,); a shift above 1: more of them in
    noise, as in HunyuanVideo and Stable Diffusion 3 (arXiv 2403.03206, section 5.3.2)."""
    even = torch.linspace(0, 1, steps + 1)
    return start + (1 - start) * even / (even + shift * (1 - even))


@dataclass(frozen=True)
class MagicInfiniteSampling(Sampling):
    """The settings of MagicInfinite.

    guidance_scale, portrait_scale, voice_scale: how strongly text, portrait and voices are followed, see
    NestedGuidance. embedded_guidance: of models distilled for guidance. shift: see shifted_times.
    portrait_start: time, 0 (noise) to 1, at which the video begins as the portrait under noise. Above 0 heads move
    less, and a small model's parts fit together.
    plan: "windows": the whole video at every step, in windows that shift; "front": latent frames leave clean at a
    steady delay, as live sound needs it.
    window, window_overlap: latent frames of a window, and those that neighbours share. front, front_context: latent
    frames in work, and clean ones before them that the network sees.
    decode_context: latent frames before those that are decoded, which a causal autoencoder needs.
    """

    num_frames: int = 129
    height: int = 544
    width: int = 544
    fps: float = 25
    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    portrait_scale: float = 1.0
    voice_scale: float = 1.0
    embedded_guidance: float = 6.0
    shift: float = 7.0
    portrait_start: float = 0.0
    plan: str = "windows"
    window: int = 33
    window_overlap: int = 8
    front: int = 16
    front_context: int = 8
    decode_context: int = 4

    frames_per_latent: ClassVar[int] = GROUP

    def changed(self, **values: Any) -> MagicInfiniteSampling:
        changed = super().changed(**values)
        for name in ("portrait_scale", "voice_scale"):
            if not 0 <= getattr(changed, name) <= 100:
                raise InputError(f"{name} must lie between 0 and 100, not {getattr(changed, name)}.")
        if not 0 <= changed.portrait_start < 1:
            raise InputError(f"portrait_start must be from 0 to below 1, not {changed.portrait_start}.")
        if changed.plan not in ("windows", "front"):
            raise InputError(f"the plan {changed.plan!r} is unknown; choose windows or front.")
        return changed

    def plan_for(
        self, num_frames: int | None = None, num_inference_steps: int | None = None, endless: bool = False, **own: Any
    ) -> Plan:
        """The plan of a call. own: fields of this class; endless: until it is stopped."""
        settings = self.changed(num_frames=num_frames, num_inference_steps=num_inference_steps, **own)
        latents, steps = latents_of(settings.num_frames), settings.num_inference_steps
        if endless or settings.plan == "front":
            front = (steps, settings.front, settings.front_context)
            return MovingFront(None if endless else latents, *front)
        if latents <= settings.window:
            return WholeClip(latents, steps)
        return ShiftingWindow(latents, steps, settings.window, settings.window_overlap)


class PortraitUnderNoise:
    """Noise of a timeline with the portrait in it, (videos, channels, frames, h, w).

    noise: a tensor of it, or a function that draws it, asked in order. portrait: (1, channels, h, w). time: see
    `portrait_start`.
    """

    def __init__(self, noise: Any, portrait: Tensor, time: float):
        self.drawn, self.portrait, self.time = noise, portrait, time

    def __call__(self, frames: range) -> Tensor:
        noise = self.drawn(frames) if callable(self.drawn) else self.drawn[:, :, frames.start : frames.stop]
        return self.time * self.portrait[:, :, None].to(noise) + (1 - self.time) * noise

    def state_dict(self) -> dict[str, Tensor]:
        return self.drawn.state_dict() if hasattr(self.drawn, "state_dict") else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if hasattr(self.drawn, "load_state_dict"):
            self.drawn.load_state_dict(state)


@dataclass(frozen=True)
class Prompt:
    """A text as the transformer reads it: embeds (1, length, channels), mask (1, length), pooled (1, channels)."""

    embeds: Tensor
    mask: Tensor
    pooled: Tensor


class Speech(Protocol):
    """What is heard of a voice."""

    def speech(self, frames: range) -> Tensor:
        """(frames, 8, layers, channels) of latent frames; it waits until they are heard."""
        ...


@dataclass(frozen=True)
class Voice:
    """A speaker: what is heard, and the face on the latent grid, a function of frames -> (frames, h, w), 0 to 1."""

    heard: Speech
    face: Callable[[Sequence[int]], Tensor]


Known = Callable[[Sequence[int]], tuple[Tensor, Tensor]]
"""Frames -> latents (1, channels, frames, h, w) that are known of the picture, and where, (1, 1, frames, h, w)."""


class MagicInfiniteDenoiser:
    """The transformer on a window. Its conditions are, in this order: what is known of the picture, text, voices.

    Args:
        transformer: MagicInfiniteTransformer3DModel.
        times: (steps + 1,), 0 noise to 1 clean.
        prompts: latent frame -> prompt from there on; a window reads that of its middle frame. null: no prompt.
        portrait: (1, channels, h, w) latents.
        known: of every frame.
        voices: of all speakers; () where nobody can be heard.
        embedded_guidance: of models that have guidance embeddings.
    """

    CONDITIONS = 3

    def __init__(
        self,
        transformer: Any,
        times: Tensor,
        prompts: Mapping[int, Prompt],
        null: Prompt,
        portrait: Tensor,
        known: Known,
        voices: Sequence[Voice],
        embedded_guidance: float = 6.0,
    ):
        self.transformer, self.times, self.portrait, self.known = transformer, times, portrait, known
        self.starts, self.prompts, self.null = sorted(prompts), prompts, null
        self.voices, self.embedded_guidance = voices, embedded_guidance

    def guided(self, portrait: float, text: float, voice: float) -> Denoiser:
        """With guidance; scales of 1 cost nothing."""
        return NestedGuidance(self, (portrait, text, voice))

    def __call__(self, latents: Tensor, window: Window) -> Tensor:
        return self.branches(latents, window, [self.CONDITIONS])[0]

    def branches(self, latents: Tensor, window: Window, counts: Sequence[int]) -> Sequence[Tensor]:
        """The velocity clean - noise with the first so many conditions, for each of the counts."""
        frames, (videos, _, _, height, width) = list(window.frames), latents.shape
        dtype, rows = self.transformer.dtype, len(counts) * videos

        def each(kept: int, with_it: Tensor, without: Tensor) -> Tensor:
            """A condition for every row; it is there where the count reaches it."""
            chosen = [with_it if count > kept else without for count in counts]
            return torch.cat([one.expand(videos, *one.shape[1:]) for one in chosen]).to(latents.device, dtype)

        known, where = (part.to(latents) for part in self.known(frames))
        # Elsewhere it holds nothing.
        given = torch.cat([known * where, where.expand(-1, -1, len(frames), height, width)], dim=1)
        picture = each(0, given, torch.zeros_like(given))
        prompt = self._prompt(frames[len(frames) // 2])
        length = max(prompt.mask.shape[1], self.null.mask.shape[1])
        text, null = padded(prompt, length), padded(self.null, length)
        heard: dict[str, Any] = {}
        if self.voices and max(counts) == self.CONDITIONS:
            speech = torch.stack([voice.heard.speech(range(frames[0], frames[-1] + 1)) for voice in self.voices])[None]
            masks = torch.stack([voice.face(frames) for voice in self.voices])[None]
            heard = {
                "speech": speech.expand(rows, *speech.shape[1:]).to(latents.device, dtype),
                "masks": each(2, masks, torch.zeros_like(masks)),
            }
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((rows,), 1000 * self.embedded_guidance, device=latents.device, dtype=dtype)
        levels = window.levels[:1] if len(set(window.levels)) == 1 else window.levels
        steps = (1000 * (1 - self.times[list(levels)])).to(latents.device, dtype)
        padding = not (text.mask.all() and null.mask.all())
        predicted = self.transformer(
            torch.cat([latents.to(dtype).repeat(len(counts), 1, 1, 1, 1), picture], dim=1),
            steps.expand(rows, -1),
            each(1, text.embeds, null.embeds),
            each(1, text.mask, null.mask) if padding else None,
            each(1, text.pooled, null.pooled),
            portrait=each(0, self.portrait, torch.zeros_like(self.portrait)),
            guidance=guidance,
            return_dict=False,
            **heard,
        )[0]
        return (-predicted.to(latents.dtype)).chunk(len(counts))

    def _prompt(self, frame: int) -> Prompt:
        return self.prompts[self.starts[max(0, bisect.bisect_right(self.starts, frame) - 1)]]


def padded(prompt: Prompt, length: int) -> Prompt:
    """With padding up to a number of tokens."""
    more = length - prompt.mask.shape[1]
    embeds = torch.nn.functional.pad(prompt.embeds, (0, 0, 0, more))
    return Prompt(embeds, torch.nn.functional.pad(prompt.mask, (0, more)), prompt.pooled)
