"""The files of MAGI-1 as they were published: found, checked before anything large is read, and read shard by shard.

<load>/inference_weight[.fp8][.distill]/model.safetensors.index.json, with its shards (plain, or `.zst`)
<vae_pretrained>/config.json, diffusion_pytorch_model.safetensors
<t5_pretrained>/config.json, spiece.model, pytorch_model.bin.index.json or safetensors, with their shards
special_tokens.npz
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import CheckpointError, InputError, first_line
from ...timeline.plan import CHUNK_WIDTH
from ...weights.conversion import Opened
from ...weights.files import PathLike, Weights, find_weights, read_json
from ...weights.fit import Part, build, check
from ...weights.original import read_sections
from ...weights.places import FIND, named_folder, part_folder
from ...weights.text_encoder import open_text_encoder, read_tokenizer
from .autoencoder import AutoencoderKLMagi1
from .prompts import Magi1SpecialTokens
from .published import config_of
from .schema import SECTIONS, ModelConfig
from .transformer import Magi1Transformer3DModel

_FOLDERS = tuple(f"inference_weight{kind}" for kind in ("", ".distill", ".fp8", ".fp8.distill"))
_T5 = ("t5_pretrained", "t5", "t5-v1_1-xxl")
_TOKENS_NEAR = ("special_tokens.npz", "assets/special_tokens.npz", "example/assets/special_tokens.npz")
_LEAST_TOKENS = 17


def open_original(
    cls: Any,
    source: PathLike | Mapping[str, Any],
    *,
    config: PathLike | Mapping[str, Any] | None = None,
    transformer: PathLike | None = None,
    vae: PathLike | None = FIND,
    t5: PathLike | None = FIND,
    special_tokens: PathLike | None = FIND,
    allow_pickle: bool = False,
) -> Opened:
    """Find the files of a published model and check that they fit: every tensor by name and shape, before it is read.

    The arguments are those of `Magi1Pipeline.from_original`, of a pipeline of class `cls`.
    Raises: InputError, CheckpointError: one sentence that names the file, and the tensor if one does not fit.
    """
    if isinstance(source, Mapping) or Path(source).is_file():
        if config is not None:
            raise InputError("the source is a configuration already; leave out the other one.")
        config = source
    elif Path(source).is_dir():
        transformer = transformer or source
    else:
        raise CheckpointError(f"there is no folder and no configuration {source}.")
    fields, label, bases = _read_config(config)
    runtime = fields.get("runtime_config", {})
    if transformer is None:
        transformer = named_folder(label, "runtime_config.load", runtime.get("load"), bases)
    folder = Path(transformer)

    place, name = _weights_folder(folder, fields), None
    weights = Weights.open(place)
    if not fields:
        name = _recognise(weights, place)
        fields = config_of(name)
    network: Any = build(lambda: transformer_from_config(fields), label)
    parts = {"transformer": Part.checked(network, weights, hint=_mixed_up(weights, fields))}
    others: dict[str, Any] = {}

    def configured(name: str) -> list[Path]:
        return [base / runtime[name] for base in bases] if runtime.get(name) else []

    near = [folder, *Path(os.path.abspath(folder)).parents[:3]]  # ckpt/magi/4.5B_base/inference_weight: up to ckpt
    found = part_folder("autoencoder", "vae", vae, configured("vae_pretrained"), near, ["vae"])
    if found is not None:
        parts["vae"] = _open_autoencoder(found)
    found = part_folder("text encoder", "t5", t5, configured("t5_pretrained"), near, _T5, _T5[-1:])
    if found is not None:
        from transformers import T5EncoderModel

        parts["text_encoder"] = open_text_encoder(T5EncoderModel, found, network.config.caption_channels, allow_pickle)
        others["tokenizer"] = read_tokenizer(found)
    table = find_special_tokens(folder, bases) if special_tokens is FIND else special_tokens
    if table is not None:
        others["special_tokens"] = read_special_tokens(Path(table), network.config.caption_channels)
    pipe = cls(**{name: part.network for name, part in parts.items()}, **others, config=fields)
    return Opened(pipe, parts, name)


# ---- the configuration


def _read_config(config: PathLike | Mapping[str, Any] | None) -> tuple[dict[str, Any], str, list[Path]]:
    """Its fields, what errors call it, and the folders that its paths may be relative to. Values that only matter for
    running (the number of processes and the like) are not looked at: the weights are the same."""
    if config is None:
        return {}, "the configuration", [Path()]
    if isinstance(config, Mapping):
        return read_sections(config, SECTIONS, "the configuration"), "the configuration", [Path()]
    file = Path(config)
    return read_sections(read_json(file), SECTIONS, file), str(file), [Path(), file.parent]


def transformer_from_config(config: Mapping[str, Any]) -> Magi1Transformer3DModel:
    """The transformer of an original JSON; raises InputError for a field that is not known or not supported."""
    if "model_config" not in config:
        raise InputError("the MAGI-1 configuration lacks model_config.")
    fields = ModelConfig.check(config["model_config"], "model_config.")
    for name in ("model_name", "apply_layernorm_1p", "params_dtype"):  # which say nothing about its shape
        del fields[name]
    fields["chunk_width"] = config.get("runtime_config", {}).get("chunk_width", CHUNK_WIDTH)
    fields["fp8"] = config.get("engine_config", {}).get("fp8_quant", False)
    return Magi1Transformer3DModel(**fields)


def autoencoder_from_config(config: Mapping[str, Any]) -> AutoencoderKLMagi1:
    """The autoencoder of an original `ddconfig`; raises InputError for a field that is not known or not supported."""
    fields = config.get("ddconfig", config)
    if unknown := sorted(fields.keys() - inspect.signature(AutoencoderKLMagi1).parameters):
        raise InputError(f"the configuration has an unknown field {unknown[0]!r}.")
    return AutoencoderKLMagi1(**fields)


COMPONENTS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "transformer": transformer_from_config,
    "vae": autoencoder_from_config,
}
"""The components that `animagic.checkpoints.from_original` can build."""


# ---- the transformer


def _weights_folder(folder: Path, config: Mapping[str, Any]) -> Path:
    """The folder with the index: the one given, or the one inside it that the configuration asks for."""
    engine = config.get("engine_config", {})
    kind = (".fp8" if engine.get("fp8_quant") else "") + (".distill" if engine.get("distill") else "")
    wanted = f"inference_weight{kind}"
    here = [folder] if find_weights(folder) else [folder / name for name in _FOLDERS if (folder / name).is_dir()]
    fitting = [place for place in here if not config or place.name == wanted or place.name not in _FOLDERS]
    if not here:
        raise CheckpointError(
            f"{folder} is not a published MAGI-1 checkpoint: it holds neither {wanted} nor "
            "model.safetensors.index.json."
        )
    if not fitting:
        raise CheckpointError(
            f"the configuration asks for {wanted} (engine_config.fp8_quant and distill say so), but the weights are in "
            f"{here[0]}; take the configuration of these weights."
        )
    if len(fitting) > 1:
        names = " and ".join(place.name for place in fitting)
        raise CheckpointError(f"{folder} holds {names}; give one of them, or a configuration that chooses.")
    return fitting[0]


def _recognise(weights: Weights, folder: Path) -> str:
    """Which of the six published models these tensors are. Base and distilled differ in the folder's name alone."""
    layers = len({name.split(".")[2] for name in weights.entries if name.startswith("videodit_blocks.layers.")})
    width, _ = _embedder_shape(weights)
    size = {(34, 3072): "4.5B", (48, 6144): "24B"}.get((layers, width))
    if size is None:
        raise CheckpointError(
            f"{weights.source} is none of the six published models ({layers} layers, x_embedder.weight of width "
            f"{width}); give the configuration that belongs to it."
        )
    kinds = {"inference_weight": "base", "inference_weight.distill": "distill"}
    kind = "distill_quant" if _is_quantised(weights) else kinds.get(folder.name)
    if kind is None:
        raise CheckpointError(
            f"{folder} is the {size} model, but base or distilled cannot be told from its tensors: call the folder "
            "inference_weight or inference_weight.distill, or give the configuration."
        )
    return f"{size}_{kind}"


