"""Models that stay loaded between jobs, within a budget of memory."""

from __future__ import annotations

import gc
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ..pipelines.memory import Fit, Techniques, process_bytes
from ..pipelines.options import VideoOptions
from ..requests import is_original, job_for, system_of


def bytes_of(pipe: Any) -> int:
    """Bytes of a pipeline's weights."""
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return sum(tensor.nbytes for part in modules for tensor in (*part.parameters(), *part.buffers()))


def weights_of(request: VideoOptions, inputs: Path) -> str:
    """What is loaded for a request: its model, and files that are neither inputs nor LoRAs, which are only put on."""
    files = [
        (field, called, path)
        for field, called, path in request.files()
        if not field.endswith("loras") and inputs not in Path(path).parents
    ]
    return json.dumps([request.model, request.settings, getattr(request, "entry", 0), files])


class WarmModels:
    """Pipelines that stay loaded; those that were not used for the longest time go when memory is needed.

    Args:
        device: None: the best there is.
        memory: bytes that they may take together, with what making a video takes; None: one is kept, and any video
            is tried.
    """

    def __init__(self, device: str | None, memory: int | None):
        self.device, self.memory = device, memory
        self._warm: OrderedDict[str, Any] = OrderedDict()
        self._process = process_bytes()  # now, without a model

    def fit(self, request: VideoOptions, live: Any) -> Fit | None:
        """How a video is made to fit; None: nobody says how much memory there is, or it cannot be predicted.

        Raises: InputError if it does not fit.
        """
        if self.memory is None or is_original(request.model) or "memory" not in system_of(request.model).rooms:
            return None
        return job_for(request, live).fit(self.memory, self.device, self._process)

    def get(self, request: VideoOptions, inputs: Path, live: Any, fitted: Fit | None) -> Any:
        """The pipeline of a request. Raises: as `requests.pipeline_for`."""
        plain = fitted is None or fitted.techniques == Techniques(tiling=request.tiling)
        key = weights_of(request, inputs) if plain else ""
        self._make_room(None if fitted is None else fitted.prediction.peak, key)
        if key in self._warm:
            self._warm.move_to_end(key)
            return self._warm[key]
        pipe = job_for(request, live).load(self.device, False, None if plain else fitted)
        if plain:  # else its text encoder may be gone, and its weights elsewhere
            self._warm[key] = pipe
        return pipe

    def _make_room(self, needed: int | None, key: str) -> None:
        """Let models go until so many bytes are left beside the others; None: until there is no other."""
        others = [name for name in self._warm if name != key]
        while others:
            taken = sum(bytes_of(self._warm[name]) for name in others)
            if needed is not None and self.memory is not None and needed + taken <= self.memory:
                return
            del self._warm[others.pop(0)]
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
