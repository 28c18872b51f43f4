"""From a MAGI-1 of 16 or 32 bits to the published FP8 layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...weights import quantize as shared
from ...weights.files import write_shards
from ...weights.quantize import Quantized
from .pipeline import Magi1Pipeline
from .transformer import Magi1Transformer3DModel

PROMPTS = (
    "a red ball bounces on a green floor",
    "a yellow boat slides right on the sea",
    "a woman with an umbrella walks through a busy street in the rain, close-up",
    "a grey cat jumps onto a wooden table in the morning light",
)


def check_quantizable(transformer: Magi1Transformer3DModel) -> None:
    """Raises InputError for a model that is quantised already, or too small."""
    shared.check_quantizable(transformer)
    if transformer.config.num_layers < 3:
        raise InputError(
            f"the transformer has {transformer.config.num_layers} layers; at least 3 are needed, because the first and "
            "the last are never quantised."
        )


def quantize(
    pipe: Magi1Pipeline,
    output: str | Path,
    prompts: Sequence[str] = PROMPTS,
    *,
    original: bool = False,
    **measurement: Any,
) -> Quantized:
    """Write the folder that a pipeline was loaded from once more, with its transformer in FP8; whole, or not at all.

    Args:
        prompts, measurement: see `weights.quantize.quantize`.
        original: also write the weights as MAGI-1 publishes them, to `output/inference_weight.fp8[.distill]`.
    Raises: InputError, CheckpointError, MediaError; KeyboardInterrupt passes through.
    """
    check_quantizable(pipe.transformer)

    def finish(transformer: Magi1Transformer3DModel, folder: Path, index: dict[str, Any]) -> None:
        engine = (index.get("config") or {}).get("engine_config", {})
        if original:
            published = folder / f"inference_weight.fp8{'.distill' if engine.get('distill') else ''}"
            published.mkdir()
            tensors = transformer.state_dict()
            write_shards(tensors, tensors.items(), published, "model", always_index=True)
        engine["fp8_quant"] = True

    return shared.quantize(pipe, "transformer", output, prompts, finish, **measurement)
