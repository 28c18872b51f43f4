"""LoRA in any pipeline: files of every naming are laid over its networks, weighed, joined, fused and taken off again.

Source: arXiv 2106.09685: W x becomes W x + weight * alpha / rank * up(down(x)). The layers are peft's, what is done
with them is diffusers'. A system gives its `lora_parts`, which are data.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.loaders import PeftAdapterMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import LoraConfig
from peft.tuners import lora
from torch import nn

from ..errors import CheckpointError, InputError
from ..layers.fp8 import Fp8Linear
from .lora_files import LoraPart, Pair, Source, find_lora_file, pack, peft_settings, read_lora

__all__ = ["LoraMixin", "LoraPart", "Source", "add_lora", "find_lora_file", "lora_layers"]

Weight = float | Mapping[str, Any] | None


def add_lora(
    network: Any,
    targets: str | list[str],
    rank: int,
    name: str = "default",
    *,
    alpha: float | None = None,
    start: bool | str = True,
) -> None:
    """Freeze a network of diffusers or transformers and lay a new LoRA over some of its layers; only it is trained.

    Args:
        targets: the ends of the layers' names, or a pattern for whole names.
        alpha: the LoRA counts alpha / rank times; None: once.
        start: peft's `init_lora_weights`; True: it changes nothing at first.
    """
    network.requires_grad_(False)
    config: Any = {"r": rank, "lora_alpha": alpha or rank, "target_modules": targets, "init_lora_weights": start}
    network.add_adapter(LoraConfig(**config), adapter_name=name)


def lora_layers(network: nn.Module) -> dict[str, Any]:
    """The layers that carry LoRAs, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, lora.LoraLayer)}


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


def _of_diffusers(method: Callable[..., Any]) -> Any:
    """A method of LoraBaseMixin that also reaches networks out of `torch.compile`, which it passes over."""

    @wraps(method)
    def call(self: LoraMixin, *args: Any, **kwargs: Any) -> Any:
        pipeline, networks = LoraBaseMixin(), self._networks()
        vars(pipeline).update(networks, _lora_loadable_modules=list(networks))
        return method(pipeline, *args, **kwargs)

    return call


