"""The MAGI-1 diffusion transformer: block-causal over chunks, a velocity for every latent frame.

Source: arXiv 2505.13211, section 2; parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ...errors import InputError
from ...layers.attention import Backend, EvenSpans, Span, attention
from ...layers.cache import KeyValueCache
from ...layers.embeddings import sinusoid
from ...layers.fp8 import Fp8Linear
from ...layers.norms import LayerNorm1p
from ...layers.patches import unpatchify
from ...layers.rotary import apply_rotary, rotary_angles


class TimestepEmbedder(nn.Module):
    def __init__(self, dim: int, frequency_dim: int = 256):
        super().__init__()
        self.frequency_dim = frequency_dim
        # Not a Sequential, here and below: group offloading would take its layers for blocks of their own, and with
        # a stream does not wait for the weights of blocks that no other module of theirs accompanies.
        self.mlp = nn.ModuleDict({"0": nn.Linear(frequency_dim, dim), "2": nn.Linear(dim, dim)})

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        first: Any = self.mlp["0"]
        second = self.mlp["2"]
        return second(F.silu(first(sinusoid(t * 1000, self.frequency_dim).to(first.weight.dtype))))


class CaptionEmbedder(nn.Module):
    """Text for the cross-attention; and for the condition one row of the null caption, which tells only whether the
    caption was dropped (the last row) or kept (the row before it)."""

    def __init__(self, caption_dim: int, text_dim: int, condition_dim: int, max_length: int):
        super().__init__()
        self.y_proj_xattn = nn.ModuleDict({"0": nn.Linear(caption_dim, text_dim)})
        self.y_proj_adaln = nn.ModuleDict({"0": nn.Linear(caption_dim, condition_dim)})
        self.null_caption_embedding = nn.Parameter(torch.randn(max_length, caption_dim) * 0.02)

    def forward(self, caption=None, dropped=None):
        """(text, condition) of a caption; without one, the null caption (a call, since weights that are offloaded are
        there during calls only)."""
        if caption is None:
            return self.null_caption_embedding.clone()
        kept_row, dropped_row = self.y_proj_adaln["0"](self.null_caption_embedding[-2:]).unbind(0)
        caption = caption.to(self.null_caption_embedding.dtype)
        return F.silu(self.y_proj_xattn["0"](caption)), torch.where(dropped[..., None], dropped_row, kept_row)


class LearnedRotary(nn.Module):
    def __init__(self, head_dim: int):
        super().__init__()
        n = head_dim // 8
        self.bands = nn.Parameter(10000.0 ** (-torch.arange(n, dtype=torch.float32) / n))

    def forward(self, frames: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine, each (tokens, 1, n): the same for every head."""
        angles = rotary_angles(self.bands, frames, height, width)
        return angles.cos()[:, None], angles.sin()[:, None]


def linear(in_features: int, out_features: int, fp8: bool, smoothed: bool = False) -> nn.Module:
    """A linear layer without bias; `smoothed` counts in FP8 only."""
    if fp8:
        return Fp8Linear(in_features, out_features, smoothed)
    return nn.Linear(in_features, out_features, bias=False)


