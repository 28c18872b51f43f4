"""The published models: configurations, how a file is recognised by its tensors, and the sampling that goes with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...timeline import build_scheduler

VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"motion_max_length": 24, "motion_mid_block": False, "joint_group_norm": True},
    "v2": {"motion_max_length": 32, "motion_mid_block": True, "joint_group_norm": False},
    "v3": {"motion_max_length": 32, "motion_mid_block": False, "joint_group_norm": False},
    "sdxl": {"motion_max_length": 32, "motion_mid_block": False, "joint_group_norm": False},
}
"""What the versions differ in: arguments of AnimateDiffUNet."""

SD15: dict[str, dict[str, Any]] = {
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    },
}
"""Stable Diffusion 1.4 and 1.5: configurations of diffusers and transformers."""

SDXL: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {**SD15["vae"], "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
    "text_encoder": SD15["text_encoder"],
    "text_encoder_2": {
        **SD15["text_encoder"],
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
}
"""Stable Diffusion XL."""


@dataclass(frozen=True)
class PublishedSampling:
    """What a motion module is to be sampled with. config: fields of AnimateDiffSampling."""

    scheduler: Any
    config: dict[str, Any] = field(default_factory=dict)


def recognise(shapes: Mapping[str, tuple[int, ...]], file: Path) -> str:
    """Which version the tensors of a motion module are: a key of VERSIONS.

    Args:
        shapes: by published names, with the tables of positions if the file has them.
        file: where v1 and v3 differ in nothing else (without those tables), its name decides.
    Raises: CheckpointError if that does not say it either.
    """
    levels = {int(m[1]) for name in shapes if (m := re.match(r"(?:down|up)_blocks\.(\d+)\.motion_modules\.", name))}
    if len(levels) == 3:
        return "sdxl"
    if any(name.startswith("mid_block.motion_modules.") for name in shapes):
        return "v2"
    length = table_length(shapes)
    if length is not None:
        return "v1" if length == VERSIONS["v1"]["motion_max_length"] else "v3"
    named = file.name.lower()
    if "v3" in named:
        return "v3"
    if re.search(r"v1[45](?!.*v2)", named) or "v1" in re.split(r"[^a-z0-9]", named):
        return "v1"
    raise CheckpointError(
        f"{file} is of AnimateDiff v1 or v3, which its tensors do not tell; say which: version 'v1' or 'v3'."
    )


def table_length(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The most frames that a motion module tells apart, by the tables of positions in its file; None without them."""
    return next((s[-2] for n, s in shapes.items() if n.endswith((".pos_encoder.pe", ".pos_embed.pe"))), None)


def published_sampling(version: str | None, file: Path) -> PublishedSampling:
    """How to sample a motion module, which its tensors do not say: the file's name tells few-step ones.

    LCM (AnimateLCM): LCM, 6 steps, guidance 2. Lightning: Euler with trailing timesteps, as many steps as it was
    distilled for, no guidance. Others: DDIM, 25 steps, guidance 7.5; SDXL with its own betas.
    Source: the model cards of wangfuyun/AnimateLCM and ByteDance/AnimateDiff-Lightning, the inference configurations of
    guoyww/AnimateDiff.
    """
    name = file.name.lower()
    if "lightning" in name:
        steps = re.search(r"(\d+)[-_]?step", name)
        scheduler = build_scheduler("euler", timestep_spacing="trailing")
        return PublishedSampling(
            scheduler, {"num_inference_steps": int(steps[1]) if steps else 4, "guidance_scale": 1.0}
        )
    if "lcm" in name:
        return PublishedSampling(build_scheduler("lcm"), {"num_inference_steps": 6, "guidance_scale": 2.0})
    if version == "sdxl":
        scheduler = build_scheduler("ddim", beta_end=0.02, beta_schedule="scaled_linear")
        return PublishedSampling(scheduler)
    return PublishedSampling(build_scheduler("ddim"))
