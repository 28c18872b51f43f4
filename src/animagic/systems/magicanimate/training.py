"""How MagicAnimate is trained: the appearance encoder and the ControlNet on pairs of frames, temporal attention on
clips, then all together; and LoRAs on clips of one's own.

Source: MagicAnimate, arXiv 2311.16498, section 3.4 (training).
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from ...errors import CheckpointError, InputError, first_line
from ...layers.inflation import by_frame
from ...training.data import to_unit
from ...training.objectives import DenoisingError, tokenize
from ...training.people import PeopleBatches
from ...training.person_videos import PersonVideos
from ...training.stages import Course, Stage, average_of, component, load_autoencoder, save_model, with_start
from ...training.text_to_image import load_text_to_image
from ...weights.lora import add_lora
from .appearance import AppearanceEncoder
from .denoiser import MagicAnimateSampling
from .pipeline import MagicAnimatePipeline
from .unet import MagicAnimateUNet

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
}
LORA_TARGETS = r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)|.*\.attention_blocks\.\d+\.(to_q|to_k|to_v|to_out\.0)"
PARTS = ("unet", "appearance_encoder", "controlnet")
LORAS = "loras"


class Animation(nn.Module):
    """The three networks as one, because they are trained together."""

    def __init__(self, unet: MagicAnimateUNet, appearance_encoder: AppearanceEncoder, controlnet: ControlNetModel):
        super().__init__()
        self.unet, self.appearance_encoder, self.controlnet = unet, appearance_encoder, controlnet

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        pictures: torch.Tensor,
        poses: torch.Tensor,
        alone: int = 0,
        use_motion: bool = True,
    ) -> torch.Tensor:
        """The prediction for noisy latents (clips, channels, frames, height, width).

        Args:
            timesteps: (clips,). text: (1, length, channels).
            pictures: (clips, channels, height, width) latents. poses: (clips, 3, frames, pixels high, wide) in 0..1.
            alone: so many clips, the first ones, do not look at their picture.
            use_motion: False: every frame on its own.
        """
        clips, _, frames = noisy.shape[:3]
        looking = slice(alone, None)
        text = text.expand(clips, -1, -1)
        references = None
        if alone < clips:  # networks do not take batches of nothing
            references = self.appearance_encoder(pictures[looking], timesteps[looking], text[looking])
        down, middle = self.controlnet(
            by_frame(noisy),
            timesteps.repeat_interleave(frames),
            text.repeat_interleave(frames, dim=0),
            by_frame(poses),
            return_dict=False,
        )
        return self.unet(
            noisy,
            timesteps,
            text,
            references=references,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            use_motion=use_motion,
        ).sample


@dataclass
class AnimationObjective:
    """Predict the noise in the latents of clips of a person, of whom there is a picture.

    Args:
        autoencoder: frozen. text: (1, length, channels) of the empty prompt.
        use_motion: False: motion modules are left out (the first stage).
        drop_picture: share of the clips that do not look at their picture, for guidance.
        image_share: share of the batches in which clips are single frames, so that what the model knows of still
            pictures stays. Such a frame has no neighbour to look at.
        own_picture: share of these frames that are their own picture, as those of a data set of still pictures are.
        scheduler_config, max_snr_weight: see DenoisingError.

    Batches: {"photo": uint8 (clips, 3, height, width), "video", "poses": uint8 (clips, 3, frames, height, width)}.
    """

    autoencoder: Any
    text: torch.Tensor
    scheduler_config: dict[str, Any]
    use_motion: bool = True
    drop_picture: float = 0.1
    image_share: float = 0.0
    max_snr_weight: float = 1.0
    own_picture: float = 0.0

    def __post_init__(self) -> None:
        self.error = DenoisingError(self.scheduler_config, self.max_snr_weight)

    def encode(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """uint8 (pictures, 3, height, width) to scaled latents (pictures, channels, h, w)."""
        posterior = self.autoencoder.to(generator.device).encode(to_unit(pixels.to(generator.device))).latent_dist
        return posterior.sample(generator) * self.autoencoder.config.scaling_factor

    def __call__(self, model: Any, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        device, clips = generator.device, len(batch["video"])

        def rand(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator, device=device)

        video, poses, photo = batch["video"], batch["poses"], batch["photo"]
        if float(rand(1)) < self.image_share:
            video, poses = video[:, :, :1], poses[:, :, :1]
            if self.own_picture:
                own = rand(clips).cpu() < self.own_picture
                photo = torch.where(own[:, None, None, None], video[:, :, 0], photo)
        with torch.no_grad():
            latents = self.encode(by_frame(video), generator).unflatten(0, (clips, -1)).transpose(1, 2)
            pictures = self.encode(photo, generator)
        # One level from each of `clips` equal ranges, so that every batch has seen the whole schedule.
        place = torch.randperm(clips, generator=generator, device=device)
        timesteps = ((place + rand(clips)) / clips * self.error.levels).long()
        noise = torch.randn(latents.shape, generator=generator, device=device)
        alone = int((rand(clips) < self.drop_picture).sum())

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            given = (self.text.to(device), pictures, poses.to(device).float() / 255)
            return model(noisy, timesteps, *given, alone, self.use_motion)

        error, weight = self.error(predict, latents, noise, timesteps)
        late = error.detach()[timesteps >= self.error.levels // 2].mean()  # nan where a batch has none: not logged
        return (weight * error).mean(), {"error": float(error.detach().mean()), "late_error": float(late)}


def schedule(recipe: dict[str, Any]) -> dict[str, Any]:
    """The noise of a recipe: the published one, but for the fields of its `scheduler`."""
    return SCHEDULE | recipe.get("scheduler", {})


def _base(recipe: dict[str, Any]) -> StableDiffusionPipeline | None:
    return load_text_to_image(recipe["base"]) if recipe.get("base") else None


def _autoencoder(recipe: dict[str, Any], base: StableDiffusionPipeline | None) -> Any:
    if recipe.get("vae"):
        return load_autoencoder(recipe["vae"], AutoencoderKL)
    if base is None:
        raise InputError("the recipe has no autoencoder: name the folder of one as vae, or a base that has one.")
    return base.vae


@torch.no_grad()
def _empty_prompt(pipe: Any, tokens: int, width: int) -> torch.Tensor:
    """(1, length, channels), as the pipeline's text encoder reads it; without one, so many zeros."""
    if getattr(pipe, "text_encoder", None) is None:
        return torch.zeros(1, tokens, width)
    return pipe.text_encoder(tokenize(pipe.tokenizer, [""]))[0]