class QueryKeyValue(nn.Module):
    def __init__(self, dim: int, query_dim: int, key_dim: int, eps: float, fp8: bool):
        super().__init__()
        self.layer_norm = nn.LayerNorm(dim, eps=eps)
        self.q = linear(dim, query_dim, fp8)
        self.qx = linear(dim, query_dim, fp8)
        self.k = linear(dim, key_dim, fp8)
        self.v = linear(dim, key_dim, fp8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.layer_norm(x)
        return self.q(x), self.qx(x), self.k(x), self.v(x)


class ParallelAttention(nn.Module):
    """Self-attention over the chunks and cross-attention to the text, side by side, joined by one projection."""

    def __init__(self, dim: int, heads: int, groups: int, head_dim: int, eps: float, fp8: bool):
        super().__init__()
        self.heads, self.groups, self.head_dim = heads, groups, head_dim
        self.linear_qkv = QueryKeyValue(dim, heads * head_dim, groups * head_dim, eps, fp8)
        self.linear_kv_xattn = nn.Linear(dim, 2 * groups * head_dim, bias=False)
        self.q_layernorm = LayerNorm1p(head_dim, eps)
        self.k_layernorm = LayerNorm1p(head_dim, eps)
        self.q_layernorm_xattn = LayerNorm1p(head_dim, eps)
        self.k_layernorm_xattn = LayerNorm1p(head_dim, eps)
        self.linear_proj = linear(2 * heads * head_dim, dim, fp8, smoothed=True)

    def forward(self, x, text, text_mask, rotary, spans, past, backend):
        batch, tokens, _ = x.shape
        q, qx, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in self.linear_qkv(x))
        # The rotary tables are float32; attention runs in the dtype of the values. Transposed last: attention needs
        # no other layout, so nothing is copied.
        q, k = (apply_rotary(y, *rotary).to(v.dtype) for y in (self.q_layernorm(q), self.k_layernorm(k)))
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))  # (batch, heads | groups, tokens, head_dim)
        present = (k, v)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        own = attention(q, k, v, spans=spans, backend=backend).transpose(1, 2).flatten(2)  # (batch, tokens, dim)

        # Every text is read by its own chunks: fold the texts into the batch.
        kx, vx = self.linear_kv_xattn(text).unflatten(-1, (self.groups, 2 * self.head_dim)).chunk(2, dim=-1)
        kx = self.k_layernorm_xattn(kx).to(v.dtype)
        kx, vx = (y.expand(batch, -1, -1, -1, -1).flatten(0, 1).transpose(1, 2) for y in (kx, vx))
        qx = self.q_layernorm_xattn(qx).to(v.dtype).reshape(len(kx), -1, self.heads, self.head_dim).transpose(1, 2)
        cross = attention(qx, kx, vx, mask=text_mask).transpose(1, 2).reshape(batch, tokens, -1)

        # The order of the projection's inputs is that of a training run on 8 ranks: eight parts, each (self, cross).
        joined = torch.stack([y.unflatten(-1, (8, -1)) for y in (own, cross)], dim=-2).flatten(-3)
        return self.linear_proj(joined), present


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, gated: bool, eps: float, fp8: bool):
        super().__init__()
        self.gated = gated
        self.layer_norm = nn.LayerNorm(dim, eps=eps)
        self.linear_fc1 = linear(dim, 2 * hidden if gated else hidden, fp8)
        self.linear_fc2 = linear(hidden, dim, fp8, smoothed=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear_fc1(self.layer_norm(x))
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            return self.linear_fc2(F.silu(gate) * x)
        return self.linear_fc2(F.gelu(x))


class Modulation(nn.Module):
    """The gates of attention and feed-forward, kept within (-1, 1) by a tanh."""

    def __init__(self, condition_dim: int, dim: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(condition_dim, 2 * dim))

    def forward(self, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        attention_gate, feed_forward_gate = torch.tanh(self.proj(F.silu(condition)).float()).chunk(2, dim=-1)
        return attention_gate, feed_forward_gate


def gate_chunks(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Multiply each chunk of x (batch, tokens, dim) by its gate (batch, chunks, dim)."""
    return (x.unflatten(1, (gate.shape[1], -1)) * gate[:, :, None]).flatten(1, 2)


class Block(nn.Module):
    def __init__(self, dim, hidden, heads, groups, head_dim, condition_dim, gated, eps, fp8, local):
        super().__init__()
        if local:
            self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.ada_modulate_layer = Modulation(condition_dim, dim)
        self.self_attention = ParallelAttention(dim, heads, groups, head_dim, eps, fp8)
        self.self_attn_post_norm = LayerNorm1p(dim, eps)
        self.mlp = FeedForward(dim, hidden, gated, eps, fp8)
        self.mlp_post_norm = LayerNorm1p(dim, eps)

    def forward(self, x, condition, text, text_mask, rotary, spans, past, backend, grid):
        if hasattr(self, "local"):
            frames = x.unflatten(1, (-1, *grid)).flatten(0, 1).permute(0, 3, 1, 2)
            x = x + self.local(frames).permute(0, 2, 3, 1).reshape(x.shape)
        attention_gate, feed_forward_gate = self.ada_modulate_layer(condition)
        y, present = self.self_attention(x, text, text_mask, rotary, spans, past, backend)
        x = (x + self.self_attn_post_norm(gate_chunks(y, attention_gate))).to(x.dtype)
        y = self.mlp(x)
        x = (x + self.mlp_post_norm(gate_chunks(y, feed_forward_gate))).to(x.dtype)
        return x, present


class Blocks(nn.Module):
    _gradient_checkpointing_func: Callable[..., Any]  # set by ModelMixin.enable_gradient_checkpointing

    def __init__(self, num_layers: int, dim: int, eps: float, fp8: bool, **block):
        super().__init__()
        inner = range(1, num_layers - 1)  # the first and the last layer are never quantised
        self.layers = nn.ModuleList(Block(dim, eps=eps, fp8=fp8 and i in inner, **block) for i in range(num_layers))
        self.final_layernorm = LayerNorm1p(dim, eps)
        self.gradient_checkpointing = False

    def forward(self, x, condition, text, text_mask, rotary, spans, cache, commit, backend, grid):
        """The first `commit` tokens leave their keys and values in the cache."""
        for i, block in enumerate(self.layers):
            past = None if cache is None else cache.read(i)
            arguments = (x, condition, text, text_mask, rotary, spans, past, backend, grid)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x, present = self._gradient_checkpointing_func(block, *arguments)
            else:
                x, present = block(*arguments)
            if commit and cache is not None:
                keys, values = present
                cache.write(i, keys[:, :, :commit], values[:, :, :commit])
        return self.final_layernorm(x)


class FinalLinear(nn.Module):
    def __init__(self, dim: int, out_dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, out_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.to(self.linear.weight.dtype))


class Magi1Transformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """MAGI-1's transformer. Constructor arguments are the fields of the published `model_config`.

    Ours, and off in the published models: `data_std`. Given the standard deviation s of each latent channel, the
    network learns only what the best linear guess does not know: with d = (1-t)^2 + (t s)^2 the velocity is
    (t s^2 - (1-t)) / d * x + s / sqrt(d) * network(x / sqrt(d)) (the preconditioning of EDM, arXiv 2206.00364,
    for linear flow matching). It makes a small network several times quicker to train. And `local`: each block begins
    with a 3 x 3 convolution over the tokens of each frame, channel by channel (the idea of SANA's Mix-FFN, arXiv
    2410.10629), so that neighbours agree before attention has learned to look at them.

    `fp8` is what `fp8_quant` of the published `engine_config` says: the large linears of all layers but the first and
    the last are e4m3, see `Fp8Linear`.

    Raises: InputError if a dimension does not fit.
    """

    __module__ = "animagic"  # where a model folder says it is; files of ours may move

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _repeated_blocks = ["Block"]
    # All children, each on its own: with one left over, the transformer itself would prefetch its blocks a second time.
    _group_offload_block_modules = ["x_embedder", "t_embedder", "y_embedder", "rope", "videodit_blocks", "final_linear"]
    _keep_in_fp32_modules = ["x_embedder", "t_embedder", "y_embedder", "rope", "final_linear", *Fp8Linear.SCALES]

    @register_to_config
    def __init__(
        self,
        num_layers: int = 34,
        hidden_size: int = 3072,
        ffn_hidden_size: int = 12288,
        num_attention_heads: int = 24,
        num_query_groups: int = 8,
        kv_channels: int = 128,
        layernorm_epsilon: float = 1e-6,
        x_rescale_factor: float = 1.0,
        half_channel_vae: bool = False,
        patch_size: int = 2,
        t_patch_size: int = 1,
        in_channels: int = 16,
        out_channels: int = 16,
        cond_hidden_ratio: float = 0.25,
        caption_channels: int = 4096,
        caption_max_length: int = 800,
        xattn_cond_hidden_ratio: float = 1.0,
        cond_gating_ratio: float = 1.0,
        gated_linear_unit: bool = False,
        chunk_width: int = 6,
        data_std: Sequence[float] | None = None,
        fp8: bool = False,
        local: bool = False,
    ):
        super().__init__()
        if kv_channels % 8 or (2 * num_attention_heads * kv_channels) % 16:
            raise InputError(f"kv_channels must be a multiple of 8, and heads x kv_channels too, not {kv_channels}.")
        if num_query_groups < 1 or num_attention_heads % num_query_groups:
            raise InputError(f"{num_attention_heads} heads cannot share {num_query_groups} key/value groups evenly.")
        condition_dim = int(hidden_size * cond_hidden_ratio)
        text_dim = int(hidden_size * xattn_cond_hidden_ratio)
        if text_dim != hidden_size or cond_gating_ratio != 1.0:
            raise InputError("xattn_cond_hidden_ratio and cond_gating_ratio must be 1.0, as in every published model.")
        if t_patch_size != 1:
            raise InputError(f"t_patch_size must be 1, as in every published model, not {t_patch_size}.")
        if data_std is not None and len(data_std) != in_channels // (2 if half_channel_vae else 1):
            raise InputError(f"data_std has {len(data_std)} values, one a latent channel is needed.")
        patch = (t_patch_size, patch_size, patch_size)
        self.x_embedder = nn.Conv3d(in_channels, hidden_size, patch, stride=patch, bias=False)
        self.t_embedder = TimestepEmbedder(condition_dim)
        self.y_embedder = CaptionEmbedder(caption_channels, text_dim, condition_dim, caption_max_length)
        self.rope = LearnedRotary(kv_channels)
        self.videodit_blocks = Blocks(
            num_layers,
            hidden_size,
            layernorm_epsilon,
            hidden=ffn_hidden_size,
            heads=num_attention_heads,
            groups=num_query_groups,
            head_dim=kv_channels,
            condition_dim=condition_dim,
            gated=gated_linear_unit,
            fp8=fp8,
            local=local,
        )
        self.final_linear = FinalLinear(hidden_size, patch[0] * patch[1] * patch[2] * out_channels)
        self.attention_backend: Backend = "auto"

    def set_attention_backend(self, backend: str) -> None:
        """Choose by diffusers' names: native (PyTorch's own), flex, flash; or by ours, with auto, which chooses by the
        call. Raises InputError."""
        names: dict[str, Backend] = {"native": "sdpa", "sdpa": "sdpa", "flex": "flex", "flash": "flash", "auto": "auto"}
        if backend not in names:
            raise InputError(f"the attention backend {backend!r} is unknown here; choose {', '.join(names)}.")
        self.attention_backend = names[backend]

    def reset_attention_backend(self) -> None:
        """As a new network: auto."""
        self.attention_backend = "auto"

    @property
    def latent_channels(self) -> int:
        """Channels of the latents that go in and come out; the 24B model takes each of them twice."""
        return self.config.in_channels // 2 if self.config.half_channel_vae else self.config.in_channels

    def to(self, *args, **kwargs):
        """As in diffusers. Channels last are `channels_last_3d` here: the one convolution is in three dimensions."""
        if kwargs.get("memory_format") is torch.channels_last:
            kwargs["memory_format"] = torch.channels_last_3d
        return super().to(*args, **kwargs)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        caption_dropped: torch.Tensor | None = None,
        shortcut: torch.Tensor | None = None,
        first_frame: int | torch.Tensor = 0,
        key_frames: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        commit: int = 0,
        return_dict: bool = True,
    ):
        """Predict the velocity (clean latents minus noise) of a window of whole chunks.

        A compiled transformer is compiled anew for another `first_frame`, unless that is a tensor.

        Args:
            hidden_states: (batch, channels, frames, height, width) noisy latents; `frames` = chunks x chunk_width.
            timestep: (batch, chunks), 0 = noise, 1 = clean.
            encoder_hidden_states: (batch, chunks or 1, length, caption_channels) text of each chunk.
            encoder_attention_mask: (batch, chunks or 1, length), non-zero where there is text; None: everywhere.
            caption_dropped: (batch, chunks) boolean; None: nowhere.
            shortcut: (batch, chunks) step size given to distilled models; None for base models.
            first_frame: where the window begins on the timeline.
            key_frames: (chunks, 2) on the CPU: the first frame that a chunk sees, and the end, counted from the first
                one in the cache, or of the window where the cache is empty. None: everything up to itself.
            cache: clean frames right before the window; None or empty: there are none.
            commit: how many frames at the front of the window leave their keys and values in the cache; they hold
                from `cache.commit` on.

        Returns: `.sample`, shaped like hidden_states.
        """
        config = self.config
        batch, channels, frames, height, width = hidden_states.shape
        chunks = timestep.shape[-1]  # a compiler does better with frames as a multiple of chunks than the other way
        if frames != chunks * config.chunk_width:
            chunks = frames // config.chunk_width
        if frames % config.chunk_width or height % config.patch_size or width % config.patch_size:
            raise InputError(
                f"latents of {frames} frames, {height} x {width}, cannot be cut into chunks of {config.chunk_width} "
                f"frames and patches of {config.patch_size} x {config.patch_size}."
            )
        texts, text_length, text_channels = encoder_hidden_states.shape[1:]
        masked = text_length if encoder_attention_mask is None else encoder_attention_mask.shape[-1]
        for what, given, *allowed in (
            ("channels of latents", channels, self.latent_channels),
            ("timesteps, for as many chunks", timestep.shape[-1], 1, chunks),
            ("texts, for as many chunks", texts, 1, chunks),
            ("channels of text", text_channels, config.caption_channels),
            ("tokens in the mask of a text", masked, text_length),
            ("key ranges, for as many chunks", chunks if key_frames is None else len(key_frames), chunks),
        ):
            if given not in allowed:
                raise InputError(f"there are {given} {what}, but {' or '.join(map(str, allowed))} are needed.")
        q = config.patch_size
        grid = (frames, height // q, width // q)
        frame_tokens = grid[1] * grid[2]
        timestep = timestep.expand(batch, chunks)
        if caption_dropped is None:
            caption_dropped = torch.zeros(batch, chunks, dtype=torch.bool, device=timestep.device)

        of_frames = timestep.repeat_interleave(config.chunk_width, dim=1)
        spatial_t = of_frames[:, None, :, None, None].to(hidden_states.dtype)
        if config.data_std is None:
            x = hidden_states * config.x_rescale_factor
        else:
            std = hidden_states.new_tensor(config.data_std)[:, None, None, None]
            scale = ((1 - spatial_t) ** 2 + (spatial_t * std) ** 2).sqrt()
            x = hidden_states / scale
        if config.half_channel_vae:
            x = torch.cat([x, x], dim=1)

        x = self.x_embedder(x.to(self.x_embedder.weight.dtype)).flatten(2).transpose(1, 2)  # (batch, tokens, dim)
        text, condition = self.y_embedder(encoder_hidden_states, caption_dropped)
        condition = condition + self.t_embedder(timestep)
        if shortcut is not None:
            condition = condition + self.t_embedder(shortcut)
        text_mask = None
        if encoder_attention_mask is not None:
            texts = max(texts, encoder_attention_mask.shape[1])
            text = text.expand(-1, texts, -1, -1)
            text_mask = (encoder_attention_mask != 0).expand(batch, texts, -1).reshape(batch * texts, 1, 1, -1)
        places = first_frame + torch.arange(frames, device=x.device, dtype=torch.float32)
        rotary = self.rope(places, *grid[1:])
        spans: list[Span] | EvenSpans
        if key_frames is not None:
            spans = EvenSpans(key_frames, frame_tokens)
        else:
            held = None if cache is None else cache.read(0)
            before, length = 0 if held is None else held[0].shape[2], frame_tokens * config.chunk_width
            spans = [Span(i * length, (i + 1) * length, 0, before + (i + 1) * length) for i in range(chunks)]

        dtype = self.videodit_blocks.final_layernorm.weight.dtype
        x, text, condition = x.to(dtype), text.to(dtype), condition.to(dtype)
        committed = commit * frame_tokens
        arguments = (x, condition, text, text_mask, rotary, spans, cache, committed, self.attention_backend, grid[1:])
        x = unpatchify(self.final_linear(self.videodit_blocks(*arguments)), (1, q, q), grid)
        sample = x[:, : self.latent_channels].to(hidden_states.dtype)
        if config.data_std is None:
            sample = sample / config.x_rescale_factor
        else:
            sample = (spatial_t * std**2 - (1 - spatial_t)) / scale**2 * hidden_states + std / scale * sample
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
