"""LoRA for MAGI-1: small files of low-rank changes, laid over the transformer with any weight.

Source: arXiv 2106.09685: W x becomes W x + weight * alpha / rank * up(down(x)). The layers are peft's, what is done
with them is diffusers'; ours is reading the many ways in which such files name their tensors.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from peft.tuners import lora
from torch import nn

from ...errors import CheckpointError, InputError
from ...layers.fp8 import Fp8Linear
from ...weights.lora import Pair, check_fit, find_lora_file, lora_pairs, pack, peft_settings, read_lora_file

# What stands before a layer's name in the files of diffusers, of peft, and of tools that kept the original names.
_PREFIXES = ("base_model.model.", "transformer.", "model.diffusion_model.", "diffusion_model.")
_MODEL = "MAGI-1's transformer"


def _without_prefix(name: str) -> str:
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def _read_pairs(
    source: str | Path | Mapping[str, torch.Tensor],
    weight_name: str | None = None,
    *,
    allow_pickle: bool = False,
    **where: Any,
) -> tuple[dict[str, Pair], str]:
    """The layers of a LoRA, and how to call it in a message."""
    if isinstance(source, Mapping):
        return lora_pairs(source, {}, "the LoRA", _MODEL, _without_prefix), "the LoRA"
    path = find_lora_file(source, weight_name, **where)
    what = f"the LoRA {path}"
    tensors, settings = read_lora_file(path, allow_pickle)
    settings = {key.removeprefix("transformer."): value for key, value in settings.items()}
    return lora_pairs(tensors, settings, what, _MODEL, _without_prefix), what


class _Fp8LoraLinear(lora.Linear):
    """Carries LoRAs beside a layer in FP8; empty at first: peft adds adapters to a layer that can have them."""

    def __init__(self, base_layer: Fp8Linear, dtype: torch.dtype):
        nn.Module.__init__(self)
        lora.LoraLayer.__init__(self, base_layer)
        self.fan_in_fan_out = self.is_target_conv_1d_layer = False
        self.adapter_dtype = dtype

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # peft's own would cast the adapter to FP8, the dtype of the weight.
        for part in (self.lora_A, self.lora_B):
            if adapter_name in part and not part[adapter_name].weight.is_meta:
                part[adapter_name].to(device or self.base_layer.weight.device, self.adapter_dtype)

    def merge(self, *args: Any, **kwargs: Any) -> None:
        raise InputError("a LoRA cannot be fused into FP8 weights, which are too coarse for it; use it unfused.")


class Magi1LoraLoaderMixin(LoraBaseMixin):
    """LoRA in MAGI-1's pipelines, with the methods of diffusers; also for a transformer out of `torch.compile`, which
    diffusers' own methods pass over."""

    _lora_loadable_modules = ["transformer"]
    transformer: Any
    transformer_name = "transformer"

    @classmethod
    def lora_state_dict(
        cls,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, torch.Tensor],
        weight_name: str | None = None,
        **where: Any,
    ) -> dict[str, torch.Tensor]:
        """The tensors of a LoRA under diffusers' names (transformer.LAYER.lora_A.weight, .lora_B.weight), scaled so
        that weight 1 is what it was trained for. Arguments and errors: those of `load_lora_weights`."""
        pairs, _ = _read_pairs(pretrained_model_name_or_path_or_dict, weight_name, **where)
        return pack(pairs, "transformer.")

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        weight_name: str | None = None,
        subfolder: str | None = None,
        allow_pickle: bool = False,
        **hub: Any,
    ) -> None:
        """Lay a LoRA over the transformer. It is active, with weight 1, in place of those before it, until
        `set_adapters` says otherwise.

        Args:
            pretrained_model_name_or_path_or_dict: a .safetensors file, a folder, a hub id, or the tensors. Layers may
                be named as in diffusers (transformer.), peft (base_model.model.) or by their original names (also
                behind diffusion_model.), tensors lora_A and lora_B, or lora_down, lora_up and alpha.
            adapter_name: what to call it in `set_adapters`; None: default_0, default_1, ...
            hotswap: put it in the place of the adapter `adapter_name`, whose layers it may not exceed. A compiled
                transformer is not compiled again, if `enable_lora_hotswap(target_rank=...)` came before the first.
            weight_name, subfolder: which file, where a folder or repository has several.
            allow_pickle: read pickled files too (with `weights_only`).
            hub: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`.

        Raises: InputError for a file that is not there and a name that is taken, CheckpointError for a tensor that
            does not fit.
        """
        self._refuse_if_fused()
        names = self._adapter_names()
        if hotswap:
            self._check_names([adapter_name])
        elif adapter_name is None:
            adapter_name = next(name for i in range(len(names) + 1) if (name := f"default_{i}") not in names)
        elif adapter_name in names:
            raise InputError(f"there is a LoRA {adapter_name!r} already; choose another name, or pass hotswap=True.")
        elif "." in adapter_name or hasattr(nn.ModuleDict(), adapter_name or "__init__"):
            raise InputError(f"a LoRA cannot be called {adapter_name!r}; choose a word without dots.")
        pairs, what = _read_pairs(
            pretrained_model_name_or_path_or_dict, weight_name, subfolder=subfolder, allow_pickle=allow_pickle, **hub
        )
        check_fit(pairs, self._network, what)
        settings = peft_settings(pairs)
        if hotswap:
            self._check_swap(pairs, what, str(adapter_name))
            # peft wants these to be equal, and does not look at them.
            settings["alpha_pattern"] = self._network.peft_config[adapter_name].alpha_pattern
        with warnings.catch_warnings():
            # Of a second adapter, and of layers in FP8: both are meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`|Unsupported layer type", UserWarning)
            self._prepare_fp8_layers(pairs)
            self._network.load_lora_adapter(
                pack(pairs),
                prefix=None,
                adapter_name=adapter_name,
                metadata=settings,
                hotswap=hotswap,
                low_cpu_mem_usage=True,
                _pipeline=self,
            )

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | Path,
        transformer_lora_layers: Mapping[str, torch.Tensor] | nn.Module,
        is_main_process: bool = True,
        weight_name: str | None = None,
        save_function: Any = None,
        safe_serialization: bool = True,
        transformer_lora_adapter_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a LoRA as safetensors, under diffusers' names.

        Args:
            transformer_lora_layers: for example `peft.get_peft_model_state_dict(pipe.transformer)`.
            weight_name: the file; None: pytorch_lora_weights.safetensors.
            transformer_lora_adapter_metadata: peft's settings (`LoraConfig.to_dict()`), which hold the alpha.
        Raises: InputError if anything but safetensors is asked for.
        """
        if not safe_serialization:
            raise InputError("a LoRA is written as safetensors only; leave safe_serialization out.")
        if not is_main_process:
            return
        metadata = {f"transformer.{key}": value for key, value in (transformer_lora_adapter_metadata or {}).items()}
        cls.write_lora_layers(
            state_dict=cls.pack_weights(transformer_lora_layers, "transformer"),
            save_directory=str(save_directory),
            is_main_process=is_main_process,
            weight_name=weight_name,
            save_function=save_function,
            safe_serialization=True,
            lora_adapter_metadata=metadata,
        )

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | Mapping[str, Any] | Sequence[float | Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Use these LoRAs, with these weights, and no others.

        Args:
            adapter_weights: one for all or one each; None: 1. In place of a number, a dict of names of parts of the
                transformer (`{"videodit_blocks.layers.0": 0.5}`) weighs them apart; what is not named has 1.
        Raises: InputError for a name or part that is not there, and for another number of weights than of names.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        weights = list(adapter_weights) if isinstance(adapter_weights, Sequence) else [adapter_weights] * len(names)
        self._check_names(names)
        if len(names) != len(weights):
            raise InputError(f"{len(names)} LoRAs need {len(names)} weights, not {len(weights)}.")
        self._refuse_if_fused()
        given = [self._by_layer(weight) if isinstance(weight, Mapping) else weight for weight in weights]
        self._network.set_adapters(names, given)

    def _by_layer(self, weights: Mapping[str, Any]) -> float | dict[str, float]:
        """Weights of parts to weights of layers. diffusers takes the first key found in a layer's name, so that longer
        names must come first."""
        parts = weights.get("transformer", weights)
        if not isinstance(parts, Mapping):
            return parts
        layers = list(self._lora_layers())
        for part in parts:
            if not any(f"{layer}.".startswith(f"{part}.") for layer in layers):
                raise InputError(f"no LoRA changes {part!r}; it does change {layers[0]!r}, for example.")
        by_layer = {}
        for layer in sorted(layers, key=len, reverse=True):
            above = [part for part in parts if f"{layer}.".startswith(f"{part}.")]
            by_layer[layer] = parts[max(above, key=len)] if above else 1.0
        return by_layer

    def fuse_lora(
        self,
        components: Sequence[str] = ("transformer",),
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
    ) -> None:
        """Add the active LoRAs, or those named, to the weights: as fast as without. `unfuse_lora` subtracts them;
        `unload_lora_weights` then leaves them in for good.

        Raises: InputError for a model in FP8, whose weights cannot take small changes.
        """
        layers = self._lora_layers().values()
        for layer in layers:
            if isinstance(layer, _Fp8LoraLinear):  # before any other layer is changed
                layer.merge()
        if not any(layer.merged for layer in layers):
            self._unfused_scales = [copy.deepcopy(layer.scaling) for layer in layers]
        self._network.fuse_lora(lora_scale, safe_fusing=safe_fusing, adapter_names=adapter_names)
        self._merged_adapters = {name for layer in layers for name in layer.merged_adapters}

    def unfuse_lora(self, components: Sequence[str] = ("transformer",)) -> None:
        """Take fused LoRAs out of the weights again, up to rounding; they are active as before."""
        layers = self._lora_layers().values()
        if any(layer.merged for layer in layers):
            self._network.unfuse_lora()
            for layer, scales in zip(layers, self._unfused_scales, strict=True):  # without the lora_scale
                layer.scaling = scales
        self._merged_adapters = set()

    def unload_lora_weights(self) -> None:
        """Remove all LoRAs; those that are fused stay in the weights."""
        self._network.unload_lora()

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Remove LoRAs. Raises InputError for a name that is not there, and while one is fused."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._check_names(names)
        self._refuse_if_fused()
        self._network.delete_adapters(names)

    def disable_lora(self) -> None:
        """As without LoRAs, until `enable_lora`."""
        self._network.disable_lora()

    def enable_lora(self) -> None:
        """Use the active LoRAs again."""
        self._network.enable_lora()

    def get_active_adapters(self) -> list[str]:
        """The LoRAs in use."""
        return next((list(layer.active_adapters) for layer in self._lora_layers().values()), [])

    def get_list_adapters(self) -> dict[str, list[str]]:
        """All LoRAs loaded, in the order of loading."""
        names = self._adapter_names()
        return {"transformer": names} if names else {}

    @contextmanager
    def using_loras(self, loras: Mapping[str, float], *, allow_pickle: bool = False) -> Iterator[None]:
        """`with pipe.using_loras({"watercolour.safetensors": 0.8}):` these LoRAs and no others are active inside;
        afterwards the pipeline is as it was.

        Args:
            loras: file, folder or hub id -> weight.
        Raises: as `load_lora_weights`.
        """
        if not loras:
            yield
            return
        self._refuse_if_fused()
        before = self._adapter_names()
        active = self.get_active_adapters()
        disabled = any(layer.disable_adapters for layer in self._lora_layers().values())
        try:
            for source in loras:
                self.load_lora_weights(source, allow_pickle=allow_pickle)
            self.set_adapters(self._adapter_names()[len(before) :], list(loras.values()))
            self.enable_lora()
            yield
        finally:
            if not before:
                self.unload_lora_weights()
            else:
                self._network.set_adapter(active)
                self.delete_adapters(self._adapter_names()[len(before) :])
                if disabled:
                    self.disable_lora()

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As in diffusers. Raises InputError while LoRAs are loaded: the weights would not be where others look."""
        if self._lora_layers():
            raise InputError(
                "LoRAs are loaded: before saving, call unload_lora_weights(), and fuse_lora() before that to keep them."
            )
        super().save_pretrained(save_directory, *args, **kwargs)

    def _prepare_fp8_layers(self, names: Iterable[str]) -> None:
        dtype = self._network.videodit_blocks.layers[0].mlp.layer_norm.weight.dtype  # that of activations
        for name in names:
            layer = self._network.get_submodule(name)
            if isinstance(layer, Fp8Linear):
                self._network.set_submodule(name, _Fp8LoraLinear(layer, dtype))

    @property
    def _network(self) -> Any:
        """The transformer, without the wrapping of `torch.compile`."""
        return getattr(self.transformer, "_orig_mod", self.transformer)

    def _check_names(self, names: Sequence[str | None]) -> None:
        known = self._adapter_names()
        missing = [name for name in names if name not in known]
        if missing:
            raise InputError(f"there is no LoRA {missing[0]!r}; loaded are: {', '.join(known) or 'none'}.")

    def _adapter_names(self) -> list[str]:
        """In the order in which they were loaded."""
        return list(getattr(self._network, "peft_config", None) or {})

    def _lora_layers(self) -> dict[str, Any]:
        modules = self._network.named_modules()
        return {name: module for name, module in modules if isinstance(module, lora.LoraLayer)}

    def _check_swap(self, pairs: Mapping[str, Pair], what: str, adapter_name: str) -> None:
        """Refuse what peft would give up half-way, which loses the adapter that is there."""
        layers = self._lora_layers()
        for layer, pair in pairs.items():
            there = layers[layer].lora_A if layer in layers else {}
            if adapter_name not in there:
                reason = f"that one does not change {layer}"
            elif pair.down.ndim > 2 and len(pair.down) < len(there[adapter_name].weight):
                reason = f"its rank in {layer}, a convolution, is smaller"
            else:
                continue
            raise CheckpointError(f"{what} cannot be put in the place of {adapter_name!r}: {reason}.")
        # peft empties every tensor whose name has the adapter's name anywhere in it.
        for key in self._network.state_dict():
            if ".lora_" in key and adapter_name in key and key.split(".")[-2] != adapter_name:
                raise InputError(f"the LoRA {adapter_name!r} cannot be swapped: its name is also a part of {key}.")

    def _refuse_if_fused(self) -> None:
        if any(layer.merged for layer in self._lora_layers().values()):
            raise InputError("a LoRA is fused into the weights; call unfuse_lora() first, or unload_lora_weights().")
