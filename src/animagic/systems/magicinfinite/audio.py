"""How a voice enters the transformer: features to tokens, and tokens to the faces that they belong to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers.attention import attention

POSITIONS = 8
"""Features heard around a latent frame: its four video frames, and two on each side."""


class CrossAttention(nn.Module):
    """Attention of some tokens to others, with RMS norms of queries and keys as in HunyuanVideo's blocks."""

    def __init__(self, width: int, heads: int, source: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(source, 2 * width)
        self.norm_q, self.norm_k = (nn.RMSNorm(width // heads, eps=1e-6) for _ in range(2))
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:  # (batch, queries, width), (batch, keys, source)
        query = self.norm_q(self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2))
        key, value = self.to_kv(source).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.to_out(attention(query, self.norm_k(key), value).transpose(1, 2).flatten(2))


class AudioProjector(nn.Module):
    """Features of speech to a few tokens for every latent frame: learned queries ask them (a perceiver resampler).

    Args:
        layers, channels: of the speech encoder; its layers are mixed with learned weights.
        tokens: for a latent frame.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, layers: int, channels: int, width: int, heads: int, tokens: int):
        super().__init__()
        # Encoders' features have a few channels that stand far from zero whatever is heard, and drown all others.
        self.register_buffer("mean", torch.empty(layers, channels))
        self.register_buffer("deviation", torch.empty(layers, channels))
        self.layer_weights = nn.Parameter(torch.empty(layers))
        self.proj_in = nn.Linear(channels, width)
        self.positions = nn.Parameter(torch.empty(POSITIONS, width))
        self.queries = nn.Parameter(torch.empty(tokens, width))
        self.norm_in, self.norm, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CrossAttention(width, heads, width)
        self.ff = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.mean)
        nn.init.ones_(self.deviation)
        nn.init.zeros_(self.layer_weights)
        nn.init.normal_(self.positions, std=0.5)
        nn.init.normal_(self.queries, std=self.queries.shape[1] ** -0.5)

    def measure(self, speech: Tensor) -> None:
        """Take the statistics of speech (..., layers, channels), once, before the first training step."""
        every = speech.flatten(0, -3)
        self.mean.copy_(every.mean(0))
        self.deviation.copy_(every.std(0).clamp_min(1e-3))

    def forward(self, speech: Tensor) -> Tensor:
        """(..., 8, layers, channels) -> (..., tokens, width)."""
        evened = (speech - self.mean) / self.deviation
        mixed = torch.einsum("...lc,l->...c", evened, self.layer_weights.softmax(0))
        heard = (self.norm_in(self.proj_in(mixed)) + self.positions).flatten(0, -3)
        x = self.queries.expand(len(heard), -1, -1)
        x = x + self.attn(self.norm(x), heard)
        return self.norm_out(x + self.ff(x)).unflatten(0, speech.shape[:-3])


class AudioAttention(nn.Module):
    """The tokens of each latent frame ask what is heard in that frame, each speaker inside their face.

    It adds nothing before training, and nothing outside every mask. What it adds is in units of the tokens' own size,
    which grows from block to block: tenfold and more in a trained model, whose last blocks would not hear it otherwise.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.attn = CrossAttention(width, heads, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.attn.to_out.weight)
        nn.init.zeros_(self.attn.to_out.bias)

    def forward(self, video: Tensor, audio: Tensor, masks: Tensor) -> Tensor:
        """video: (batch, frames * n, width); audio: (batch, speakers, frames, tokens, width); masks: (batch, speakers,
        frames * n) -> (batch, frames * n, width)."""
        batch, speakers, frames = audio.shape[:3]
        asking = self.norm(video).unflatten(1, (frames, -1))[:, None].expand(-1, speakers, -1, -1, -1)
        heard = self.attn(asking.flatten(0, 2), audio.flatten(0, 2)).unflatten(0, (batch, speakers, frames))
        size = video.square().mean(-1, keepdim=True).sqrt()
        return size * torch.einsum("bsnc,bsn->bnc", heard.flatten(2, 3), masks.to(heard))


def on_tokens(masks: Tensor, patch: int) -> Tensor:
    """Masks on the latent grid, (batch, speakers, frames, h, w), area-averaged to tokens: (batch, speakers, tokens)."""
    return functional.avg_pool2d(masks.flatten(0, 2), patch).unflatten(0, masks.shape[:3]).flatten(2)
