"""Loading a model so that a video fits into a given amount of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import dtype_on, folder_of, load, names, resolve

if TYPE_CHECKING:
    from ..systems.magi1.memory import Prediction, Techniques


@dataclass(frozen=True)
class Fit:
    """What is done so that a video fits, and what that costs."""

    model: str
    budget: int
    techniques: Techniques
    prediction: Prediction

    def __str__(self) -> str:
        prediction = self.prediction
        cost = (
            f"{prediction.seconds + prediction.extra:.3g} s a chunk, {prediction.factor:.2f} times as long as without"
        )
        return f"{prediction.peak / 1e9:.2f} of {self.budget / 1e9:.2f} GB: {self.techniques} (about {cost})"


def fit(
    model: str,
    budget: int,
    device: str,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    num_steps: int | None = None,
    *,
    drop_text: bool = True,
    tiling: bool = False,
) -> Fit:
    """Choose what makes a video fit into `budget` bytes on a device.

    Args:
        model: what `zoo.load` takes; height, width, num_frames, num_steps: None: the model's own.
        drop_text: whether the text encoder may go before the video is made.
        tiling: whether the autoencoder works in tiles anyway.
    Raises: InputError, CheckpointError.
    """
    import torch

    from ..systems.magi1.memory import Predictor, measure_speed, plan_memory
    from .sizes import networks_of

    if model.endswith(".json"):
        raise InputError(f"a budget of memory needs a model folder; make one from {model} with animagic convert.")
    if model not in names():
        model = str(folder_of(model))
    kind = torch.device(device).type
    dtype = dtype_on(model, device)
    speed = measure_speed(device, dtype)
    predictor = Predictor(
        networks_of(model, dtype), height, width, num_frames, num_steps, device=kind, speed=speed, tight=True
    )
    return Fit(model, budget, *plan_memory(budget, predictor, drop_text=drop_text, tiling=tiling))


def load_fitting(fitted: Fit, device: str, texts: Sequence[str]) -> Any:
    """The pipeline of a model on a device, made to fit. texts: every prompt that will be asked for."""
    import torch

    from ..systems.magi1.memory import give_back_freed_memory
    from ..systems.magi1.prompts import encode_text
    from ..systems.magi1.transformer import Magi1Transformer3DModel

    techniques, model, dtype = fitted.techniques, fitted.model, dtype_on(fitted.model, device)
    if device == "cpu":
        give_back_freed_memory()
    encoded = {}
    if techniques.text != "keep":
        length = Magi1Transformer3DModel.load_config(resolve(model), subfolder="transformer")["caption_max_length"]
        reader: Any = load(model, transformer=None, vae=None, dtype=dtype)
        if techniques.text == "drop":
            reader.to(device)
        encoded = {text: encode_text(reader.text_encoder, reader.tokenizer, [text], length) for text in texts}
        reader.drop_text_encoder()
        del reader
    without: dict[str, Any] = {} if techniques.text == "keep" else {"text_encoder": None, "tokenizer": None}
    pipe: Any = load(model, dtype=dtype, **without)
    pipe.encoded_texts.update(encoded)
    if techniques.tiling:
        pipe.enable_vae_tiling()
    if techniques.kv_offload:
        pipe.enable_kv_offload()
    if techniques.offload is None:
        return pipe.to(device)
    if techniques.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    from diffusers.hooks import apply_group_offloading

    by_layer = {"onload_device": torch.device(device), "offload_type": "leaf_level", "use_stream": True}
    by_block = by_layer | {"offload_type": "block_level", "num_blocks_per_group": 1}
    pipe.transformer.enable_group_offload(**(by_block if techniques.offload == "block" else by_layer))
    if techniques.offload == "leaf":
        pipe.vae.enable_group_offload(**by_layer | {"use_stream": False})  # it is called by parts, tile by tile
    else:
        pipe.vae.to(device)
    if pipe.text_encoder is not None:
        apply_group_offloading(pipe.text_encoder, **by_layer | {"use_stream": False})
    return pipe
