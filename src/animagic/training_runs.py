"""Training by a recipe file."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import zoo
from .errors import InputError


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A recipe file as a dict; raises InputError if it cannot be read or names no known system."""
    import yaml

    try:
        recipe = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"the recipe {path} is not valid YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(recipe, dict) or recipe.get("system") not in _SYSTEMS:
        raise InputError(f"the recipe {path} must name its system; known are {', '.join(_SYSTEMS)}.")
    return recipe


Readers = dict[str, Any]
"""A section's field -> what reads the fields under it."""


def _magi1(recipe: dict[str, Any]) -> list[tuple[str, Any, Readers]]:
    from .systems.magi1.autoencoder import AutoencoderKLMagi1
    from .systems.magi1.distillation import ShortcutObjective
    from .systems.magi1.training import AutoencoderObjective, TransformerObjective
    from .systems.magi1.transformer import Magi1Transformer3DModel
    from .training import SceneBatches

    readers: dict[str, Readers] = {
        "vae": {"model": AutoencoderKLMagi1, "objective": AutoencoderObjective},
        "transformer": {"model": Magi1Transformer3DModel, "objective": TransformerObjective},
    }
    if "teacher" in recipe:
        readers = {"transformer": {"objective": ShortcutObjective}}
    return [(part, recipe.get(part), {**own, "data": SceneBatches}) for part, own in readers.items()]


def _animatediff(recipe: dict[str, Any]) -> list[tuple[str, Any, Readers]]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig

    from .systems.animatediff.images import AutoencoderObjective, PictureObjective, SceneImages
    from .systems.animatediff.training import NoiseObjective, SceneClips
    from .systems.animatediff.unet import AnimateDiffUNet
    from .training.videos import VideoBatches

    def clips(section: Any) -> Readers:
        data = section.get("data") if isinstance(section, dict) else None
        files = isinstance(data, dict) and data.get("source", "studio") != "studio"
        return {"objective": NoiseObjective, "data": VideoBatches if files else SceneClips}

    found: list[tuple[str, Any, Readers]] = [
        ("vae", recipe.get("vae"), {"model": AutoencoderKL, "objective": AutoencoderObjective, "data": SceneImages}),
        ("text_encoder", recipe.get("text_encoder"), {"model": CLIPTextConfig}),
        (
            "unet",
            recipe.get("unet"),
            {"model": UNet2DConditionModel, "objective": PictureObjective, "data": SceneImages},
        ),
        ("adapter", recipe.get("adapter"), clips(recipe.get("adapter"))),
        ("motion", recipe.get("motion"), clips(recipe.get("motion")) | {"model": AnimateDiffUNet}),
    ]
    for group, readers in (("looks", lambda _: {"data": SceneImages}), ("motion_loras", clips)):
        for name, section in (recipe.get(group) or {}).items():
            found.append((f"{group}.{name}", section, readers(section)))
    return found


_SYSTEMS = {"magi1": _magi1, "animatediff": _animatediff}
_OURS = {"source"}  # fields of `data` that choose who reads the others


def _check_fields(recipe: dict[str, Any], path: str | Path) -> None:
    """Raises InputError for what would otherwise be found out after hours: unknown fields, no text encoder."""
    from .training import TrainingConfig

    for part, section, own in _SYSTEMS[recipe["system"]](recipe):
        for name, reader in {**own, "training": TrainingConfig}.items():
            given = (section or {}).get(name, {}) if isinstance(section or {}, dict) else section
            if not isinstance(given, dict):
                raise InputError(f"the recipe {path} must have fields under {part}.{name}, not {given!r}.")
            unknown = sorted(set(map(str, given)) - set(inspect.signature(reader).parameters) - _OURS)
            if unknown:
                raise InputError(f"the recipe {path} has an unknown field {part}.{name}.{unknown[0]}.")
    folder = recipe.get("text_encoder")
    if isinstance(folder, str) and not (Path(folder) / "text_encoder").is_dir():
        raise InputError(f"{folder} has no text encoder; recipes/build_text_encoder.py makes one.")


def _set_steps(recipe: dict[str, Any], parts: list[str] | None, steps: int) -> None:
    """Another number of steps wherever one of the parts, or anything in it, is trained."""
    for name, section in recipe.items():
        if not isinstance(section, dict) or (parts is not None and name not in parts):
            continue
        if "training" in section:
            section["training"]["steps"] = steps
        _set_steps({key: value for key, value in section.items() if key != "training"}, None, steps)


def train(
    recipe: str | Path,
    folder: str | Path | None = None,
    parts: list[str] | None = None,
    steps: int | None = None,
    threads: int | None = None,
    on_log: Callable[[str, dict], None] | None = None,
) -> Path:
    """Train by a recipe in `folder` (default: runs/<name of the recipe>); returns the model folder.

    `steps` replaces the recipe's number of steps. Raises: InputError, CheckpointError.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}.")
        torch.set_num_threads(threads)
    settings = read_recipe(recipe)
    _check_fields(settings, recipe)
    if "teacher" in settings:
        settings["teacher"] = zoo.resolve(str(settings["teacher"]))
    if "base" in settings:  # a picture model's folder, or an embedded model whose pictures are taken
        settings["base"] = str(zoo.embedded(str(settings["base"])))
    run = importlib.import_module(f"animagic.systems.{settings['system']}.recipe").train
    if steps is not None:
        # The pictures of a recipe are several sections.
        _set_steps(settings, None if parts is None or "pictures" in parts else parts, steps)
    chosen = {} if parts is None else {"parts": tuple(parts)}
    try:
        return run(settings, folder or Path("runs") / Path(recipe).stem, on_log=on_log, **chosen)
    except TypeError as error:  # a value that no constructor takes
        raise InputError(f"the recipe {recipe} does not fit: {error}.") from error
    except ImportError as error:  # the extra "train" is not installed; the message says so
        raise InputError(str(error)) from error
