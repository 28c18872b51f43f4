"""LoRA around AnimateDiff: for the picture model and its text encoders, MotionLoRA, and the domain adapter of v3.

Source: arXiv 2106.09685 (LoRA), 2307.04725 section 4.3 (MotionLoRA) and 4.1 (domain adapter). The layers are peft's,
what is done with them is diffusers'; ours is reading the ways in which such files name their tensors.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from diffusers.utils.peft_utils import set_weights_and_activate_adapters
from peft.tuners import lora
from torch import nn

from ...errors import CheckpointError, InputError
from ...weights.lora import Pair, check_fit, find_lora_file, lora_pairs, pack, peft_settings, read_lora_file
from .published import motion_name
from .unet import AnimateDiffUNet

PARTS = ("unet", "text_encoder", "text_encoder_2")
_MODEL = "this model"
# What a name begins with -> the part it belongs to; names that begin otherwise belong to the UNet.
_PREFIXES = {f"{part}.": part for part in PARTS} | {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "base_model.model.": "unet",
}
# kohya's tool trains SDXL under Stability AI's names; diffusers numbers their blocks anew, and leaves the words.
_SDXL_BLOCKS = {"input_blocks_": "down_blocks_", "middle_block_": "mid_block_", "output_blocks_": "up_blocks_"}
_SDXL_NAMES = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
    "downsamplers_0_op": "downsamplers_0_conv",
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "out_2": "conv_out",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}

Pairs = dict[str, dict[str, Pair]]
"""Part of the pipeline -> layer -> its change."""


def motion_lora_state_dict(unet: AnimateDiffUNet, adapter_name: str) -> dict[str, torch.Tensor]:
    """An adapter of a UNet in the layout in which MotionLoRA and the domain adapter are published.

    That layout knows no alpha: the scale that the adapter was trained with goes into its second factor. Raises:
    InputError if there is no such adapter, or if it changes layers for which the layout has no names.
    """
    tensors = {}
    for name, layer in unet.named_modules():
        if not isinstance(layer, lora.LoraLayer) or adapter_name not in layer.lora_A:
            continue
        block, _, projection = name.removesuffix(".0").rpartition(".")
        if projection not in ("to_q", "to_k", "to_v", "to_out"):
            raise InputError(f"the adapter {adapter_name!r} changes {name}; published files only change attention.")
        trained = layer.lora_alpha[adapter_name] / layer.r[adapter_name]  # without the weight of the moment
        down, up = layer.lora_A[adapter_name].weight, layer.lora_B[adapter_name].weight * trained
        for part, tensor in (("down", down), ("up", up)):
            tensors[f"{block}.processor.{projection}_lora.{part}.weight"] = tensor.detach().contiguous()
    if not tensors:
        raise InputError(f"the UNet has no adapter {adapter_name!r}.")
    return tensors


def _part_of(name: str) -> tuple[str, str]:
    """The part of the pipeline that a tensor or layer belongs to, and its name in there."""
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return _PREFIXES.get(prefix, "unet"), name.removeprefix(prefix)


def _layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that a LoRA may change, without the adapters that they carry."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d, lora.LoraLayer)) and ".base_layer" not in name
        and ".lora_" not in name
    }  # fmt: skip


def _layer_finder(network: nn.Module) -> Callable[[str], str | None]:
    """Finds the layer of a network by any of the names that files have for it."""
    layers = _layers(network)
    flat = {name.replace(".", "_"): name for name in layers}

    def find(name: str) -> str | None:
        name = _part_of(name)[1]
        if "." not in name:  # kohya writes underscores for dots
            for old, new in _SDXL_NAMES.items():
                name = re.sub(f"(^|_){old}$", rf"\1{new}", name)
            for old, new in _SDXL_BLOCKS.items():
                name = re.sub(f"^{old}", new, name)
            return flat.get(name) or flat.get(name.removeprefix("text_model_"))
        name = motion_name(name.replace(".processor.", "."))
        name = f"{name}.0" if name.endswith(".to_out") else name
        wrapped = name.startswith("text_model.") and name not in layers
        return name.removeprefix("text_model.") if wrapped else name

    return find


def _shaped(pair: Pair, layer: nn.Module | None) -> Pair:
    """Convolutions of one pixel and linear layers are the same; files may have one for the other."""
    layer = getattr(layer, "base_layer", layer)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and pair.down.ndim == 2:
        return replace(pair, down=pair.down[..., None, None], up=pair.up[..., None, None])
    if isinstance(layer, nn.Linear) and pair.down.ndim == pair.up.ndim == 4 and pair.down.shape[2:] == (1, 1):
        return replace(pair, down=pair.down[..., 0, 0], up=pair.up[..., 0, 0])
    return pair


class AnimateDiffLoraMixin(StableDiffusionXLLoraLoaderMixin):
    """LoRA in AnimateDiff's pipelines, with the methods of diffusers and those for MotionLoRA and domain adapter."""

    _lora_loadable_modules = list(PARTS)
    unet: Any

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, torch.Tensor],
        adapter_name: str | None = None,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        allow_pickle: bool = False,
        **hub: Any,
    ) -> None:
        """Lay a LoRA over the UNet and the text encoders. It is active, with weight 1, in place of those before it,
        until `set_adapters` says otherwise.

        Args:
            pretrained_model_name_or_path_or_dict: a file, a folder, a hub id, or the tensors: an image LoRA in the
                layout of kohya, diffusers or peft, a MotionLoRA or a domain adapter.
            adapter_name: what to call it in `set_adapters`; None: default_0, default_1, ...
            weight_name, subfolder: which file, where a folder or repository has several.
            allow_pickle: read pickled files too (with `weights_only`).
            hub: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`.
        Raises: InputError for a file that is not there and a name that is taken, CheckpointError for a tensor that is
            unknown or does not fit.
        """
        where = {"weight_name": weight_name, "subfolder": subfolder, **hub}
        pairs, _ = self._read_lora(pretrained_model_name_or_path_or_dict, allow_pickle, **where)
        name = self._load_pairs(pairs, adapter_name)
        self.set_adapters(name)

    def add_lora(
        self,
        file: str | Path | Mapping[str, torch.Tensor],
        adapter_name: str | None = None,
        weight: float = 1.0,
        *,
        allow_pickle: bool = False,
    ) -> None:
        """Add a LoRA of any kind to those in use. Arguments and errors: as `load_lora_weights`."""
        self._add(file, adapter_name, weight, allow_pickle, motion=None)

    def load_motion_lora(
        self,
        file: str | Path | Mapping[str, torch.Tensor],
        adapter_name: str | None = None,
        weight: float = 1.0,
        *,
        allow_pickle: bool = False,
    ) -> None:
        """Add a MotionLoRA, a learned camera move, to the LoRAs in use.

        Raises: as `load_lora_weights`; CheckpointError if it changes anything but motion modules.
        """
        self._add(file, adapter_name, weight, allow_pickle, motion=True)

    def load_domain_adapter(
        self,
        file: str | Path | Mapping[str, torch.Tensor],
        scale: float = 1.0,
        adapter_name: str = "domain_adapter",
        *,
        allow_pickle: bool = False,
    ) -> None:
        """Add the domain adapter of v3, the look of the videos that the motion module learned from, to the LoRAs in
        use. scale: 0 takes that look away, 1 is as in training.

        Raises: as `load_lora_weights`; CheckpointError if it changes motion modules.
        """
        self._add(file, adapter_name, scale, allow_pickle, motion=False)

    def _add(self, source: Any, name: str | None, weight: float, allow_pickle: bool, motion: bool | None) -> None:
        """motion: whether it has to change motion modules, and nothing else, or must not; None: either."""
        pairs, what = self._read_lora(source, allow_pickle)
        for part, layers in pairs.items():
            for layer, pair in layers.items():
                if motion is not None and (part == "unet" and self.unet.is_motion(layer)) != motion:
                    wanted = "a MotionLoRA changes motion modules only" if motion else "a domain adapter changes none"
                    raise CheckpointError(f"{what} changes {layer} (tensor {pair.down_name}): {wanted}.")
        before = self._weights()
        self._use(before | {self._load_pairs(pairs, name): weight})

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | Mapping[str, float] | Sequence[float | Mapping[str, float] | None] | None = None,
    ) -> None:
        """Use these LoRAs, with these weights, and no others.

        Args:
            adapter_weights: one for all or one each; None: 1. In place of a number, a dict of parts
                (`{"unet": 0.8, "text_encoder": 0.5}`) weighs them apart; a part not named has 1.
        Raises: InputError for a name or part that is not there, and for another number of weights than of names.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        weights = list(adapter_weights) if isinstance(adapter_weights, Sequence) else [adapter_weights] * len(names)
        known = self._names()
        missing = [name for name in names if name not in known]
        if missing:
            raise InputError(f"there is no LoRA {missing[0]!r}; loaded are: {', '.join(known) or 'none'}.")
        if len(names) != len(weights):
            raise InputError(f"{len(names)} LoRAs need {len(names)} weights, not {len(weights)}.")
        for weight in weights:
            for part in weight if isinstance(weight, Mapping) else ():
                if part not in PARTS:
                    raise InputError(f"a LoRA cannot be weighed for {part!r}; parts are {', '.join(PARTS)}.")
        self._refuse_if_fused()
        self._use({n: 1.0 if w is None else w for n, w in zip(names, weights, strict=True)})

    @contextmanager
    def using_loras(
        self,
        loras: Mapping[str, float],
        motion_loras: Mapping[str, float] | None = None,
        *,
        allow_pickle: bool = False,
    ) -> Iterator[None]:
        """`with pipe.using_loras({"watercolour.safetensors": 0.8}):` these LoRAs and no others are active inside;
        afterwards the pipeline is as it was.

        Args:
            loras: file, folder or hub id -> weight; of any kind. motion_loras: likewise, MotionLoRAs only.
        Raises: as `load_lora_weights` and `load_motion_lora`.
        """
        if not loras and not motion_loras:
            yield
            return
        self._refuse_if_fused()
        before, active = self._names(), self._weights()
        disabled = any(layer.disable_adapters for layer in self._lora_layers())
        try:
            self._use({})
            for source, weight in loras.items():
                self.add_lora(source, weight=weight, allow_pickle=allow_pickle)
            for source, weight in (motion_loras or {}).items():
                self.load_motion_lora(source, weight=weight, allow_pickle=allow_pickle)
            self.enable_lora()
            yield
        finally:
            if before:
                self._use(active)
                self.delete_adapters([name for name in self._names() if name not in before])
                if disabled:
                    self.disable_lora()
            else:
                self.unload_lora_weights()

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As in diffusers. Raises InputError while LoRAs are loaded: the weights would not be where others look."""
        if self._lora_layers():
            raise InputError(
                "LoRAs are loaded: before saving, call unload_lora_weights(), and fuse_lora() before that to keep them."
            )
        super().save_pretrained(save_directory, *args, **kwargs)

    # ---- how

    def _networks(self) -> dict[str, nn.Module]:
        """The parts that are there, without the wrapping of `torch.compile`."""
        parts = {part: getattr(self, part, None) for part in PARTS}
        return {part: getattr(n, "_orig_mod", n) for part, n in parts.items() if n is not None}

    def _lora_layers(self) -> list[Any]:
        return [m for n in self._networks().values() for m in n.modules() if isinstance(m, lora.LoraLayer)]

    def _names(self) -> list[str]:
        """All adapters in the order of loading."""
        return list(dict.fromkeys(name for n in self._networks().values() for name in getattr(n, "peft_config", {})))

    def _weights(self) -> dict[str, dict[str, float]]:
        """The adapters in use with their weight in each part."""
        weights: dict[str, dict[str, float]] = {}
        for part, network in self._networks().items():
            layers: list[Any] = [layer for layer in network.modules() if isinstance(layer, lora.LoraLayer)]
            for layer in layers:
                for name in layer.active_adapters:
                    if name in layer.lora_A:
                        trained = layer.lora_alpha[name] / layer.r[name]
                        weights.setdefault(name, {})[part] = layer.scaling[name] / trained
        return weights

    def _use(self, weights: Mapping[str, float | Mapping[str, float]]) -> None:
        """Activate adapters, with their weights, and no others."""
        for part, network in self._networks().items():
            values = [w.get(part, 1.0) if isinstance(w, Mapping) else w for w in weights.values()]
            set_weights_and_activate_adapters(network, list(weights), values)

    def _refuse_if_fused(self) -> None:
        if any(layer.merged for layer in self._lora_layers()):
            raise InputError("a LoRA is fused into the weights; call unfuse_lora() first, or unload_lora_weights().")

    def _read_lora(self, source: Any, allow_pickle: bool, **where: Any) -> tuple[Pairs, str]:
        """The changes that a file makes to each part, all of which fit, and how to call it in a message."""
        if isinstance(source, Mapping):
            tensors, settings, what = dict(source), dict[str, Any](), "the LoRA"
        else:
            path = find_lora_file(source, **where)
            what = f"the LoRA {path}"
            tensors, settings = read_lora_file(path, allow_pickle)
        networks = self._networks()
        if any(re.match("lora_unet_(input|middle|output)_block", name) for name in tensors):
            try:
                tensors = _maybe_map_sgm_blocks_to_diffusers(tensors, networks["unet"].config)
            except (IndexError, ValueError) as error:
                raise CheckpointError(f"{what} has names that cannot be understood: {error}.") from error
        by_part: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            by_part.setdefault(_part_of(name)[0], {})[name] = tensor
        if not tensors:
            raise CheckpointError(f"{what} is empty.")
        pairs: Pairs = {}
        for part, own in by_part.items():
            if part not in networks:
                raise CheckpointError(f"{what} has a tensor {next(iter(own))}; this pipeline has no {part}.")
            network = networks[part]
            # With diffusers' files the settings of all parts are in one place.
            trained = {k.removeprefix(f"{part}."): v for k, v in settings.items() if _part_of(k)[0] == part}
            found = lora_pairs(own, trained, what, _MODEL, _layer_finder(network))
            layers = _layers(network)
            pairs[part] = {name: _shaped(pair, layers.get(name)) for name, pair in found.items()}
            check_fit(pairs[part], network, what)
        return pairs, what

    def _load_pairs(self, pairs: Pairs, name: str | None) -> str:
        """Lay the changes over the networks as an adapter, which is active or not; returns its name."""
        self._refuse_if_fused()
        names = self._names()
        if name is None:
            name = next(made for i in range(len(names) + 1) if (made := f"default_{i}") not in names)
        elif name in names:
            raise InputError(f"there is a LoRA {name!r} already; choose another name.")
        elif "." in name or hasattr(nn.ModuleDict(), name or "__init__"):
            raise InputError(f"a LoRA cannot be called {name!r}; choose a word without dots.")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)  # of a second adapter
            for part, changes in pairs.items():
                settings: dict[str, Any] = {f"{part}.{key}": value for key, value in peft_settings(changes).items()}
                shared = {"adapter_name": name, "_pipeline": self, "low_cpu_mem_usage": True, "metadata": settings}
                tensors = pack(changes, f"{part}.")
                if part == "unet":
                    self.load_lora_into_unet(tensors, None, self._networks()[part], **shared)
                    continue
                # Of text encoders, diffusers knows some layers by peft's names, and all by its own.
                for peft, own in ((".lora_A.", ".lora_linear_layer.down."), (".lora_B.", ".lora_linear_layer.up.")):
                    tensors = {key.replace(peft, own): tensor for key, tensor in tensors.items()}
                self.load_lora_into_text_encoder(tensors, None, self._networks()[part], prefix=part, **shared)
        return name
