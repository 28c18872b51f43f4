"""From a MAGI-1 of 16 or 32 bits to the published FP8 layout: what the layers see is measured, then they are scaled."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download, split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file

from ...errors import CheckpointError, InputError, MediaError
from ...media.files import atomic_path, check_writable
from ...quantization.fp8 import Fp8Linear
from ...shards import Weights
from ...timeline import Progress
from .pipeline import Magi1Pipeline
from .transformer import Magi1Transformer3DModel

PROMPTS = (
    "a red ball bounces on a green floor",
    "a yellow boat slides right on the sea",
    "a woman with an umbrella walks through a busy street in the rain, close-up",
    "a grey cat jumps onto a wooden table in the morning light",
)

Maxima = dict[str, torch.Tensor]
"""The largest absolute value of each input channel, by the name of the layer."""


def measure_activations(
    pipe: Magi1Pipeline,
    prompts: Sequence[str] = PROMPTS,
    num_frames: int | None = None,
    num_steps: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int, Progress], None] | None = None,
) -> Maxima:
    """Make a video of each prompt, and note what comes into the layers that FP8 is for.

    Args:
        num_frames, num_steps: of each video; None: the model's own.
        on_progress: called with the index of the prompt after every step.
    Raises: InputError for a model that cannot be quantised, CheckpointError if a layer sees numbers that are not
        finite.
    """
    check_quantizable(pipe.transformer)
    with recorded_maxima(pipe.transformer) as maxima:
        for i, prompt in enumerate(prompts):
            chunks = pipe.stream(
                prompt,
                num_frames=num_frames,
                num_inference_steps=num_steps,
                generator=torch.Generator().manual_seed(seed + i),
                output_type="latent",
                on_progress=None if on_progress is None else lambda progress, i=i: on_progress(i, progress),  # type: ignore[misc]
            )
            for _ in chunks:
                pass
    for name, values in maxima.items():
        if not values.isfinite().all():
            raise CheckpointError(f"{name} is given numbers that are not finite: the model is damaged.")
    return maxima


def check_quantizable(transformer: Magi1Transformer3DModel) -> None:
    """Raises InputError for a model that is quantised already, or too small."""
    if transformer.config.fp8:
        raise InputError("the model is quantised already; give the one that it was made from.")
    if transformer.config.num_layers < 3:
        raise InputError(
            f"the transformer has {transformer.config.num_layers} layers; at least 3 are needed, because the first and "
            "the last are never quantised."
        )


@contextmanager
def recorded_maxima(transformer: Magi1Transformer3DModel) -> Iterator[Maxima]:
    """While it is open, every call of the transformer raises the maxima of its layers."""
    maxima: Maxima = {}

    def recorder(name: str):
        def record(module, inputs) -> None:
            seen = inputs[0].detach().flatten(0, -2).abs().amax(dim=0).float()
            maxima[name] = torch.maximum(maxima[name], seen) if name in maxima else seen

        return record

    hooks = [
        transformer.get_submodule(name).register_forward_pre_hook(recorder(name))
        for name, _ in fp8_layers(empty_twin(transformer))
    ]
    try:
        yield maxima
    finally:
        for hook in hooks:
            hook.remove()


def empty_twin(transformer: Magi1Transformer3DModel) -> Magi1Transformer3DModel:
    """The same network in FP8, on the meta device."""
    fields = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    with torch.device("meta"):
        return Magi1Transformer3DModel(**{**fields, "fp8": True})


def fp8_layers(transformer: Magi1Transformer3DModel) -> list[tuple[str, Fp8Linear]]:
    return [(name, module) for name, module in transformer.named_modules() if isinstance(module, Fp8Linear)]


def quantize_transformer(transformer: Magi1Transformer3DModel, maxima: Maxima) -> Magi1Transformer3DModel:
    """The transformer in FP8. Tensors that stay as they are are shared with the given one.

    Args:
        maxima: what `measure_activations` gives.
    Raises: InputError for a model that cannot be quantised.
    """
    check_quantizable(transformer)
    quantized, weights = empty_twin(transformer), dict(transformer.state_dict())
    for name, layer in fp8_layers(quantized):
        smoothed = layer.smooth_scale is not None
        scaled = Fp8Linear.from_float(weights.pop(f"{name}.weight"), maxima[name], smoothed)
        weights |= {f"{name}.{key}": value for key, value in scaled.state_dict().items()}
    quantized.load_state_dict(weights, assign=True)
    return quantized.eval()


@dataclass(frozen=True)
class Quantized:
    """What came out. bytes, bytes_before: of the transformer's weights on disk."""

    output: str
    bytes: int
    bytes_before: int
    seconds: float


