"""What numbers a file of weights and its configuration may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..wording import spell

_MOST_LAYERS, _MOST_WIDTH = 1000, 2**24
_COUNTS = ("layers", "depth", "blocks", "heads")
"""What stands in the names of fields that count modules, each of which is built."""


def check_sizes(config: Mapping[str, Any], source: Any) -> None:
    """Raises CheckpointError for a field whose number no network has: building it would fill the memory, or never
    end."""
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, (list, tuple)):
            waiting += ((name, one) for one in value)
        elif isinstance(value, int) and "seed" not in name:
            most = _MOST_LAYERS if any(part in name for part in _COUNTS) else _MOST_WIDTH
            if abs(value) > most:
                raise CheckpointError(f"{source}: {name} is {spell(value)}; {most} is the most that it can be.")


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds numbers only, no NaN and no infinity."""
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.dtype.itemsize == 1:
        return not tensor.float().isnan().any().item()
    # A sum is quick, and takes no memory; it is no number where one of its terms is none, and seldom otherwise.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def is_dense(value: Any) -> bool:
    """Whether it is a tensor that has all its numbers in memory: not sparse, not quantised, not without data."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_quantized or value.is_meta)
