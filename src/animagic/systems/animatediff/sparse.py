"""SparseCtrl: images or scribbles for single frames of a video (arXiv 2311.16933)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from PIL import Image
from torch import nn

from ...errors import InputError
from ...layers.inflation import InflatedMixin, arguments_for, by_frame, timestep_by_frame
from ...media import resize
from ...pipelines.base import frames_of

# Settings that must be the same in a network and the UNet that it steers.
_SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "addition_embed_type")


class SparseControlNet(InflatedMixin, ControlNetModel):
    """A ControlNet whose frames see each other, so that a few given ones steer all.

    Behind every ResNet of the encoder stands a motion module with one temporal self-attention. Parameters have the
    published names.

    Args:
        conditioning_channels: of an image, without the mask: 4 for latents (RGB), 3 for pixels (scribble).
        use_simplified_condition_embedding: images are latents and go through one convolution; else they are pixels,
            and made smaller by 2 ** (len(conditioning_embedding_out_channels) - 1).
        concate_conditioning_mask: it also reads which frames have an image.
        set_noisy_sample_input_to_zero: it does not read the noisy latents, as all published networks.
        motion_*, diffusers_norms: see MotionModule and AnimateDiffUNet.
        controlnet_config: those of ControlNetModel.

    Raises: InputError for a base with further conditions (SDXL). Source: SparseCtrl, section 3.2.
    """

    __module__ = "animagic"  # see AnimateDiffUNet
    ignore_for_config = ["controlnet_config"]

    @register_to_config
    def __init__(
        self,
        conditioning_channels: int = 3,
        use_simplified_condition_embedding: bool = False,
        concate_conditioning_mask: bool = True,
        set_noisy_sample_input_to_zero: bool = True,
        motion_num_attention_heads: int = 8,
        motion_num_transformer_blocks: int = 1,
        motion_max_length: int = 32,
        motion_attention_dim_div: int = 1,
        motion_resolutions: Sequence[int] = (1, 2, 4, 8),
        motion_norm_num_groups: int = 32,
        diffusers_norms: bool = False,
        **controlnet_config: Any,
    ):
        if controlnet_config.get("addition_embed_type") is not None:
            raise InputError("there is no SparseCtrl for SDXL; take a base of Stable Diffusion 1.5's kind.")
        channels = conditioning_channels + bool(concate_conditioning_mask)
        super().__init__(conditioning_channels=channels, **controlnet_config)
        self.register_to_config(conditioning_channels=conditioning_channels)
        if use_simplified_condition_embedding:
            embedding = nn.Conv2d(channels, self.config.block_out_channels[0], 3, padding=1)
            for parameter in embedding.parameters():
                nn.init.zeros_(parameter)
            self.controlnet_cond_embedding = embedding
        self._add_motion(
            self.down_blocks,
            range(len(self.down_blocks)),
            motion_resolutions,
            attention_block_types=("Temporal_Self",),
            num_attention_heads=motion_num_attention_heads,
            num_transformer_blocks=motion_num_transformer_blocks,
            max_length=motion_max_length,
            attention_dim_div=motion_attention_dim_div,
            norm_num_groups=motion_norm_num_groups,
        )
        self.use_diffusers_norms(diffusers_norms)

    def use_diffusers_norms(self, on: bool = True) -> None:
        """As in AnimateDiffUNet: calculate as diffusers' SparseControlNetModel does, or (False) as published."""
        self._join_motion_norms(on)
        self.register_to_config(diffusers_norms=on)

    @staticmethod
    def config_for(unet: UNet2DConditionModel, **config: Any) -> dict[str, Any]:
        """The arguments of the constructor for this base: its fields, in which `config` may differ."""
        base = arguments_for(ControlNetModel, unet.config)
        return base | {"encoder_hid_dim": None, "encoder_hid_dim_type": None} | config

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, **config: Any) -> SparseControlNet:
        """An untrained network for this base, 2-D or AnimateDiffUNet, with its encoder's weights: it changes nothing.

        config: arguments of the constructor; for RGB `conditioning_channels=4,
        use_simplified_condition_embedding=True`. Raises InputError for a UNet with LoRAs or of another kind.
        """
        made = cls(**cls.config_for(unet, **config))
        made.to(unet.conv_in.weight)  # its device and type; diffusers warns where these are given
        given = {k: v for k, v in unet.state_dict().items() if "motion_modules." not in k}
        copied = [k for k in made.state_dict() if not k.startswith("controlnet_") and "motion_modules." not in k]
        if lacking := [name for name in copied if name not in given]:
            raise InputError(
                f"the UNet lacks {lacking[0]}; unload or fuse its LoRAs before a SparseCtrl is made of it."
            )
        made.load_state_dict({name: given[name] for name in copied}, strict=False)
        return made

    def check_fits(self, unet: UNet2DConditionModel) -> None:
        """Raises InputError if this network was made for another base."""
        for name in _SHARED:
            ours, theirs = (_plain(model.config.get(name)) for model in (self, unet))
            if ours != theirs:
                raise InputError(
                    f"the SparseCtrl network is for a base with {name} {ours}, this one has {theirs}; "
                    f"take one that was trained for this base."
                )

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        condition: torch.Tensor,
        condition_mask: torch.Tensor,
        conditioning_scale: float = 1.0,
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """(down residuals, middle residual) for AnimateDiffUNet.forward, each (batch * frames, ...), times the scale.

        Args:
            sample: (batch, channels, frames, height, width) noisy latents.
            timestep: one for all, or (batch,).
            encoder_hidden_states: (batch, length, cross_attention_dim), or (batch * frames, ...): a prompt a frame.
            condition, condition_mask: see `place_conditions`.

        Raises: InputError for images that do not fit.
        """
        self._check_channels(condition)
        shrunk = 1
        if not self.config.use_simplified_condition_embedding:
            shrunk = 2 ** (len(self.config.conditioning_embedding_out_channels) - 1)
        sizes = [f"{-(-x.shape[-1] // n)}x{-(-x.shape[-2] // n)}" for x, n in ((condition, shrunk), (sample, 1))]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"the network makes feature maps of {sizes[0]} from the control pictures, the latents have {sizes[1]}; "
                f"give pictures of the video's size to a network that was made for this autoencoder."
            )
        if self.config.set_noisy_sample_input_to_zero:
            sample = torch.zeros_like(sample)
        if self.config.concate_conditioning_mask:
            condition = torch.cat([condition, condition_mask], dim=1)
        batch, _, self.clip.num_frames = sample.shape[:3]
        return super().forward(
            by_frame(sample),
            timestep_by_frame(timestep, sample),
            self._text_rows(encoder_hidden_states, batch * self.clip.num_frames),
            by_frame(condition),
            conditioning_scale,
            return_dict=False,
        )

    def _check_channels(self, condition: torch.Tensor) -> None:
        if condition.shape[1] != self.config.conditioning_channels:
            kind = "latents" if self.config.use_simplified_condition_embedding else "pixels"
            raise InputError(
                f"the control pictures have {condition.shape[1]} channels; "
                f"this network reads {kind} with {self.config.conditioning_channels}."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _check_indexes(indexes: Sequence[int], count: int, num_frames: int) -> None:
    if len(indexes) != count:
        raise InputError(f"there are {count} control pictures but {len(indexes)} frames for them; give one frame each.")
    for index in indexes:
        if not 0 <= index < num_frames:
            raise InputError(f"no picture can be put at frame {index}: the video has {num_frames}, counted from 0.")
        if indexes.count(index) > 1:
            raise InputError(f"frame {index} has two control pictures; give one.")


def place_conditions(
    pictures: torch.Tensor, indexes: Sequence[int], num_frames: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (batch, channels, images, height, width) at their frames of a clip: (batch, channels, num_frames, height,
    width), zeros elsewhere, and a mask with one channel, 1 where there is an image.

    Raises: InputError for a frame outside the clip or with two images, and for images without a frame.
    """
    _check_indexes(indexes, pictures.shape[2], num_frames)
    batch, channels, _, *size = pictures.shape
    condition, mask = (pictures.new_zeros(batch, c, num_frames, *size) for c in (channels, 1))
    condition[:, :, list(indexes)] = pictures
    mask[:, :, list(indexes)] = 1
    return condition, mask


@dataclass(frozen=True)
class SparseControl:
    """The images of a run, (1 or videos, channels, images, height, width), their frames, and what steers by them."""

    network: SparseControlNet
    pictures: torch.Tensor
    indexes: tuple[int, ...]
    scale: float = 1.0

    @classmethod
    def of(
        cls,
        network: SparseControlNet,
        images: Any,
        indexes: Sequence[int],
        scale: float = 1.0,
        *,
        unet: UNet2DConditionModel,
        num_frames: int,
        size: tuple[int, int],
        encode: Callable[[np.ndarray], torch.Tensor],
        fit: Any = "crop",
    ) -> SparseControl:
        """Prepare the images of a call. Raises InputError for another base, and for images or frames that do not fit.

        Args:
            images: one or a list (PIL or uint8 (H, W, 3)), or a tensor (1, channels, images, height, width) as the
                network reads it: an RGB network the mode of their latents (the published script draws a sample), a
                scribble network the pixels in 0..1, light lines on black.
            size: (height, width) of the video in pixels.
            encode: uint8 (images, height, width, 3) to scaled latents (1, channels, images, h, w).
        """
        network.check_fits(unet)
        if isinstance(images, torch.Tensor):
            if images.ndim != 5:
                raise InputError(
                    f"control pictures as a tensor have the shape (1, channels, pictures, height, width), "
                    f"not {tuple(images.shape)}."
                )
            pictures = images
        else:
            single = isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3)
            given = [frames_of(image, None) for image in ([images] if single else images)]
            _check_indexes(list(indexes), len(given), num_frames)
            pixels = np.concatenate([resize(image, *size, fit) for image in given if image is not None])
            if network.config.use_simplified_condition_embedding:
                pictures = encode(pixels)
            else:
                pictures = torch.tensor(pixels).permute(3, 0, 1, 2)[None].float() / 255
        _check_indexes(list(indexes), pictures.shape[2], num_frames)
        network._check_channels(pictures)
        return cls(network, pictures, tuple(indexes), scale)

    def __call__(
        self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, frames: Sequence[int], steps: Any = None
    ) -> dict[str, Any]:
        """The residuals of a window as arguments of AnimateDiffUNet.forward; none without an image in the window."""
        given = {place: self.indexes.index(frame) for place, frame in enumerate(frames) if frame in self.indexes}
        if not given:
            return {}
        pictures = self.pictures[:, :, list(given.values())].to(sample)
        pictures = pictures.repeat(len(sample) // len(pictures), 1, 1, 1, 1)
        condition, mask = place_conditions(pictures, list(given), len(frames))
        down, middle = self.network(sample, timestep, text, condition, mask, self.scale)
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
