"""How MagicInfinite is trained: text and portrait first, then voices join; LoRAs; and students of fewer steps.

Source: MagicInfinite, arXiv 2503.05978, section 3 (curriculum, region-weighted loss); rates and shares are ours.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

from ...errors import CheckpointError, InputError, first_line
from ...layers.autoencoder import ConvAutoencoder
from ...training.data import to_unit
from ...training.portraits import PortraitBatches, PortraitVideos
from ...training.stages import Course, Stage, average_of, save_model, with_start
from ...weights.lora import add_lora
from .denoiser import GROUP, MagicInfiniteSampling
from .pipeline import MagicInfinitePipeline
from .prompts import components_of, encoder_of, text_encoder_of
from .transformer import MagicInfiniteTransformer3DModel

LORA_TARGETS = (
    r".*transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
    r"|audio_attention\.\d+\.attn\.(to_q|to_kv|to_out)"
)
LORAS = "loras"


@dataclass
class Conditions:
    """What leads the transformer in a batch, each with the clips in front: text (embeds, mask, pooled), the picture
    (2 parts: latents that are known, and where), the portrait's latents, speech and masks. `kept` are those that are
    not dropped: rows of (picture, text, voices), True or False."""

    embeds: Tensor
    mask: Tensor
    pooled: Tensor
    null: tuple[Tensor, Tensor, Tensor]
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

    embeds, mask, pooled = (
        chosen(text, a, b) for a, b in zip((given.embeds, given.mask, given.pooled), given.null, strict=True)
    )
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

    def read(self, captions: Sequence[str], device: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings, mask and pooled text of captions; each is encoded once."""
        new = [text for text in dict.fromkeys(captions) if text not in self._known_texts]
        if len(self._known_texts) > 20_000:
            self._known_texts.clear()
            new = list(dict.fromkeys(captions))
        if new:
            with torch.no_grad():
                self._known_texts |= dict(zip(new, self.prompts.encode(new, None), strict=True))
        found = [self._known_texts[text] for text in captions]
        length = min(self.text_length, max(one.mask.shape[1] for one in found))

        def filled(x: Tensor) -> Tensor:
            x = x[:, :length]
            return torch.cat([x, x.new_zeros(1, length - x.shape[1], *x.shape[2:])], dim=1)

        parts = (
            [filled(one.embeds) for one in found],
            [filled(one.mask) for one in found],
            [one.pooled for one in found],
        )
        embeds, mask, pooled = (torch.cat(part).to(device) for part in parts)
        return embeds, mask, pooled

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
        embeds, mask, pooled = self.read(batch["captions"], device)
        null = tuple(
            nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, embeds.shape[1] - x.shape[1]))
            if x.ndim > 1 and i < 2
            else x
            for i, x in enumerate(self.read([""], device))
        )
        return Conditions(
            embeds,
            mask,
            pooled,
            null,  # type: ignore[arg-type]
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


def load_autoencoder(folder: str | Path) -> Any:
    """The autoencoder in a folder, or that of the model there, frozen. Raises CheckpointError."""
    folder = Path(folder) / "vae" if (Path(folder) / "vae").is_dir() else folder
    for kind in (ConvAutoencoder, AutoencoderKLHunyuanVideo):
        try:
            if kind.load_config(folder).get("_class_name") == kind.__name__:
                return kind.from_pretrained(folder, use_safetensors=True).float().eval().requires_grad_(False)
        except Exception as error:  # on a damaged folder, diffusers and safetensors raise almost anything
            raise CheckpointError(f"the autoencoder in {folder} cannot be read: {first_line(error)}.") from error
    raise CheckpointError(f"{folder} holds no autoencoder of a kind that is known.")


def _frozen(stage: Stage, **more: Any) -> dict[str, Any]:
    recipe = stage.recipe
    return {"autoencoder": load_autoencoder(recipe["vae"]), "prompts": text_encoder_of(recipe["text_encoder"]), **more}


def build(recipe: dict[str, Any]) -> MagicInfiniteTransformer3DModel:
    """The transformer before its first step, the same in every run of a recipe: with HunyuanVideo's weights, if it
    names them as `base`."""
    section = recipe["portrait"]
    torch.manual_seed(section["training"].get("seed", 0))
    if recipe.get("base"):
        from .weights import from_hunyuan

        return from_hunyuan(recipe["base"], **section.get("model", {}))
    network = MagicInfiniteTransformer3DModel(**section["model"])
    # Every block begins as nothing, and the prediction as 0 (adaLN-zero, arXiv 2212.09748).
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and (name.endswith(("norm.linear", "norm1.linear", "norm1_context.linear"))):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    for module in (network.norm_out.linear, network.proj_out):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    return network


def _start_portrait(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    return with_start(build(stage.recipe), stage.section), _frozen(stage, voices=False)


def _start_speech(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    model = build(stage.recipe)
    model.load_state_dict(average_of(stage.root / "portrait", "the part portrait"))
    return with_start(model, stage.section), _frozen(stage)


def export(recipe: dict[str, Any], root: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder; returns its path."""
    model = build(recipe)
    last = "speech" if (root / "speech" / "average.safetensors").exists() else "portrait"
    model.load_state_dict(average_of(root / last, f"the part {last}"))
    parts = components_of(recipe["text_encoder"])
    vae = copy.deepcopy(load_autoencoder(recipe["vae"])).half()
    pipe = MagicInfinitePipeline(transformer=model.half(), vae=vae, config=recipe["sampling"], **parts)
    return save_model(pipe, root, max_shard_size="8MB")  # no file of the project is larger than 16 MiB


def _start_lora(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """A frozen model with a LoRA in it."""
    pipe = _load(stage.recipe, "model")
    pipe.transformer.requires_grad_(False)
    torch.manual_seed(stage.config.seed)
    add_lora(pipe.transformer, LORA_TARGETS, stage.section["rank"], stage.name)
    return pipe.transformer, {"autoencoder": pipe.vae.eval().requires_grad_(False), "prompts": encoder_of(pipe)}


def _save_lora(stage: Stage, average: Any) -> None:
    from peft import get_peft_model_state_dict

    layers = get_peft_model_state_dict(average, adapter_name=stage.name)
    MagicInfinitePipeline.save_lora_weights(
        stage.root / LORAS, transformer_lora_layers=layers, weight_name=f"{stage.name}.safetensors"
    )


def _load(recipe: dict[str, Any], name: str) -> MagicInfinitePipeline:
    """The pipeline of the model folder that a recipe names, in float32, with the text encoder in the folder of that
    name, if the recipe has one. Raises CheckpointError."""
    texts = components_of(recipe["text_encoder"]) if recipe.get("text_encoder") else {}
    try:
        return MagicInfinitePipeline.from_pretrained(recipe[name], dtype=torch.float32, use_safetensors=True, **texts)
    except Exception as error:  # on a damaged folder, diffusers and safetensors raise almost anything
        raise CheckpointError(f"there is no MagicInfinite model in {recipe[name]}: {first_line(error)}.") from error


def _check(recipe: dict[str, Any]) -> None:
    MagicInfiniteSampling.from_config(recipe["sampling"])
    for name in ("vae", "text_encoder"):
        if not Path(recipe[name]).is_dir():
            raise InputError(f"the {name} of the recipe, {recipe[name]}, is no folder.")


_CLIPS: dict[str, Any] = {"objective": SpeakingObjective, "data": PortraitBatches, "files": PortraitVideos}
_LORA = Stage("loras", _start_lora, **_CLIPS, several=True, folder="lora_{}", needs=["rank"], save=_save_lora)
_STAGES = [
    Stage("portrait", _start_portrait, **_CLIPS, model=MagicInfiniteTransformer3DModel),
    Stage("speech", _start_speech, **_CLIPS, optional=True),
]
STAGES = [
    Course([_LORA], lambda _, root: root / LORAS, ["loras"], only="model"),
    Course(_STAGES, export, ["vae", "text_encoder", "sampling"], check=_check),
]
