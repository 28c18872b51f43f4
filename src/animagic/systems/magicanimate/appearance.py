"""The appearance encoder: a second UNet, which shows the denoising one what the person in the picture looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from ...layers.inflation import PassesConfigOn, arguments_for


@dataclass(frozen=True)
class BankHook:
    """Keeps the output of a layer under a name."""

    name: str
    bank: dict[str, torch.Tensor]

    def __call__(self, layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.bank[self.name] = output


class LastAttention(nn.Module):
    """What the last attention of an appearance encoder needs: all up to the first norm. It changes nothing."""

    def __init__(self, whole: Transformer2DModel):
        super().__init__()
        block = nn.Module()
        block.norm1 = whole.transformer_blocks[0].norm1
        self.norm, self.proj_in, self.transformer_blocks = whole.norm, whole.proj_in, nn.ModuleList([block])

    def forward(self, hidden_states: torch.Tensor, **others: Any) -> tuple[torch.Tensor]:
        """hidden_states: (batch, channels, height, width)."""
        x = self.norm(hidden_states)
        if isinstance(self.proj_in, nn.Linear):
            x = self.proj_in(x.flatten(2).transpose(1, 2))
        else:
            x = self.proj_in(x).flatten(2).transpose(1, 2)
        self.transformer_blocks[0].get_submodule("norm1")(x)
        return (hidden_states,)


class AppearanceEncoder(PassesConfigOn, UNet2DConditionModel):
    """Stable Diffusion's UNet without its end, read at the inputs of its self-attentions.

    Parameters have the published names, which are those of `UNet2DConditionModel`; what comes after the last of those
    inputs does not exist. Source: MagicAnimate, arXiv 2311.16498, section 3.2.

    Args:
        unet_config: those of UNet2DConditionModel.
    """

    __module__ = "animagic"
    ignore_for_config = ["unet_config"]

    @register_to_config
    def __init__(self, **unet_config: Any):
        super().__init__(**unet_config)
        last = self.up_blocks[-1].attentions
        last[-1] = LastAttention(last[-1])
        self.conv_norm_out, self.conv_out = None, nn.Identity()
        self._bank: dict[str, torch.Tensor] = {}
        for name, module in self.named_modules():
            if name.endswith(".norm1") and "transformer_blocks" in name:
                module.register_forward_hook(BankHook(name.removesuffix(".norm1"), self._bank))

    @classmethod
    def from_unet2d(cls, unet: UNet2DConditionModel) -> AppearanceEncoder:
        """One with the weights of a text-to-image model, from which its training begins."""
        made = cls(**arguments_for(UNet2DConditionModel, unet.config))
        made.to(unet.conv_in.weight)
        given = unet.state_dict()
        made.load_state_dict({name: given[name] for name in made.state_dict()})
        return made

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float, encoder_hidden_states: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The features of pictures: name of a transformer block -> (batch, tokens, channels).

        Args:
            sample: (batch, channels, height, width) their latents, without noise.
            timestep: of the latents that the denoising UNet is given. encoder_hidden_states: its text.
        """
        self._bank.clear()
        super().forward(sample, timestep, encoder_hidden_states)
        features = dict(self._bank)
        self._bank.clear()
        return features


def transformer_blocks(unet: nn.Module, fusion_blocks: str) -> list[str]:
    """Names of the transformer blocks of a UNet that read the picture: of the middle and the way up ("midup"), or of
    all of it ("full")."""
    parts = ("mid_block.", "up_blocks.") if fusion_blocks == "midup" else ("",)
    found = [name for name, module in unet.named_modules() if isinstance(module, BasicTransformerBlock)]
    return [name for name in found if name.startswith(parts)]