def quantize(
    pipe: Magi1Pipeline,
    output: str | Path,
    prompts: Sequence[str] = PROMPTS,
    *,
    num_frames: int | None = None,
    num_steps: int | None = None,
    seed: int = 0,
    original: bool = False,
    on_progress: Callable[[int, Progress], None] | None = None,
) -> Quantized:
    """Write the folder that a pipeline was loaded from once more, with its transformer in FP8; whole, or not at all.

    What is not quantised keeps the number format that it has on disk.

    Args:
        pipe: loaded from a folder or the hub; it is left as it is.
        output: a folder that does not exist yet, or an empty one.
        prompts, num_frames, num_steps, seed, on_progress: of the measurement, see `measure_activations`.
        original: also write the weights as MAGI-1 publishes them, to `output/inference_weight.fp8[.distill]`.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    began, output = time.monotonic(), Path(output)
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise InputError("a prompt to measure with is empty, or there is none; give at least one, of words.")
    check_quantizable(pipe.transformer)
    check_writable(output, folder=True)
    source = folder_of(pipe)
    weights = source / "transformer"
    maxima = measure_activations(pipe, prompts, num_frames, num_steps, seed, on_progress)
    stored: Magi1Transformer3DModel = Magi1Transformer3DModel.from_pretrained(weights, dtype=stored_dtype(weights))
    transformer = quantize_transformer(stored, maxima)
    with atomic_path(output, folder=True) as folder:
        folder.mkdir()
        settings = copy_around(source, folder)
        try:
            transformer.save_pretrained(folder / "transformer")
            if original:
                distilled = ".distill" if settings.get("engine_config", {}).get("distill") else ""
                write_original(transformer, folder / f"inference_weight.fp8{distilled}")
        except SafetensorError as error:
            full = "No space left" in str(error)
            reason = "the disk is full, so free some space and try again" if full else str(error)
            raise MediaError(f"{output} cannot be written: {reason}.") from error
    return Quantized(
        output=str(output),
        bytes=_bytes_of(output / "transformer"),
        bytes_before=_bytes_of(weights),
        seconds=round(time.monotonic() - began, 3),
    )


def folder_of(pipe: Magi1Pipeline) -> Path:
    """Where a pipeline was loaded from. Raises InputError if it was put together from parts."""
    name = pipe.config.get("_name_or_path")
    if not name:
        raise InputError("this pipeline is on no disk; save it with save_pretrained, and load it from there.")
    return Path(name) if Path(name).is_dir() else Path(snapshot_download(name, local_files_only=True))


def copy_around(source: Path, folder: Path) -> dict[str, Any]:
    """Copy a pipeline folder, all but its transformer; returns its settings, which now say that it is quantised."""
    index = json.loads((source / "model_index.json").read_text("utf-8"))
    for name, part in index.items():
        if isinstance(part, list) and name != "transformer" and (source / name).is_dir():
            shutil.copytree(source / name, folder / name, copy_function=shutil.copyfile)
    for file in (*source.glob("LICENSE*"), *source.glob("NOTICE*")):
        shutil.copyfile(file, folder / file.name)
    settings = index.get("config") or {}
    if "engine_config" in settings:
        settings["engine_config"]["fp8_quant"] = True
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return settings


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def stored_dtype(folder: Path) -> torch.dtype:
    """The number format of the blocks in a transformer folder; raises CheckpointError."""
    entries = Weights.open(folder, "diffusion_pytorch_model").entries
    return next(entry.dtype for name, entry in entries.items() if ".layers." in name)


def write_original(transformer: Magi1Transformer3DModel, folder: Path) -> None:
    """The weights as MAGI-1 publishes them: shards under the original names, and their index."""
    tensors = {name: tensor.contiguous() for name, tensor in transformer.state_dict().items()}
    plan = split_torch_state_dict_into_shards(tensors, filename_pattern="model{suffix}.safetensors")
    folder.mkdir()
    for file, names in plan.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
    size = sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": plan.tensor_to_filename}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
