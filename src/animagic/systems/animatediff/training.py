"""How AnimateDiff is trained: a text-to-image model, unless there is one; a domain adapter, the motion module on the
frozen model, and MotionLoRAs; then the folder that a pipeline loads. Or a student of such a folder, which needs fewer
steps and one pass."""

from __future__ import annotations

import copy
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
from ...training.distribution_matching import Discrete, Distillation
from ...training.objectives import NoiseObjective
from ...training.stages import Course, Stage, average_of, component, save_model
from ...training.text_to_image import load_text_to_image
from ...training.videos import VideoBatches
from ...weights.lora import add_lora
from .denoiser import AnimateDiffSampling
from .distillation import MotionDistillation
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


def _teacher(recipe: dict[str, Any]) -> AnimateDiffPipeline:
    pipe = AnimateDiffPipeline.from_pretrained(recipe["teacher"], dtype=torch.float32)
    if pipe.sampling.guidance_scale <= 1 or pipe.unet.config.time_cond_proj_dim is not None:
        raise InputError(f"{recipe['teacher']} is distilled already; give a model with guidance as the teacher.")
    if pipe.text_encoder_2 is not None:
        raise InputError(f"{recipe['teacher']} is an SDXL model; give one of Stable Diffusion 1 or 2 as the teacher.")
    return pipe


def _start_student(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """The student begins as its teacher; only its motion modules learn, so that it fits other text-to-image models."""
    pipe = _teacher(stage.recipe)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    student = copy.deepcopy(pipe.unet)
    if stage.section.get("start"):
        student.load_motion_state_dict(_students_motion(load_file(stage.section["start"])))
    student.freeze_base()
    matching = stage.section["objective"].get("matching_weight", MotionDistillation.matching_weight)
    frozen = {"autoencoder": pipe.vae, "text_encoder": pipe.text_encoder, "tokenizer": pipe.tokenizer}
    frozen |= {"teacher": pipe.unet, "sampling": pipe.sampling, "scheduler_config": dict(pipe.scheduler.config)}
    return Distillation(student, pipe.unet if matching else None), frozen


def _students_motion(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The student's motion modules among the tensors of a `Distillation`, or those of a motion module's file."""
    motion = {name.removeprefix("student."): x for name, x in tensors.items() if not name.startswith("critic.")}
    return {name: tensor for name, tensor in motion.items() if "motion_modules." in name}


def _shipped_motion(model: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in component(model, "unet").items() if "motion_modules." in name}


def _save_adapter(stage: Stage, average: Any) -> None:
    save_file(motion_lora_state_dict(average, "adapter"), stage.root / "adapter.safetensors")


def _save_motion(stage: Stage, average: Any) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in average.motion_state_dict().items()}
    save_file(tensors, stage.root / "motion_module.safetensors")


def _save_student(stage: Stage, average: Any) -> None:
    _save_motion(stage, average.student)


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


def export_student(recipe: dict[str, Any], root: Path) -> Path:
    """The same of a student: its teacher's folder with another motion module, and settings for its steps; `sampling` is
    laid over these."""
    pipe = _teacher(recipe)
    pipe.unet.load_motion_state_dict(_students_motion(average_of(root / "distil", "the student")))
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **Discrete.student_scheduler)
    steps = recipe["distil"]["objective"].get("sampling_steps", MotionDistillation.sampling_steps)
    settings = {"num_inference_steps": steps, "guidance_scale": 1.0, **recipe.get("sampling", {})}
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.half()
    parts = {**pipe.components, "scheduler": scheduler, "config": {**(pipe.config.config or {}), **settings}}
    return save_model(AnimateDiffPipeline(**parts), root, max_shard_size="8MB")


_CLIPS: dict[str, Any] = {"objective": ClipObjective, "data": SceneClips, "files": VideoBatches}
_STUDENT = [
    Stage("distil", _start_student, MotionDistillation, SceneClips, files=VideoBatches, save=_save_student,
          shipped=_shipped_motion),
]  # fmt: skip
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
    Course(_STUDENT, export_student, only="teacher", origin="teacher",
           check=lambda recipe: AnimateDiffSampling.from_config(recipe.get("sampling", {}))),
    Course(_STAGES, export, ["sampling"], origin="base",
           check=lambda recipe: AnimateDiffSampling.from_config(recipe["sampling"])),
]  # fmt: skip
