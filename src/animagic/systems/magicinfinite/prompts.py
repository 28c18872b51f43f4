"""Texts as MagicInfinite's transformer reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import AutoModel, AutoTokenizer

from ...errors import CheckpointError, first_line
from ...pipelines.text import encode_text
from .denoiser import Prompt

TEXT_LENGTH = 64
"""Tokens that the small text encoder reads."""


class PromptEncoder(Protocol):
    """Turns texts, and the portrait where it can see, into what the transformer reads."""

    def encode(self, texts: Sequence[str], portrait: np.ndarray | None) -> list[Prompt]:
        """A prompt for each text; an empty one is the null caption. portrait: uint8 (height, width, 3)."""
        ...


class SmallPrompts:
    """Any encoder of transformers, which does not see; the pooled text is the mean of its tokens.

    The null caption is a full stop.
    """

    def __init__(self, text_encoder: Any, tokenizer: Any):
        self.text_encoder, self.tokenizer = text_encoder, tokenizer

    def encode(self, texts: Sequence[str], portrait: np.ndarray | None = None) -> list[Prompt]:
        prompts = []
        for text in texts:
            read = encode_text(self.text_encoder, self.tokenizer, [text.strip() or "."], TEXT_LENGTH).trimmed()
            weight = read.mask[..., None].to(read.embeds)
            prompts.append(Prompt(read.embeds, read.mask, (read.embeds * weight).sum(1) / weight.sum(1)))
        return prompts


def components_of(folder: str | Path) -> dict[str, Any]:
    """The text encoder, in float32, and the tokenizer in a folder, as a pipeline takes them. Raises CheckpointError."""
    folder = Path(folder)
    try:
        encoder = AutoModel.from_pretrained(folder / "text_encoder", dtype="float32", use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:  # on a damaged folder, transformers raises almost anything
        raise CheckpointError(f"the text encoder in {folder} cannot be read: {first_line(error)}.") from error
    return {"text_encoder": encoder.eval().requires_grad_(False), "tokenizer": tokenizer}


def text_encoder_of(folder: str | Path) -> PromptEncoder:
    """The prompt encoder of a folder with a text encoder and a tokenizer. Raises CheckpointError."""
    return SmallPrompts(**components_of(folder))


def encoder_of(pipe: Any) -> PromptEncoder:
    """The prompt encoder of a pipeline."""
    return SmallPrompts(pipe.text_encoder, pipe.tokenizer)
