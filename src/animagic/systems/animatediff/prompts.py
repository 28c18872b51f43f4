"""The prompts of AnimateDiff: for the content and the motion of every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.utils import scale_lora_layers, unscale_lora_layers

from ...errors import InputError
from ...pipelines.stable_diffusion import StableDiffusionVideoPipeline, TextEmbeds

Blend = Callable[[int, int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(first frame, last frame, the first one's text, the last one's, each (1, length, channels)) -> one for each frame."""


def travel(
    keys: Mapping[int, torch.Tensor], num_frames: int, closed_loop: bool = False, blend: Blend | None = None
) -> torch.Tensor:
    """One condition a frame, (batch, num_frames, length, channels), blended between those of `keys`.

    keys: frame -> (batch, length, channels); the first also holds before it, the last after it, unless `closed_loop`
    leads back to the first. blend: None: in a straight line. Raises InputError for a frame outside the clip.
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
        if blend is not None and 0 < share < 1:
            whole = [blend(before[0], after[0], a[None], b[None]) for a, b in zip(before[1], after[1], strict=True)]
            frames.append(torch.stack([rows[frame - before[0]] for rows in whole]))
        else:
            frames.append(torch.lerp(before[1], after[1], min(max(share, 0.0), 1.0)))
    return torch.stack(frames, dim=1)


@dataclass(frozen=True)
class PromptEmbeds:
    """The texts and pictures that a run follows.

    prompted, unprompted: (batch, 1 or frames, length, channels). motion, unmoved: (batch, length, channels), for the
    motion modules with and without the prompt. added, not_added: SDXL's further conditions, `batch` rows each.
    pictures, no_pictures: of each IP-Adapter (batch, 1 or frames, images, ...).
    """

    prompted: torch.Tensor
    unprompted: torch.Tensor
    motion: torch.Tensor
    unmoved: torch.Tensor
    added: dict[str, torch.Tensor] | None = None
    not_added: dict[str, torch.Tensor] | None = None
    pictures: list[torch.Tensor] | None = None
    no_pictures: list[torch.Tensor] | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptEmbeds:
        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: tensor.to(device, dtype) for name, tensor in value.items()}
            if isinstance(value, list):
                return [tensor.to(device, dtype) for tensor in value]
            return None if value is None else value.to(device, dtype)

        return PromptEmbeds(**{name: moved(value) for name, value in vars(self).items()})

    def inputs(self, frames: Sequence[int], guided: bool) -> dict[str, Any]:
        """The arguments of the UNet for these frames; guided: an unprompted half before the prompted one."""

        def rows(text: torch.Tensor) -> torch.Tensor:
            return text[:, 0] if text.shape[1] == 1 else text[:, list(frames)].flatten(0, 1)

        def halves(without: torch.Tensor, with_: torch.Tensor) -> torch.Tensor:
            return torch.cat([without, with_]) if guided else with_

        def by_frame(without: torch.Tensor, with_: torch.Tensor) -> torch.Tensor:
            if without.shape[1] != with_.shape[1]:  # one for each frame in both halves
                count = max(without.shape[1], with_.shape[1])
                without, with_ = (
                    text if text.shape[1] == count else text.expand(-1, count, *text.shape[2:])
                    for text in (without, with_)
                )
            return halves(rows(without), rows(with_))

        inputs: dict[str, Any] = {
            "encoder_hidden_states": by_frame(self.unprompted, self.prompted),
            "motion_hidden_states": halves(self.unmoved, self.motion),
        }
        conditions: dict[str, Any] = {}
        if self.added is not None and self.not_added is not None:
            conditions = {k: halves(self.not_added[k], v) for k, v in self.added.items()}
        if self.pictures is not None and self.no_pictures is not None:
            conditions["image_embeds"] = list(map(by_frame, self.no_pictures, self.pictures))
        return inputs | ({"added_cond_kwargs": conditions} if conditions else {})

    def tensors(self, guided: bool) -> dict[str, torch.Tensor]:
        """The texts as diffusers gives them to callbacks, (rows, length, channels): a row for each video, or for each
        of its frames; prompt_embeds with the unprompted half before it, if guided."""
        texts = self.inputs(range(self.prompted.shape[1]), guided)["encoder_hidden_states"]
        return {"prompt_embeds": texts, "negative_prompt_embeds": self.unprompted.flatten(0, 1)}

    def changed(self, prompt_embeds: torch.Tensor | None, negative_prompt_embeds: torch.Tensor | None) -> PromptEmbeds:
        """With other texts, in the form of `tensors`; prompt_embeds with or without the unprompted half."""
        prompted, unprompted = self.prompted, self.unprompted
        if negative_prompt_embeds is not None:
            unprompted = negative_prompt_embeds.unflatten(0, (len(unprompted), -1))
        if prompt_embeds is not None:
            rows = prompted.shape[0] * prompted.shape[1]
            if len(prompt_embeds) == 2 * rows:
                unprompted = prompt_embeds[:rows].unflatten(0, (len(prompted), -1))
            if len(prompt_embeds) not in (rows, 2 * rows):
                raise InputError(f"prompt_embeds of a callback must have {rows} or {2 * rows} rows.")
            prompted = prompt_embeds[-rows:].unflatten(0, (len(prompted), -1))
        return replace(self, prompted=prompted, unprompted=unprompted)


def _one_each(name: str, embeds: torch.Tensor, count: int) -> torch.Tensor:
    """Embeds of `count` texts, also from one for all. Raises InputError."""
    axes, shape = (2, "channels") if "pooled" in name else (3, "length, channels")
    if embeds.ndim != axes or len(embeds) not in (1, count):
        raise InputError(f"{name} must have the shape ({count}, {shape}), not {tuple(embeds.shape)}.")
    return embeds.expand(count, *embeds.shape[1:])


Texts = str | Sequence[str]


class AnimateDiffPromptMixin(StableDiffusionVideoPipeline):
    """The prompts of AnimateDiffPipeline."""

    _blend: Blend | None = None

    @property
    def reads_motion(self) -> bool:
        """Whether the motion modules read a text of their own."""
        return "Temporal_Cross" in self.unet.config.motion_attention_block_types

    def _encode_as_long(self, texts: Sequence[str], length: int, clip_skip: int | None, **more: Any) -> TextEmbeds:
        """Texts as the UNet reads them, filled up with the empty text or cut to a length: that of given embeds."""
        made = self.encode(texts, clip_skip, **more)
        if made.sequence.shape[1] < length:
            empty = self.encode([""] * len(texts), clip_skip).sequence
            times = -(-length // empty.shape[1]) - 1
            made = TextEmbeds(torch.cat([made.sequence, *[empty] * times], dim=1), made.pooled)
        return TextEmbeds(made.sequence[:, :length], made.pooled)

    def embed_prompts(
        self,
        prompt: Texts | Mapping[int, str] | None,
        *,
        num_frames: int,
        size: tuple[int, int],
        prompts_at: Mapping[int, str] | None = None,
        motion_prompt: Texts | None = None,
        negative_prompt: Texts | Mapping[int, str] | None = None,
        negative_motion_prompt: str | None = None,
        prompt_2: Texts | None = None,
        negative_prompt_2: Texts | None = None,
        clip_skip: int | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        motion_prompt_embeds: torch.Tensor | None = None,
        negative_motion_prompt_embeds: torch.Tensor | None = None,
        num_videos_per_prompt: int = 1,
        closed_loop: bool = False,
    ) -> PromptEmbeds:
        """The texts of a call. Raises InputError.

        Args:
            prompt, negative_prompt: one, one for each video, or frame -> text, as `prompts_at` has it.
            size: (height, width) of the video.
            prompt_2, negative_prompt_2: what the second text encoder of SDXL reads instead.
            prompt_embeds, negative_prompt_embeds: (texts, length, channels) of any length, which texts beside them get
                too. pooled_*: (texts, channels), for SDXL.
        """
        if isinstance(prompt, Mapping):
            prompts_at, prompt = _keyed(prompt, "prompt", prompts_at)
        negatives_at: Mapping[int, str] = {}
        if isinstance(negative_prompt, Mapping):
            negatives_at, negative_prompt = _keyed(negative_prompt, "negative_prompt")
        sdxl = self.unet.config.addition_embed_type is not None
        if (prompt_2 or negative_prompt_2) and len(self.text_encoders) != 2:
            raise InputError("there is one text encoder; prompt_2 and negative_prompt_2 are for SDXL, which has two.")
        if prompt_embeds is not None:
            if prompt is not None:
                raise InputError("give either prompt or prompt_embeds, not both.")
            if sdxl and pooled_prompt_embeds is None:
                raise InputError("an SDXL model needs pooled_prompt_embeds beside prompt_embeds, or a prompt.")
            count = len(prompt_embeds)
            first = TextEmbeds(_one_each("prompt_embeds", prompt_embeds, count))
        elif isinstance(prompt, str) or prompt:
            prompts = [prompt] if isinstance(prompt, str) else prompt
            first = self.encode(prompts, clip_skip, *_second(prompt_2, len(prompts)))
        else:
            raise InputError("give a prompt: say what the video should show.")
        if num_videos_per_prompt < 1:
            raise InputError(f"num_videos_per_prompt must be at least 1, not {num_videos_per_prompt}.")
        count, repeats, length = len(first.sequence), num_videos_per_prompt, first.sequence.shape[1]

        def one_each(texts: Texts, skip: int | None = None, second: Texts | None = None) -> TextEmbeds:
            if not isinstance(texts, str) and len(texts) != count:
                raise InputError(f"there are {count} prompts but {len(texts)} texts for them; give one, or one each.")
            texts = [texts] * count if isinstance(texts, str) else texts
            more = dict(zip(["texts_2"], _second(second, count), strict=False))
            return self._encode_as_long(texts, length, skip, **more)

        if negative_prompt_embeds is not None:
            negative = TextEmbeds(_one_each("negative_prompt_embeds", negative_prompt_embeds, count))
            if negative.sequence.shape[1] != length:
                raise InputError(
                    f"negative_prompt_embeds have {negative.sequence.shape[1]} tokens, the prompt {length}: make them "
                    f"equally long."
                )
        elif negative_prompt is None and len(self.text_encoders) != 1:
            negative = first.zeros()  # SDXL was trained so; and without an encoder there is no other
        else:
            negative = one_each(negative_prompt or "", clip_skip, negative_prompt_2)
        if pooled_prompt_embeds is not None:
            first = TextEmbeds(first.sequence, _one_each("pooled_prompt_embeds", pooled_prompt_embeds, count))
        if negative_pooled_prompt_embeds is not None:
            pooled = _one_each("negative_pooled_prompt_embeds", negative_pooled_prompt_embeds, count)
            negative = TextEmbeds(negative.sequence, pooled)
        elif negative.pooled is None and first.pooled is not None:
            negative = TextEmbeds(negative.sequence, torch.zeros_like(first.pooled))
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

        def over_time(text: TextEmbeds, later: Mapping[int, str] | None) -> torch.Tensor:
            keys = {0: text.repeated(repeats).sequence}
            keys |= {frame: one_each(x, clip_skip).repeated(repeats).sequence for frame, x in (later or {}).items()}
            return travel(keys, num_frames, closed_loop, self._blend) if len(keys) > 1 else keys[0][:, None]

        added, not_added = (self.added_conditions(text.repeated(repeats), size) for text in (first, negative))
        return PromptEmbeds(
            prompted=over_time(first, prompts_at),
            unprompted=over_time(negative, negatives_at),
            motion=motion.repeat_interleave(repeats, dim=0),
            unmoved=unmoved.repeat_interleave(repeats, dim=0),
            added=added,
            not_added=not_added,
        ).to(self._execution_device, self.unet.dtype)

    def encode_prompt(
        self,
        prompt: Texts | None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Texts | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[torch.Tensor | None, ...]:
        """As in diffusers: tensors that a call takes back as `prompt_embeds` and `negative_prompt_embeds`, of SDXL also
        as `pooled_prompt_embeds` and `negative_pooled_prompt_embeds`. It needs no part but the text encoders."""
        with self.weighing_text_loras(lora_scale), torch.no_grad():
            if prompt_embeds is None:
                if not prompt:
                    raise InputError("give a prompt: say what the video should show.")
                first = self.encode([prompt] if isinstance(prompt, str) else prompt, clip_skip)
            else:
                first = TextEmbeds(prompt_embeds)
            count, length = first.sequence.shape[:2]
            if negative_prompt_embeds is not None:
                negative = TextEmbeds(negative_prompt_embeds)
            elif negative_prompt is None and len(self.text_encoders) == 2:
                negative = first.zeros()
            else:
                texts = negative_prompt or ""
                texts = [texts] * count if isinstance(texts, str) else texts
                if len(texts) != count:
                    raise InputError(
                        f"there are {count} prompts but {len(texts)} negative ones; give one, or one each."
                    )
                negative = self._encode_as_long(texts, length, clip_skip)
        made = [first.sequence, negative.sequence if do_classifier_free_guidance else None]
        if len(self.text_encoders) == 2:
            made += [first.pooled, negative.pooled if do_classifier_free_guidance else None]
        device = device or self._execution_device
        return tuple(
            None if one is None else one.to(device).repeat_interleave(num_images_per_prompt, dim=0) for one in made
        )

    @contextmanager
    def weighing_text_loras(self, scale: float | None) -> Iterator[None]:
        """Inside, the LoRAs of the text encoders count `scale` times."""
        encoders = [encoder for _, encoder in self.text_encoders] if scale not in (None, 1) else []
        for encoder in encoders:
            scale_lora_layers(encoder, scale)
        try:
            yield
        finally:
            for encoder in encoders:
                unscale_lora_layers(encoder, scale)


def _second(texts: Texts | None, count: int) -> list[Sequence[str]]:
    """The texts of a second encoder, if there are any; one counts for all."""
    if texts is None:
        return []
    return [[texts] * count if isinstance(texts, str) else texts]


def _keyed(
    texts: Mapping[int, str], name: str, others: Mapping[int, str] | None = None
) -> tuple[dict[int, str], str | None]:
    """frame -> text as (the later ones, the first). Raises InputError."""
    if not texts or not all(isinstance(f, int) and isinstance(text, str) for f, text in texts.items()):
        raise InputError(f"{name} as a dict maps frames, whole numbers from 0, to texts.")
    first = min(texts)
    return {**{f: text for f, text in texts.items() if f != 0 or first != 0}, **(others or {})}, texts[first]
