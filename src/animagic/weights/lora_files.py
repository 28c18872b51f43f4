"""LoRA files: found, read, and brought to one form, whatever tool wrote them and however it named their tensors."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import CheckpointError, InputError, first_line
from ..layers.fp8 import Fp8Linear
from .files import SUFFIXES, fetch, read_json, read_tensors
from .values import is_finite

# Tools write lora_A, lora.down, lora_linear_layer.down, to_q_lora.down, ...; peft puts the adapter's name before
# "weight" when it is asked for the state of a live model.
_TENSOR = re.compile(
    r"(?P<layer>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<side>A|B|down|up)(?:\.[^.]+)?\.weight|\.(?P<alpha>alpha))"
)
_SIDES = {"A": "down", "B": "up"}
# Starts that leave the layer as it is; the others (pissa, olora, ...) change it, and the file holds only the rest.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva")
# Arguments of load_lora_weights that say where a file lies, and those of diffusers that are always so here.
_PLACE = ("weight_name", "subfolder", "revision", "token", "cache_dir", "force_download", "local_files_only")
_WITHOUT_EFFECT = ("low_cpu_mem_usage", "use_safetensors")
_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, Fp8Linear)

Source = str | Path | Mapping[str, torch.Tensor]
Rename = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class LoraPart:
    """A network of a pipeline that LoRAs may change, and the names that files have for its layers.

    Args:
        component: its name in the pipeline, which may stand before a layer's name.
        prefixes: what else may stand there, also several after each other. They tell whose a tensor is; one that no
            part knows belongs to the first part.
        renames: pattern and replacement for `re.sub`, one after another, from a layer's name to the network's. Names
            with underscores for dots (kohya) need none. One layer in a file that is several in the network, whose
            rows lay one below another, has the names of all, with spaces between.
        convert: renames all tensors together, given them and the network's configuration.
        blocks: short names of modules for `set_adapters`.
        norm: of a network in FP8, the module whose dtype is that of activations.
    """

    component: str
    prefixes: tuple[str, ...] = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "lora_unet_")
    renames: tuple[Rename, ...] = ()
    convert: Callable[[dict[str, torch.Tensor], Any], dict[str, torch.Tensor]] | None = None
    blocks: Mapping[str, str] = field(default_factory=dict)
    norm: str = ""

    def prefix_of(self, name: str) -> str | None:
        """The prefix of a name in a file, if it shows that the name belongs here."""
        return next((p for p in (f"{self.component}.", *self.prefixes) if name.startswith(p)), None)

    def layer_of(self, name: str, layers: Mapping[str, str]) -> str:
        """A layer's name in the network, where it is one of `layers` (name in files -> name in the network)."""
        renamed = name
        for pattern, new in self.renames:
            renamed = re.sub(pattern, new, renamed)
        prefix = self.prefix_of(name)
        if renamed in layers or prefix is None:
            return layers.get(renamed, renamed)
        return self.layer_of(name.removeprefix(prefix), layers)


@dataclass(frozen=True)
class Pair:
    """The change of one layer: up @ down, its scale already in `up`. The names are those of the file."""

    down: torch.Tensor  # (rank, in, ...)
    up: torch.Tensor  # (out, rank, ...)
    down_name: str
    up_name: str


Pairs = dict[str, dict[str, Pair]]
"""Component of the pipeline -> layer -> its change."""


def read_lora(
    source: Source, parts: Sequence[LoraPart], networks: Mapping[str, Any], allow_pickle: bool = False, **where: Any
) -> tuple[Pairs, str]:
    """The changes that a LoRA makes to each component, which they fit, and how to call it in a message.

    where: see `find_lora_file`. Raises: InputError for a file that is not there, CheckpointError for a tensor that is
    unknown or does not fit.
    """
    if unknown := set(where) - {*_PLACE, *_WITHOUT_EFFECT}:
        raise InputError(f"a LoRA is not loaded with {min(unknown)!r}; choose {', '.join(_PLACE)}.")
    what, settings = "the LoRA", dict[str, Any]()
    if isinstance(source, Mapping):
        tensors = dict(source)
    else:
        path = find_lora_file(source, **{name: value for name, value in where.items() if name in _PLACE})
        what = f"the LoRA {path}"
        tensors, settings = read_lora_file(path, allow_pickle)
    if not tensors:
        raise CheckpointError(f"{what} is empty.")

    def owned(fields: Mapping[str, Any], part: LoraPart) -> dict[str, Any]:
        return {k: v for k, v in fields.items() if part is next((p for p in parts if p.prefix_of(k)), parts[0])}

    pairs: Pairs = {}
    for part in parts:
        if not (own := owned(tensors, part)):
            continue
        if part.component not in networks:
            raise CheckpointError(f"{what} has a tensor {next(iter(own))}; this pipeline has no {part.component}.")
        network = networks[part.component]
        try:
            own = part.convert(own, network.config) if part.convert else own
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{what} has names that cannot be understood: {first_line(error)}.") from error
        # diffusers writes the settings of all components together.
        trained = {name.removeprefix(f"{part.component}."): value for name, value in owned(settings, part).items()}
        _check_settings(trained, what)
        layers = {name: name for name, module in network.named_modules() if _is_layer(name, module)}
        layers = {name.replace(".", "_"): name for name in layers} | layers  # kohya writes underscores for dots
        pairs[part.component] = _fitted(_pairs_of(own, trained, what, part, layers), network, what)
    return pairs, what


