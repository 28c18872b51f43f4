"""The files of MAGI-1 as they were published: found, checked before anything large is read, and read shard by shard.

<load>/inference_weight[.fp8][.distill]/model.safetensors.index.json, with its shards (plain, or `.zst`)
<vae_pretrained>/config.json, diffusion_pytorch_model.safetensors
<t5_pretrained>/config.json, spiece.model, pytorch_model.bin.index.json or safetensors, with their shards
special_tokens.npz
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import AnimagicError, CheckpointError, InputError, first_line
from ...timeline.plan import CHUNK_WIDTH
from ...weights.files import PathLike, Weights, find_weights, read_json
from ...weights.fit import Part, build
from ...weights.original import read_sections
from .autoencoder import AutoencoderKLMagi1
from .prompts import Magi1SpecialTokens
from .published import config_of
from .schema import SECTIONS
from .transformer import Magi1Transformer3DModel

FIND: Any = object()
"""Of a part: look for it where the configuration says, and beside the transformer."""

_SUFFIXES = ("", ".distill", ".fp8", ".fp8.distill")
_NEAR = {"vae": ("vae",), "t5": ("t5_pretrained", "t5", "t5-v1_1-xxl")}
_CALLED = {"vae": "autoencoder", "t5": "text encoder"}
# Fields that say nothing about the shape of the network, and what they must be.
_FIXED = {"model_name": "videodit_ardf", "apply_layernorm_1p": True}
_TOKENS_NEAR = ("special_tokens.npz", "assets/special_tokens.npz", "example/assets/special_tokens.npz")


@dataclass(frozen=True)
class OriginalFiles:
    """A published model whose files were found and fit each other. No weights are in memory yet but special tokens.

    name: which of the six published models it is, where that was recognised (no configuration was given).
    """

    config: dict[str, Any]
    parts: dict[str, Part]
    tokenizer: Any
    special_tokens: Magi1SpecialTokens | None
    name: str | None

    def pipeline(self, cls: type, **networks: nn.Module) -> Any:
        """The pipeline with these networks in place of the parts; without any, the parts themselves, on meta."""
        networks = networks or {name: part.network for name, part in self.parts.items()}
        given = {name: networks.get(name) for name in ("transformer", "vae", "text_encoder")}
        return cls(tokenizer=self.tokenizer, special_tokens=self.special_tokens, config=self.config, **given)


def open_original(
    source: PathLike | Mapping[str, Any],
    *,
    config: PathLike | Mapping[str, Any] | None = None,
    transformer: PathLike | None = None,
    vae: PathLike | None = FIND,
    t5: PathLike | None = FIND,
    special_tokens: PathLike | None = FIND,
    allow_pickle: bool = False,
) -> OriginalFiles:
    """Find the files of a published model and check that they fit: every tensor by name and shape, before it is read.

    Args:
        source: an original configuration (JSON file, or its fields), or the folder of the transformer.
        config: the configuration where `source` is a folder; None: it is recognised from names and shapes.
        transformer: its folder, in place of `load` in the configuration.
        vae, t5, special_tokens: folder, folder and .npz file in place of those in the configuration or beside the
            transformer; None: the pipeline is to have none.
        allow_pickle: read the text encoder from pickles (`pytorch_model*.bin`); no code in them is run.

    Special tokens that are neither given nor found are left out: a model works without.
    Raises: InputError, CheckpointError: one sentence that names the file, and the tensor if one does not fit.
    """
    folder: Path | None = None
    if isinstance(source, Mapping) or Path(source).is_file():
        if config is not None:
            raise InputError("the source is a configuration already; leave out the other one.")
        config = source
    elif Path(source).is_dir():
        folder = Path(source)
    else:
        raise CheckpointError(f"there is no folder and no configuration {source}.")
    fields, bases = _read_config(config) if config is not None else (None, [Path()])
    label = str(config) if isinstance(config, (str, os.PathLike)) else "the configuration"
    runtime = (fields or {}).get("runtime_config", {})
    if transformer is not None:
        folder = _existing(Path(transformer))
    elif folder is None:
        if not runtime.get("load"):
            raise CheckpointError(f"{label} lacks runtime_config.load; add it, or give the folder of the transformer.")
        folder = _resolve(runtime["load"], bases, label)

    place = _weights_folder(folder, fields)
    weights = Weights.open(place)
    name = None
    if fields is None:
        name = _recognise(weights, place)
        fields = config_of(name)
    network: Any = build(lambda: transformer_from_config(fields), label)
    parts = {"transformer": Part.checked(network, weights, hint=_mixed_up(weights, fields))}

    near = [folder, *Path(os.path.abspath(folder)).parents[:3]]  # ckpt/magi/4.5B_base/inference_weight: up to ckpt
    if (found := _part_folder("vae", vae, runtime, bases, near, label)) is not None:
        parts["vae"] = _open_autoencoder(found)
    tokenizer = None
    if (found := _part_folder("t5", t5, runtime, bases, near, label)) is not None:
        parts["text_encoder"] = _open_text_encoder(found, network.config.caption_channels, allow_pickle)
        tokenizer = _read_tokenizer(found)
    table = find_special_tokens([*near, *bases]) if special_tokens is FIND else special_tokens
    tokens = None if table is None else read_special_tokens(Path(table), network.config.caption_channels)
    return OriginalFiles(fields, parts, tokenizer, tokens, name)


def load_original(cls: type, source: Any, *, torch_dtype: torch.dtype | None = None, **places: Any) -> Any:
    """A pipeline of class `cls` from the original files; what `Magi1Pipeline.from_original` does."""
    files = open_original(source, **places)
    if torch_dtype is not None and files.special_tokens is not None:
        files.special_tokens.to(torch_dtype)
    return files.pipeline(cls, **{name: part.load(torch_dtype) for name, part in files.parts.items()})


# ---- the configuration


def _read_config(config: PathLike | Mapping[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """Its fields, and the folders that its paths may be relative to. Values that only matter for running (the number
    of processes and the like) are not looked at: the weights are the same."""
    if isinstance(config, Mapping):
        fields, label, bases = dict(config), "the configuration", [Path()]
    else:
        fields, label, bases = read_json(Path(config)), str(config), [Path(), Path(config).parent]
    try:
        read_sections(fields, SECTIONS, label)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    return fields, bases


def transformer_from_config(config: Mapping[str, Any]) -> Magi1Transformer3DModel:
    """The transformer of an original JSON; raises InputError for a field that is not known or not supported."""
    if "model_config" not in config:
        raise InputError("the MAGI-1 configuration lacks model_config.")
    fields = {name: value for name, value in config["model_config"].items() if name != "params_dtype"}
    for name, known in _FIXED.items():
        if (value := fields.pop(name, known)) != known:
            raise InputError(f"{name} is {value!r}; only {known!r} is known.")
    fields["chunk_width"] = config.get("runtime_config", {}).get("chunk_width", CHUNK_WIDTH)
    fields["fp8"] = config.get("engine_config", {}).get("fp8_quant", False)
    return _network(Magi1Transformer3DModel, fields)


def autoencoder_from_config(config: Mapping[str, Any]) -> AutoencoderKLMagi1:
    """The autoencoder of an original `ddconfig`."""
    return _network(AutoencoderKLMagi1, dict(config.get("ddconfig", config)))


def _network(network: Any, fields: dict[str, Any]) -> Any:
    unknown = set(fields) - set(inspect.signature(network.__init__).parameters)
    if unknown:
        raise InputError(f"the configuration has an unknown field {sorted(unknown)[0]!r}.")
    return network(**fields)


COMPONENTS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "transformer": transformer_from_config,
    "vae": autoencoder_from_config,
}
"""The components that `animagic.checkpoints.from_original` can build."""


# ---- the transformer


def _suffix(config: Mapping[str, Any]) -> str:
    engine = config.get("engine_config", {})
    return (".fp8" if engine.get("fp8_quant") else "") + (".distill" if engine.get("distill") else "")


def _weights_folder(folder: Path, config: Mapping[str, Any] | None) -> Path:
    """The folder with the index: the one given, or the one inside it that the configuration asks for."""
    wanted = None if config is None else f"inference_weight{_suffix(config)}"
    if find_weights(folder):
        known = folder.name in {f"inference_weight{suffix}" for suffix in _SUFFIXES}
        if known and wanted is not None and folder.name != wanted:
            raise _other_kind(folder, wanted)
        return folder
    inside = [folder / f"inference_weight{s}" for s in _SUFFIXES if (folder / f"inference_weight{s}").is_dir()]
    if not inside:
        raise CheckpointError(
            f"{folder} is not a published MAGI-1 checkpoint: it holds neither {wanted or 'inference_weight'} nor "
            "model.safetensors.index.json."
        )
    if wanted is not None:
        if folder / wanted not in inside:
            raise _other_kind(inside[0], wanted)
        return folder / wanted
    if len(inside) > 1:
        names = " and ".join(one.name for one in inside)
        raise CheckpointError(f"{folder} holds {names}; give one of them, or a configuration that chooses.")
    return inside[0]


def _other_kind(folder: Path, wanted: str) -> CheckpointError:
    return CheckpointError(
        f"the configuration asks for {wanted} (engine_config.fp8_quant and distill say so), but the weights are in "
        f"{folder}; take the configuration of these weights."
    )


def _recognise(weights: Weights, folder: Path) -> str:
    """Which of the six published models these tensors are. Base and distilled differ in the folder's name alone."""
    layers = {m[1] for name in weights.entries if (m := re.match(r"videodit_blocks\.layers\.(\d+)\.", name))}
    embedder = weights.entries.get("x_embedder.weight")
    width = embedder.shape[0] if embedder is not None and embedder.shape else 0
    for size in ("4.5B", "24B"):
        network = config_of(f"{size}_base")["model_config"]
        if (network["num_layers"], network["hidden_size"]) == (len(layers), width):
            break
    else:
        raise CheckpointError(
            f"{weights.source} is none of the six published models ({len(layers)} layers, x_embedder.weight of width "
            f"{width}); give the configuration that belongs to it."
        )
    if any(name.endswith(".weight_scale") for name in weights.entries):
        return f"{size}_distill_quant"
    kinds = {"inference_weight": "base", "inference_weight.distill": "distill"}
    if folder.name not in kinds:
        raise CheckpointError(
            f"{folder} is the {size} model, but base or distilled cannot be told from its tensors: call the folder "
            "inference_weight or inference_weight.distill, or give the configuration."
        )
    return f"{size}_{kinds[folder.name]}"


