"""The loss of MagicInfinite's training, and what leads the transformer in a batch.

Source: MagicInfinite, arXiv 2503.05978, section 3 (region-weighted loss); shares and levels are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.autoencoder import ConvAutoencoder
from ...training.data import to_unit
from .audio import AudioProjector
from .denoiser import GROUP, Prompt, padded

_MOST_TEXTS = 20_000
"""That are kept once they have been encoded."""


class MouthReader(nn.Module):
    """What the mouth does in a latent frame, told from the tokens of an `AudioProjector` by a linear layer."""

    def __init__(self, projector: AudioProjector):
        super().__init__()
        self.audio_projector = projector
        self.head = nn.Linear(projector.queries.numel(), 3 * GROUP)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) -> (batch, 4, 3): opening, width and rounding in each of its video frames."""
        return self.head(tokens.flatten(1)).unflatten(1, (GROUP, 3))


@dataclass
class MouthObjective:
    """The mean squared error of the mouth's shape, so that tokens say what a face needs to know before there is one.

    Args:
        noise: added to the tokens, which have deviation 1: what they say of mouths must stand out from all else that is
            heard, so that a transformer with little to go by finds it.
        deviation: of opening, width and rounding, in whose units errors are counted.

    Batches: see VoiceBatches.
    """

    noise: float = 1.5
    deviation: tuple[float, float, float] = (0.27, 0.14, 0.25)

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        device = generator.device
        tokens = model.audio_projector(batch["speech"].to(device))
        tokens = tokens + self.noise * torch.randn(tokens.shape, generator=generator, device=device)
        error = (model(tokens) - batch["mouth"].to(device)) / torch.tensor(self.deviation, device=device)
        each = error.square().mean((0, 1))
        return each.mean(), {name: each[i].detach() for i, name in enumerate(("opening", "width", "rounding"))}


@dataclass
class Conditions:
    """What leads the transformer in a batch of clips.

    text, null: embeddings, mask and pooled text of the captions, and of none. known: latents that are known, and where,
    (clips, channels + 1, frames, h, w). portrait: (clips, channels, h, w). speech, masks: see PortraitBatches. kept:
    bool (clips, 3), whether picture, text and voices are there.
    """

    text: tuple[Tensor, ...]
    null: tuple[Tensor, ...]
    known: Tensor
    portrait: Tensor
    speech: Tensor
    masks: Tensor
    kept: Tensor

    def only(self, count: int) -> Conditions:
        """The first `count` of them alone, as guidance asks for them."""
        kept = torch.arange(3, device=self.kept.device).expand_as(self.kept) < count
        return Conditions(**vars(self) | {"kept": kept})


