"""Texts, and the portrait where a language model sees it, as MagicInfinite's transformer reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from transformers import AutoImageProcessor, AutoTokenizer

from ...errors import CheckpointError, InputError, first_line
from ...pipelines.text import TextEmbedding, encode_text
from ...weights.files import read_json
from .denoiser import Prompt

TEXT_LENGTH = 64
"""Tokens that the small text encoder reads."""
LLAMA_LENGTH = 256
"""Tokens of a text that HunyuanVideo's language model reads, besides those of its instruction and of the portrait."""


class PromptEncoder(Protocol):
    """Turns texts, and the portrait where it can see, into what the transformer reads."""

    sees: bool
    """Whether it looks at the portrait."""

    def encode(self, texts: Sequence[str], portrait: np.ndarray | None) -> list[Prompt]:
        """A prompt for each text; an empty one is the null caption. portrait: uint8 (height, width, 3)."""
        ...


class SmallPrompts:
    """Any encoder of transformers, which does not see; the pooled text is the mean of its tokens.

    The null caption is a full stop.
    """

    sees = False

    def __init__(self, text_encoder: Any, tokenizer: Any):
        self.text_encoder, self.tokenizer = text_encoder, tokenizer

    def encode(self, texts: Sequence[str], portrait: np.ndarray | None = None) -> list[Prompt]:
        prompts = []
        for text in texts:
            read = encode_text(self.text_encoder, self.tokenizer, [text.strip() or "."], TEXT_LENGTH).trimmed()
            weight = read.mask[..., None].to(read.embeds)
            prompts.append(Prompt(read.embeds, read.mask, (read.embeds * weight).sum(1) / weight.sum(1)))
        return prompts


class HunyuanPrompts:
    """HunyuanVideo's encoders: a language model is asked to describe the video, with the portrait before its eyes if it
    has any, and CLIP gives the pooled text. What they read and keep is what diffusers' pipelines do.

    Of the portrait every second token is kept, in front of the text.

    Args:
        text_encoder, tokenizer: LLaVA with Llama 3, or its language model alone.
        text_encoder_2, tokenizer_2: CLIP's.
        image_processor: LLaVA's; None: it does not see.
        device: on which they run; None: where the language model is.
        text_template, portrait_template: the instructions; None: those of diffusers.
    """

    def __init__(
        self,
        text_encoder: Any,
        tokenizer: Any,
        text_encoder_2: Any,
        tokenizer_2: Any,
        image_processor: Any = None,
        device: torch.device | None = None,
        text_template: dict[str, Any] | None = None,
        portrait_template: dict[str, Any] | None = None,
    ):
        self.text_encoder, self.tokenizer, self.image_processor = text_encoder, tokenizer, image_processor
        self.text_encoder_2, self.tokenizer_2 = text_encoder_2, tokenizer_2
        self.device = text_encoder.device if device is None else device
        self.sees = image_processor is not None
        self.text_template, self.portrait_template = text_template, portrait_template

    def encode(self, texts: Sequence[str], portrait: np.ndarray | None = None) -> list[Prompt]:
        # One by one: diffusers does not find the end of a text that is cut off beside one that is not.
        return [self._read(text.strip(), portrait) for text in texts]

    @torch.no_grad()
    def _read(self, text: str, portrait: np.ndarray | None) -> Prompt:
        text_only, seeing = _diffusers_pipelines()
        asked: Any = {"device": self.device, "dtype": torch.float32, "max_sequence_length": LLAMA_LENGTH}
        us: Any = self  # with the components of their pipelines
        if self.image_processor is None or portrait is None:
            template = self.text_template or text_only.DEFAULT_PROMPT_TEMPLATE
            states = text_only.HunyuanVideoPipeline._get_llama_prompt_embeds(us, [text], template, **asked)
        else:
            see = seeing.HunyuanVideoImageToVideoPipeline._get_llama_prompt_embeds
            template = self.portrait_template or seeing.DEFAULT_PROMPT_TEMPLATE
            states = see(us, portrait, [text], template, **asked)
        pooled = text_only.HunyuanVideoPipeline._get_clip_prompt_embeds(us, [text], device=self.device)
        read = TextEmbedding(*states).trimmed()
        return Prompt(read.embeds, read.mask, pooled.float())


def _diffusers_pipelines() -> tuple[Any, Any]:
    """Modules of diffusers, imported where they are needed: that takes a second."""
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video, pipeline_hunyuan_video_image2video

    return pipeline_hunyuan_video, pipeline_hunyuan_video_image2video


def encoder_of(pipe: Any) -> PromptEncoder:
    """The prompt encoder of a pipeline. Raises InputError for one without text encoder."""
    if pipe.text_encoder is None or pipe.tokenizer is None:
        raise InputError("this pipeline has no text encoder; load it with one.")
    if pipe.text_encoder_2 is None:
        return SmallPrompts(pipe.text_encoder, pipe.tokenizer)
    parts = (pipe.text_encoder, pipe.tokenizer, pipe.text_encoder_2, pipe.tokenizer_2, pipe.image_processor)
    return HunyuanPrompts(*parts, device=pipe._execution_device)


def components_of(folder: str | Path, dtype: torch.dtype | None = torch.float32) -> dict[str, Any]:
    """The text encoders, and what prepares their input, of a model's folder, as a pipeline takes them: of HunyuanVideo,
    or one text encoder and its tokenizer. Raises CheckpointError.

    dtype: None: as stored.
    """
    folder, parts = Path(folder), dict[str, Any]()
    for end in ("", "_2")[: 1 + (folder / "text_encoder_2").is_dir()]:
        parts[f"text_encoder{end}"] = _read_encoder(folder / f"text_encoder{end}", dtype)
        parts[f"tokenizer{end}"] = _read_with(AutoTokenizer, folder / f"tokenizer{end}")
    if (folder / "image_processor").is_dir():
        parts["image_processor"] = _read_with(AutoImageProcessor, folder / "image_processor")
    return parts


def text_encoder_of(folder: str | Path) -> PromptEncoder:
    """The prompt encoder of a folder, see `components_of`. Raises CheckpointError."""
    parts = components_of(folder)
    return HunyuanPrompts(**parts) if "text_encoder_2" in parts else SmallPrompts(**parts)


def _read_encoder(folder: Path, dtype: torch.dtype | None) -> Any:
    """A network of transformers, of the class that its configuration names, frozen."""
    name = (read_json(folder / "config.json").get("architectures") or [None])[0]
    kind = getattr(transformers, str(name), None)
    if kind is None:
        raise CheckpointError(f"{folder / 'config.json'} names no architecture that is known: {name!r}.")
    wanted = "auto" if dtype is None else dtype
    encoder, report = _read_with(kind, folder, dtype=wanted, use_safetensors=True, output_loading_info=True)
    if report["missing_keys"]:
        raise CheckpointError(f"{folder}: the tensor {min(report['missing_keys'])} is missing.")
    return encoder.eval().requires_grad_(False)


def _read_with(kind: Any, folder: Path, **arguments: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **arguments)
    except Exception as error:  # on a damaged folder, transformers raises almost anything
        raise CheckpointError(f"{folder} cannot be read: {first_line(error)}.") from error
