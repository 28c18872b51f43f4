"""How MAGI-1 is trained: the autoencoder, then the transformer; or a student of a trained one, which needs fewer steps
and one pass."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer

from ...errors import InputError
from ...training.data import SceneBatches, to_unit
from ...training.stages import Course, Stage, average_of, save_model
from ...weights.files import read_tensors
from .autoencoder import AutoencoderKLMagi1
from .distillation import ShortcutObjective
from .objectives import AutoencoderObjective, TransformerObjective, initialise
from .pipeline import Magi1Pipeline
from .transformer import Magi1Transformer3DModel

SceneChunks = partial(
    SceneBatches, batch_size=32, num_frames=24, clip_chunks=(1,), clip_shares=(1.0,), held_share=0.0, late_share=0.1
)


def start_autoencoder(section: dict[str, Any], folder: Path) -> AutoencoderKLMagi1:
    """The autoencoder as it stands before its first step; `folder` keeps its linear path."""
    torch.manual_seed(section["training"].get("seed", 0))
    vae = AutoencoderKLMagi1(**section["model"])
    start = folder / "start.safetensors"
    if section.get("start"):
        vae.load_state_dict(read_tensors(Path(section["start"])))
    elif section["model"].get("linear_path"):
        if not start.exists():
            data = SceneChunks(seed=4321, steps=40, **section["data"])
            video = torch.cat([to_unit(data[i]["video"]) for i in range(section.get("pca_batches", 20))])
            vae.fit_linear_path(video, section.get("pca_exponent", 0.5))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(vae.state_dict(), start)
        vae.load_state_dict(load_file(start))
    if section["model"].get("encoder_depth") == 0:
        vae.encoder.requires_grad_(False)
    return vae


def trained_autoencoder(recipe: dict[str, Any], root: Path) -> AutoencoderKLMagi1:
    """The autoencoder as trained so far, frozen. Its encoder must be final before the transformer starts: with
    `encoder_depth: 0` it is the PCA of the first step, so both can be trained at the same time."""
    vae = start_autoencoder(recipe["vae"], root / "vae")
    if (root / "vae" / "average.safetensors").exists():
        vae.load_state_dict(average_of(root / "vae"))
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def measure_std(vae: AutoencoderKLMagi1, data: dict[str, Any]) -> list[float]:
    """The standard deviation of each latent channel, over clips that are the same in every run of a recipe."""
    batches = SceneChunks(seed=1234, steps=16, **data)
    latents = []
    for i in range(len(batches)):
        posterior: Any = vae.encode(to_unit(batches[i]["video"]))
        latents.append(posterior.latent_dist.mode())
    std = (torch.cat(latents) * vae.config.scaling_factor).std(dim=(0, 2, 3, 4))
    return [round(x, 4) for x in std.tolist()]


def _text_encoder(recipe: dict[str, Any]) -> dict[str, Any]:
    """The frozen text encoder (float32) and its tokenizer, from the folder that the recipe names."""
    folder = Path(recipe["text_encoder"])
    model = AutoModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    return {"text_encoder": model.eval().requires_grad_(False), "tokenizer": tokenizer}


def _start_transformer(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    section, vae = stage.section, trained_autoencoder(stage.recipe, stage.root)
    text = _text_encoder(stage.recipe)
    torch.manual_seed(section["training"].get("seed", 0))
    std = measure_std(vae, stage.recipe["vae"]["data"])
    transformer = Magi1Transformer3DModel(**section["model"], data_std=std)
    initialise(transformer)
    if section.get("start"):  # go on from weights that are there, with a new schedule
        transformer.load_state_dict(read_tensors(Path(section["start"])))
    return transformer, {"autoencoder": vae, **text}


def _start_student(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """The student begins as its teacher, with whose autoencoder and text encoder it learns."""
    pipe = _teacher(stage.recipe)
    if pipe.sampling.distill:
        raise InputError(f"{stage.recipe['teacher']} is distilled already; give a base model as the teacher.")
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    frozen = {"autoencoder": pipe.vae, "text_encoder": pipe.text_encoder, "tokenizer": pipe.tokenizer}
    frozen |= {"teacher": pipe.transformer, "sampling": pipe.sampling}
    return copy.deepcopy(pipe.transformer).requires_grad_(True), frozen


def _teacher(recipe: dict[str, Any]) -> Magi1Pipeline:
    return Magi1Pipeline.from_pretrained(recipe["teacher"], dtype=torch.float32)


def export(recipe: dict[str, Any], root: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder; returns its path."""
    vae = trained_autoencoder(recipe, root)
    std = measure_std(vae, recipe["vae"]["data"])
    transformer = Magi1Transformer3DModel(**recipe["transformer"]["model"], data_std=std)
    transformer.load_state_dict(average_of(root / "transformer", "the transformer"))
    parts = {"transformer": transformer.half(), "vae": vae.half()}
    text = _text_encoder(recipe)
    text["text_encoder"].half()
    return save_model(Magi1Pipeline(**parts, **text, config=recipe["sampling"]), root)


def export_student(recipe: dict[str, Any], root: Path) -> Path:
    """The same of a student: its teacher's folder with other weights; `sampling` is laid over the settings there."""
    pipe = _teacher(recipe)
    pipe.transformer.load_state_dict(average_of(root / "transformer", "the transformer"))
    config = copy.deepcopy(dict(pipe.config.config or {}))
    for name, values in recipe["sampling"].items():
        config[name] = {**config.get(name, {}), **values}
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.half()
    return save_model(Magi1Pipeline(**pipe.components, config=config), root)


def _check_text_encoder(recipe: dict[str, Any]) -> None:
    if not (Path(recipe["text_encoder"]) / "text_encoder").is_dir():
        raise InputError(f"{recipe['text_encoder']} has no text encoder; recipes/build_text_encoder.py makes one.")


_STUDENT = [Stage("transformer", _start_student, ShortcutObjective, SceneChunks)]
_STAGES = [
    Stage("vae", lambda stage: (start_autoencoder(stage.section, stage.root / stage.folder), {}), AutoencoderObjective,
          SceneChunks, model=AutoencoderKLMagi1),
    Stage("transformer", _start_transformer, TransformerObjective, SceneChunks, model=Magi1Transformer3DModel),
]  # fmt: skip
STAGES = [
    Course(_STUDENT, export_student, ["sampling"], only="teacher", origin="teacher"),
    Course(_STAGES, export, ["text_encoder", "sampling"], check=_check_text_encoder),
]