def build(recipe: dict[str, Any], base: StableDiffusionPipeline | None) -> Animation:
    """The networks before their first step, the same in every run of a recipe: with the weights of the base, if there
    is one. Raises InputError."""
    torch.manual_seed(recipe["appearance"]["training"].get("seed", 0))
    section = recipe.get("unet") or {}
    spatial = base.unet if base is not None else UNet2DConditionModel(**section["model"])
    if not hasattr(spatial.up_blocks[-1], "attentions"):
        raise InputError(
            "the last block of the UNet has no attention to see a picture with; give it one, as SD 1.5 has."
        )
    unet = MagicAnimateUNet.from_unet2d(spatial, **section.get("motion", {}))
    controlnet = ControlNetModel.from_unet(
        spatial, conditioning_embedding_out_channels=tuple(section.get("pose_channels", (16, 32, 96, 256)))
    )
    return Animation(unet, AppearanceEncoder.from_unet2d(spatial), controlnet)


def _is_motion(name: str) -> bool:
    return "motion_modules." in name


def _frozen(stage: Stage, base: StableDiffusionPipeline | None, **more: Any) -> dict[str, Any]:
    recipe = stage.recipe
    zeros = (0, 0) if base else (recipe["sampling"]["text_tokens"], recipe["unet"]["model"]["cross_attention_dim"])
    frozen = {"autoencoder": _autoencoder(recipe, base), "text": _empty_prompt(base, *zeros)}
    return {**frozen, "scheduler_config": schedule(recipe), **more}


def _learning(model: Animation, chosen: Any) -> Animation:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(chosen(name)))
    return model


