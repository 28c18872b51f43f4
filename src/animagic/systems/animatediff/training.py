"""How AnimateDiff is trained: a text-to-image model, unless there is one; a domain adapter, the motion module on the
frozen model, and MotionLoRAs; then the folder that a pipeline loads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from ...errors import InputError
from ...training import text_to_image
from ...training.data import SceneBatches
from ...training.objectives import NoiseObjective
from ...training.stages import Course, Stage, average_of, component, save_model
from ...training.text_to_image import load_text_to_image
from ...training.videos import VideoBatches
from ...weights.lora import add_lora
from .denoiser import AnimateDiffSampling
from .lora import motion_lora_state_dict
from .pipeline import AnimateDiffPipeline
from .unet import AnimateDiffUNet

ATTENTION = "(to_q|to_k|to_v|to_out.0)"
MOTION_TARGETS = rf".*motion_modules\..*\.{ATTENTION}"
SPATIAL_TARGETS = rf".*\battentions\..*\.attn[12]\.{ATTENTION}"

SceneClips = partial(SceneBatches, fps=8, motion_share=0.5, alone_share=0.5)


@dataclass
class ClipObjective(NoiseObjective):
    """NoiseObjective of a UNet with motion modules. use_motion: False: every frame on its own (the image stage)."""

    use_motion: bool = True

    def predict(self, model: Any, noisy, timesteps, text: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
        return model(noisy, timesteps, text, motion, use_motion=self.use_motion).sample


def load_base(recipe: dict[str, Any], root: Path) -> StableDiffusionPipeline:
    """The text-to-image model that is animated: the recipe's `base`, or what its own stages have made."""
    folder = Path(recipe.get("base") or root / "base")
    if not (folder / "unet").is_dir():
        raise InputError(f"{folder} has no text-to-image model; train the recipe's pictures first, or name a `base`.")
    return load_text_to_image(folder)


def _schedule(base: StableDiffusionPipeline) -> DDIMScheduler:
    # The paper trains motion with linear betas whatever the base model had.
    return DDIMScheduler.from_config(base.scheduler.config, beta_schedule="linear")


def _frozen(base: StableDiffusionPipeline) -> dict[str, Any]:
    parts = {"autoencoder": base.vae, "text_encoder": base.text_encoder, "tokenizer": base.tokenizer}
    return {**parts, "scheduler_config": dict(_schedule(base).config)}


def start_motion(
    section: dict[str, Any], base: StableDiffusionPipeline, adapter: Path | None = None
) -> AnimateDiffUNet:
    """The UNet with motion modules before their first step, the same in every run of a recipe, its base frozen.

    adapter: the folder of a domain adapter that is laid under it, fused, if there is one.
    """
    torch.manual_seed(section["training"].get("seed", 0))
    unet = AnimateDiffUNet.from_unet2d(base.unet, **section["model"])
    if adapter is not None and (adapter / "average.safetensors").exists():
        tensors = average_of(adapter)
        rank = next(tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name)
        add_lora(unet, SPATIAL_TARGETS, rank, "adapter")
        unet.load_state_dict(tensors, strict=False)
        unet.fuse_lora()
        unet.unload_lora()
    if section.get("start"):  # go on from a motion module that is there, with a new schedule
        unet.load_motion_state_dict(load_file(section["start"]))
    unet.freeze_base()
    return unet


def trained_motion(recipe: dict[str, Any], base: StableDiffusionPipeline, root: Path) -> AnimateDiffUNet:
    """The base model's UNet with the motion module as trained so far; the domain adapter is left behind."""
    average = average_of(root / "motion", "the motion module")
    unet = start_motion({**recipe["motion"], "start": None}, base)
    unet.load_motion_state_dict({name: tensor for name, tensor in average.items() if unet.is_motion(name)})
    return unet.eval()


def _start_adapter(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    base = load_base(stage.recipe, stage.root)
    torch.manual_seed(stage.config.seed)
    unet = AnimateDiffUNet.from_unet2d(base.unet, motion_resolutions=())
    add_lora(unet, SPATIAL_TARGETS, stage.section["rank"], "adapter")
    return unet, {**_frozen(base), "use_motion": False}


def _start_motion(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    base = load_base(stage.recipe, stage.root)
    return start_motion(stage.section, base, stage.root / "adapter"), _frozen(base)


def _start_motion_lora(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    base = load_base(stage.recipe, stage.root)
    unet = trained_motion(stage.recipe, base, stage.root)
    torch.manual_seed(stage.config.seed)
    add_lora(unet, MOTION_TARGETS, stage.section["rank"], stage.name)
    return unet, _frozen(base)


def _shipped_motion(model: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in component(model, "unet").items() if "motion_modules." in name}


def _save_adapter(stage: Stage, average: Any) -> None:
    save_file(motion_lora_state_dict(average, "adapter"), stage.root / "adapter.safetensors")


def _save_motion(stage: Stage, average: Any) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in average.motion_state_dict().items()}
    save_file(tensors, stage.root / "motion_module.safetensors")


def _save_motion_lora(stage: Stage, average: Any) -> None:
    tensors = {name: x.half().contiguous() for name, x in motion_lora_state_dict(average, stage.name).items()}
    (stage.root / "motion_loras").mkdir(exist_ok=True)
    save_file(tensors, stage.root / "motion_loras" / f"{stage.name}.safetensors")


def export(recipe: dict[str, Any], root: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder, with its LoRAs; returns its path."""
    if "motion" not in recipe:
        return root / "base"
    base = load_base(recipe, root)
    pipe = AnimateDiffPipeline(
        unet=trained_motion(recipe, base, root).half(),
        vae=base.vae.half(),
        text_encoder=base.text_encoder.half(),
        tokenizer=base.tokenizer,
        scheduler=_schedule(base),
        config=recipe["sampling"],
    )
    target = save_model(pipe, root, max_shard_size="8MB")  # no file of the project is larger than 16 MiB
    loras = {"loras": Path(recipe.get("base") or root / "base") / "loras", "motion_loras": root / "motion_loras"}
    for name, folder in loras.items():
        for file in sorted(folder.glob("*.safetensors")):
            (target / name).mkdir(exist_ok=True)
            save_file({key: tensor.half() for key, tensor in load_file(file).items()}, target / name / file.name)
    return target


_CLIPS: dict[str, Any] = {"objective": ClipObjective, "data": SceneClips, "files": VideoBatches}
_STAGES = [
    *text_to_image.STAGES,
    # A LoRA over the spatial layers that takes in how the videos look, so that the motion module need not.
    Stage("adapter", _start_adapter, **_CLIPS, optional=True, needs=["rank"], save=_save_adapter),
    Stage("motion", _start_motion, **_CLIPS, optional=True, model=AnimateDiffUNet, save=_save_motion,
          shipped=_shipped_motion),
    Stage("motion_loras", _start_motion_lora, **_CLIPS, several=True, folder="motion_lora_{}", needs=["rank"],
          besides={"motion": None}, save=_save_motion_lora),
]  # fmt: skip
STAGES = [
    Course(_STAGES, export, ["sampling"], origin="base",
           check=lambda recipe: AnimateDiffSampling.from_config(recipe["sampling"])),
]  # fmt: skip
