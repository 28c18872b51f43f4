"""Training by a recipe: a file or a dict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import zoo
from ..errors import InputError
from ..pipelines.devices import use_threads
from ..systems import SYSTEMS


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A recipe file as a dict. Raises InputError."""
    import yaml

    try:
        recipe = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"the recipe {path} is not valid YAML: {str(error).splitlines()[0]}.") from error
    return recipe if isinstance(recipe, dict) else {}


def train(
    recipe: str | Path | dict[str, Any],
    folder: str | Path | None = None,
    parts: list[str] | None = None,
    steps: int | None = None,
    threads: int | None = None,
    on_log: Callable[[str, dict], None] | None = None,
) -> Path:
    """Train by a recipe in `folder` (default: runs/<name of the recipe>); returns the model folder.

    Args:
        recipe: a file, or what it would hold.
        parts: of the recipe; default: all.
        steps: another number of steps for the parts that are trained.
        threads: CPU threads to use.
        on_log: called with the name of the stage and a line of its log.

    A run that is started again goes on where it stopped. Raises: InputError, CheckpointError.
    """
    use_threads(threads)
    named = "recipe" if isinstance(recipe, dict) else f"recipe {recipe}"
    settings = dict(recipe) if isinstance(recipe, dict) else read_recipe(recipe)
    trained = {name: system for name, system in SYSTEMS.items() if "training" in system.rooms}
    if settings.get("system") not in trained and "autoencoder" not in settings:
        raise InputError(f"the {named} must name its system; known are {', '.join(trained)}.")
    if "teacher" in settings:
        settings["teacher"] = zoo.resolve(str(settings["teacher"]))
    if "base" in settings:  # the folder of a text-to-image model, or an embedded model of which that part is taken
        settings["base"] = str(zoo.embedded(str(settings["base"])))
    folder = folder or Path("runs") / ("recipe" if isinstance(recipe, dict) else Path(recipe).stem)
    try:
        from ..training import autoencoding
        from ..training.stages import train as run

        room = autoencoding if "autoencoder" in settings else trained[settings["system"]].room("training")
        return run(settings, room.STAGES, folder, parts, steps, on_log)
    except TypeError as error:  # a value that no constructor takes
        raise InputError(f"the {named} does not fit: {error}.") from error
    except ImportError as error:  # the extra "train" is not installed; the message says so
        raise InputError(str(error)) from error
