"""Random MagicAnimate models that tests can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TINY: dict[str, Any] = {
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": 8,
    "norm_num_groups": 8,
    "attention_head_dim": 2,
    "sample_size": 4,
}
SETTINGS = {
    "num_frames": 8, "height": 32, "width": 32, "fps": 8, "num_inference_steps": 2, "guidance_scale": 3.0,
    "context_frames": 8, "context_overlap": 2, "text_tokens": 1,
}  # fmt: skip


def tiny_pipeline(base: dict[str, Any] | None = None, **motion: Any) -> Any:
    """A pipeline whose networks have random weights that all do something: latents are 4x4, windows 8 frames.

    base: what differs from TINY. motion: arguments of MagicAnimateUNet.
    """
    from diffusers import ControlNetModel, UNet2DConditionModel

    from animagic import AppearanceEncoder, MagicAnimatePipeline, MagicAnimateUNet
    from animagic.layers.autoencoder import ConvAutoencoder

    torch.manual_seed(5)
    spatial = UNet2DConditionModel(**TINY | (base or {}))
    motion = {"motion_num_attention_heads": 2, "motion_max_length": 16} | motion
    unet = MagicAnimateUNet.from_unet2d(spatial, **motion)
    controlnet = ControlNetModel.from_unet(spatial, conditioning_embedding_out_channels=(8, 8, 8, 8))
    encoder = AppearanceEncoder.from_unet2d(spatial)
    vae = ConvAutoencoder(patch_length=1, latent_channels=4, widths=(8, 8, 8))
    with torch.no_grad():
        for network in (unet, controlnet, encoder):
            for parameter in network.parameters():
                parameter += (0.2 if parameter.ndim == 1 else 0.1) * torch.randn_like(parameter)
    parts = (part.eval().requires_grad_(False) for part in (unet, encoder, controlnet, vae))
    pipe = MagicAnimatePipeline(*parts, config=dict(SETTINGS))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_model(folder: Path) -> Path:
    """The folder of such a pipeline, written there."""
    tiny_pipeline().save_pretrained(folder)
    return folder


def given(frames: int, seed: int = 0) -> dict[str, Any]:
    """Arguments of a call: a picture's latents, and poses as noise, uint8 (frames, 32, 32, 3)."""
    generator = torch.Generator().manual_seed(seed)
    poses = torch.randint(256, (frames, 32, 32, 3), generator=generator, dtype=torch.uint8).numpy()
    return {"reference_latents": torch.randn(1, 4, 4, 4, generator=generator), "pose_frames": poses}
