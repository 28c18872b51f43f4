"""LoRA for MAGI-1."""

from __future__ import annotations

from diffusers.loaders import HunyuanVideoLoraLoaderMixin

from ...weights.lora import LoraMixin, LoraPart


class Magi1LoraLoaderMixin(LoraMixin, HunyuanVideoLoraLoaderMixin):
    """LoRA in MAGI-1's pipelines, whose transformer has the layer names of the published checkpoints; files are
    written as those of any diffusers pipeline with one transformer."""

    lora_parts = (LoraPart("transformer", norm="videodit_blocks.layers.0.mlp.layer_norm"),)
