"""From layers of 16 or 32 bits to FP8: what they see is measured, then they are scaled; in memory or in a folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from ..errors import CheckpointError, InputError
from ..layers.fp8 import Fp8Linear
from ..media.files import atomic_path, check_writable
from .files import Weights, disk_errors, read_json
from .fit import changed_twin

Maxima = dict[str, Tensor]
"""The largest absolute value of each input channel, by the name of the layer."""

Network = TypeVar("Network", bound=nn.Module)


def check_quantizable(network: Any) -> None:
    """Raises InputError for a network that is quantised already. Its constructor takes `fp8`."""
    if network.config.fp8:
        raise InputError("the model is quantised already; give the one that it was made from.")


def fp8_layers(network: nn.Module) -> dict[str, Fp8Linear]:
    """The layers of a network that are FP8, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Fp8Linear)}


@contextmanager
def recorded_maxima(network: nn.Module) -> Iterator[Maxima]:
    """While it is open, every call of the network raises the maxima of the layers that FP8 is for."""
    maxima: Maxima = {}

    def recorder(name: str):
        def record(module, inputs) -> None:
            seen = inputs[0].detach().flatten(0, -2).abs().amax(dim=0).float()
            maxima[name] = torch.maximum(maxima[name], seen) if name in maxima else seen

        return record

    names = fp8_layers(changed_twin(network, fp8=True))
    hooks = [network.get_submodule(name).register_forward_pre_hook(recorder(name)) for name in names]
    try:
        yield maxima
    finally:
        for hook in hooks:
            hook.remove()


def measure_activations(
    pipe: Any,
    network: nn.Module,
    prompts: Sequence[str],
    num_frames: int | None = None,
    num_steps: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, Any], None] | None = None,
) -> Maxima:
    """Make a video of each prompt, and note what comes into the layers of a network that FP8 is for.

    Args:
        num_frames, num_steps: of each video; None: the model's own.
        on_progress: called with the index of the prompt, and the progress of the pipeline, after every step.
    Raises: CheckpointError if a layer sees numbers that are not finite.
    """
    with recorded_maxima(network) as maxima:
        for i, prompt in enumerate(prompts):
            chunks = pipe.stream(
                prompt,
                num_frames=num_frames,
                num_inference_steps=num_steps,
                generator=torch.Generator().manual_seed(seed + i),
                output_type="latent",
                on_progress=None if on_progress is None else partial(on_progress, i),
            )
            for _ in chunks:
                pass
    for name, values in maxima.items():
        if not values.isfinite().all():
            raise CheckpointError(f"{name} is given numbers that are not finite: the model is damaged.")
    return maxima


def quantize_network(network: Network, maxima: Maxima) -> Network:
    """A network in FP8; tensors that stay as they are are shared with it. maxima: of `recorded_maxima`.

    Raises: InputError for one that is quantised already.
    """
    check_quantizable(network)
    tensors, twin = network.state_dict(), changed_twin(network, fp8=True)
    for name, layer in fp8_layers(twin).items():
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


def quantize(
    pipe: Any,
    part: str,
    output: str | Path,
    prompts: Sequence[str],
    finish: Callable[[Any, Path, dict[str, Any]], None],
    **measurement: Any,
) -> Quantized:
    """Write the folder that a pipeline was loaded from once more, with a part in FP8; whole, or not at all.

    What is not quantised keeps the number format that it has on disk.

    Args:
        pipe: loaded from a folder or the hub; it is left as it is.
        output: a folder that does not exist yet, or an empty one.
        prompts, measurement: see `measure_activations`.
        finish: called with the network in FP8, the folder and the pipeline's index (model_index.json) before that is
            written.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    began, output, network = time.monotonic(), Path(output), getattr(pipe, part)
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise InputError("a prompt to measure with is empty, or there is none; give at least one, of words.")
    check_quantizable(network)
    check_writable(output, folder=True)
    source = folder_of(pipe)
    maxima = measure_activations(pipe, network, prompts, **measurement)
    entries = Weights.open(source / part, "diffusion_pytorch_model").entries
    dtype = next(entries[f"{name}.weight"].dtype for name in maxima)
    quantised: Any = quantize_network(type(network).from_pretrained(source / part, dtype=dtype), maxima)
    with atomic_path(output, folder=True) as folder, disk_errors(output):
        folder.mkdir(exist_ok=True)
        index = read_json(source / "model_index.json")
        for name, kept in index.items():
            if isinstance(kept, list) and name != part and (source / name).is_dir():
                shutil.copytree(source / name, folder / name, copy_function=shutil.copyfile)
        for file in (*source.glob("LICENSE*"), *source.glob("NOTICE*")):
            shutil.copyfile(file, folder / file.name)
        quantised.save_pretrained(folder / part)
        finish(quantised, folder, index)
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    after, before = (sum(x.stat().st_size for x in (root / part).glob("*.safetensors")) for root in (output, source))
    return Quantized(str(output), after, before, round(time.monotonic() - began, 3))


def folder_of(pipe: Any) -> Path:
    """Where a pipeline was loaded from. Raises InputError if it was put together from parts."""
    name = pipe.config.get("_name_or_path")
    if not name:
        raise InputError("this pipeline is on no disk; save it with save_pretrained, and load it from there.")
    return Path(name) if Path(name).is_dir() else Path(snapshot_download(name, local_files_only=True))
