"""From a recipe file to an AnimateDiff model: the picture model, its looks, the domain adapter, the motion module, and
MotionLoRAs; then the folder that a pipeline loads."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.schedulers import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import AutoTokenizer, CLIPTextModel

from ...errors import CheckpointError, InputError
from ...training import Trainer, TrainingConfig
from ...training.videos import VideoBatches
from .denoiser import AnimateDiffSampling
from .images import train_images
from .lora import motion_lora_state_dict
from .pipeline import AnimateDiffPipeline
from .training import MOTION_TARGETS, SPATIAL_TARGETS, NoiseObjective, SceneClips, add_lora, fingerprint
from .unet import AnimateDiffUNet

PARTS = ("pictures", "adapter", "motion", "motion_loras")
_LEARNT = ("objective", "data", "training")


def train(
    recipe: dict[str, Any],
    folder: str | Path,
    parts: tuple[str, ...] | None = None,
    on_log: Callable[[str, dict], None] | None = None,
) -> Path:
    """Train the parts of a recipe in `folder` and export a pipeline folder, `folder/model`. Each part goes on from its
    own checkpoint.

    - pictures: autoencoder, text encoder, UNet and looks, see `images.train_images`; without that part the picture
      model is the folder `base` of the recipe (diffusers' layout), or what an earlier run made.
    - adapter: a LoRA over the spatial layers that takes in how the videos look, so that the motion module need not.
    - motion: the motion module; everything else is frozen, and checked to be the same bit for bit afterwards.
    - motion_loras: LoRAs over the motion module, for camera moves.

    Raises: InputError for a recipe that cannot be used, CheckpointError for a folder of another recipe.
    """
    folder = Path(folder)
    given = tuple(part for part in PARTS if part in recipe or (part == "pictures" and "vae" in recipe))
    parts = given if parts is None else parts
    if unknown := sorted(set(parts) - set(given)):
        raise InputError(f"the recipe has no part {unknown[0]!r}; it has {', '.join(given)}.")
    sections: list[tuple[str, Any]] = [(name, recipe[name]) for name in ("adapter", "motion") if name in recipe]
    sections += [(f"motion_loras.{name}", section) for name, section in (recipe.get("motion_loras") or {}).items()]
    missing = [f"{name}.{key}" for name, section in sections for key in _LEARNT if key not in section]
    missing += [f"{name}.rank" for name, section in sections if name != "motion" and "rank" not in section]
    missing += ["motion.model"] if "motion" in recipe and "model" not in recipe["motion"] else []
    missing += ["sampling"] if "sampling" not in recipe else []
    missing += ["motion"] if "motion_loras" in recipe and "motion" not in recipe else []
    if missing:
        raise InputError(f"the recipe lacks {missing[0]}.")
    AnimateDiffSampling.from_config(recipe["sampling"])  # refused now, not after hours
    if "pictures" in parts:
        train_images(recipe, folder, on_log)
    base = load_base(recipe.get("base") or folder / "base")
    if "adapter" in parts:
        train_adapter(recipe["adapter"], base, folder, on_log)
    if "motion" in parts:
        train_motion(recipe["motion"], base, folder, on_log)
    if "motion_loras" in parts:
        for name in recipe["motion_loras"]:
            train_motion_lora(recipe, name, base, folder, on_log)
    return export(recipe, base, folder) if "motion" in recipe else folder / "base"


def load_base(folder: str | Path) -> dict[str, Any]:
    """The parts of a picture model in diffusers' layout, frozen, float32; `folder` is where it came from."""
    folder = Path(folder)
    if not (folder / "unet").is_dir():
        raise InputError(f"{folder} has no picture model; train the recipe's pictures first, or name a `base`.")
    loaded = {
        "unet": _picture_unet(folder / "unet"),
        "vae": AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
    }
    for part in loaded.values():
        part.eval().requires_grad_(False)
    # The paper trains motion with linear betas whatever the picture model had.
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", beta_schedule="linear")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return {**loaded, "scheduler": scheduler, "tokenizer": tokenizer, "folder": folder}


def _picture_unet(folder: Path) -> UNet2DConditionModel:
    """A 2-D UNet, also from the folder of one that has motion modules, which stay behind."""
    if UNet2DConditionModel.load_config(folder)["_class_name"] != "AnimateDiffUNet":
        return UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32)
    moving = AnimateDiffUNet.from_pretrained(folder, dtype=torch.float32)
    known = inspect.signature(UNet2DConditionModel).parameters
    unet = UNet2DConditionModel(**{name: value for name, value in moving.config.items() if name in known})
    unet.load_state_dict(moving.base_state_dict())
    return unet


def batches(data: dict[str, Any], config: TrainingConfig) -> Dataset:
    """The batches that a recipe's `data` describes: `source` is "studio" (drawn), or files as `VideoBatches` reads."""
    options = dict(data)
    source = options.pop("source", "studio")
    kind = SceneClips if source == "studio" else VideoBatches
    if source != "studio":
        options["source"] = source
    try:
        return kind(seed=config.seed, steps=config.steps, **options)
    except TypeError as error:
        raise InputError(f"the recipe's data does not fit: {error}.") from error


