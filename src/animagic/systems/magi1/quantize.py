"""From a MAGI-1 of 16 or 32 bits to the published FP8 layout."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError, InputError
from ...media.files import check_writable
from ...timeline import Progress
from ...weights import quantize as shared
from ...weights.files import Weights, write_shards
from ...weights.quantize import Maxima, Quantized
from .pipeline import Magi1Pipeline
from .transformer import Magi1Transformer3DModel

PROMPTS = (
    "a red ball bounces on a green floor",
    "a yellow boat slides right on the sea",
    "a woman with an umbrella walks through a busy street in the rain, close-up",
    "a grey cat jumps onto a wooden table in the morning light",
)


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


def recorded_maxima(transformer: Magi1Transformer3DModel) -> AbstractContextManager[Maxima]:
    """While it is open, every call of the transformer raises the maxima of the layers that FP8 is for."""
    return shared.recorded_maxima(transformer, [name for name, _ in shared.fp8_layers(empty_twin(transformer))])


def empty_twin(transformer: Magi1Transformer3DModel) -> Magi1Transformer3DModel:
    """The same network in FP8, on the meta device."""
    fields = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    with torch.device("meta"):
        return Magi1Transformer3DModel(**{**fields, "fp8": True})


def quantize_transformer(transformer: Magi1Transformer3DModel, maxima: Maxima) -> Magi1Transformer3DModel:
    """The transformer in FP8. Tensors that stay as they are are shared with the given one.

    Args:
        maxima: what `measure_activations` gives.
    Raises: InputError for a model that cannot be quantised.
    """
    check_quantizable(transformer)
    return shared.quantize_network(transformer.state_dict(), empty_twin(transformer), maxima)


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
    source = shared.folder_of(pipe)
    weights = source / "transformer"
    maxima = measure_activations(pipe, prompts, num_frames, num_steps, seed, on_progress)
    entries = Weights.open(weights, "diffusion_pytorch_model").entries
    dtype = next(entry.dtype for name, entry in entries.items() if ".layers." in name)
    stored: Any = Magi1Transformer3DModel.from_pretrained(weights, dtype=dtype)
    transformer = quantize_transformer(stored, maxima)

    def finish(folder: Path, index: dict[str, Any]) -> None:
        engine = (index.get("config") or {}).get("engine_config", {})
        if original:
            write_original(transformer, folder / f"inference_weight.fp8{'.distill' if engine.get('distill') else ''}")
        engine["fp8_quant"] = True

    return shared.write_quantized(source, output, "transformer", transformer, finish, began)


def write_original(transformer: Magi1Transformer3DModel, folder: Path) -> None:
    """The weights as MAGI-1 publishes them: shards under the original names, and their index."""
    tensors = transformer.state_dict()
    folder.mkdir()
    write_shards(tensors, tensors.items(), folder, "model", always_index=True)
