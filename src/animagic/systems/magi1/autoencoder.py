"""The video autoencoder of MAGI-1: a vision transformer, 4 x 8 x 8 pixels to one latent of 16 channels.

Source: "MAGI-1: Autoregressive Video Generation at Scale", section 2.1 (transformer-based VAE).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from animagic.errors import InputError

from ...layers.patches import Size, patchify, unpatchify
from ...layers.video_autoencoder import VideoAutoencoderMixin


class Attention(nn.Module):
    """Self-attention whose queries, keys and values are all normalised head by head, without weights."""

    def __init__(self, dim: int, heads: int, qkv_bias: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (batch, tokens, dim)
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        centred = qkv - qkv.mean(dim=-1, keepdim=True)
        std = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) * qkv.shape[-1] ** -0.5
        # each (batch, heads, tokens, head dim)
        query, key, value = (centred / (std + 1e-5)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention brings its own normalisation, so only the feed-forward layer has one in front."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, qkv_bias: bool):
        super().__init__()
        self.attn = Attention(dim, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(self.norm2(x))


class TokenTransformer(nn.Module):
    """Class token, learned positions, blocks, norm: what encoder and decoder have in common."""

    _gradient_checkpointing_func: Callable[..., Tensor]  # set by ModelMixin.enable_gradient_checkpointing

    def __init__(self, grid: Size, dim: int, depth: int, heads: int, mlp_ratio: float, qkv_bias: bool):
        super().__init__()
        self.grid = grid
        self.gradient_checkpointing = False
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + grid[0] * grid[1] * grid[2], dim))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, qkv_bias) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def positions(self, grid: Size) -> Tensor:
        if grid == self.grid:
            return self.pos_embed
        cls_position, positions = self.pos_embed.split((1, self.pos_embed.shape[1] - 1), dim=1)
        positions = positions.transpose(1, 2).unflatten(2, self.grid)
        positions = F.interpolate(positions, grid, mode="trilinear", align_corners=False)
        return torch.cat((cls_position, positions.flatten(2).transpose(1, 2)), dim=1)

    def transform(self, tokens: Tensor, grid: Size) -> Tensor:  # (batch, tokens, dim) both ways
        x = torch.cat((self.cls_token.expand(len(tokens), -1, -1), tokens), dim=1) + self.positions(grid)
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, x)
            else:
                x = block(x)
        return self.norm(x)[:, 1:]


class Encoder(TokenTransformer):
    """Pixels to the mean and log-variance of their latents; an image counts as a patch of equal frames."""

    def __init__(self, in_chans: int, z_chans: int, patch: Size, linear_path: bool, dim: int, **rest: Any):
        super().__init__(dim=dim, **rest)
        self.patch = patch
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(in_chans, dim, kernel_size=patch, stride=patch)})
        self.last_layer = nn.Linear(dim, 2 * z_chans)
        if linear_path:
            self.linear_path = nn.Linear(patch[0] * patch[1] * patch[2] * in_chans, z_chans)
            self.linear_path.requires_grad_(False)

    def forward(self, video: Tensor) -> Tensor:  # (batch, 3, 4t, 8h, 8w) -> (batch, 32, t, h, w)
        if video.shape[2] == 1:
            video = video.expand(-1, -1, self.patch[0], -1, -1)
        embedded = self.patch_embed["proj"](video)
        grid: Any = embedded.shape[2:]
        moments = self.last_layer(self.transform(embedded.flatten(2).transpose(1, 2), grid))
        if hasattr(self, "linear_path"):
            mean, log_variance = moments.chunk(2, dim=-1)
            moments = torch.cat((mean + self.linear_path(patchify(video, self.patch)), log_variance), dim=-1)
        return moments.transpose(1, 2).unflatten(2, grid)


class Decoder(TokenTransformer):
    """Latents to pixels; a single latent frame gives one image."""

    def __init__(self, in_chans: int, z_chans: int, patch: Size, linear_path: bool, dim: int, **rest: Any):
        super().__init__(dim=dim, **rest)
        self.patch = patch
        pixels = patch[0] * patch[1] * patch[2]
        self.proj_in = nn.Linear(z_chans, dim)
        self.last_layer = nn.Conv3d(dim // pixels, in_chans, kernel_size=3, padding=1)
        if linear_path:
            self.linear_path = nn.Linear(z_chans, pixels * in_chans)
            self.linear_path.requires_grad_(False)
            # A narrow transformer has hardly a channel a pixel left for the convolution: it adds its detail here.
            self.detail_path = nn.Linear(dim, pixels * in_chans)

    def forward(self, latents: Tensor) -> Tensor:  # (batch, 16, t, h, w) -> (batch, 3, 4t, 8h, 8w)
        grid: Any = latents.shape[2:]
        tokens = latents.flatten(2).transpose(1, 2)
        x = self.transform(self.proj_in(tokens), grid)
        video = self.last_layer(unpatchify(x, self.patch, grid))
        if hasattr(self, "linear_path"):
            video = video + unpatchify(self.linear_path(tokens) + self.detail_path(x), self.patch, grid)
        return video if grid[0] > 1 else video[:, :, :1]


class AutoencoderKLMagi1(VideoAutoencoderMixin, ModelMixin, ConfigMixin):
    """The autoencoder of MAGI-1. Video is (batch, 3, frames, height, width) in [-1, 1].

    The arguments are those of the published `ddconfig`; positions are learned for `video_length` frames and
    `video_size` pixels, and resized for other clips. Raises InputError for a setting that is not supported.

    Two options are for small models: `encoder_depth`, where it is not `depth`, and `linear_path`, a frozen linear map
    beside each transformer (see `fit_linear_path`).
    """

    __module__ = "animagic"  # where a model folder says it is; files of ours may move

    _supports_gradient_checkpointing = True
    _repeated_blocks = ["Block"]
    _group_offload_block_modules = ["encoder", "decoder"]
    tile_latents, least_tile_latents = 3, 2  # a tile of one latent frame would decode to one frame

    @register_to_config
    def __init__(
        self,
        conv_last_layer: bool = True,
        depth: int = 24,
        double_z: bool = True,
        embed_dim: int = 1024,
        in_chans: int = 3,
        ln_in_attn: bool = True,
        mlp_ratio: float = 4,
        norm_code: bool = False,
        num_heads: int = 16,
        patch_length: int = 4,
        patch_size: int = 8,
        qkv_bias: bool = True,
        video_length: int = 16,
        video_size: int = 256,
        with_cls_token: bool = True,
        z_chans: int = 16,
        scaling_factor: float = 0.18215,
        linear_path: bool = False,
        encoder_depth: int | None = None,
    ):
        super().__init__()
        for name in ("conv_last_layer", "double_z", "ln_in_attn", "norm_code", "with_cls_token"):
            allowed = name != "norm_code"
            if self.config[name] != allowed:
                raise InputError(f"{name} is {self.config[name]}, but this autoencoder is made for {allowed} only.")
        divisors = {"embed_dim": patch_length * patch_size**2, "video_length": patch_length, "video_size": patch_size}
        for name, divisor in divisors.items():
            if self.config[name] % divisor:
                raise InputError(f"{name} is {self.config[name]}; give a multiple of {divisor}.")
        if embed_dim % num_heads:
            raise InputError(f"embed_dim is {embed_dim}; give a multiple of num_heads, which is {num_heads}.")

        self.patch: Size = (patch_length, patch_size, patch_size)
        grid = (video_length // patch_length, video_size // patch_size, video_size // patch_size)
        rest = {"grid": grid, "heads": num_heads, "mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias}
        encoder_depth = depth if encoder_depth is None else encoder_depth
        self.encoder = Encoder(in_chans, z_chans, self.patch, linear_path, embed_dim, depth=encoder_depth, **rest)
        self.decoder = Decoder(in_chans, z_chans, self.patch, linear_path, embed_dim, depth=depth, **rest)

    @apply_forward_hook  # so that offloading brings the weights in for this call too
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Video (batch, 3, T, H, W) -> `latent_dist` over latents (batch, 16, T/4, H/8, W/8).

        T is 1 (an image: one latent frame) or a multiple of 4, H and W are multiples of 8, else InputError.
        """
        self.check_video(x, self.config["in_chans"])
        distribution = DiagonalGaussianDistribution(self.run(self.encoder, x, encoding=True))
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    @apply_forward_hook
    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple:
        """Latents (batch, 16, t, h, w) -> `sample`, video (batch, 3, 4t, 8h, 8w) in about [-1, 1].

        One latent frame gives ONE frame; where tiles would leave one over, it belongs to the tile before. Raises
        InputError for another shape.
        """
        self.check_latents(z, self.config["z_chans"])
        video = self.run(self.decoder, z, encoding=False)
        return DecoderOutput(sample=video) if return_dict else (video,)

    @torch.no_grad()
    def fit_linear_path(self, video: Tensor, exponent: float = 0.5) -> float:
        """Set the linear paths to the PCA of the video's patches, and the transformers' output layers to zero.

        Component k is divided by its std ** exponent (0 keeps the scale of pixels, 1 whitens), then all by a number
        that makes the mean square of the latents 1. Returns the share of the variance that is kept. Raises InputError.
        """
        if not self.config["linear_path"]:
            raise InputError("this autoencoder has no linear path; make it with linear_path=True.")
        self.check_video(video, self.config["in_chans"])
        if video.shape[2] == 1:
            raise InputError(f"the video has 1 frame; give clips of a multiple of {self.patch[0]} frames.")
        z_chans, size = self.config["z_chans"], self.decoder.linear_path.out_features
        sums = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=video.device)
        for clip in video.split(1):  # one at a time: the patches of all of them would not fit
            patches = F.pad(patchify(clip, self.patch)[0].double(), (0, 1), value=1)  # the ones count, and sum up
            sums += patches.T @ patches
        moments = sums / sums[-1, -1]
        mean = moments[-1, :-1]
        variances, components = torch.linalg.eigh(moments[:-1, :-1] - mean.outer(mean))  # ascending
        kept = variances[-z_chans:].flip(0).clamp(min=0)
        components = components[:, -z_chans:].flip(1)  # (pixels of a patch, components)

        std = kept.sqrt().clamp(min=1e-6 * kept[0].sqrt())  # empty components must not divide by zero
        scale = std**exponent * (kept / std ** (2 * exponent)).mean().sqrt()
        self.encoder.linear_path.weight.copy_((components / scale).T)
        self.encoder.linear_path.bias.copy_(-(components / scale).T @ mean)
        self.decoder.linear_path.weight.copy_(components * scale)
        self.decoder.linear_path.bias.copy_(mean)
        for layer in (self.encoder.last_layer, self.decoder.last_layer, self.decoder.detail_path):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        self.encoder.last_layer.bias[z_chans:] = -6  # log-variance: a little noise
        return float(kept.sum() / variances.sum())
