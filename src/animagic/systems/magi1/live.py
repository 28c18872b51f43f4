"""Prompts that change while the video is made."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace

import torch

from ...errors import InputError
from .prompts import ChunkPrompts, TextEmbedding

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
        """What the chunks that have not begun yet are to show."""
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
    """The text of every chunk, asked from a source when the chunk begins; used in place of `ChunkPrompts`.

    Args:
        prompts: the text of the first chunk, and the rest of the settings.
        source: asked for the chunks after the first.
        encode: a text to its embedding, one a video of the batch, on the device of the others.
    """

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
        """Go on with what was said before an interruption."""
        kept = json.loads(bytes(state["live"].tolist()))
        for chunk, text in kept["said"].items():
            self._change(int(chunk), text)
        self._asked = kept["asked"]
