"""Training what moves: the motion module on a frozen picture model, MotionLoRAs, and the domain adapter before them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from peft import LoraConfig
from torch import nn
from torch.utils.data import Dataset

from ...errors import InputError
from ...synthetic import caption, motion_caption, picture_caption, render
from ...synthetic.cameras import CAMERA_MOVES, move_camera
from ...training.data import Split, draw_scene, to_unit
from .images import tokenize
from .unet import AnimateDiffUNet

ATTENTION = "(to_q|to_k|to_v|to_out.0)"
MOTION_TARGETS = rf".*motion_modules\..*\.{ATTENTION}"
SPATIAL_TARGETS = rf".*\battentions\..*\.attn[12]\.{ATTENTION}"


@dataclass(frozen=True)
class SceneClips(Dataset):
    """Captioned clips from the drawing studio; item `step` is a whole batch.

    Args:
        seed: of the whole stream.
        batch_size: clips of a batch; num_frames, fps: of a clip; height, width: pixels.
        simple_share: as for SceneBatches.
        motion_share: share of the captions that tell what the thing does, too.
        alone_share: share of the motion texts that tell nothing but the motion; the others are the whole caption.
        camera: a key of CAMERA_MOVES that all clips are seen with; None: the camera stands still.
        split: which scenes.

    Items: {"video": uint8 (clips, 3, frames, height, width), "captions": list[str], "motions": list[str],
    "index": int}.
    """

    seed: int
    steps: int
    batch_size: int = 4
    num_frames: int = 16
    fps: float = 8
    height: int = 64
    width: int = 64
    simple_share: float = 0.0
    motion_share: float = 0.5
    alone_share: float = 0.5
    camera: str | None = None
    split: Split = "train"

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        rng = np.random.default_rng((self.seed, step))
        video = np.empty((self.batch_size, self.num_frames, self.height, self.width, 3), np.uint8)
        captions, motions = [], []
        for i in range(self.batch_size):
            scene = draw_scene(rng, self.simple_share, self.split)
            captions.append((caption if rng.random() < self.motion_share else picture_caption)(scene, rng))
            motions.append((motion_caption if rng.random() < self.alone_share else caption)(scene, rng))
            if self.camera is None:
                video[i] = render(scene, self.num_frames, self.height, self.width, self.fps)
            else:
                side = 2 * max(self.height, self.width)
                drawn = render(scene, self.num_frames, side, side, self.fps)
                video[i] = move_camera(drawn, self.camera, self.height, self.width)
        return {
            "video": torch.from_numpy(video).permute(0, 4, 1, 2, 3),
            "captions": captions,
            "motions": motions,
            "index": step,
        }


@dataclass
class NoiseObjective:
    """Predict the noise in the latents of clips (arXiv 2307.04725, equation 3), or of single frames.

    Args:
        autoencoder, text_encoder, tokenizer: frozen parts of the picture model.
        scheduler_config: fields of the noise schedule.
        drop_text: share of clips without a caption, for guidance.
        noises: how often every clip is used in a batch, with other noise at other levels; it is encoded once.
        most_weight: a level's error counts SNR^-1/2, at most this much; 1 is as published. Where things stand is
            decided where noise prevails.
        use_motion: False: every frame on its own (the image stage).

    Batches: {"video": uint8 (clips, 3, frames, height, width), "captions": list[str]}, with "motions" for motion
    modules that read a text of their own (else they read the caption).
    """

    autoencoder: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    drop_text: float = 0.1
    noises: int = 1
    most_weight: float = 1.0
    use_motion: bool = True

    def __post_init__(self) -> None:
        self.scheduler = DDIMScheduler.from_config(self.scheduler_config)
        if self.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            kind = self.scheduler.config.prediction_type
            raise InputError(f"networks that predict {kind} cannot be trained here; epsilon or v_prediction can.")

    def _embed(self, texts: list[str], dropped: list[bool], device: torch.device) -> torch.Tensor:
        texts = ["" if drop else text for text, drop in zip(texts, dropped, strict=True)]
        return self.text_encoder(tokenize(self.tokenizer, texts).to(device))[0]

    def __call__(self, model: nn.Module, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        device, video = generator.device, batch["video"]
        clips, frames = len(video), video.shape[2]
        with torch.no_grad():
            pixels = to_unit(video.to(device)).transpose(1, 2).flatten(0, 1)
            latents = self.autoencoder.encode(pixels).latent_dist.sample(generator)
            latents = latents.unflatten(0, (clips, frames)).transpose(1, 2) * self.autoencoder.config.scaling_factor
            dropped = (torch.rand(clips, generator=generator, device=device) < self.drop_text).tolist()
            text = self._embed(batch["captions"], dropped, device)
            motion = self._embed(batch.get("motions", batch["captions"]), dropped, device)
        latents = latents.repeat(self.noises, 1, 1, 1, 1)
        text, motion = (x.repeat(self.noises, 1, 1) for x in (text, motion))
        size = len(latents)
        # One level from each of `size` equal ranges, so that every batch has seen the whole schedule.
        u = torch.randperm(size, generator=generator, device=device) + torch.rand(
            size, generator=generator, device=device
        )
        timesteps = (u / size * self.scheduler.config.num_train_timesteps).long()
        noise = torch.randn(latents.shape, generator=generator, device=device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(latents, noise, timesteps)
        predicted = model(noisy, timesteps, text, motion, use_motion=self.use_motion).sample
        error = (predicted - target).square().mean((1, 2, 3, 4))
        kept = self.scheduler.alphas_cumprod.to(device)[timesteps]
        weight = ((1 - kept) / kept).sqrt().clamp(max=self.most_weight) if self.most_weight > 1 else 1.0
        late = error.detach()[timesteps >= 500].mean()  # nan where a batch has none: the log leaves it out
        return (weight * error).mean(), {"error": float(error.detach().mean()), "late_error": float(late)}


def fingerprint(unet: AnimateDiffUNet, trained: str) -> str:
    """A hash of every tensor of the UNet but those whose names contain `trained`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(unet.state_dict().items()):
        if trained not in name:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def add_lora(unet: AnimateDiffUNet, targets: str, rank: int, name: str) -> None:
    """Lay a LoRA over the layers that `targets` (MOTION_TARGETS or SPATIAL_TARGETS) describe; only it learns."""
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), adapter_name=name)


__all__ = [
    "CAMERA_MOVES",
    "MOTION_TARGETS",
    "SPATIAL_TARGETS",
    "NoiseObjective",
    "SceneClips",
    "add_lora",
    "fingerprint",
]
