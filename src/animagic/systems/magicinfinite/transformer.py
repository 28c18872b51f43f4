"""MagicInfinite's transformer: HunyuanVideo's blocks, under their names, with portrait and voices as conditions.

Source: MagicInfinite, arXiv 2503.05978, section 3; HunyuanVideo, arXiv 2412.03603, whose blocks are those of diffusers.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.models.transformers.transformer_hunyuan_video import (
    HunyuanVideoConditionEmbedding,
    HunyuanVideoPatchEmbed,
    HunyuanVideoRotaryPosEmbed,
    HunyuanVideoSingleTransformerBlock,
    HunyuanVideoTokenRefiner,
    HunyuanVideoTransformerBlock,
)
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError
from .audio import AudioAttention, AudioProjector, on_tokens


class Modulation:
    """Shifts, scales and gates of tokens by the noise level of their frame, and of the text by the mean level.

    embedding: (batch, frames + 1, width), the text's last. One entry stands for all frames that have the same level.
    """

    def __init__(self, embedding: Tensor):
        self.embedding = functional.silu(embedding)

    def parts(self, linear: nn.Linear, count: int, of: slice) -> tuple[Tensor, ...]:
        """`count` tensors (batch, frames, 1, width)."""
        return linear(self.embedding[:, of])[:, :, None].chunk(count, dim=-1)


VIDEO, TEXT = slice(None, -1), slice(-1, None)


def scaled(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    """Tokens (batch, frames * n, width), times what belongs to their frame, and moved by it."""
    frames = x.unflatten(1, (scale.shape[1], -1)) * scale
    return (frames if shift is None else frames + shift).flatten(1, 2)


class DualStreamBlock(HunyuanVideoTransformerBlock):
    """Video and text each with its own weights, in one attention; every frame at its own noise level."""

    def forward(self, video: Tensor, text: Tensor, modulation: Modulation, mask: Any, rotary: Any) -> Any:
        shift, scale, gate, ff_shift, ff_scale, ff_gate = modulation.parts(self.norm1.linear, 6, VIDEO)
        t_shift, t_scale, t_gate, t_ff_shift, t_ff_scale, t_ff_gate = modulation.parts(
            self.norm1_context.linear, 6, TEXT
        )
        seen, read = self.attn(
            hidden_states=scaled(self.norm1.norm(video), 1 + scale, shift),
            encoder_hidden_states=scaled(self.norm1_context.norm(text), 1 + t_scale, t_shift),
            attention_mask=mask,
            image_rotary_emb=rotary,
        )
        video, text = video + scaled(seen, gate), text + scaled(read, t_gate)
        video = video + scaled(self.ff(scaled(self.norm2(video), 1 + ff_scale, ff_shift)), ff_gate)
        text = text + scaled(self.ff_context(scaled(self.norm2_context(text), 1 + t_ff_scale, t_ff_shift)), t_ff_gate)
        return video, text


class SingleStreamBlock(HunyuanVideoSingleTransformerBlock):
    """Video and text with the same weights, attention and feed-forward side by side."""

    def forward(self, video: Tensor, text: Tensor, modulation: Modulation, mask: Any, rotary: Any) -> Any:
        (shift, scale, gate), (t_shift, t_scale, t_gate) = (
            modulation.parts(self.norm.linear, 3, of) for of in (VIDEO, TEXT)
        )
        video_in = scaled(self.norm.norm(video), 1 + scale, shift)
        text_in = scaled(self.norm.norm(text), 1 + t_scale, t_shift)
        seen, read = self.attn(
            hidden_states=video_in, encoder_hidden_states=text_in, attention_mask=mask, image_rotary_emb=rotary
        )

        def out(attended: Tensor, x: Tensor) -> Tensor:
            return self.proj_out(torch.cat([attended, self.act_mlp(self.proj_mlp(x))], dim=2))

        return video + scaled(out(seen, video_in), gate), text + scaled(out(read, text_in), t_gate)


class MagicInfiniteTransformer3DModel(ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """Predicts the velocity of a window's latent frames, led by a text, a portrait and voices.

    Args:
        in_channels: of noisy latents; out_channels: of the prediction. `x_embedder` takes 2 in_channels + 1: the noisy
            latents, what is known of the picture (of a portrait in every frame), and where it is known.
        num_attention_heads ... rope_axes_dim: as in diffusers' HunyuanVideoTransformer3DModel.
        num_audio_layers: so many of the single-stream blocks, the last ones, are followed by attention to the voices;
            None: a third.
        audio_layers, audio_channels: of the speech encoder; wav2vec 2.0 base has 13 and 768.
        audio_tokens: for each latent frame.
        prior_variance: of the difference between latents and what is known of the picture; the network then predicts
            what the best linear guess from that and the noisy latents lacks (as EDM, arXiv 2206.00364, with the picture
            as the prior's mean), for a small one cannot hand both on. None: the velocity itself, as HunyuanVideo.
        portrait_patch: latents of the portrait, so many high and wide, become a token beside the text; None: a language
            model that sees the portrait has put such tokens into the text.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["x_embedder", "context_embedder", "norm"]
    _no_split_modules = ["DualStreamBlock", "SingleStreamBlock", "HunyuanVideoPatchEmbed", "HunyuanVideoTokenRefiner"]
    _repeated_blocks = ["DualStreamBlock", "SingleStreamBlock", "AudioAttention"]
    __module__ = "animagic"  # where diffusers looks for it when it loads a pipeline

    @register_to_config
    def __init__(
        self,
        in_channels: int = 16,
        out_channels: int = 16,
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        num_layers: int = 20,
        num_single_layers: int = 40,
        num_refiner_layers: int = 2,
        mlp_ratio: float = 4.0,
        patch_size: int = 2,
        patch_size_t: int = 1,
        qk_norm: str = "rms_norm",
        guidance_embeds: bool = True,
        text_embed_dim: int = 4096,
        pooled_projection_dim: int = 768,
        rope_theta: float = 256.0,
        rope_axes_dim: tuple[int, int, int] = (16, 56, 56),
        num_audio_layers: int | None = None,
        audio_layers: int = 13,
        audio_channels: int = 768,
        audio_tokens: int = 32,
        portrait_patch: int | None = None,
        prior_variance: float | None = None,
    ):
        super().__init__()
        if patch_size_t != 1:
            raise InputError(f"patch_size_t is {patch_size_t}; it can only be 1: each latent frame has its own voices.")
        if num_audio_layers is None:
            num_audio_layers = -(-num_single_layers // 3)
        if not 0 <= num_audio_layers <= num_single_layers:
            raise InputError(
                f"num_audio_layers is {num_audio_layers}; there are {num_single_layers} single-stream blocks."
            )
        heads, width = num_attention_heads, num_attention_heads * attention_head_dim
        # 1. Conditions
        self.x_embedder = HunyuanVideoPatchEmbed((1, patch_size, patch_size), 2 * in_channels + 1, width)
        self.context_embedder = HunyuanVideoTokenRefiner(text_embed_dim, heads, attention_head_dim, num_refiner_layers)
        self.time_text_embed = HunyuanVideoConditionEmbedding(width, pooled_projection_dim, guidance_embeds)
        self.rope = HunyuanVideoRotaryPosEmbed(patch_size, patch_size_t, list(rope_axes_dim), rope_theta)
        self.portrait_embedder = None
        if portrait_patch is not None:
            self.portrait_embedder = nn.Conv2d(in_channels, text_embed_dim, portrait_patch, portrait_patch)
        self.audio_projector = AudioProjector(audio_layers, audio_channels, width, heads, audio_tokens)
        # 2. Dual-stream, then single-stream blocks, and the voices in the last of them
        block = {"mlp_ratio": mlp_ratio, "qk_norm": qk_norm}
        self.transformer_blocks = nn.ModuleList(
            DualStreamBlock(heads, attention_head_dim, **block) for _ in range(num_layers)
        )
        self.single_transformer_blocks = nn.ModuleList(
            SingleStreamBlock(heads, attention_head_dim, **block) for _ in range(num_single_layers)
        )
        self.audio_attention = nn.ModuleList(AudioAttention(width, heads) for _ in range(num_audio_layers))
        # 3. Out
        self.norm_out = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
        self.proj_out = nn.Linear(width, patch_size**2 * out_channels)
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        pooled_projections: Tensor,
        speech: Tensor | None = None,
        masks: Tensor | None = None,
        portrait: Tensor | None = None,
        guidance: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """The velocity noise - clean of every latent frame, (batch, out_channels, frames, height, width).

        Args:
            hidden_states: (batch, 2 in_channels + 1, frames, height, width); of in_channels only: nothing is known.
            timestep: 1000 (noise) to 0 (clean), (batch, frames), or (batch,) for all frames, which is faster.
            encoder_hidden_states: (batch, length, text_embed_dim); encoder_attention_mask: (batch, length), 1 for text,
                None: all is text, which is faster.
            pooled_projections: (batch, pooled_projection_dim).
            speech: (batch, speakers, frames, 8, audio_layers, audio_channels); None: nobody speaks, nor is silent.
            masks: (batch, speakers, frames, height, width), 0 to 1: their faces.
            portrait: (batch, in_channels, h, w) latents, for models with a `portrait_embedder`; None: no portrait.
            guidance: (batch,), 1000 times the scale, for models with guidance embeddings.
        """
        batch, channels, _, height, width = hidden_states.shape
        if channels == self.config["in_channels"]:
            hidden_states = functional.pad(hidden_states, (0, 0) * 3 + (0, channels + 1))
        given, sigma = hidden_states, timestep.float().reshape(batch, 1, -1, 1, 1) / 1000
        patch, rotary = self.config["patch_size"], self.rope(hidden_states)
        timestep = timestep[:, None] if timestep.ndim == 1 else timestep
        mean = timestep.float().mean(1, keepdim=True).to(timestep)
        levels = torch.cat([timestep, mean], dim=1)
        each = levels.shape[1]
        modulation, _ = self.time_text_embed(
            levels.flatten(), pooled_projections.repeat_interleave(each, 0), _repeated(guidance, each)
        )
        modulation = Modulation(modulation.unflatten(0, (batch, each)))

        video = self.x_embedder(hidden_states)
        text = encoder_hidden_states
        text_mask = None if encoder_attention_mask is None else encoder_attention_mask.bool()
        if self.portrait_embedder is not None and portrait is not None:
            tokens = self.portrait_embedder(portrait).flatten(2).transpose(1, 2)
            # In front: text is padded at its end.
            text = torch.cat([tokens, text], dim=1)
            if text_mask is not None:
                text_mask = torch.cat([text_mask.new_ones(tokens.shape[:2]), text_mask], dim=1)
        text = self.context_embedder(text, mean[:, 0], text_mask)
        mask = None
        if text_mask is not None:
            mask = functional.pad(text_mask, (video.shape[1], 0), value=True)[:, None, None]
        voices = on_faces = None
        if speech is not None and masks is not None and len(self.audio_attention):
            voices, on_faces = self.audio_projector(speech), on_tokens(masks, patch)

        for block in self.transformer_blocks:
            video, text = self._run(block, video, text, modulation, mask, rotary)
        silent = len(self.single_transformer_blocks) - len(self.audio_attention)
        for i, block in enumerate(self.single_transformer_blocks):
            video, text = self._run(block, video, text, modulation, mask, rotary)
            if voices is not None and i >= silent:
                video = video + self._run(self.audio_attention[i - silent], video, voices, on_faces)

        scale, shift = modulation.parts(self.norm_out.linear, 2, VIDEO)
        video = self.proj_out(scaled(self.norm_out.norm(video), 1 + scale, shift))
        grid = video.unflatten(2, (-1, 1, patch, patch)).unflatten(1, (-1, height // patch, width // patch))
        sample = grid.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        if self.config["prior_variance"] is not None:
            noisy, known, _ = given.split([self.config["in_channels"]] * 2 + [1], dim=1)
            sample = _beyond_linear(sample, noisy, known, sigma.to(sample), self.config["prior_variance"])
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _run(self, block: nn.Module, *given: Any) -> Any:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *given)
        return block(*given)


def _beyond_linear(residual: Tensor, noisy: Tensor, known: Tensor, sigma: Tensor, variance: float) -> Tensor:
    """The velocity noise - clean: the best linear guess of it where clean latents are `known` plus something of that
    variance, and a residual in units of the guess's standard error. noisy: (1 - sigma) clean + sigma noise."""
    total = variance * (1 - sigma).square() + sigma.square()
    guess = ((sigma - variance * (1 - sigma)) * noisy - sigma * known) / total
    return guess + (variance / total).sqrt() * residual


def _repeated(x: Tensor | None, times: int) -> Tensor | None:
    return None if x is None else x.repeat_interleave(times, 0)
