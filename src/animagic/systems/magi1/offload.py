"""Ways of a pipeline to need less memory, beyond what diffusers gives every pipeline."""

from __future__ import annotations

import gc
from typing import Any

import torch

from ...errors import InputError
from .prompts import TextEmbedding, encode_text


class Magi1OffloadMixin:
    """Ways of Magi1Pipeline to need less memory; none changes a frame."""

    transformer: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    # A table whose rows are read: nothing calls it, so no hook would bring it back.
    _exclude_from_cpu_offload = ["special_tokens"]

    kv_offload = False
    """Whether the keys and values of clean chunks lie in CPU memory."""

    def enable_kv_offload(self) -> None:
        """Keep the keys and values of clean chunks in CPU memory (pinned, with CUDA), and bring each layer's to the
        device while the layer before is at work. Where the device is the CPU itself, it only costs copies."""
        self.kv_offload = True

    def disable_kv_offload(self) -> None:
        """Keep the keys and values of clean chunks on the device of the transformer."""
        self.kv_offload = False

    def encode_ahead(self, *texts: str) -> None:
        """Encode prompts now: calls with these prompts need the text encoder no longer. Raises InputError."""
        for text in texts:
            self.encoded_texts[text] = self._encode([text])

    @property
    def encoded_texts(self) -> dict[str, TextEmbedding]:
        """What was encoded ahead, by its text; another pipeline of the same model may take it over."""
        return self.__dict__.setdefault("_encoded_texts", {})

    def drop_text_encoder(self) -> None:
        """Free the text encoder and its tokenizer; what was encoded ahead stays."""
        self.register_modules(text_encoder=None, tokenizer=None)  # type: ignore[attr-defined]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, texts: Any) -> TextEmbedding:
        """Texts as the transformer reads them; on the device where they were encoded."""
        known = [self.encoded_texts.get(text) for text in texts]
        if all(text is not None for text in known):
            return TextEmbedding(torch.cat([t.embeds for t in known if t]), torch.cat([t.mask for t in known if t]))
        if self.text_encoder is None or self.tokenizer is None:
            raise InputError(
                "this pipeline has no text encoder; pass prompt_embeds and prompt_embeds_mask, or call encode_ahead "
                "with every prompt before drop_text_encoder."
            )
        length = self.transformer.config.caption_max_length
        return encode_text(self.text_encoder, self.tokenizer, texts, length)

    def enable_group_offload(self, *arguments: Any, exclude_modules: Any = None, **named: Any) -> None:
        """As in diffusers (`DiffusionPipeline.enable_group_offload`), but for the table of special tokens."""
        excluded = [exclude_modules] if isinstance(exclude_modules, str) else list(exclude_modules or ())
        excluded += [name for name in self._exclude_from_cpu_offload if name in self.components]  # type: ignore[attr-defined]
        super().enable_group_offload(*arguments, exclude_modules=excluded, **named)  # type: ignore[misc]