class LoraMixin(LoraBaseMixin):
    """LoRA in a pipeline, with the methods of diffusers."""

    lora_parts: ClassVar[tuple[LoraPart, ...]]

    unload_lora_weights = _of_diffusers(LoraBaseMixin.unload_lora_weights)
    enable_lora = _of_diffusers(LoraBaseMixin.enable_lora)
    disable_lora = _of_diffusers(LoraBaseMixin.disable_lora)
    get_active_adapters = _of_diffusers(LoraBaseMixin.get_active_adapters)
    get_list_adapters = _of_diffusers(LoraBaseMixin.get_list_adapters)
    _delete_adapters = _of_diffusers(LoraBaseMixin.delete_adapters)

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._lora_loadable_modules = [part.component for part in cls.lora_parts]

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: Source,
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        allow_pickle: bool = False,
        **where: Any,
    ) -> None:
        """Lay a LoRA over the networks. It is active, with weight 1, in place of those before it, until
        `set_adapters` says otherwise.

        Args:
            pretrained_model_name_or_path_or_dict: a file, a folder, a hub id, or the tensors, in the naming of
                diffusers, of peft, of kohya, or of the published weights.
            adapter_name: what to call it in `set_adapters`; None: default_0, default_1, ...
            hotswap: put it in the place of the adapter `adapter_name`, whose layers it may not exceed.
            allow_pickle: read pickled files too (with `weights_only`).
            where: `weight_name` and `subfolder`, where a folder or repository has several files; of the hub:
                `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`.
        Raises: InputError for a file that is not there and a name that is taken, CheckpointError for a tensor that is
            unknown or does not fit.
        """
        self._lay(
            pretrained_model_name_or_path_or_dict, adapter_name, hotswap=hotswap, allow_pickle=allow_pickle, **where
        )

    def add_lora(
        self, file: Source, adapter_name: str | None = None, weight: float = 1.0, *, allow_pickle: bool = False
    ) -> None:
        """Add a LoRA to those in use. Arguments and errors: as `load_lora_weights`."""
        self._lay(file, adapter_name, weight, beside=True, allow_pickle=allow_pickle)

    @classmethod
    def _save_lora_weights(
        cls, *args: Any, is_main_process: bool = True, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        if not safe_serialization:
            raise InputError("a LoRA is written as safetensors only; leave safe_serialization out.")
        if is_main_process:
            super()._save_lora_weights(*args, **kwargs)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: Weight | Sequence[Weight] = None
    ) -> None:
        """Use these LoRAs, with these weights, and no others.

        Args:
            adapter_weights: one for all or one each; None: 1. In place of a number, a dict of components
                (`{"unet": 0.8, "text_encoder": 0.5}`), of modules inside one (`{"unet": {"down_blocks.1": 0.5}}`), or
                nested as in diffusers (`{"unet": {"down": {"block_1": 0.5}}}`) weighs them apart; the longest name
                counts, and what is not named has 1. Where there is one component only, its name may be left out.
        Raises: InputError for a name or part that is not there, and for another number of weights than of names.
        """
        names = self._known(adapter_names)
        weights = list(adapter_weights) if isinstance(adapter_weights, Sequence) else [adapter_weights] * len(names)
        if len(names) != len(weights):
            raise InputError(f"{len(names)} LoRAs need {len(names)} weights, not {len(weights)}.")
        self._refuse_if_fused()
        self._use(names, dict(zip(names, map(self._by_module, weights), strict=True)))

    def fuse_lora(
        self,
        components: Sequence[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
    ) -> None:
        """Add the active LoRAs, or those named, to the weights: as fast as without. `unfuse_lora` subtracts them;
        `unload_lora_weights` then leaves them in for good.

        components: those that are changed; None: all. Raises: InputError for a model in FP8, whose weights cannot
        take small changes.
        """
        layers = self._lora_layers(components)
        for layer in layers:
            if isinstance(layer, _Fp8LoraLinear):  # before any other layer is changed
                layer.merge()
        for layer in layers:
            layer.unfused_scaling = getattr(layer, "unfused_scaling", layer.scaling)
            fused = set(adapter_names or layer.active_adapters) - set(layer.merged_adapters)
            layer.scaling = {n: s * lora_scale if n in fused else s for n, s in layer.scaling.items()}
            layer.merge(safe_merge=safe_fusing, adapter_names=adapter_names)
        self._merged_adapters = {name for layer in self._lora_layers() for name in layer.merged_adapters}

    def unfuse_lora(self, components: Sequence[str] | None = None) -> None:
        """Take fused LoRAs out of the weights again, up to rounding; they are active as before."""
        for layer in self._lora_layers(components):
            if layer.merged:
                layer.unmerge()
            layer.scaling = vars(layer).pop("unfused_scaling", layer.scaling)  # without the lora_scale
        self._merged_adapters = {name for layer in self._lora_layers() for name in layer.merged_adapters}

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Remove LoRAs. Raises InputError for a name that is not there, and while one is fused."""
        names = self._known(adapter_names)
        self._refuse_if_fused()
        kept = [name for name in self._names() if name not in names]
        self._use([name for name in self.get_active_adapters() if name in kept] or kept[:1])
        self._delete_adapters(names)

    @contextmanager
    def using_loras(self, loras: Mapping[str, float], *, allow_pickle: bool = False) -> Iterator[None]:
        """`with pipe.using_loras({"watercolour.safetensors": 0.8}):` these LoRAs and no others are active inside;
        afterwards the pipeline is as it was. Raises: as `load_lora_weights`.

        loras: file, folder or hub id -> weight.
        """
        with self._for_a_while({self.add_lora: loras}, allow_pickle):
            yield

    @contextmanager
    def _for_a_while(
        self, loras: Mapping[Callable[..., None], Mapping[str, float]], allow_pickle: bool
    ) -> Iterator[None]:
        """Inside, these LoRAs and no others are active, each loaded by its method."""
        if not any(loras.values()):
            yield
            return
        self._refuse_if_fused()
        before, active = self._names(), self.get_active_adapters()
        scales = {layer: dict(layer.scaling) for layer in self._lora_layers()}
        disabled = any(layer.disable_adapters for layer in scales)
        try:
            self.enable_lora()
            self._use([])
            for load, sources in loras.items():
                for source, weight in sources.items():
                    load(source, weight=weight, allow_pickle=allow_pickle)
            yield
        finally:
            if not before:
                self.unload_lora_weights()
            else:
                self.delete_adapters([name for name in self._names() if name not in before])
                self._use(active)
                for layer, scaling in scales.items():
                    layer.scaling = scaling
                if disabled:
                    self.disable_lora()

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As in diffusers. Raises InputError while LoRAs are loaded: the weights would not be where others look."""
        if self._lora_layers():
            raise InputError(
                "LoRAs are loaded: before saving, call unload_lora_weights(), and fuse_lora() before that to keep them."
            )
        super().save_pretrained(save_directory, *args, **kwargs)

    # ---------------------------------------------------------------- how

    def _networks(self) -> dict[str, Any]:
        """The components that are there, without the wrapping of `torch.compile`."""
        found = {name: getattr(self, name, None) for name in self._lora_loadable_modules}
        return {name: getattr(one, "_orig_mod", one) for name, one in found.items() if one is not None}

    def _lora_layers(self, components: Sequence[str] | None = None) -> list[Any]:
        if unknown := set(components or ()) - set(self._lora_loadable_modules):
            raise InputError(f"no LoRA changes {min(unknown)!r}; choose {', '.join(self._lora_loadable_modules)}.")
        chosen = [network for name, network in self._networks().items() if not components or name in components]
        return [layer for network in chosen for layer in lora_layers(network).values()]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for names in self.get_list_adapters().values() for name in names))

    def _known(self, names: str | Sequence[str]) -> list[str]:
        """Names of LoRAs as a list. Raises InputError for one that is not there."""
        names, known = [names] if isinstance(names, str) else list(names), self._names()
        if missing := [name for name in names if name not in known]:
            raise InputError(f"there is no LoRA {missing[0]!r}; loaded are: {', '.join(known) or 'none'}.")
        return names

    def _new_name(self, name: str | None) -> str:
        names = self._names()
        if name is None:
            return next(made for i in range(len(names) + 1) if (made := f"default_{i}") not in names)
        if name in names:
            raise InputError(f"there is a LoRA {name!r} already; choose another name, or pass hotswap=True.")
        if "." in name or hasattr(nn.ModuleDict(), name or "__init__"):
            raise InputError(f"a LoRA cannot be called {name!r}; choose a word without dots.")
        return name

    def _refuse_if_fused(self) -> None:
        if any(layer.merged for layer in self._lora_layers()):
            raise InputError("a LoRA is fused into the weights; call unfuse_lora() first, or unload_lora_weights().")

    def _use(self, active: Sequence[str], weights: Mapping[str, Any] | None = None) -> None:
        """Activate LoRAs and no others. weights: of those that do not keep theirs, as of `_by_module`."""
        for component, network in self._networks().items():
            for path, layer in lora_layers(network).items():
                layer.set_adapter(list(active))
                for name, weight in (weights or {}).items():
                    if isinstance(weight, Mapping):
                        around = [key for key in weight if f"{component}.{path}.".startswith(f"{key}.")]
                        weight = weight[max(around, key=len)] if around else 1.0
                    layer.set_scale(name, weight)

    def _by_module(self, weight: Weight) -> Any:
        """A weight as one number, or as numbers by module (COMPONENT.PATH). Raises InputError."""
        if not isinstance(weight, Mapping):
            return 1.0 if weight is None else weight
        parts = {part.component: part for part in self.lora_parts}
        if len(parts) == 1 and not set(weight) & set(parts):
            weight = dict.fromkeys(parts, weight)
        if unknown := set(weight) - set(parts):
            raise InputError(f"a LoRA cannot be weighed for {min(unknown)!r}; parts are {', '.join(parts)}.")
        layers = [f"{name}.{layer}." for name, one in self._networks().items() for layer in lora_layers(one)]
        whole = {*parts, *(f"{name}.{block}" for name, part in parts.items() for block in part.blocks.values())}
        made = {k: v for name in weight for k, v in _by_path({name: weight[name]}, parts[name].blocks)}
        for path, number in made.items():
            if not isinstance(number, Real):
                raise InputError(f"the weight of a LoRA in {path} is {number!r}; a number is needed.")
            if path not in whole and not any(layer.startswith(f"{path}.") for layer in layers):
                example = f"; one changes {layers[0].rstrip('.')!r}, for example." if layers else "."
                raise InputError(f"no LoRA changes {path!r}{example}")
        return made

    def _lay(
        self,
        source: Source,
        name: str | None,
        weight: float | None = None,
        *,
        beside: bool = False,
        wanted: tuple[str, str] | None = None,
        hotswap: bool = False,
        allow_pickle: bool = False,
        **where: Any,
    ) -> None:
        """Lay a LoRA over the networks.

        beside: whether the active LoRAs stay active; wanted: a pattern for COMPONENT.LAYER of everything that it may
        change, and why.
        """
        self._refuse_if_fused()
        if hotswap:
            self._known(str(name))
        pairs, what = read_lora(source, self.lora_parts, self._networks(), allow_pickle, **where)
        for component, own in pairs.items():
            for layer, pair in own.items():
                if wanted and not re.fullmatch(wanted[0], f"{component}.{layer}"):
                    raise CheckpointError(f"{what} changes {layer} (tensor {pair.down_name}): {wanted[1]}.")
            if hotswap:
                self._check_swap(component, own, what, str(name))
        name = str(name) if hotswap else self._new_name(name)
        active = self.get_active_adapters() if beside else []
        with warnings.catch_warnings():
            # Of a second adapter, and of layers in FP8: both are meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config`|Unsupported layer type", UserWarning)
            for part in self.lora_parts:
                if part.component in pairs:
                    self._load(part, pairs[part.component], name, hotswap)
        if not hotswap:
            self._use([*active, name], {} if weight is None else {name: weight})

    def _load(self, part: LoraPart, pairs: Mapping[str, Pair], name: str, hotswap: bool) -> None:
        """Lay changes, which fit, over one network."""
        network, settings = self._networks()[part.component], peft_settings(pairs)
        shared = {"adapter_name": name, "_pipeline": self, "low_cpu_mem_usage": True}
        if not isinstance(network, PeftAdapterMixin):  # a text encoder, of transformers
            prefix = f"{part.component}."
            # diffusers knows some of its layers by peft's names, and all by its own.
            tensors = pack(pairs, prefix, "lora_linear_layer.down", "lora_linear_layer.up")
            shared["metadata"] = {f"{prefix}{key}": value for key, value in settings.items()}
            StableDiffusionXLLoraLoaderMixin.load_lora_into_text_encoder(
                tensors, None, network, part.component, **shared
            )
            return
        if hotswap:  # peft wants these to be equal, and does not look at them
            settings["alpha_pattern"] = network.peft_config[name].alpha_pattern
        for path in pairs:
            if isinstance(layer := network.get_submodule(path), Fp8Linear):
                dtype = network.get_submodule(part.norm).weight.dtype if part.norm else network.dtype
                network.set_submodule(path, _Fp8LoraLinear(layer, dtype))
        network.load_lora_adapter(pack(pairs), None, hotswap, metadata=settings, **shared)

    def _check_swap(self, component: str, pairs: Mapping[str, Pair], what: str, name: str) -> None:
        """Refuse what peft would give up half-way, which loses the adapter that is there."""
        network = self._networks()[component]
        layers, reason = lora_layers(network), ""
        if not isinstance(network, PeftAdapterMixin):
            reason = f"LoRAs of the {component} cannot be swapped"
        for layer, pair in pairs.items():
            there = layers[layer].lora_A if layer in layers else {}
            if name not in there:
                reason = reason or f"that one does not change {layer}"
            elif pair.down.ndim > 2 and len(pair.down) < len(there[name].weight):
                reason = reason or f"its rank in {layer}, a convolution, is smaller"
        # peft empties every tensor whose name has the adapter's name anywhere in it.
        if any(".lora_" in key and name in key and key.split(".")[-2] != name for key in network.state_dict()):
            reason = reason or "its name is also a part of another's"
        if reason:
            raise CheckpointError(f"{what} cannot be put in the place of {name!r}: {reason}.")


def _by_path(weights: Mapping[str, Any], blocks: Mapping[str, str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested weights, each with the name of its module. Lists, as in diffusers, are of a block's attentions."""
    for name, value in weights.items():
        full = path + blocks.get(name, name.removeprefix("block_") if path else name)
        if isinstance(value, Mapping):
            yield from _by_path(value, blocks, f"{full}.")
        elif isinstance(value, (list, tuple)):
            yield from ((f"{full}.attentions.{i}", one) for i, one in enumerate(value))
        else:
            yield full, value
