"""LoRA files: found, read, and brought to one form, whatever tool wrote them and however it named their tensors."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, InputError

# Tools write lora_A, lora.down, lora_linear_layer.down, to_q_lora.down, ...; peft puts the adapter's name before
# "weight" when it is asked for the state of a live model.
_TENSOR = re.compile(
    r"(?P<layer>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<part>A|B|down|up)(?:\.[^.]+)?\.weight|\.(?P<alpha>alpha))"
)
_PARTS = {"A": "down", "B": "up"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Starts that leave the layer as it is; the others (pissa, olora, ...) change it, and the file holds only the rest.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva")


@dataclass(frozen=True)
class Pair:
    """The change of one layer: up @ down, its scale already in `up`. The names are those of the file."""

    down: torch.Tensor  # (rank, in, ...)
    up: torch.Tensor  # (out, rank, ...)
    down_name: str
    up_name: str


def find_lora_file(
    source: str | Path,
    weight_name: str | None = None,
    *,
    subfolder: str | None = None,
    **hub: Any,
) -> Path:
    """The file of a LoRA.

    Args:
        source: a file, a folder, or a hub id (owner/name), whose files are then fetched.
        weight_name: which file of the folder; needed only where there are several.
        hub: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`.
    Raises: InputError if there is no such file, or if there are several to choose from.
    """
    text, folder = str(source), Path(source)
    if folder.is_file():
        return folder
    if not folder.is_dir():
        is_file = folder.suffix in (".safetensors", *_PICKLES)
        if is_file or text.count("/") != 1 or text.startswith((".", "/", "~")):
            raise InputError(f"there is no LoRA {text}; give a .safetensors file, a folder or a hub id (owner/name).")
        folder = _fetch(text, weight_name, subfolder, hub)
    folder = folder / (subfolder or "")
    if weight_name is not None:
        if not (folder / weight_name).is_file():
            raise InputError(f"the LoRA {text} has no file {weight_name}.")
        return folder / weight_name
    files = sorted(file for file in folder.glob("*") if file.is_file())
    found = [file for file in files if file.suffix == ".safetensors"] or [f for f in files if f.suffix in _PICKLES]
    if len(found) != 1:
        names = ", ".join(file.name for file in found)
        raise InputError(
            f"{text} has several files, so say which one is meant (weight_name): {names}."
            if found
            else f"{text} has no .safetensors file, so it is not the folder of a LoRA."
        )
    return found[0]


def _fetch(source: str, weight_name: str | None, subfolder: str | None, hub: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    inside = f"{subfolder}/" if subfolder else ""
    wanted = [f"{inside}{weight_name or '*.safetensors'}", f"{inside}adapter_config.json"]
    # Without a name, not what lies in folders: in the repository of a whole model those are its weights.
    others = [f"{inside}*/*"] if weight_name is None else None
    try:
        return Path(snapshot_download(source, allow_patterns=wanted, ignore_patterns=others, **hub))
    except (OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"there is no LoRA {source} here, and it cannot be fetched: {reason}.") from error


def read_lora_file(path: Path, allow_pickle: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors of a file, and the settings of the training, from inside it or from peft's file beside it.

    allow_pickle: read pickles too (with `weights_only`). Raises: CheckpointError, which names the file.
    """
    from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
    from safetensors import SafetensorError, safe_open

    settings: dict[str, Any] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                settings = json.loads((file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}"))
        elif allow_pickle:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise CheckpointError(
                f"{path} is a pickle, which can run code when it is read; use a .safetensors file, or say "
                "allow_pickle=True in Python."
            )
        beside = path.with_name("adapter_config.json")
        if not settings and beside.is_file():
            settings = json.loads(beside.read_text("utf-8"))
    except CheckpointError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise CheckpointError(f"the LoRA {path} cannot be read: {reason}.") from error
    except Exception as error:  # a damaged or hostile pickle raises almost anything
        raise CheckpointError(f"the LoRA {path} cannot be read: it is damaged, or holds more than tensors.") from error
    if isinstance(tensors, dict):  # what AnimateDiff's trainer puts around and beside them
        tensors = tensors.get("state_dict", tensors)
    if isinstance(tensors, dict):
        tensors = {name: value for name, value in tensors.items() if name != "animatediff_config"}
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} is not a LoRA: it holds more than tensors.")
    return tensors, settings


def lora_pairs(
    tensors: Mapping[str, torch.Tensor],
    settings: Mapping[str, Any],
    what: str,
    model: str,
    layer_of: Callable[[str], str | None],
) -> dict[str, Pair]:
    """The tensors of a LoRA by layer.

    Args:
        settings: of the training, as peft has them; empty: alpha is the rank where the tensors do not say it.
        what, model: how to call the LoRA, and what it is for, in a message.
        layer_of: from a layer's name in the file to that in the network; None: it is unknown.
    Raises: CheckpointError, which names the tensor.
    """
    found: dict[str, dict[str, tuple[str, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        layer = match and layer_of(match["layer"])
        if match is None or layer is None:
            raise CheckpointError(f"{what} has a tensor {name}, which is none of a LoRA for {model}.")
        part = "alpha" if match["alpha"] else _PARTS.get(match["part"], match["part"])
        parts = found.setdefault(layer, {})
        if part in parts:
            raise CheckpointError(f"{what} has the tensors {parts[part][0]} and {name} for the same thing.")
        parts[part] = (name, tensor)
    if not found:
        raise CheckpointError(f"{what} is empty.")
    _check_settings(settings, what)
    pairs = {}
    for layer, parts in found.items():
        for part, other in (("down", "up"), ("up", "down"), ("alpha", "down")):
            if part in parts and other not in parts:
                raise CheckpointError(f"{what} has the tensor {parts[part][0]} without its lora_{other} partner.")
        (down_name, down), (up_name, up) = parts["down"], parts["up"]
        if down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0]:
            shapes = f"{list(down.shape)} and {list(up.shape)}"
            raise CheckpointError(f"{what} has tensors {down_name} and {up_name} of shapes {shapes}: ranks differ.")
        scale = _scale(layer, len(down), settings, parts.get("alpha"), what)
        pairs[layer] = Pair(down, up if scale == 1 else up.float() * scale, down_name, up_name)
    return pairs


def _check_settings(settings: Mapping[str, Any], what: str) -> None:
    start = settings.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise CheckpointError(
            f"{what} began as {start!r}, which changes the model itself; convert it to a plain LoRA first "
            "(peft: save_pretrained with path_initial_model_for_weight_conversion)."
        )
    if settings.get("peft_type", "LORA") != "LORA" or settings.get("use_dora"):
        kind = "DoRA" if settings.get("use_dora") else settings["peft_type"]
        raise CheckpointError(f"{what} is of the kind {kind}; only plain LoRA is supported.")


def _scale(
    layer: str, rank: int, settings: Mapping[str, Any], alpha: tuple[str, torch.Tensor] | None, what: str
) -> float:
    """alpha / rank; 1 where nothing is said, as in diffusers."""
    from peft.utils.other import get_pattern_key

    if alpha is not None:
        name, tensor = alpha
        if tensor.numel() != 1:
            raise CheckpointError(f"{what} has a tensor {name} of shape {list(tensor.shape)}; one number is needed.")
        return float(tensor) / rank
    try:
        patterns = settings.get("alpha_pattern") or {}
        value = float(patterns.get(get_pattern_key(list(patterns), layer), settings.get("lora_alpha", rank)))
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise CheckpointError(f"{what} has settings that cannot be understood: {error}.") from error
    return value / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def check_fit(pairs: Mapping[str, Pair], network: nn.Module, what: str) -> None:
    """Raises CheckpointError that names the first tensor for which the network has no place."""
    advice = "was it made for a model of another size?"
    for layer, pair in pairs.items():
        try:
            module: Any = network.get_submodule(layer)
        except AttributeError:
            raise CheckpointError(
                f"{what} has a tensor {pair.down_name}; this model has no {layer}: {advice}"
            ) from None
        module = getattr(module, "base_layer", module)  # it may carry adapters already
        if hasattr(module, "kernel_size"):
            ones = [1] * len(module.kernel_size)
            down, up = [module.in_channels, *module.kernel_size], [module.out_channels, len(pair.down), *ones]
        elif hasattr(module, "in_features"):
            down, up = [module.in_features], [module.out_features, len(pair.down)]
        else:
            raise CheckpointError(f"{what} has a tensor {pair.down_name}, but {layer} is not a linear layer.")
        for name, tensor, wanted in ((pair.down_name, pair.down, [len(pair.down), *down]), (pair.up_name, pair.up, up)):
            if list(tensor.shape) != wanted:
                given = list(tensor.shape)
                raise CheckpointError(f"{what}: its tensor {name} has shape {given}; {wanted} is needed: {advice}")


def peft_settings(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """peft's settings. alpha is the rank everywhere, since the scale is in the tensors already: peft's hot swap
    looks at neither pattern."""
    ranks = {layer: len(pair.down) for layer, pair in pairs.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {f"^{re.escape(layer)}": rank for layer, rank in ranks.items() if rank != usual}
    patterns = {"rank_pattern": others, "alpha_pattern": dict(others)}
    return {"r": usual, "lora_alpha": usual, **patterns, "target_modules": list(ranks)}


def pack(pairs: Mapping[str, Pair], prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors under peft's names: LAYER.lora_A.weight, LAYER.lora_B.weight."""
    tensors = {}
    for layer, pair in pairs.items():
        tensors[f"{prefix}{layer}.lora_A.weight"] = pair.down
        tensors[f"{prefix}{layer}.lora_B.weight"] = pair.up
    return tensors


def add_lora(
    network: Any,
    targets: str | list[str],
    rank: int,
    name: str = "default",
    *,
    alpha: float | None = None,
    start: bool | str = True,
) -> None:
    """Freeze a network and lay a new LoRA over some of its layers, which alone is trained.

    Args:
        network: of diffusers or transformers.
        targets: the ends of the layers' names, or a pattern for whole names.
        alpha: the LoRA counts alpha / rank times; None: once.
        start: peft's `init_lora_weights`; True: it changes nothing at first.
    """
    from peft import LoraConfig

    network.requires_grad_(False)
    alpha = rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights=start)
    network.add_adapter(config, adapter_name=name)
