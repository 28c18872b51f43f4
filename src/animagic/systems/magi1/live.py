"""The prompts of the pipeline, also those that change while the video is made."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...errors import InputError
from .prompts import ChunkPrompts, TextEmbedding, encode_text, negative_caption, null_caption

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

    def __call__(self, chunk: int) -> str | None:
        with self._lock:
            if not self._new and chunk:
                return None
            self._new = False
            self.said[chunk] = self._text
            return self._text


class LivePrompts:
    """`ChunkPrompts` whose later prompts come from a source, asked when a chunk begins."""

    def __init__(self, prompts: ChunkPrompts, source: PromptSource, encode: Callable[[str], TextEmbedding]):
        self.prompts, self._source, self._encode = prompts, source, encode
        self._asked = 0  # the last chunk that was asked for
        self._said: dict[int, str] = {}

    @property
    def null(self) -> TextEmbedding:
        return self.prompts.null

    def at(self, chunk: int) -> TextEmbedding:
        while self._asked < chunk:
            self._asked += 1
            text = self._source(self._asked)
            if text is not None and text.strip():
                self._change(self._asked, text)
        return self.prompts.at(chunk)

    def _change(self, chunk: int, text: str) -> None:
        self._said[chunk] = text
        self.prompts = replace(self.prompts, prompts=(*self.prompts.prompts, (chunk, self._encode(text))))

    def state_dict(self) -> dict[str, torch.Tensor]:
        text = json.dumps({"asked": self._asked, "said": self._said})
        return {"live": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        kept = json.loads(bytes(state["live"].tolist()))
        for chunk, text in kept["said"].items():
            self._change(int(chunk), text)
        self._asked = kept["asked"]


class Magi1PromptMixin:
    """The prompts of Magi1Pipeline: encoded at once, ahead of its calls, or while it makes the video."""

    transformer: Any
    text_encoder: Any
    tokenizer: Any
    special_tokens: Any
    _execution_device: torch.device

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        num_chunks: int | None = None,
        *,
        prompts_at: dict[int, str] | None = None,
        negative_prompt: str | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_mask: torch.Tensor | None = None,
        num_videos_per_prompt: int = 1,
        special_tokens: Sequence[str] = (),
        negative_special_tokens: Sequence[str] = (),
        hand_over: int = 0,
    ) -> ChunkPrompts:
        """The text of every chunk. Raises InputError.

        Args:
            prompt: one text, or one a video of the batch.
            prompts_at: chunk -> text that holds from there on, for every video of the batch.
            negative_prompt: in place of the learned null caption.
            prompt_embeds, prompt_embeds_mask: (batch, length, channels), (batch, length) in place of `prompt`.
            special_tokens, negative_special_tokens: names of tokens in front of every prompt, and of the null caption.
        """
        if prompt_embeds is not None:
            if prompt is not None:
                raise InputError("give either prompt or prompt_embeds, not both.")
            if prompt_embeds_mask is None:
                raise InputError("prompt_embeds needs its prompt_embeds_mask.")
            first = TextEmbedding(prompt_embeds, prompt_embeds_mask)
        elif prompt is not None:
            first = self._encode([prompt] if isinstance(prompt, str) else prompt)
        else:
            raise InputError("give a prompt: say what the video should show.")
        batch, prompts = len(first.mask), {0: first}
        for chunk, text in sorted((prompts_at or {}).items()):
            if chunk < 0:
                raise InputError(f"a prompt cannot begin at chunk {chunk}; chunks count from 0.")
            prompts[chunk] = self._encode([text] * batch)
        if negative_prompt is not None and negative_prompt.strip():
            null = self._encode([negative_prompt] * batch)
        else:
            null = null_caption(self.transformer.y_embedder(), batch)
        null = negative_caption(null, negative_special_tokens, self.special_tokens)
        return ChunkPrompts(
            prompts=tuple((c, text.repeated(num_videos_per_prompt)) for c, text in prompts.items()),
            null=null.repeated(num_videos_per_prompt),
            special=tuple(special_tokens),
            table=self.special_tokens,
            num_chunks=num_chunks,
            hand_over=hand_over,
        ).to(self._execution_device)

    def _live(self, prompts: ChunkPrompts, source: PromptSource, enhancer, batch: int, videos: int) -> LivePrompts:
        def encode(text: str) -> TextEmbedding:
            text = text if enhancer is None else enhancer(text)
            embedding = self._encode([text] * batch).repeated(videos).to(self._execution_device)
            return embedding.trimmed(spare=len(prompts.special))

        return LivePrompts(prompts, source, encode)

    def encode_ahead(self, *texts: str) -> None:
        """Encode prompts now; calls with them no longer need the text encoder. Raises InputError."""
        for text in texts:
            self.encoded_texts[text] = self._encode([text])

    @property
    def encoded_texts(self) -> dict[str, TextEmbedding]:
        """The embeddings of `encode_ahead`, by text; another pipeline of the same model may use them."""
        return self.__dict__.setdefault("_encoded_texts", {})

    def drop_text_encoder(self) -> None:
        """Free the text encoder and its tokenizer; `encoded_texts` stay."""
        self.register_modules(text_encoder=None, tokenizer=None)  # type: ignore[attr-defined]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, texts: Any) -> TextEmbedding:
        """Embeddings of texts, on the device where they were encoded."""
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
