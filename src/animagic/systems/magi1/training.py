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

from ...errors import CheckpointError, InputError, first_line
from ...layers.autoencoder import ConvAutoencoder
from ...media import atomic_path
from ...training.autoencoding import ReconstructionObjective
from ...training.bank import SceneBank
from ...training.data import SceneBatches, to_unit
from ...training.stages import Course, Stage, average_of, save_model, with_start
from .autoencoder import AutoencoderKLMagi1
from .distillation import ShortcutObjective
from .objectives import TransformerObjective, initialise
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
        with_start(vae, section)
    elif section["model"].get("linear_path"):
        if not start.exists():
            data = SceneChunks(seed=4321, steps=40, **section["data"])
            video = torch.cat([to_unit(data[i]["video"]) for i in range(section.get("pca_batches", 20))])
            vae.fit_linear_path(video, section.get("pca_exponent", 0.5))
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(start) as new:
                save_file(vae.state_dict(), new)
        vae.load_state_dict(load_file(start))
    if section["model"].get("encoder_depth") == 0:
        vae.encoder.requires_grad_(False)
    return vae


def _start_autoencoder(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    return start_autoencoder(stage.section, stage.root / stage.folder), {}


def trained_autoencoder(recipe: dict[str, Any], root: Path) -> Any:
    """The autoencoder as trained so far, or from the folder that the recipe names, frozen. Its encoder must be final
    before the transformer starts: with `encoder_depth: 0` it is the PCA of the first step, so both can be trained at
    the same time."""
    if isinstance(recipe["vae"], str):
        try:
            vae = ConvAutoencoder.from_pretrained(recipe["vae"], use_safetensors=True)
        except Exception as error:  # on a damaged folder, diffusers and safetensors raise almost anything
            raise CheckpointError(f"the autoencoder in {recipe['vae']} cannot be read: {first_line(error)}.") from error
        return vae.float().eval().requires_grad_(False)
    vae = start_autoencoder(recipe["vae"], root / "vae")
    if (root / "vae" / "average.safetensors").exists():
        vae.load_state_dict(average_of(root / "vae"))
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def measure_std(vae: Any, recipe: dict[str, Any]) -> list[float]:
    """The standard deviation of each latent channel, over clips that are the same in every run of a recipe."""
    if isinstance(recipe["vae"], str):
        sampling = recipe["sampling"]["runtime_config"]
        data = {"batch_size": 8, "height": sampling["video_size_h"], "width": sampling["video_size_w"]}
    else:
        data = recipe["vae"]["data"]
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


def _network(recipe: dict[str, Any], vae: Any, section: dict[str, Any], **changes: Any) -> Magi1Transformer3DModel:
    return Magi1Transformer3DModel(**section["model"] | changes, data_std=measure_std(vae, recipe))


def _start_pictures(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """The transformer on single latent frames: chunks of one, which see nothing but themselves."""
    return _start_network(stage, chunk_width=1)


def _start_transformer(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    return _start_network(stage)


def _start_network(stage: Stage, **changes: Any) -> tuple[nn.Module, dict[str, Any]]:
    recipe, vae = stage.recipe, trained_autoencoder(stage.recipe, stage.root)
    text = _text_encoder(recipe)
    torch.manual_seed(stage.config.seed)
    transformer = _network(recipe, vae, stage.section, **changes)
    initialise(transformer)
    if stage.name == "transformer" and "pictures" in recipe:
        transformer.load_state_dict(average_of(stage.root / "pictures", "the pictures"))
    # A file to go on from, with a new schedule.
    return with_start(transformer, stage.section), {"autoencoder": vae, **text}


def _start_student(stage: Stage) -> tuple[nn.Module, dict[str, Any]]:
    """The student begins as its teacher, with whose autoencoder and text encoder it learns."""
    pipe = _teacher(stage.recipe)
    if pipe.sampling.distill:
        raise InputError(f"{stage.recipe['teacher']} is distilled already; give a base model as the teacher.")
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    frozen = {"autoencoder": pipe.vae, "text_encoder": pipe.text_encoder, "tokenizer": pipe.tokenizer}
    frozen |= {"teacher": pipe.transformer, "sampling": pipe.sampling}
    return with_start(copy.deepcopy(pipe.transformer).requires_grad_(True), stage.section), frozen


def _teacher(recipe: dict[str, Any]) -> Magi1Pipeline:
    return Magi1Pipeline.from_pretrained(recipe["teacher"], dtype=torch.float32)


def _average_of_transformer(recipe: dict[str, Any], root: Path) -> dict[str, torch.Tensor]:
    """That of the last stage that has begun."""
    if "pictures" in recipe and not (root / "transformer" / "average.safetensors").exists():
        return average_of(root / "pictures", "the pictures")
    return average_of(root / "transformer", "the transformer")


def export(recipe: dict[str, Any], root: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder; returns its path."""
    vae = trained_autoencoder(recipe, root)
    transformer = _network(recipe, vae, recipe["transformer"])
    transformer.load_state_dict(_average_of_transformer(recipe, root))
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


def _check_parts(recipe: dict[str, Any]) -> None:
    if isinstance(recipe["vae"], str) and not (Path(recipe["vae"]) / "config.json").is_file():
        raise InputError(f"{recipe['vae']} has no autoencoder; recipes/video-autoencoder.yaml makes one.")
    if not (Path(recipe["text_encoder"]) / "text_encoder").is_dir():
        raise InputError(f"{recipe['text_encoder']} has no text encoder; recipes/build_text_encoder.py makes one.")


_STUDENT = [Stage("transformer", _start_student, ShortcutObjective, SceneChunks)]
_STAGES = [
    Stage("vae", _start_autoencoder, ReconstructionObjective, SceneChunks, model=AutoencoderKLMagi1, optional=True),
    Stage("pictures", _start_pictures, TransformerObjective, SceneBank, model=Magi1Transformer3DModel, optional=True),
    Stage("transformer", _start_transformer, TransformerObjective, SceneChunks, sources={"bank": SceneBank},
          model=Magi1Transformer3DModel),
]  # fmt: skip
STAGES = [
    Course(_STUDENT, export_student, ["sampling"], only="teacher", origin="teacher"),
    Course(_STAGES, export, ["vae", "text_encoder", "sampling"], check=_check_parts),
]
