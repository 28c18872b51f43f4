"""The prompt of a job, which may change while its video is made."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..pipelines.options import VideoOptions


class JobPrompt:
    """A prompt that changes while the video is made, and survives a crash: what is said, and which chunk was begun
    last, is in a file before it counts. It is what `requests.generate` takes as `live`.

    Args:
        prompts: chunk -> text of the request.
        path: of the file.
        chunks: of the video; None: it has no end, or they are not known.
    """

    def __init__(self, prompts: dict[int, str], path: Path, chunks: int | None = None):
        kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self._path, self._lock = path, threading.Lock()
        self._asked: int = kept.get("asked", -1)
        self._later: dict[int, str] = {int(chunk): text for chunk, text in kept.get("said", {}).items()}
        self._prompts = prompts
        self._chunks = chunks

    def fit(self, chunks: int | None) -> None:
        """Take the number of chunks; None: the video has no end. Raises InputError for a prompt of none of them."""
        self._chunks = chunks
        for chunk in self.said:
            if chunk < 0 or (chunks is not None and chunk >= chunks):
                count = "no end" if chunks is None else chunks
                raise InputError(f"no prompt can begin at chunk {chunk}: the video has {count}, counted from 0.")

    @property
    def said(self) -> dict[int, str]:
        """Chunk -> text."""
        with self._lock:
            return dict(sorted((self._prompts | self._later).items()))

    def __call__(self, chunk: int) -> str | None:
        with self._lock:
            if chunk > self._asked:
                self._asked = chunk
                self._keep()
            return (self._prompts | self._later).get(chunk)

    def set(self, text: str, chunk: int | None = None) -> int:
        """Say another prompt from a chunk on; None: from the next one that is not begun. Returns the chunk.

        Raises: InputError for an empty text, and for a chunk that is begun or will not be made.
        """
        if not text.strip():
            raise InputError("the prompt is empty; say what the video should show.")
        with self._lock:
            first = self._asked + 1
            chunk = first if chunk is None else chunk
            if chunk < first:
                raise InputError(f"chunk {chunk} is begun already; a prompt can change from chunk {first} on.")
            if self._chunks is not None and chunk >= self._chunks:
                raise InputError(f"the video has {self._chunks} chunks, counted from 0: none is left to begin.")
            self._later[chunk] = text.strip()
            self._keep()
            return chunk

    def _keep(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"asked": self._asked, "said": self._later}), "utf-8")
        part.replace(self._path)


def planned_chunks(request: VideoOptions) -> int | None:
    """Chunks of the video of a request, as far as it says them itself."""
    from ..requests import is_original, job_for

    if request.frames is None or request.endless or is_original(request.model):
        return None
    plan, _ = job_for(request).drawn_plan(None)
    return getattr(plan, "num_chunks", None)
