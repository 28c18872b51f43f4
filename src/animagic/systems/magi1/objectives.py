"""How MAGI-1's transformer is trained: on chunks that grow cleaner towards the past.

Source: arXiv 2505.13211, section 3 (no training code was published).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...pipelines.text import encode_text
from ...timeline.levels import flow_times
from ...training.data import to_unit
from .autoencoder import AutoencoderKLMagi1
from .transformer import Magi1Transformer3DModel


@dataclass(frozen=True)
class Clips:
    """A batch as the transformer meets it.

    latents, noise: (size, channels, frames, height, width); caption: (size, length, channels); mask: (size, length);
    positions: (size, chunks) in the schedule, 1 = clean; given: (size, frames), True where the frame is given;
    width: latent frames of a chunk; weight: how much the error of each latent counts, to go with latents.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    caption: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    given: torch.Tensor
    width: int
    weight: torch.Tensor

    @property
    def clean(self) -> torch.Tensor:
        """(size, chunks), True where a chunk is history."""
        return self.positions >= 1

    def part(self, which: torch.Tensor) -> Clips:
        """Some of the samples."""
        parts: dict[str, Any] = {k: v[which] for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **parts)

    def spread(self, t: torch.Tensor) -> torch.Tensor:
        """(size, chunks) to a value for every frame, shaped to go with latents."""
        return t.repeat_interleave(self.width, dim=1)[:, None, :, None, None]

    def noisy(self, t: torch.Tensor) -> torch.Tensor:
        """The latents at times t (size, chunks)."""
        return torch.lerp(self.noise, self.latents, self.spread(t))

    def visible(self, state: torch.Tensor) -> torch.Tensor:
        """A state as the network sees it: given frames and clean chunks as they are."""
        known = self.given | self.clean.repeat_interleave(self.width, dim=1)
        return torch.where(known[:, None, :, None, None], self.latents, state)


