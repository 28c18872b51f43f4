"""Random MagicInfinite models that tests can run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

TINY: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 1,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "guidance_embeds": False,
    "text_embed_dim": 8,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
    "audio_layers": 3,
    "audio_channels": 384,
    "audio_tokens": 4,
    "portrait_patch": 2,
}
SETTINGS = {
    "num_frames": 13, "height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 1.5, "voice_scale": 2.0,
    "shift": 2.0, "window": 4, "window_overlap": 2, "front": 3, "front_context": 1,
}  # fmt: skip


def talking_pipeline(text: tuple[Any, Any] | None = None, **settings: Any) -> Any:
    """A pipeline whose networks have random weights that all do something: latents are 4x4, windows 4 latent frames.

    text: (encoder, tokenizer). settings: what differs from SETTINGS.
    """
    from animagic import MagicInfinitePipeline, MagicInfiniteTransformer3DModel
    from animagic.layers.autoencoder import ConvAutoencoder

    torch.manual_seed(5)
    transformer = MagicInfiniteTransformer3DModel(**TINY)
    vae = ConvAutoencoder(patch_length=4, latent_channels=4, widths=(8, 8, 8))
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter += (0.2 if parameter.ndim == 1 else 0.1) * torch.randn_like(parameter)
    parts = {"transformer": transformer.eval().requires_grad_(False), "vae": vae.eval().requires_grad_(False)}
    if text is not None:
        parts |= {"text_encoder": text[0], "tokenizer": text[1]}
    pipe = MagicInfinitePipeline(**parts, config=SETTINGS | settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(seed: int = 0, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def sound(seconds: float, seed: int = 1) -> np.ndarray:
    """Noise that comes and goes, float32, 16 kHz."""
    count = round(16_000 * seconds)
    loud = 0.1 * (np.sin(np.arange(count) / 1000) > 0)
    return (loud * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def mask(left: int = 0, size: int = 16) -> np.ndarray:
    face = np.zeros((32, 32), np.float32)
    face[8 : 8 + size, left : left + size] = 1
    return face