def _start_appearance(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """Without a base model, the UNet learns as well."""
    base = _base(stage.recipe)
    parts = PARTS if base is None else ("appearance_encoder.", "controlnet.")
    model = with_start(build(stage.recipe, base), stage.section)
    return _learning(model, lambda n: n.startswith(parts) and not _is_motion(n)), _frozen(stage, base, use_motion=False)


def _trained(stage: Stage, *names: str) -> Animation:
    """The networks as the last of these stages that has begun has left them."""
    model = build(stage.recipe, _base(stage.recipe))
    model.load_state_dict(_average(stage.root, names))
    return model


def _average(root: Path, names: Iterable[str]) -> dict[str, torch.Tensor]:
    names = list(names)
    last = next((n for n in reversed(names) if (root / n / "average.safetensors").exists()), names[0])
    return average_of(root / last, f"the part {last}")


def _start_temporal(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    model = with_start(_trained(stage, "appearance"), stage.section)
    return _learning(model, _is_motion), _frozen(stage, _base(stage.recipe))


def _start_together(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    model = with_start(_trained(stage, "appearance", "temporal"), stage.section)
    return _learning(model, lambda name: True), _frozen(stage, _base(stage.recipe))


def _start_lora(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    origin = stage.recipe.get("model")
    if origin is None:
        model, frozen = _trained(stage, "appearance", "temporal", "together"), _frozen(stage, _base(stage.recipe))
    else:
        pipe = _load(origin)
        model = Animation(*(getattr(pipe, part) for part in PARTS))
        text = _empty_prompt(pipe, pipe.sampling.text_tokens, pipe.unet.config.cross_attention_dim)
        autoencoder = pipe.vae.eval().requires_grad_(False)
        frozen = {"autoencoder": autoencoder, "text": text, "scheduler_config": dict(pipe.scheduler.config)}
    model.requires_grad_(False)
    torch.manual_seed(stage.config.seed)
    add_lora(model.unet, LORA_TARGETS, stage.section["rank"], stage.name)
    return model, frozen


def _load(model: str) -> MagicAnimatePipeline:
    """The pipeline of a model folder, in float32. Raises CheckpointError."""
    try:
        return MagicAnimatePipeline.from_pretrained(model, dtype=torch.float32)
    except Exception as error:  # on a damaged folder, diffusers and safetensors raise almost anything
        raise CheckpointError(f"there is no MagicAnimate model in {model}: {first_line(error)}.") from error


def _shipped(model: Path) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": t for part in PARTS for name, t in component(model, part).items()}


def _save_lora(stage: Stage, average: Any) -> None:
    from peft import get_peft_model_state_dict

    layers = get_peft_model_state_dict(average.unet, adapter_name=stage.name)
    StableDiffusionPipeline.save_lora_weights(
        stage.root / LORAS, unet_lora_layers=layers, weight_name=f"{stage.name}.safetensors"
    )


def export(recipe: dict[str, Any], root: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder; returns its path."""
    base = _base(recipe)
    model = build(recipe, base)
    model.load_state_dict(_average(root, ["appearance", "temporal", "together"]))
    pipe = MagicAnimatePipeline(
        unet=model.unet.half(),
        appearance_encoder=model.appearance_encoder.half(),
        controlnet=model.controlnet.half(),
        vae=copy.deepcopy(_autoencoder(recipe, base)).half(),
        text_encoder=None if base is None else base.text_encoder.half(),
        tokenizer=None if base is None else base.tokenizer,
        scheduler=DDIMScheduler(**schedule(recipe)),
        config=recipe["sampling"],
    )
    model_folder = save_model(pipe, root, max_shard_size="8MB")  # no file of the project is larger than 16 MiB
    if loras := sorted((root / LORAS).glob("*.safetensors")):
        (model_folder / LORAS).mkdir()
        for file in loras:
            shutil.copy(file, model_folder / LORAS)
    return model_folder


def _only_loras(recipe: dict[str, Any]) -> None:
    if not recipe.get("loras"):
        raise InputError("the recipe lacks loras.")
    if others := [stage.name for stage in _STAGES if stage.name != "loras" and recipe.get(stage.name)]:
        raise InputError(f"a recipe that names a model trains LoRAs for it, nothing else; leave out {others[0]}.")


_CLIPS: dict[str, Any] = {
    "objective": AnimationObjective,
    "data": PeopleBatches,
    "files": PersonVideos,
    "optional": True,
}
_STAGES = [
    Stage("appearance", _start_appearance, **_CLIPS, shipped=_shipped),
    Stage("temporal", _start_temporal, **_CLIPS, besides={"appearance": None}, shipped=_shipped),
    Stage("together", _start_together, **_CLIPS, besides={"appearance": None}, shipped=_shipped),
    Stage("loras", _start_lora, **_CLIPS, several=True, folder="lora_{}", needs=["rank"], save=_save_lora),
]
STAGES = [
    Course(_STAGES[-1:], lambda _, root: root / LORAS, only="model", check=_only_loras),
    Course(_STAGES, export, ["sampling"], check=lambda recipe: MagicAnimateSampling.from_config(recipe["sampling"])),
]
