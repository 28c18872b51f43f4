"""A run that is kept on disk while it goes on, so that it can be continued after an interruption."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..errors import CheckpointError, InputError
from ..media.keeping import RunPlace
from .engine import Clean

NOTE, STATE = "request.json", "state.safetensors"
"""Files of a kept run: what was asked for, and how far it is."""


class RunFolder:
    """Keeps a run: the request, the state of the sampler, and every chunk of clean latents.

    every: seconds between saves of the state, besides one at every clean chunk.
    Raises: InputError for a folder that holds another request, CheckpointError for one that cannot be read.
    """

    def __init__(self, folder: str | Path, request: dict, every: float = 30.0):
        self.folder, self.every = Path(folder), every
        self._place = RunPlace(self.folder, (STATE, "clean-*.safetensors", "*.part"), NOTE)
        note, wanted = self.folder / NOTE, json.dumps(request, sort_keys=True).encode()
        kept = note.read_bytes() if note.exists() else b""
        if kept != wanted:
            if (self.folder / STATE).exists() or is_whole(kept):
                raise InputError(f"{self.folder} keeps a run with other settings; repeat those, or delete the folder.")
            self._place.write(NOTE, lambda new: new.write_bytes(wanted))
        self._saved = time.monotonic()

    def held(self) -> AbstractContextManager[None]:
        """While no other process uses the folder. Raises: InputError if one does."""
        return self._place.held()

    def _write(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        kept = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        self._place.write(name, lambda new: save_file(kept, new, {_DIGEST: _digest(kept)}))

    def save_if_due(self, state: Callable[[], dict[str, torch.Tensor]]) -> None:
        """Save the state if the last save is long enough ago."""
        if time.monotonic() - self._saved >= self.every:
            self._write(STATE, state())
            self._saved = time.monotonic()

    def save_clean(self, clean: Clean, state: dict[str, torch.Tensor]) -> None:
        """Keep a chunk, then the state after it."""
        self._write(f"clean-{clean.frames.start:08d}.safetensors", {"latents": clean.latents})
        self._write(STATE, state)
        self._saved = time.monotonic()

    def load(self, device: torch.device) -> tuple[dict[str, torch.Tensor] | None, list[Clean]]:
        """The last state (None: nothing was kept yet) and the chunks that were clean by then."""
        path = self.folder / STATE
        if not path.exists():
            return None, []
        try:
            state = _load(path)
            frames = int(state["clean_frames"])
            done: list[Clean] = []
            for path in sorted(self.folder.glob("clean-*.safetensors")):
                if frames <= 0:
                    break  # written just before an interruption: the state does not know it yet
                latents = _load(path)["latents"]
                start = int(path.stem.split("-")[1])
                if done and start != done[-1].frames.stop:
                    raise ValueError(f"the chunk before {path.name} is missing")
                done.append(Clean(range(start, start + latents.shape[2]), latents.to(device)))
                frames -= latents.shape[2]
            if frames > 0:
                raise ValueError("a chunk that was finished is missing")
        except (SafetensorError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); delete {self.folder} and start again.") from error
        on_host = ("noise.", "steps_done", "clean_frames")
        moved = {k: v if any(part in k for part in on_host) else v.to(device) for k, v in state.items()}
        return moved, done

    def remove(self) -> None:
        """The run is finished: nothing of it needs to be kept."""
        self._place.remove()


_DIGEST = "sha256"


def _load(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, as they were written. Raises ValueError for others."""
    with safe_open(path, "pt") as file:
        digest = (file.metadata() or {}).get(_DIGEST)
    tensors = load_file(path)
    if digest is not None and digest != _digest(tensors):  # earlier versions wrote no digest
        raise ValueError("it is not as it was written")
    return tensors


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_whole(note: bytes) -> bool:
    """Whether the note of a kept run was written to its end."""
    try:
        return isinstance(json.loads(note), dict)
    except (ValueError, RecursionError):
        return False