def velocity(network: Any, noisy: Tensor, times: Tensor, given: Conditions) -> Tensor:
    """The network's velocity clean - noise, (clips, channels, frames, h, w). times: (clips, frames), 0 to 1."""
    picture, text, voice = (given.kept[:, i] for i in range(3))

    def chosen(keep: Tensor, one: Tensor, other: Tensor | float = 0.0) -> Tensor:
        return torch.where(keep.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    embeds, mask, pooled = (chosen(text, a, b) for a, b in zip(given.text, given.null, strict=True))
    heard = {}
    if voice.any():
        heard = {"speech": given.speech, "masks": chosen(voice, given.masks)}
    predicted = network(
        torch.cat([noisy, chosen(picture, given.known)], dim=1),
        1000 * (1 - times),
        embeds,
        mask,
        pooled,
        portrait=chosen(picture, given.portrait),
        return_dict=False,
        **heard,
    )
    return -predicted[0]


@dataclass
class SpeakingObjective:
    """Flow matching on clips of people who speak: x_t = (1 - t) noise + t data, the velocity data - noise is learned.

    Args:
        autoencoder: frozen. prompts: encodes texts, see `prompts`.
        voices: whether voices are heard; without, the first stage.
        drop_portrait, drop_text, drop_voice, drop_all: shares of clips without them, for guidance.
        front_share: share of the clips whose frames get cleaner towards their beginning, as in `MovingFront`, some of
            the first ones being clean; the others have one level.
        dub_share: share of the clips of which everything but the mouth is known, in place of the portrait.
        face_share: share of the loss that faces have, whatever their size, at first and after `ramp` steps.
        mouth: how much more than the rest of a face its mouth counts.
        shift: of the times, see `shifted_times`.
        text_length: tokens of a caption at most.

    Batches: see PortraitBatches.
    """

    autoencoder: Any
    prompts: Any
    voices: bool = True
    drop_portrait: float = 0.05
    drop_text: float = 0.1
    drop_voice: float = 0.1
    drop_all: float = 0.05
    front_share: float = 0.5
    dub_share: float = 0.1
    face_share: tuple[float, float] = (0.5, 0.7)
    ramp: int = 5000
    mouth: float = 2.0
    shift: float = 1.0
    text_length: int = 24
    _known_texts: dict[str, Any] = field(default_factory=dict, repr=False)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """uint8 (clips, 3, 4 k frames, height, width) -> latents (clips, channels, k, h, w)."""
        autoencoder = self.autoencoder.to(video.device)
        pixels = to_unit(video)
        if not isinstance(autoencoder, ConvAutoencoder):
            pixels = pixels[:, :, GROUP - 1 :]  # a causal one takes the first latent frame for one frame
        return autoencoder.encode(pixels).latent_dist.mode().float() * autoencoder.config.scaling_factor

    def read(self, captions: Sequence[str], photos: Tensor, device: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings, mask and pooled text of captions, as many as there are photos, uint8 (clips, 3, height, width),
        for language models that see; others encode each caption once."""
        if self.prompts.sees:
            pictures = photos.permute(0, 2, 3, 1).cpu().numpy()
            found = [self.prompts.encode([text], one)[0] for text, one in zip(captions, pictures, strict=True)]
        else:
            if len(self._known_texts) > _MOST_TEXTS:
                self._known_texts.clear()
            new = [text for text in dict.fromkeys(captions) if text not in self._known_texts]
            self._known_texts |= dict(zip(new, self.prompts.encode(new, None), strict=True))
            found = [self._known_texts[text] for text in captions]
        length = max(min(one.mask.shape[1], self.text_length) for one in found)
        cut = [padded(Prompt(one.embeds[:, :length], one.mask[:, :length], one.pooled), length) for one in found]
        embeds, mask, pooled = (torch.cat([getattr(one, part) for one in cut]) for part in ("embeds", "mask", "pooled"))
        return embeds.to(device), mask.to(device), pooled.to(device)

    def times(self, clips: int, frames: int, generator: torch.Generator) -> Tensor:
        """(clips, frames) times; one clip from each of equally many ranges, so that every batch has seen them all."""
        device = generator.device

        def rand(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        u = (torch.randperm(clips, generator=generator, device=device) + rand(clips)) / clips
        even = u[:, None].expand(clips, frames)
        # Of a front that is somewhere between two exits, after some clean frames.
        clean = (rand(clips, 1) * (frames // 2 + 1)).floor()
        after = torch.arange(frames, device=device) - clean
        front = (1 - (after + u[:, None]) / (frames - clean)).clamp(0, 1)
        front = torch.where(after < 0, 1.0, front)
        u = torch.where(rand(clips, 1) < (self.front_share if frames > 1 else 0.0), front, even)
        return u / (u + self.shift * (1 - u))

    def conditions(self, batch: dict, latents: Tensor, generator: torch.Generator) -> Conditions:
        """Those of a batch, dropped at random."""
        device, (clips, _, frames, height, width) = generator.device, latents.shape

        def chance(share: float) -> Tensor:
            return torch.rand(clips, generator=generator, device=device) < share

        photo = batch["photo"].to(device)[:, :, None].expand(-1, -1, GROUP, -1, -1)
        portrait = self.encode(photo)[:, :, 0]
        mouth = batch["mouth"].to(device)
        dubbed = chance(self.dub_share if self.voices else 0.0)[:, None, None, None, None]
        where = torch.where(dubbed, (mouth < 0.05).float()[:, None], 1.0)
        known = torch.where(dubbed, latents, portrait[:, :, None]) * where
        everything = chance(self.drop_all)
        shares = (self.drop_portrait, self.drop_text, self.drop_voice if self.voices else 1.0)
        kept = torch.stack([~(chance(share) | everything) for share in shares], dim=1)
        captions, photos = [*batch["captions"], *[""] * clips], batch["photo"].repeat(2, 1, 1, 1)
        text, null = zip(*(part.chunk(2) for part in self.read(captions, photos, device)), strict=True)
        return Conditions(
            text,
            null,
            torch.cat([known, where.expand(clips, 1, frames, height, width)], dim=1),
            portrait,
            batch["speech"].to(device),
            batch["masks"].to(device),
            kept,
        )

    def weights(self, batch: dict, moving: Tensor, device: Any) -> Tensor:
        """How much the error of every latent counts, (clips, 1, frames, h, w); faces have their share of it.

        moving: bool (clips, frames): clean frames are not learned from.
        """
        first, last = self.face_share
        share = first + (last - first) * min(1.0, batch["index"] / max(1, self.ramp))
        face = batch["masks"].to(device).amax(1).clamp(0, 1) + (self.mouth - 1) * batch["mouth"].to(device)
        moving_cells = moving[:, :, None, None].float()
        face, rest = face * moving_cells, moving_cells.expand_as(face)
        total, faces = rest.sum((1, 2, 3)), face.sum((1, 2, 3))
        # share = (1 + more) faces / (total + more faces)
        more = ((share * total - faces) / (faces * (1 - share)).clamp_min(1e-3)).clamp(0, 100)
        weight = rest + more[:, None, None, None] * face
        return (weight / weight.mean((1, 2, 3), keepdim=True).clamp_min(1e-6))[:, None]

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        device = generator.device
        latents = self.encode(batch["video"].to(device))
        noise = torch.randn(latents.shape, generator=generator, device=device)
        given = self.conditions(batch, latents, generator)
        times = self.times(len(latents), latents.shape[2], generator)
        t = times[:, None, :, None, None]
        error = (velocity(model, torch.lerp(noise, latents, t), times, given) - (latents - noise)).square()
        weight = self.weights(batch, times < 1, device)
        each = error.detach().mean((1, 3, 4))
        mouths = batch["mouth"].to(device)[:, None] * (times < 1)[:, None, :, None, None]
        facts = {
            "error": each[times < 1].mean(),
            "noisy": each[times < 0.3].mean(),  # nan where a batch has none: not logged
            "mouth": (error.detach().mean(1, keepdim=True) * mouths).sum() / mouths.sum(),
        }
        return (weight * error).mean(), facts
