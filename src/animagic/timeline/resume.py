"""A run that is kept on disk while it goes on, so that it can be continued after an interruption."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import CheckpointError, InputError
from .engine import Clean


class RunFolder:
    """Keeps a run: the request, the state of the sampler, and every chunk of clean latents.

    every: seconds between saves of the state, besides one at every clean chunk.
    Raises: InputError for a folder that holds another request, CheckpointError for one that cannot be read.
    """

    def __init__(self, folder: str | Path, request: dict, every: float = 30.0):
        self.folder, self.every = Path(folder), every
        text = json.dumps(request, sort_keys=True)
        note = self.folder / "request.json"
        if note.exists():
            if note.read_text() != text:
                raise InputError(f"{self.folder} keeps a run with other settings; repeat those, or delete the folder.")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            note.write_text(text)
        self._saved = time.monotonic()

    def _write(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        # Under another name first: an interruption while writing leaves the older state whole.
        part = self.folder / f"{name}.part"
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part)
        part.replace(self.folder / name)

    def save_if_due(self, state: Callable[[], dict[str, torch.Tensor]]) -> None:
        """Save the state if the last save is long enough ago."""
        if time.monotonic() - self._saved >= self.every:
            self._write("state.safetensors", state())
            self._saved = time.monotonic()

    def save_clean(self, clean: Clean, state: dict[str, torch.Tensor]) -> None:
        """Keep a chunk, then the state after it."""
        self._write(f"clean-{clean.frames.start:08d}.safetensors", {"latents": clean.latents})
        self._write("state.safetensors", state)
        self._saved = time.monotonic()

    def load(self, device: torch.device) -> tuple[dict[str, torch.Tensor] | None, list[Clean]]:
        """The last state (None: nothing was kept yet) and the chunks that were clean by then."""
        path = self.folder / "state.safetensors"
        if not path.exists():
            return None, []
        try:
            state = load_file(path)
            done: list[Clean] = []
            frames = int(state["clean_frames"])
            for path in sorted(self.folder.glob("clean-*.safetensors")):
                if frames <= 0:
                    break  # written just before an interruption: the state does not know it yet
                latents = load_file(path)["latents"]
                start = int(path.stem.split("-")[1])
                done.append(Clean(range(start, start + latents.shape[2]), latents.to(device)))
                frames -= latents.shape[2]
        except (SafetensorError, KeyError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); delete {self.folder} and start again.") from error
        on_host = ("noise.", "steps_done", "clean_frames")
        moved = {k: v if any(part in k for part in on_host) else v.to(device) for k, v in state.items()}
        return moved, done

    def remove(self) -> None:
        """The run is finished: nothing needs to be kept."""
        shutil.rmtree(self.folder, ignore_errors=True)