def _mixed_up(weights: Weights, config: Mapping[str, Any]) -> str:
    """The end of the sentence about a tensor that does not fit."""
    embedder = weights.entries.get("x_embedder.weight")
    if embedder is not None and len(embedder.shape) > 1:
        ours, theirs = (
            "24B" if c == 32 else "4.5B" for c in (config["model_config"].get("in_channels"), embedder.shape[1])
        )
        if ours != theirs:
            return f": these are weights of the {theirs} model, and the configuration is that of {ours}"
    quantised = any(name.endswith(".weight_scale") for name in weights.entries)
    if quantised != bool(config.get("engine_config", {}).get("fp8_quant")):
        what = "FP8 weights" if quantised else "no FP8 weights"
        return f": these are {what}, and engine_config.fp8_quant says otherwise"
    return ""


# ---- the other parts


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}.")
    return folder


def _resolve(path: str, bases: list[Path], label: str) -> Path:
    found = next((base / path for base in bases if (base / path).is_dir()), None)
    if found is None:
        raise CheckpointError(
            f"{label} names the folder {path}, which is neither beside it nor in the working directory."
        )
    return found


def _part_folder(
    kind: str, given: Any, runtime: Mapping[str, Any], bases: list[Path], near: list[Path], label: str
) -> Path | None:
    """The folder of a part: as given, as configured, or beside the transformer."""
    if given is None:
        return None
    if given is not FIND:
        places = [_existing(Path(given))]
    else:
        configured = runtime.get(f"{kind}_pretrained")
        places = [base / configured for base in bases] if configured else []
        places += [place / name for place in near for name in _NEAR[kind]]
    for place in places:
        for folder in (place, place / "t5-v1_1-xxl") if kind == "t5" else (place,):
            if (folder / "config.json").is_file():
                return folder
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise CheckpointError(
        f"there is no {_CALLED[kind]} (a folder with config.json): looked in {looked}; give its folder as {kind}, or "
        "none to do without."
    )


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
    network = build(lambda: autoencoder_from_config(fields["ddconfig"]), file)
    return Part.checked(network, Weights.open(folder, "diffusion_pytorch_model"))


