"""Training by a recipe file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
        torch.set_num_threads(threads)
    settings = read_recipe(recipe)
    chosen = tuple(parts or PARTS)
    if steps is not None:
        for part in chosen:
            if part in settings:
                settings[part]["training"]["steps"] = steps
    try:
        return run(settings, folder or Path("runs") / Path(recipe).stem, chosen, on_log)
    except TypeError as error:  # a field that no constructor knows
        raise InputError(f"the recipe {recipe} does not fit: {error}.") from error
