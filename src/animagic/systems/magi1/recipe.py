"""From a recipe file to a trained MAGI-1: the autoencoder, then the transformer, then the folder a pipeline loads;
or from a trained one to one that is distilled."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...errors import CheckpointError, InputError
from ...training import SceneBatches, Trainer, TrainingConfig
from ...training.data import to_unit
from .autoencoder import AutoencoderKLMagi1
from .distillation import ShortcutObjective
from .training import AutoencoderObjective, TransformerObjective, initialise
from .transformer import Magi1Transformer3DModel

PARTS = ("vae", "transformer")
_REQUIRED = dict.fromkeys(PARTS, ("model", "objective", "data", "training"))


def train(
    recipe: dict[str, Any],
    folder: str | Path,
    parts: tuple[str, ...] = PARTS,
    on_log: Callable[[str, dict], None] | None = None,
) -> Path:
    """Train the parts of a recipe in `folder` and export a pipeline folder, `folder/model`.

    Each part goes on from its own checkpoint. The autoencoder's encoder must be final before the transformer starts:
    with `encoder_depth: 0` it is the PCA of the first part's first step, so both can be trained at the same time.

    A recipe with a `teacher`, the folder of a trained model, distils it: see `distil`.

    Raises: InputError for a recipe that cannot be used, CheckpointError for a folder of another recipe.
    """
    folder = Path(folder)
    if "teacher" in recipe:
        return distil(recipe, folder, on_log)
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise InputError(f"part {sorted(unknown)[0]!r} is unknown; choose from {', '.join(PARTS)}.")
    missing = [f"{a}.{b}" for a, keys in _REQUIRED.items() for b in keys if b not in (recipe.get(a) or {})]
    missing += [name for name in ("text_encoder", "sampling") if name not in recipe]
    if missing:
        raise InputError(f"the recipe lacks {missing[0]}.")
    vae = _start_autoencoder(recipe["vae"], folder / "vae")
    if "vae" in parts:
        _train_part(vae, AutoencoderObjective(**recipe["vae"]["objective"]), recipe["vae"], folder / "vae", on_log)
    vae = _trained_autoencoder(vae, folder / "vae")
    if "transformer" in parts:
        section = recipe["transformer"]
        text_encoder, tokenizer = load_text_encoder(recipe["text_encoder"])
        torch.manual_seed(section["training"].get("seed", 0))
        transformer = Magi1Transformer3DModel(**section["model"], data_std=measure_std(vae, recipe["vae"]["data"]))
        initialise(transformer)
        if section.get("start"):  # go on from weights that are there, with a new schedule
            transformer.load_state_dict(read_weights(section["start"]))
        objective = TransformerObjective(vae, text_encoder, tokenizer, **section["objective"])
        _train_part(transformer, objective, section, folder / "transformer", on_log)
    return export(recipe, folder)


def distil(recipe: dict[str, Any], folder: Path, on_log: Callable[[str, dict], None] | None = None) -> Path:
    """Train a student that needs fewer steps and one pass, starting from its teacher; returns `folder/model`.

    The student keeps the teacher's autoencoder and text encoder; the recipe's `sampling` is laid over its settings.
    """
    from .pipeline import Magi1Pipeline

    missing = [
        f"transformer.{b}" for b in ("objective", "data", "training") if b not in (recipe.get("transformer") or {})
    ]
    missing += ["sampling"] if "sampling" not in recipe else []
    if missing:
        raise InputError(f"the recipe lacks {missing[0]}.")
    pipe = Magi1Pipeline.from_pretrained(recipe["teacher"], dtype=torch.float32)
    if pipe.sampling.distill:
        raise InputError(f"{recipe['teacher']} is distilled already; give a base model as the teacher.")
    section, teacher = recipe["transformer"], pipe.transformer.requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)
    objective = ShortcutObjective(
        pipe.vae.requires_grad_(False),
        pipe.text_encoder.requires_grad_(False),
        pipe.tokenizer,
        teacher=teacher,
        sampling=pipe.sampling,
        **section["objective"],
    )
    _train_part(student, objective, section, folder / "transformer", on_log)
    student.load_state_dict(load_file(folder / "transformer" / "average.safetensors"))
    config = copy.deepcopy(dict(pipe.config.config or {}))
    for name, values in recipe["sampling"].items():
        config[name] = {**config.get(name, {}), **values}
    parts = {
        **pipe.components,
        "transformer": student.half(),
        "vae": pipe.vae.half(),
        "text_encoder": pipe.text_encoder.half(),
    }
    return _save(Magi1Pipeline(**parts, config=config), folder / "model")


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, in float32. Raises CheckpointError."""
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def load_text_encoder(folder: str) -> tuple[nn.Module, Any]:
    """The frozen text encoder (float32) and its tokenizer from a pipeline folder."""
    from transformers import AutoModel, AutoTokenizer

    if not (Path(folder) / "text_encoder").is_dir():
        raise InputError(f"{folder} has no text encoder; recipes/build_text_encoder.py makes one.")
    model = AutoModel.from_pretrained(Path(folder) / "text_encoder", dtype=torch.float32)
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(Path(folder) / "tokenizer")