def _mixed_up(weights: Weights, config: Mapping[str, Any]) -> str:
    """The end of the sentence about a tensor that does not fit."""
    _, channels = _embedder_shape(weights)
    ours, theirs = ("24B" if c == 32 else "4.5B" for c in (config["model_config"].get("in_channels"), channels))
    if channels and ours != theirs:
        return f": these are weights of the {theirs} model, and the configuration is that of {ours}"
    quantised = _is_quantised(weights)
    if quantised != bool(config.get("engine_config", {}).get("fp8_quant")):
        return f": these are {'' if quantised else 'no '}FP8 weights, and engine_config.fp8_quant says otherwise"
    return ""


def _embedder_shape(weights: Weights) -> tuple[int, int]:
    """(width, channels) of the first layer; 0 where there is none."""
    embedder = weights.entries.get("x_embedder.weight")
    width, channels, *_ = (*(embedder.shape if embedder else ()), 0, 0)
    return width, channels


def _is_quantised(weights: Weights) -> bool:
    return any(name.endswith(".weight_scale") for name in weights.entries)


# ---- the other parts


def _open_autoencoder(folder: Path) -> Part:
    file = folder / "config.json"
    fields = read_json(file)
    if fields.get("_class_name", "ViTVAE") != "ViTVAE" or not isinstance(fields.get("ddconfig"), dict):
        raise CheckpointError(
            f"{file} is not that of MAGI-1's autoencoder: _class_name ViTVAE and ddconfig are needed."
        )
    for name in fields:
        if not name.startswith("_") and name not in ("ddconfig", "model_type"):
            raise CheckpointError(f"{file} has an unknown field {name!r}.")
    network = build(lambda: autoencoder_from_config(fields), file)
    return Part.checked(network, Weights.open(folder, "diffusion_pytorch_model"))


def find_special_tokens(weights: Path | None, bases: Sequence[Path]) -> Path | None:
    """special_tokens.npz around the weights, in the folders that paths are relative to, or above the last of them; or
    below one of these, where the original repository has it."""
    near = [] if weights is None else [weights, *Path(os.path.abspath(weights)).parents[:3]]
    places = [*near, *bases, bases[-1].parent]
    return next((place / name for place in places for name in _TOKENS_NEAR if (place / name).is_file()), None)


def read_special_tokens(file: Path, channels: int) -> Magi1SpecialTokens:
    """The table of special tokens: rows of `channels` values. Raises CheckpointError that names file and tensor."""
    try:
        with np.load(file, allow_pickle=False) as table:
            names = [name for name in ("caption_token", "logo_token", "other_tokens") if name in table]
            given = {name: torch.from_numpy(np.atleast_2d(table[name])) for name in names}
    except Exception as error:  # numpy raises almost anything for a damaged file
        raise CheckpointError(f"{file} cannot be read as a table of special tokens: {first_line(error)}.") from error
    tokens = Magi1SpecialTokens(channels, max(len(given.get("other_tokens", ())), _LEAST_TOKENS))
    check(tokens.state_dict(), given, file)
    tokens.load_state_dict(given)
    return tokens.eval()
