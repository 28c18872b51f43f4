"""From layers of 16 or 32 bits to FP8: what they see is measured, then they are scaled; in memory or in a folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from ..errors import InputError
from ..layers.fp8 import Fp8Linear
from ..media.files import atomic_path
from .files import disk_errors, read_json

Maxima = dict[str, Tensor]
"""The largest absolute value of each input channel, by the name of the layer."""

Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def recorded_maxima(network: nn.Module, names: Iterable[str]) -> Iterator[Maxima]:
    """While it is open, every call of the network raises the maxima of the layers of these names."""
    maxima: Maxima = {}

    def recorder(name: str):
        def record(module, inputs) -> None:
            seen = inputs[0].detach().flatten(0, -2).abs().amax(dim=0).float()
            maxima[name] = torch.maximum(maxima[name], seen) if name in maxima else seen

        return record

    hooks = [network.get_submodule(name).register_forward_pre_hook(recorder(name)) for name in names]
    try:
        yield maxima
    finally:
        for hook in hooks:
            hook.remove()


def fp8_layers(network: nn.Module) -> list[tuple[str, Fp8Linear]]:
    """The names and layers of a network that are FP8."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, Fp8Linear)]


def quantize_network(weights: Mapping[str, Tensor], twin: Network, maxima: Maxima) -> Network:
    """The `twin` of a network, some of whose layers are FP8, filled from the weights of that network.

    Tensors that stay as they are are shared. twin: on the meta device. maxima: of `recorded_maxima`.
    """
    tensors = dict(weights)
    for name, layer in fp8_layers(twin):
        smoothed = layer.smooth_scale is not None
        scaled = Fp8Linear.from_float(tensors.pop(f"{name}.weight"), maxima[name], smoothed)
        tensors |= {f"{name}.{key}": value for key, value in scaled.state_dict().items()}
    twin.load_state_dict(tensors, assign=True)
    return twin.eval()


@dataclass(frozen=True)
class Quantized:
    """The result of a quantisation. bytes, bytes_before: of the part's weights on disk."""

    output: str
    bytes: int
    bytes_before: int
    seconds: float


def write_quantized(
    source: Path, output: Path, part: str, network: Any, finish: Callable[[Path, dict[str, Any]], None], began: float
) -> Quantized:
    """Copy the folder of a pipeline with another network in place of a part; whole, or not at all.

    Args:
        finish: called with the folder and the pipeline's index (model_index.json) before that is written.
        began: `time.monotonic()` when the work began.
    Raises: MediaError.
    """
    with atomic_path(output, folder=True) as folder, disk_errors(output):
        folder.mkdir()
        index = read_json(source / "model_index.json")
        for name, kept in index.items():
            if isinstance(kept, list) and name != part and (source / name).is_dir():
                shutil.copytree(source / name, folder / name, copy_function=shutil.copyfile)
        for file in (*source.glob("LICENSE*"), *source.glob("NOTICE*")):
            shutil.copyfile(file, folder / file.name)
        network.save_pretrained(folder / part)
        finish(folder, index)
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    after, before = (_bytes_of(root / part) for root in (output, source))
    return Quantized(str(output), after, before, round(time.monotonic() - began, 3))


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def folder_of(pipe: Any) -> Path:
    """Where a pipeline was loaded from. Raises InputError if it was put together from parts."""
    name = pipe.config.get("_name_or_path")
    if not name:
        raise InputError("this pipeline is on no disk; save it with save_pretrained, and load it from there.")
    return Path(name) if Path(name).is_dir() else Path(snapshot_download(name, local_files_only=True))
