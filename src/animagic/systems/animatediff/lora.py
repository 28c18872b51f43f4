"""LoRA around AnimateDiff: for the base model and its text encoders, MotionLoRA, and the domain adapter of v3.

Source: arXiv 2106.09685 (LoRA), 2307.04725 section 4.3 (MotionLoRA) and 4.1 (domain adapter).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin

from ...errors import InputError
from ...weights.lora import LoraMixin, Source, lora_layers
from ...weights.lora_names import CLIP, UNET
from ...weights.motion_module import motion_name
from .unet import AnimateDiffUNet

_MOTION = r"unet\.(.*\.)?motion_modules\..*", "a MotionLoRA changes motion modules only"
_SPATIAL = rf"(?!{_MOTION[0]}).*", "a domain adapter changes none"


def motion_lora_state_dict(unet: AnimateDiffUNet, adapter_name: str) -> dict[str, torch.Tensor]:
    """An adapter of a UNet in the layout in which MotionLoRA and the domain adapter are published.

    That layout knows no alpha: the scale that the adapter was trained with goes into its second factor. Raises:
    InputError if there is no such adapter, or if it changes layers for which the layout has no names.
    """
    tensors = {}
    for name, layer in lora_layers(unet).items():
        if adapter_name not in layer.lora_A:
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


class AnimateDiffLoraMixin(LoraMixin, StableDiffusionXLLoraLoaderMixin):
    """LoRA in AnimateDiff's pipelines, with methods of their own for MotionLoRA and domain adapter."""

    # MotionLoRAs have the published names of motion modules, or diffusers'.
    lora_parts = (replace(UNET, renames=(*UNET.renames, (".+", lambda name: motion_name(name[0])))), *CLIP)
    unet: Any

    def load_motion_lora(
        self, file: Source, adapter_name: str | None = None, weight: float = 1.0, *, allow_pickle: bool = False
    ) -> None:
        """Add a MotionLoRA, a learned camera move, to the LoRAs in use.

        Raises: as `load_lora_weights`; CheckpointError if it changes anything but motion modules.
        """
        self._lay(file, adapter_name, weight, beside=True, wanted=_MOTION, allow_pickle=allow_pickle)

    def load_domain_adapter(
        self, file: Source, scale: float = 1.0, adapter_name: str = "domain_adapter", *, allow_pickle: bool = False
    ) -> None:
        """Add the domain adapter of v3, the style of the videos that the motion module learned from, to the LoRAs in
        use. scale: 0 takes that style away, 1 is as in training.

        Raises: as `load_lora_weights`; CheckpointError if it changes motion modules.
        """
        self._lay(file, adapter_name, scale, beside=True, wanted=_SPATIAL, allow_pickle=allow_pickle)

    @contextmanager
    def using_loras(
        self,
        loras: Mapping[str, float],
        motion_loras: Mapping[str, float] | None = None,
        *,
        allow_pickle: bool = False,
    ) -> Iterator[None]:
        """As in every pipeline. motion_loras: likewise, MotionLoRAs only."""
        with self._for_a_while({self.add_lora: loras, self.load_motion_lora: motion_loras or {}}, allow_pickle):
            yield
