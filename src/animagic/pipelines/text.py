"""What networks read: embeddings of texts with a mask, encoded at once, ahead of a call, or while a video is made."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import empty_device_cache

from ..errors import InputError

PromptSource = Callable[[int], str | None]
"""Asked once for every chunk, in order, when it begins: its prompt, or None for no change."""


class LivePrompt:
    """A prompt that can be set from another thread while `pipe.stream(prompt=...)` runs; the next chunk reads it.

    `said` maps each chunk at which the prompt changed to its text, so that the same video can be made again.
    Raises: InputError for an empty text.
    """

    def __init__(self, text: str):
        self._lock = threading.Lock()
        self.said: dict[int, str] = {}
        self.set(text)

    def set(self, text: str) -> None:
        """Change the prompt of the chunks that have not begun yet."""
        if not text.strip():
            raise InputError("the prompt is empty; say what the video should show.")
        with self._lock:
            self._text, self._new = text.strip(), True

    def remember(self, said: Mapping[int, str]) -> None:
        """Take up what was said before an interruption."""
        with self._lock:
            self.said |= said

    def __call__(self, chunk: int) -> str | None:
        with self._lock:
            if not self._new and chunk:
                return None
            self._new = False
            self.said[chunk] = self._text
            return self._text


@dataclass(frozen=True)
class TextEmbedding:
    """embeds (batch, length, channels), mask (batch, length): 1 where there is text."""

    embeds: torch.Tensor
    mask: torch.Tensor

    def prepend(self, row: torch.Tensor) -> TextEmbedding:
        """One more token in front; the length stays."""
        batch, length = self.mask.shape
        row = row.to(self.embeds).expand(batch, 1, -1)
        mask = torch.cat([torch.ones_like(self.mask[:, :1]), self.mask], dim=1)
        return TextEmbedding(torch.cat([row, self.embeds], dim=1)[:, :length], mask[:, :length])

    def repeated(self, count: int) -> TextEmbedding:
        """Each prompt `count` times, for several videos a prompt."""
        return TextEmbedding(self.embeds.repeat_interleave(count, 0), self.mask.repeat_interleave(count, 0))

    def mixed(self, other: TextEmbedding, share: float) -> TextEmbedding:
        """Interpolated with another text; tokens that only one has stay as they are."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        a, b = self.padded(length), other.padded(length)
        mine, both = (a.mask != 0)[..., None], ((a.mask != 0) & (b.mask != 0))[..., None]
        embeds = torch.where(both, torch.lerp(a.embeds, b.embeds, share), torch.where(mine, a.embeds, b.embeds))
        return TextEmbedding(embeds, torch.maximum(a.mask, b.mask))

    def padded(self, length: int) -> TextEmbedding:
        more = length - self.mask.shape[1]
        return TextEmbedding(F.pad(self.embeds, (0, 0, 0, more)), F.pad(self.mask, (0, more)))

    def to(self, device: torch.device) -> TextEmbedding:
        return TextEmbedding(self.embeds.to(device), self.mask.to(device))

    def trimmed(self, spare: int = 0) -> TextEmbedding:
        """Without the padding that no sample of the batch uses, except `spare` tokens."""
        used = (self.mask != 0).any(0).nonzero()
        length = min((int(used[-1]) + 1 if len(used) else 1) + spare, self.mask.shape[1])
        return TextEmbedding(self.embeds[:, :length], self.mask[:, :length])


def clean_caption(text: str) -> str:
    """A caption as in the training of the published T5, by diffusers' cleaner of DeepFloyd IF."""
    from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline

    return IFPipeline._clean_caption(IFPipeline, text)


def encode_text(text_encoder, tokenizer, prompts: Sequence[str], max_length: int) -> TextEmbedding:
    """Embed prompts with any transformers encoder, in float32, padded to `max_length`. Raises InputError."""
    prompts = [prompt.strip() for prompt in prompts]
    if not all(prompts):
        raise InputError("the prompt is empty; say what the video should show.")
    if "t5" in type(text_encoder).__name__.lower():
        prompts = [clean_caption(clean_caption(prompt)) for prompt in prompts]
    tokens = tokenizer(list(prompts), max_length=max_length, padding="max_length", truncation=True, return_tensors="pt")
    # Run on the used length only: the padding would be masked out anyway.
    used = max(int(tokens.attention_mask.sum(1).max()), 1)
    if text_encoder.device.type != "meta":  # else its weights are brought in by hooks, which move the tokens as well
        tokens = tokens.to(text_encoder.device)
    with torch.no_grad():
        states = text_encoder(tokens.input_ids[:, :used], attention_mask=tokens.attention_mask[:, :used])
    return TextEmbedding(states.last_hidden_state.float(), tokens.attention_mask[:, :used]).padded(max_length)


class TextMixin:
    """Of a pipeline with one text encoder: the texts that it encodes, also ahead of its calls."""

    text_encoder: Any
    tokenizer: Any

    @property
    def text_length(self) -> int:
        """Tokens of a text; longer ones are cut off."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> TextEmbedding:
        """Embeddings of texts, on the device where they were encoded. Raises InputError."""
        known = [self.encoded_texts[text] for text in texts if text in self.encoded_texts]
        if len(known) == len(texts):
            return TextEmbedding(torch.cat([text.embeds for text in known]), torch.cat([text.mask for text in known]))
        if self.text_encoder is None or self.tokenizer is None:
            raise InputError(
                "this pipeline has no text encoder; pass prompt_embeds and prompt_embeds_mask, or call encode_ahead "
                "with every prompt before drop_text_encoder."
            )
        return encode_text(self.text_encoder, self.tokenizer, texts, self.text_length)

    def encode_ahead(self, *texts: str) -> None:
        """Encode prompts now; calls with them no longer need the text encoder. Raises InputError."""
        for text in texts:
            self.encoded_texts[text] = self.encode_texts([text])

    @property
    def encoded_texts(self) -> dict[str, TextEmbedding]:
        """The embeddings of `encode_ahead`, by text; another pipeline of the same model may use them."""
        return self.__dict__.setdefault("_encoded_texts", {})

    def drop_text_encoder(self) -> None:
        """Free the text encoder and its tokenizer; `encoded_texts` stay."""
        self.register_modules(text_encoder=None, tokenizer=None)  # type: ignore[attr-defined]
        gc.collect()
        empty_device_cache()
