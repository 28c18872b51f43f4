"""Training by a recipe file."""

from __future__ import annotations

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
    if not isinstance(recipe, dict) or recipe.get("system") != "magi1":
        raise InputError(f"the recipe {path} must name its system; known is magi1.")
    return recipe


def _check_fields(recipe: dict[str, Any], path: str | Path) -> None:
    """Raises InputError for what would otherwise be found out after hours: unknown fields, no text encoder."""
    from .systems.magi1.autoencoder import AutoencoderKLMagi1
    from .systems.magi1.distillation import ShortcutObjective
    from .systems.magi1.training import AutoencoderObjective, TransformerObjective
    from .systems.magi1.transformer import Magi1Transformer3DModel
    from .training import SceneBatches, TrainingConfig

    readers: dict[str, dict[str, Any]] = {
        "vae": {"model": AutoencoderKLMagi1, "objective": AutoencoderObjective},
        "transformer": {"model": Magi1Transformer3DModel, "objective": TransformerObjective},
    }
    if "teacher" in recipe:
        readers = {"transformer": {"objective": ShortcutObjective}}
    for part, own in readers.items():
        for name, reader in {**own, "data": SceneBatches, "training": TrainingConfig}.items():
            section = recipe.get(part) or {}
            given = section.get(name, {}) if isinstance(section, dict) else section
            if not isinstance(given, dict):
                raise InputError(f"the recipe {path} must have fields under {part}.{name}, not {given!r}.")
            unknown = sorted(set(map(str, given)) - set(inspect.signature(reader).parameters))
            if unknown:
                raise InputError(f"the recipe {path} has an unknown field {part}.{name}.{unknown[0]}.")
    folder = recipe.get("text_encoder")
    if folder is not None and not (Path(str(folder)) / "text_encoder").is_dir():
        raise InputError(f"{folder} has no text encoder; recipes/build_text_encoder.py makes one.")


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

    from .systems.magi1.recipe import PARTS
    from .systems.magi1.recipe import train as run

    if threads is not None:
        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}.")
        torch.set_num_threads(threads)
    settings = read_recipe(recipe)
    _check_fields(settings, recipe)
    if "teacher" in settings:
        settings["teacher"] = zoo.resolve(str(settings["teacher"]))
    chosen = tuple(parts or PARTS)
    if steps is not None:
        for part in chosen:
            if "training" in (settings.get(part) or {}):
                settings[part]["training"]["steps"] = steps
    try:
        return run(settings, folder or Path("runs") / Path(recipe).stem, chosen, on_log)
    except TypeError as error:  # a value that no constructor takes
        raise InputError(f"the recipe {recipe} does not fit: {error}.") from error
    except ImportError as error:  # the extra "train" is not installed; the message says so
        raise InputError(str(error)) from error