def find_lora_file(
    source: str | Path, weight_name: str | None = None, *, subfolder: str | None = None, **hub: Any
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
        is_file = folder.suffix in SUFFIXES
        if is_file or text.count("/") != 1 or text.startswith((".", "/", "~")):
            raise InputError(f"there is no LoRA {text}; give a .safetensors file, a folder or a hub id (owner/name).")
        folder = _fetch(text, weight_name, subfolder, hub)
    folder = folder / (subfolder or "")
    if weight_name is not None:
        if not (folder / weight_name).is_file():
            raise InputError(f"the LoRA {text} has no file {weight_name}.")
        return folder / weight_name
    files = sorted(file for file in folder.glob("*") if file.is_file())
    found = [file for file in files if file.suffix == ".safetensors"] or [f for f in files if f.suffix in SUFFIXES]
    if not found:
        raise InputError(f"{text} has no .safetensors file, so it is not the folder of a LoRA.")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{text} has several files, so say which one is meant (weight_name): {names}.")
    return found[0]


def _fetch(source: str, weight_name: str | None, subfolder: str | None, hub: dict[str, Any]) -> Path:
    inside = f"{subfolder}/" if subfolder else ""
    wanted = [f"{inside}{weight_name or '*.safetensors'}", f"{inside}adapter_config.json"]
    # Without a name, not what lies in folders: in the repository of a whole model those are its weights.
    others = [f"{inside}*/*"] if weight_name is None else None
    missing = f"there is no LoRA {source} here"
    return fetch(source, missing, allow_patterns=wanted, ignore_patterns=others, **hub)


def read_lora_file(path: Path, allow_pickle: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors of a file, and the settings of the training, from inside it or from peft's file beside it. Raises
    CheckpointError, which names the file.

    allow_pickle: read pickles too (with `weights_only`).
    """
    if path.suffix != ".safetensors" and not allow_pickle:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is read; use a .safetensors file, or say "
            "allow_pickle=True in Python."
        )
    tensors, settings = read_tensors(path, allow_pickle=allow_pickle), dict[str, Any]()
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                settings = dict(json.loads((file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}")))
    except (RecursionError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"the settings inside the LoRA {path} cannot be read: {first_line(error)}.") from error
    beside = path.with_name("adapter_config.json")
    return tensors, settings or (read_json(beside) if beside.is_file() else {})


def _is_layer(name: str, module: Any) -> bool:
    """Whether a LoRA may change a module; what one brought itself, it may not."""
    return isinstance(getattr(module, "base_layer", module), _LAYERS) and not re.search(r"\.(base_layer|lora_)", name)


def _pairs_of(
    tensors: Mapping[str, torch.Tensor],
    settings: Mapping[str, Any],
    what: str,
    part: LoraPart,
    layers: Mapping[str, str],
) -> dict[str, Pair]:
    """The tensors of a LoRA by layer. Raises CheckpointError, which names the tensor.

    settings: of the training, as peft has them; empty: alpha is the rank where the tensors do not say it.
    """
    found: dict[str, dict[str, tuple[str, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise CheckpointError(f"{what} has a tensor {name}, which is none of a LoRA.")
        if not (tensor.is_floating_point() or match["alpha"]) or not is_finite(tensor):
            raise CheckpointError(f"{what} has a tensor {name} of {tensor.dtype} that holds other than finite numbers.")
        side = "alpha" if match["alpha"] else _SIDES.get(match["side"], match["side"])
        sides = found.setdefault(part.layer_of(match["layer"], layers), {})
        if side in sides:
            raise CheckpointError(f"{what} has the tensors {sides[side][0]} and {name} for the same thing.")
        sides[side] = (name, tensor)
    pairs = {}
    for layer, sides in found.items():
        for side, other in (("down", "up"), ("up", "down"), ("alpha", "down")):
            if side in sides and other not in sides:
                raise CheckpointError(f"{what} has the tensor {sides[side][0]} without its lora_{other} partner.")
        (down_name, down), (up_name, up) = sides["down"], sides["up"]
        if down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0] or not len(down):
            shapes = f"{list(down.shape)} and {list(up.shape)}"
            raise CheckpointError(f"{what} has tensors {down_name} and {up_name} of shapes {shapes}: ranks differ.")
        scale = _scale(layer, len(down), settings, sides.get("alpha"), what)
        pairs[layer] = Pair(down, up if scale == 1 else up.float() * scale, down_name, up_name)
    return pairs


def _check_settings(settings: Mapping[str, Any], what: str) -> None:
    """Refuse what is no plain LoRA."""
    kind = "DoRA" if settings.get("use_dora") else settings.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(f"{what} is of the kind {kind}; only plain LoRA is supported.")
    if (start := settings.get("init_lora_weights")) not in _PLAIN_STARTS:
        raise CheckpointError(
            f"{what} began as {start!r}, which changes the model itself; convert it to a plain LoRA first "
            "(peft: save_pretrained with path_initial_model_for_weight_conversion)."
        )


def _scale(
    layer: str, rank: int, settings: Mapping[str, Any], alpha: tuple[str, torch.Tensor] | None, what: str
) -> float:
    """alpha / rank; 1 where nothing is said, as in diffusers."""
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


def _fitted(pairs: Mapping[str, Pair], network: nn.Module, what: str) -> dict[str, Pair]:
    """The pairs in the shapes of the network's layers: files may have matrices for convolutions of one pixel, and the
    other way round. Raises CheckpointError that names the first tensor for which the network has no place."""
    advice = "was it made for a model of another size?"
    fitted, modules = {}, dict[str, Any](network.named_modules())
    for layer, pair in _apart(pairs, modules, what):
        if layer not in modules:
            raise CheckpointError(f"{what} has a tensor {pair.down_name}; this model has no {layer}: {advice}")
        module = getattr(modules[layer], "base_layer", modules[layer])  # it may carry adapters already
        if not isinstance(module, _LAYERS):
            raise CheckpointError(f"{what} has a tensor {pair.down_name}, but {layer} is not a linear layer.")
        out, into, *kernel = module.weight.shape[isinstance(module, Fp8Linear) :]
        rank, ones = len(pair.down), [1] * len(kernel)
        made = {}
        for side, shape in (("down", [rank, into, *kernel]), ("up", [out, rank, *ones])):
            name, tensor = getattr(pair, f"{side}_name"), getattr(pair, side)
            if kernel == ones and tensor.shape[2:].numel() == 1:
                tensor = tensor.reshape(*tensor.shape[:2], *ones)
            if list(tensor.shape) != shape:
                given = list(tensor.shape)
                raise CheckpointError(f"{what}: its tensor {name} has shape {given}; {shape} is needed: {advice}")
            made[side] = tensor
        fitted[layer] = replace(pair, **made)
    return fitted


def _apart(pairs: Mapping[str, Pair], modules: Mapping[str, Any], what: str) -> Iterator[tuple[str, Pair]]:
    """Every layer with its pair, also those that were one layer in the file: each has its `down`."""
    for names, pair in pairs.items():
        layers = names.split()
        missing = [layer for layer in layers if layer not in modules]
        if missing or len(layers) == 1:
            yield (missing or layers)[0], pair
            continue
        rows = [getattr(modules[layer], "base_layer", modules[layer]).out_features for layer in layers]
        if sum(rows) != len(pair.up):
            has, needed = list(pair.up.shape), [sum(rows), len(pair.down)]
            raise CheckpointError(f"{what}: its tensor {pair.up_name} has shape {has}; {needed} is needed.")
        for layer, up in zip(layers, pair.up.split(rows), strict=True):
            yield layer, replace(pair, down=pair.down.clone(), up=up)  # they are trained and written apart


def peft_settings(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """peft's settings. alpha is the rank everywhere, since the scale is in the tensors already: peft's hot swap
    looks at neither pattern."""
    ranks = {layer: len(pair.down) for layer, pair in pairs.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {f"^{re.escape(layer)}": rank for layer, rank in ranks.items() if rank != usual}
    patterns = {"rank_pattern": others, "alpha_pattern": dict(others)}
    return {"r": usual, "lora_alpha": usual, **patterns, "target_modules": list(ranks)}


def pack(pairs: Mapping[str, Pair], prefix: str = "", down: str = "lora_A", up: str = "lora_B") -> dict[str, Any]:
    """The tensors under peft's names: LAYER.lora_A.weight, LAYER.lora_B.weight."""
    tensors: dict[str, torch.Tensor] = {}
    for layer, pair in pairs.items():
        tensors |= {f"{prefix}{layer}.{down}.weight": pair.down, f"{prefix}{layer}.{up}.weight": pair.up}
    return tensors
