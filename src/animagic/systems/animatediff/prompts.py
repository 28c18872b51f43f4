"""The prompts of AnimateDiff: for the content and the motion of every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import InputError
from ...pipelines.stable_diffusion import StableDiffusionVideoPipeline, TextEmbeds


def travel(keys: Mapping[int, torch.Tensor], num_frames: int, closed_loop: bool = False) -> torch.Tensor:
    """One prompt a frame, (batch, num_frames, length, channels), blended between those of `keys`.

    keys: frame -> (batch, length, channels); the first also holds before it, the last after it, unless `closed_loop`
    leads back to the first. Raises InputError for a frame outside the clip.
    """
    outside = [frame for frame in keys if not 0 <= frame < num_frames]
    if outside:
        raise InputError(f"no prompt can begin at frame {outside[0]}: the video has {num_frames}, counted from 0.")
    points = sorted(keys.items())
    if closed_loop:
        points = [(points[-1][0] - num_frames, points[-1][1]), *points, (points[0][0] + num_frames, points[0][1])]
    frames = []
    for frame in range(num_frames):
        before = max((p for p in points if p[0] <= frame), key=lambda p: p[0], default=points[0])
        after = min((p for p in points if p[0] > frame), key=lambda p: p[0], default=points[-1])
        share = (frame - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
        frames.append(torch.lerp(before[1], after[1], min(max(share, 0.0), 1.0)))
    return torch.stack(frames, dim=1)


@dataclass(frozen=True)
class PromptEmbeds:
    """The texts of a run.

    prompted, unprompted: (batch, 1 or frames, length, channels). motion, unmoved: (batch, length, channels), for the
    motion modules with and without the prompt. added, not_added: SDXL's further conditions, `batch` rows each.
    """

    prompted: torch.Tensor
    unprompted: torch.Tensor
    motion: torch.Tensor
    unmoved: torch.Tensor
    added: dict[str, torch.Tensor] | None = None
    not_added: dict[str, torch.Tensor] | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptEmbeds:
        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: tensor.to(device, dtype) for name, tensor in value.items()}
            return None if value is None else value.to(device, dtype)

        return PromptEmbeds(**{name: moved(value) for name, value in vars(self).items()})

    def inputs(self, frames: Sequence[int], guided: bool) -> dict[str, Any]:
        """The arguments of the UNet for these frames; guided: an unprompted half before the prompted one."""

        def rows(text: torch.Tensor) -> torch.Tensor:
            return text[:, 0] if text.shape[1] == 1 else text[:, list(frames)].flatten(0, 1)

        def halves(without: torch.Tensor, with_: torch.Tensor) -> torch.Tensor:
            return torch.cat([without, with_]) if guided else with_

        unprompted = self.unprompted
        if self.prompted.shape[1] > 1:  # a prompt a frame in both halves
            unprompted = unprompted.expand(-1, self.prompted.shape[1], -1, -1)
        inputs: dict[str, Any] = {
            "encoder_hidden_states": halves(rows(unprompted), rows(self.prompted)),
            "motion_hidden_states": halves(self.unmoved, self.motion),
        }
        if self.added is not None and self.not_added is not None:
            inputs["added_cond_kwargs"] = {k: halves(self.not_added[k], v) for k, v in self.added.items()}
        return inputs


def _one_each(name: str, embeds: torch.Tensor, count: int) -> torch.Tensor:
    """Embeds of `count` texts, also from one for all. Raises InputError."""
    if embeds.ndim != 3 or len(embeds) not in (1, count):
        raise InputError(f"{name} must have the shape ({count}, length, channels), not {tuple(embeds.shape)}.")
    return embeds.expand(count, -1, -1)


class AnimateDiffPromptMixin(StableDiffusionVideoPipeline):
    """The prompts of AnimateDiffPipeline."""

    @property
    def reads_motion(self) -> bool:
        """Whether the motion modules read a text of their own."""
        return "Temporal_Cross" in self.unet.config.motion_attention_block_types

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        *,
        num_frames: int,
        size: tuple[int, int],
        prompts_at: Mapping[int, str] | None = None,
        motion_prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        negative_motion_prompt: str | None = None,
        clip_skip: int | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        motion_prompt_embeds: torch.Tensor | None = None,
        negative_motion_prompt_embeds: torch.Tensor | None = None,
        num_videos_per_prompt: int = 1,
        closed_loop: bool = False,
    ) -> PromptEmbeds:
        """The texts of a call; size: (height, width). Raises InputError."""
        if prompt_embeds is not None:
            if prompt is not None:
                raise InputError("give either prompt or prompt_embeds, not both.")
            if self.unet.config.addition_embed_type is not None:
                raise InputError("an SDXL model needs a prompt; prompt_embeds are for Stable Diffusion.")
            first = TextEmbeds(_one_each("prompt_embeds", prompt_embeds, len(prompt_embeds)))
        elif isinstance(prompt, str) or prompt:
            first = self.encode([prompt] if isinstance(prompt, str) else prompt, clip_skip)
        else:
            raise InputError("give a prompt: say what the video should show.")
        if num_videos_per_prompt < 1:
            raise InputError(f"num_videos_per_prompt must be at least 1, not {num_videos_per_prompt}.")
        count, repeats = len(first.sequence), num_videos_per_prompt

        def one_each(texts: str | Sequence[str], skip: int | None = None) -> TextEmbeds:
            if not isinstance(texts, str) and len(texts) != count:
                raise InputError(f"there are {count} prompts but {len(texts)} texts for them; give one, or one each.")
            return self.encode([texts] * count if isinstance(texts, str) else texts, skip)

        if negative_prompt_embeds is not None:
            negative = TextEmbeds(_one_each("negative_prompt_embeds", negative_prompt_embeds, count))
        elif negative_prompt is None and len(self.text_encoders) != 1:
            negative = first.zeros()  # SDXL was trained so; and without an encoder there is no other
        else:
            negative = one_each(negative_prompt or "", clip_skip)
        motion, unmoved = first.sequence, negative.sequence
        if not self.reads_motion:
            given = (motion_prompt, negative_motion_prompt, motion_prompt_embeds, negative_motion_prompt_embeds)
            if any(one is not None and len(one) for one in given):
                raise InputError("this motion module reads no text of its own; say how things move in the prompt.")
        elif self.text_encoders:
            unmoved = one_each(negative_motion_prompt or "").sequence
        if motion_prompt:
            motion = one_each(motion_prompt).sequence
        elif motion_prompt_embeds is not None:
            motion = _one_each("motion_prompt_embeds", motion_prompt_embeds, count)
        if negative_motion_prompt_embeds is not None:
            unmoved = _one_each("negative_motion_prompt_embeds", negative_motion_prompt_embeds, count)
        keys = {0: first.repeated(repeats).sequence}
        for frame, text in (prompts_at or {}).items():
            keys[frame] = one_each(text, clip_skip).repeated(repeats).sequence
        added, not_added = (self.added_conditions(text.repeated(repeats), size) for text in (first, negative))
        return PromptEmbeds(
            prompted=travel(keys, num_frames, closed_loop) if len(keys) > 1 else keys[0][:, None],
            unprompted=negative.repeated(repeats).sequence[:, None],
            motion=motion.repeat_interleave(repeats, dim=0),
            unmoved=unmoved.repeat_interleave(repeats, dim=0),
            added=added,
            not_added=not_added,
        ).to(self._execution_device, self.unet.dtype)