def _objective(section: dict[str, Any], base: dict[str, Any], **more: Any) -> NoiseObjective:
    parts = {name: base[part] for name, part in (("autoencoder", "vae"), ("text_encoder",) * 2, ("tokenizer",) * 2)}
    return NoiseObjective(**parts, scheduler_config=dict(base["scheduler"].config), **section["objective"], **more)


def _learn(
    unet: AnimateDiffUNet,
    section: dict[str, Any],
    base: dict[str, Any],
    folder: Path,
    trained: str,
    on_log,
    **more: Any,
) -> None:
    """Train what requires a gradient; the names of all of it contain `trained`."""
    config = TrainingConfig(**section["training"])
    before = fingerprint(unet, trained)
    log = None if on_log is None else lambda line: on_log(folder.name, line)
    average: Any = Trainer(
        unet, _objective(section, base, **more), batches(section["data"], config), config, folder, log
    ).run()
    # Both: a parameter that is pulled to zero by weight decay changes without a gradient.
    if not before == fingerprint(unet, trained) == fingerprint(average, trained):
        raise AssertionError("frozen weights have changed in training")
    unet.load_state_dict(average.state_dict())


def start_motion(section: dict[str, Any], base: dict[str, Any], folder: Path | None = None) -> AnimateDiffUNet:
    """The UNet with motion modules before their first step, the same in every run of a recipe, its base frozen.

    folder: of a domain adapter that is laid under it, fused.
    """
    torch.manual_seed(section["training"].get("seed", 0))
    unet = AnimateDiffUNet.from_unet2d(base["unet"], **section["model"])
    if folder is not None and (folder / "average.safetensors").exists():
        add_lora(unet, SPATIAL_TARGETS, _rank_in(folder), "adapter")
        unet.load_state_dict(load_file(folder / "average.safetensors"), strict=False)
        unet.fuse_lora()
        unet.unload_lora()
    if section.get("start"):  # go on from a motion module that is there, with a new schedule
        unet.load_motion_state_dict(load_file(section["start"]))
    unet.freeze_base()
    return unet


def _rank_in(folder: Path) -> int:
    tensors = load_file(folder / "average.safetensors")
    return next(tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name)


def train_adapter(section: dict[str, Any], base: dict[str, Any], folder: Path, on_log) -> Path:
    """The image stage: a domain adapter from single frames, published layout, `folder/adapter.safetensors`."""
    torch.manual_seed(section["training"].get("seed", 0))
    unet = AnimateDiffUNet.from_unet2d(base["unet"], motion_resolutions=())
    add_lora(unet, SPATIAL_TARGETS, section["rank"], "adapter")
    _learn(unet, section, base, folder / "adapter", "lora_", on_log, use_motion=False)
    path = folder / "adapter.safetensors"
    save_file(motion_lora_state_dict(unet, "adapter"), path)
    return path


def train_motion(section: dict[str, Any], base: dict[str, Any], folder: Path, on_log) -> Path:
    """The video stage: `folder/motion_module.safetensors`, under the published names."""
    unet = start_motion(section, base, folder / "adapter")
    _learn(unet, section, base, folder / "motion", "motion_modules.", on_log)
    path = folder / "motion_module.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in unet.motion_state_dict().items()}, path)
    return path


def trained_motion(recipe: dict[str, Any], base: dict[str, Any], folder: Path) -> AnimateDiffUNet:
    """The picture model's UNet with the motion module as trained so far; the domain adapter is left behind."""
    average = folder / "motion" / "average.safetensors"
    if not average.exists():
        raise CheckpointError(f"{average} is missing: train the motion module first.")
    unet = start_motion({**recipe["motion"], "start": None}, base)
    tensors = {name: tensor for name, tensor in load_file(average).items() if unet.is_motion(name)}
    unet.load_motion_state_dict(tensors)
    return unet.eval()


def train_motion_lora(recipe: dict[str, Any], name: str, base: dict[str, Any], folder: Path, on_log) -> Path:
    """A MotionLoRA in the published layout, `folder/motion_loras/NAME.safetensors`."""
    section = recipe["motion_loras"][name]
    unet = trained_motion(recipe, base, folder)
    torch.manual_seed(section["training"].get("seed", 0))
    add_lora(unet, MOTION_TARGETS, section["rank"], name)
    _learn(unet, section, base, folder / f"motion_lora_{name}", "lora_", on_log)
    path = folder / "motion_loras" / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    half = {key: tensor.half().contiguous() for key, tensor in motion_lora_state_dict(unet, name).items()}
    save_file(half, path)
    return path


def export(recipe: dict[str, Any], base: dict[str, Any], folder: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder, with its LoRAs; returns its path."""
    target = folder / "model"
    if target.exists():
        shutil.rmtree(target)
    pipe = AnimateDiffPipeline(
        unet=trained_motion(recipe, base, folder).half(),
        vae=base["vae"].half(),
        text_encoder=base["text_encoder"].half(),
        tokenizer=base["tokenizer"],
        scheduler=base["scheduler"],
        config=recipe["sampling"],
    )
    pipe.save_pretrained(target, max_shard_size="8MB")  # no file of the project is larger than 16 MiB
    for name, loras in (("loras", base["folder"] / "loras"), ("motion_loras", folder / "motion_loras")):
        for file in sorted(loras.glob("*.safetensors")):
            (target / name).mkdir(exist_ok=True)
            save_file({key: tensor.half() for key, tensor in load_file(file).items()}, target / name / file.name)
    return target
