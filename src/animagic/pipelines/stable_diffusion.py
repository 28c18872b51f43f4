"""Stable Diffusion 1.5 and XL in pipelines of videos: the autoencoder, frame by frame, and the CLIP text encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin

from ..errors import InputError
from ..mirror import names_of
from ..weights.textual_inversion import TextualInversionMixin
from .base import VideoPipeline

__path__: list[str] = []  # its modules are those of diffusers
__getattr__ = names_of("diffusers.pipelines.stable_diffusion")


@dataclass(frozen=True)
class TextEmbeds:
    """sequence: (texts, length, channels); pooled: (texts, channels), which only SDXL has."""

    sequence: torch.Tensor
    pooled: torch.Tensor | None = None

    def repeated(self, count: int) -> TextEmbeds:
        """Each text `count` times, one after another."""
        return self._each(lambda tensor: tensor.repeat_interleave(count, dim=0))

    def zeros(self) -> TextEmbeds:
        return self._each(torch.zeros_like)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TextEmbeds:
        return TextEmbeds(change(self.sequence), None if self.pooled is None else change(self.pooled))


def encode_texts(
    texts: Sequence[str],
    encoders: Sequence[tuple[Any, Any]],
    *,
    clip_skip: int | None = None,
    convert: Callable[[list[str], Any], list[str]] = lambda texts, tokenizer: texts,
    texts_2: Sequence[str] | None = None,
) -> TextEmbeds:
    """Texts as CLIP reads them, truncated to its length. Raises InputError for a clip_skip that leaves no layer.

    encoders: (tokenizer, text encoder): one (Stable Diffusion), or two (SDXL, whose second gives the pooled text).
    clip_skip: as in diffusers. convert: writes out tokens that stand for several (textual inversion). texts_2: what the
    second encoder reads; None: the same.
    """
    sequences: list[torch.Tensor] = []
    pooled = None
    for tokenizer, encoder in encoders:
        if sequences and texts_2 is not None:
            texts = texts_2
        layers = encoder.config.num_hidden_layers
        if clip_skip is not None and not 0 <= clip_skip < layers:
            raise InputError(f"clip_skip must lie between 0 and {layers - 1} for this text encoder, not {clip_skip}.")
        length = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        ids = tokenizer(convert(list(texts), tokenizer), **length, return_tensors="pt").input_ids
        if encoder.device.type != "meta":  # else hooks bring its weights in, and move the tokens as well
            ids = ids.to(encoder.device)
        output = encoder(ids, output_hidden_states=True)
        if len(encoders) == 2:
            sequences.append(output.hidden_states[-((clip_skip or 0) + 2)])
            pooled = getattr(output, "text_embeds", None)
        elif clip_skip:
            norm = getattr(encoder, "text_model", encoder).final_layer_norm
            sequences.append(norm(output.hidden_states[-(clip_skip + 1)]))
        else:
            sequences.append(output.last_hidden_state)
    return TextEmbeds(torch.cat(sequences, dim=-1), pooled)


class StableDiffusionVideoPipeline(TextualInversionMixin, VideoPipeline, StableDiffusionMixin):
    """A pipeline with the parts of Stable Diffusion; a frame is a latent frame."""

    unet: Any
    tokenizer_2: Any
    text_encoder_2: Any
    frames_decoded_together = 16  # more take memory and save no time
    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"

    def to_latents(self, video: torch.Tensor) -> torch.Tensor:
        parts = video[0].transpose(0, 1).split(self.frames_decoded_together)
        latents = torch.cat([self.vae.encode(part).latent_dist.mode() for part in parts])
        return latents.float().transpose(0, 1)[None] * self.vae.config.scaling_factor

    def to_video(self, latents: torch.Tensor) -> torch.Tensor:
        flat = latents.transpose(1, 2).flatten(0, 1).to(self._execution_device, self.vae.dtype)
        parts = (flat / self.vae.config.scaling_factor).split(self.frames_decoded_together)
        video = torch.cat([self.vae.decode(part).sample for part in parts])
        return video.unflatten(0, (len(latents), -1)).transpose(1, 2)

    @property
    def latent_channels(self) -> int:  # type: ignore[override]
        return self.unet.config.in_channels

    @property
    def pixels_per_latent(self) -> int:  # type: ignore[override]
        if self.vae is None:
            return 8
        widths = self.vae.config.get("block_out_channels")
        return 2 ** (len(widths) - 1) if widths else self.vae.config["patch_size"]

    @property
    def text_encoders(self) -> list[tuple[Any, Any]]:
        """(tokenizer, text encoder), as many as there are."""
        pairs = ((self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2))
        return [(tokenizer, encoder) for tokenizer, encoder in pairs if tokenizer is not None and encoder is not None]

    def encode(
        self, texts: Sequence[str], clip_skip: int | None = None, texts_2: Sequence[str] | None = None
    ) -> TextEmbeds:
        """Texts as the UNet reads them. texts_2: for the second text encoder of SDXL. Raises InputError."""
        if not self.text_encoders:
            raise InputError("this pipeline has no text encoder with a tokenizer; pass prompt_embeds.")
        how: Any = {"clip_skip": clip_skip, "convert": self.maybe_convert_prompt, "texts_2": texts_2}
        return encode_texts(texts, self.text_encoders, **how)

    def added_conditions(self, text: TextEmbeds, size: tuple[int, int]) -> dict[str, torch.Tensor] | None:
        """SDXL's further conditions, of others None: the pooled text, and the (height, width) of an uncropped image."""
        if self.unet.config.addition_embed_type != "text_time":
            return None
        if text.pooled is None:
            raise InputError("an SDXL model needs both of its text encoders.")
        times = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32).expand(len(text.pooled), -1)
        return {"text_embeds": text.pooled, "time_ids": times.contiguous()}