@dataclass
class TransformerObjective:
    """Flow matching on chunks: x_t = (1 - t) noise + t data, the velocity data - noise is learned.

    Every chunk has its own time, never earlier than that of the chunk after it. At random the caption is dropped,
    the chunks before are clean, and some frames at the front are given (a picture, or a clip that goes on), so that
    one network does all that the sampler asks of it: text, history and neither; text, image and video to video.

    Args:
        autoencoder, text_encoder, tokenizer: frozen.
        drop_text: share of samples without a caption.
        prefix: share of samples that begin with given frames. Clips that are `held` begin with a picture.
        window_size: chunks in flight when sampling: chunks one stage apart in the staircase.
        shift: of the time points; 3 as in sampling.
        clean_t: the time that clean chunks are given.
        text_length: tokens of a caption.
        plain_share, plain_shift: share of the time points that are not spaced as in sampling, and their shift; above 1:
            more of them where things take their shape, fewer where only what a decoder forgives is left.
        things: how much more than one the error of a latent counts that belongs to a thing of the studio, or lies
            beside one, if the batch tells.
    """

    autoencoder: AutoencoderKLMagi1
    text_encoder: nn.Module
    tokenizer: object
    drop_text: float = 0.1
    prefix: float = 0.25
    window_size: int = 4
    shift: float = 3.0
    clean_t: float = 0.9999
    text_length: int = 64
    things: float = 0.0
    plain_share: float = 0.4
    plain_shift: float = 1.0

    @torch.no_grad()
    def encode_video(self, video: torch.Tensor) -> torch.Tensor:
        """uint8 (clips, 3, frames, height, width) -> latents."""
        posterior: Any = self.autoencoder.to(video.device).encode(to_unit(video))
        return posterior.latent_dist.mode() * self.autoencoder.config.scaling_factor

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (captions, text_length, channels), and where there is text, (captions, text_length)."""
        text = encode_text(self.text_encoder, self.tokenizer, captions, self.text_length)
        return text.embeds, text.mask != 0

    def times(self, u: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        """Positions 0..1 in the schedule to times: the sampler's own spacing, or plain where `squared` is false."""
        return torch.where(squared, flow_times(u, self.shift), u / (u + self.plain_shift * (1 - u)))

    def positions(self, batch: int, chunks: int, generator: torch.Generator) -> torch.Tensor:
        """(batch, chunks) positions in the schedule, 1 = clean; older chunks are never less clean than later ones."""

        def rand(*shape):
            return torch.rand(*shape, generator=generator, device=generator.device)

        # A staircase as in sampling, placed so that every chunk is equally often the one that is anywhere in it ...
        reference = torch.randint(chunks, (batch, 1), generator=generator, device=generator.device)
        index = torch.arange(chunks, device=generator.device)
        stairs = rand(batch, 1) + (reference - index) / self.window_size
        # ... chunks that it has not reached yet get any noisier position: they cost nothing and teach as well.
        for i in range(1, chunks):
            fallback = stairs[:, i - 1].clamp(0, 1) * rand(batch)
            stairs[:, i] = torch.where(stairs[:, i] < 0, fallback, stairs[:, i])
        anyhow = rand(batch, chunks).sort(dim=1, descending=True).values
        return torch.where(rand(batch, 1) < 0.7, stairs, anyhow).clamp(0, 1)

    def _channel_weights(self, network: Magi1Transformer3DModel) -> torch.Tensor | float:
        """An error counts as much as it changes the pixels: the latents of `fit_linear_path` are whitened half-way, so
        one standard deviation more brings that back."""
        if network.config.data_std is None or not self.autoencoder.config.get("linear_path"):
            return 1.0
        std = torch.tensor(network.config.data_std, device=network.device)
        return (std**2 / (std**2).mean())[:, None, None, None]

    def clips(self, network: Magi1Transformer3DModel, batch: dict, generator: torch.Generator) -> Clips:
        """A batch of videos and captions, or of a `SceneBank`, as latents, text and places in the schedule."""
        device, width = generator.device, network.config.chunk_width
        if "latents" in batch:
            latents, caption, mask = (batch[name].to(device) for name in ("latents", "text", "text_mask"))
        else:
            self.text_encoder.to(device)
            latents = self.encode_video(batch["video"].to(device))
            caption, mask = (x.to(device) for x in self.encode_text(batch["captions"]))
            used = int(mask.any(0).nonzero()[-1]) + 1
            caption, mask = caption[:, :used], mask[:, :used]
        size, _, frames = latents.shape[:3]
        chunks = frames // width
        positions = self.positions(size, chunks, generator)
        # Given frames at the front: one where the clip is a picture that begins to move, any number elsewhere.
        many = torch.randint(2, max(3, frames), (size,), generator=generator, device=device)
        with_prefix = torch.rand(size, generator=generator, device=device) < self.prefix
        given = torch.where(batch["held"].to(device), 1, torch.where(with_prefix, many, 0))
        whole = torch.arange(chunks, device=device) < (given // width)[:, None]
        positions = torch.where(whole, torch.ones_like(positions), positions)
        noise = torch.randn(latents.shape, generator=generator, device=device)
        given_frames = torch.arange(frames, device=device) < given[:, None]
        weight = torch.ones_like(latents[:, :1])
        if "inside" in batch:
            beside = nn.functional.max_pool2d(batch["inside"].to(device), 4, stride=2, padding=1)
            weight = weight + self.things * (beside > 0.1)[:, None]
        return Clips(latents, noise, caption, mask, positions, given_frames, width, weight)

    def read(self, network: Magi1Transformer3DModel, clips: Clips, without: torch.Tensor):
        """The text of each chunk, (size, chunks, length, channels), and its mask: the null caption where `without`."""
        null = network.y_embedder.null_caption_embedding
        caption, mask = clips.caption[:, : len(null)], clips.mask[:, : len(null)]
        length = max(caption.shape[1], min(50, len(null)))
        caption = nn.functional.pad(caption, (0, 0, 0, length - caption.shape[1]))
        mask = nn.functional.pad(mask, (0, length - mask.shape[1]))
        null_mask = torch.arange(length, device=mask.device) < 50
        text = torch.where(without[..., None, None], null[:length], caption[:, None])
        return text, torch.where(without[..., None], null_mask, mask[:, None])

    def loss(self, network: Magi1Transformer3DModel, clips: Clips, velocity, target, t: torch.Tensor):
        """The weighted error of the frames that are made, (size, chunks) times `t`; and metrics by time."""
        time = clips.spread(t)[:, 0, :, 0, 0]
        learned = (~clips.given & ~clips.clean.repeat_interleave(clips.width, dim=1)).float()
        error = (velocity - target).square() * self._channel_weights(network) * clips.weight
        error = error.mean(dim=(1, 3, 4)) / clips.weight.mean(dim=(1, 3, 4))
        loss = (error * learned).sum() / learned.sum().clamp_min(1)
        metrics = {}
        for name, low, high in (("noisy", 0.0, 0.1), ("middle", 0.1, 0.5), ("nearly_clean", 0.5, 1.0)):
            part = learned * ((time >= low) & (time < high))
            metrics[name] = float((error.detach() * part).sum() / part.sum()) if part.sum() else float("nan")
        return loss, metrics

    def __call__(self, model: Any, batch: dict, generator: torch.Generator):
        device = generator.device
        clips = self.clips(model, batch, generator)
        size = len(clips.latents)
        squared = torch.rand(size, generator=generator, device=device) < 1 - self.plain_share
        t = torch.where(clips.clean, self.clean_t, self.times(clips.positions, squared[:, None]))
        dropped = torch.rand(size, generator=generator, device=device) < self.drop_text
        # Clean chunks read the null caption, whatever the rest reads.
        text, text_mask = self.read(model, clips, dropped[:, None] | clips.clean)
        velocity = model(
            clips.visible(clips.noisy(t)),
            t,
            text,
            encoder_attention_mask=text_mask,
            caption_dropped=dropped[:, None].expand_as(t),
            return_dict=False,
        )[0]
        return self.loss(model, clips, velocity, clips.latents - clips.noise, t)


@torch.no_grad()
def initialise(transformer: Magi1Transformer3DModel) -> None:
    """Weights to begin training with: small steps of every block, nothing but the best linear guess at first, and an
    attention that already knows near from far.

    On a small grid the published rotary bands hardly tell neighbours apart, and queries and keys, which are normalised
    head by head, take thousands of steps to learn it. So the bands begin where a grid of a few tokens needs them, and
    constant parts of queries and keys make even layers look along time at the same place, odd ones around themselves.
    """
    bands = transformer.rope.bands
    n = bands.numel()
    bands.copy_(torch.logspace(math.log10(1.6), math.log10(0.05), n))
    time, space = slice(0, n), slice(n, 3 * n)  # of the angles, in each half of the rotated dimensions
    blocks: Any = transformer.videodit_blocks.layers
    for i, block in enumerate(blocks):
        if transformer.config.local:
            nn.init.zeros_(block.local.weight)
            nn.init.zeros_(block.local.bias)
        for norm in (block.self_attn_post_norm, block.mlp_post_norm):
            nn.init.constant_(norm.weight, -0.8)  # stored minus one
        for norm in (block.self_attention.q_layernorm, block.self_attention.k_layernorm):
            for half in (norm.bias[: 3 * n], norm.bias[3 * n : 6 * n]):
                half[space] = 1.0 if i % 2 == 0 else 0.5
                half[time] = 0.2 if i % 2 == 0 else 0.5
    nn.init.zeros_(transformer.final_linear.linear.weight)