def _train_part(model: nn.Module, objective, section: dict, folder: Path, on_log) -> None:
    config = TrainingConfig(**section["training"])
    batches = SceneBatches(seed=config.seed, steps=config.steps, **section["data"])
    Trainer(
        model, objective, batches, config, folder, None if on_log is None else lambda x: on_log(folder.name, x)
    ).run()


def _start_autoencoder(section: dict, folder: Path) -> AutoencoderKLMagi1:
    """The autoencoder as it stands before its first step; the same in every run of a recipe."""
    torch.manual_seed(section["training"].get("seed", 0))
    vae = AutoencoderKLMagi1(**section["model"])
    start = folder / "start.safetensors"
    if section.get("start"):
        vae.load_state_dict(read_weights(section["start"]))
    elif section["model"].get("linear_path"):
        if not start.exists():
            data = SceneBatches(seed=4321, steps=40, **section["data"])
            video = torch.cat([to_unit(data[i]["video"]) for i in range(section.get("pca_batches", 20))])
            vae.fit_linear_path(video, section.get("pca_exponent", 0.5))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(vae.state_dict(), start)
        vae.load_state_dict(load_file(start))
    if section["model"].get("encoder_depth") == 0:
        vae.encoder.requires_grad_(False)
    return vae


def _trained_autoencoder(vae: AutoencoderKLMagi1, folder: Path) -> AutoencoderKLMagi1:
    average = folder / "average.safetensors"
    if average.exists():
        vae.load_state_dict(load_file(average))
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def measure_std(vae: AutoencoderKLMagi1, data: dict) -> list[float]:
    """The standard deviation of each latent channel, over clips that are the same in every run of a recipe."""
    batches = SceneBatches(seed=1234, steps=16, **data)
    latents = []
    for i in range(len(batches)):
        posterior: Any = vae.encode(to_unit(batches[i]["video"]))
        latents.append(posterior.latent_dist.mode())
    std = (torch.cat(latents) * vae.config.scaling_factor).std(dim=(0, 2, 3, 4))
    return [round(x, 4) for x in std.tolist()]


def export(recipe: dict[str, Any], folder: Path) -> Path:
    """Write what has been trained so far as a float16 pipeline folder; returns its path."""
    from transformers import AutoModel, AutoTokenizer

    from .pipeline import Magi1Pipeline

    vae = _trained_autoencoder(_start_autoencoder(recipe["vae"], folder / "vae"), folder / "vae")
    std = measure_std(vae, recipe["vae"]["data"])
    transformer = Magi1Transformer3DModel(**recipe["transformer"]["model"], data_std=std)
    average = folder / "transformer" / "average.safetensors"
    if not average.exists():
        raise CheckpointError(f"{average} is missing: train the transformer first.")
    transformer.load_state_dict(load_file(average))
    source = Path(recipe["text_encoder"])
    pipe = Magi1Pipeline(
        transformer=transformer.half(),
        vae=vae.half(),
        text_encoder=AutoModel.from_pretrained(source / "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(source / "tokenizer"),
        config=recipe["sampling"],
    )
    return _save(pipe, folder / "model")


def _save(pipe: Any, target: Path) -> Path:
    if target.exists():
        shutil.rmtree(target)
    pipe.save_pretrained(target)
    return target