def _open_text_encoder(folder: Path, channels: int, allow_pickle: bool) -> Part:
    from transformers import T5Config, T5EncoderModel

    file = folder / "config.json"
    fields = read_json(file)
    if fields.get("model_type") != "t5":
        raise CheckpointError(f"{file} is not that of a T5: its model_type is {fields.get('model_type')!r}, not 't5'.")
    network: Any = build(lambda: T5EncoderModel(T5Config.from_dict(fields)), file)
    if network.config.d_model != channels:
        raise CheckpointError(
            f"{file} describes a text encoder of {network.config.d_model} channels; the transformer reads {channels}."
        )
    network.config.architectures = ["T5EncoderModel"]
    weights = Weights.open(folder, allow_pickle=allow_pickle)
    # The decoder is not needed. The embedding may be stored under two names.
    shared, twin = "shared.weight", "encoder.embed_tokens.weight"
    kept = [name for name in weights.entries if not name.startswith(("decoder.", "lm_head."))]
    names = {name: shared if name == twin and shared not in kept else name for name in kept}
    if shared in names and twin in names:
        del names[twin]
    return Part.checked(network, weights.renamed(names), without=(twin,))


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        if not (folder / "spiece.model").is_file():
            raise CheckpointError(f"{folder} holds no tokenizer: spiece.model is missing.")
        if not all(importlib.util.find_spec(name) for name in ("sentencepiece", "google.protobuf")):
            raise InputError(f"to read {folder / 'spiece.model'}, pip install 'animagic[convert]'.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # on a damaged file, transformers and sentencepiece raise almost anything
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {first_line(error)}.") from error


def find_special_tokens(near: Sequence[Path]) -> Path | None:
    """special_tokens.npz in one of these folders, or below them where the original repository has it."""
    return next((folder / name for folder in near for name in _TOKENS_NEAR if (folder / name).is_file()), None)


def read_special_tokens(file: Path, channels: int) -> Magi1SpecialTokens:
    """The table of special tokens: rows of `channels` values. Raises CheckpointError that names file and tensor."""
    arrays = {}
    try:
        with np.load(file, allow_pickle=False) as table:
            for name in ("caption_token", "logo_token", "other_tokens"):
                if name not in table:
                    raise CheckpointError(f"{file}: the tensor {name} is missing.")
                arrays[name] = table[name]
    except AnimagicError:
        raise
    except (AttributeError, EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{file} cannot be read as a table of special tokens: {first_line(error)}.") from error
    for name, array in arrays.items():
        rows = array.reshape(1, -1) if name != "other_tokens" and array.ndim == 1 else array
        if rows.ndim != 2 or rows.shape[1] != channels or (name != "other_tokens" and len(rows) != 1):
            raise CheckpointError(
                f"{file}: the tensor {name} has the shape {list(array.shape)}; rows of {channels} values are needed."
            )
        if rows.dtype.kind != "f":
            raise CheckpointError(f"{file}: the tensor {name} holds {rows.dtype}, not numbers with a fraction.")
        arrays[name] = rows
    if len(arrays["other_tokens"]) < 17:
        raise CheckpointError(f"{file}: the tensor other_tokens has {len(arrays['other_tokens'])} rows; 17 are needed.")
    tokens = Magi1SpecialTokens(channels, len(arrays["other_tokens"]))
    tokens.load_state_dict({name: torch.tensor(rows) for name, rows in arrays.items()})
    return tokens.eval()
