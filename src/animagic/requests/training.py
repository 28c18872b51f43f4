"""Training by a recipe: a file or a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import zoo
from ..errors import AnimagicError, InputError, first_line
from ..outside import parsed, read_text
from ..pipelines.devices import use_threads
from ..systems import SYSTEMS
from ..weights.values import check_sizes

if TYPE_CHECKING:
    from ..training.stages import Course, Run


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A recipe file as a dict. Raises InputError."""
    recipe = parsed(read_text(path, "recipe"), f"recipe {path}")
    check_sizes(recipe if isinstance(recipe, dict) else {}, f"the recipe {path}")
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
        parts: of the recipe, or names of its stages; default: all.
        steps: another number of steps for the parts that are trained.
        threads: CPU threads to use.
        on_log: called with the name of the stage and a line of its log.

    A run that is started again goes on where it stopped. Raises: InputError, CheckpointError.
    """
    use_threads(threads)
    with fitting(recipe):
        from ..training.stages import train as run

        return run(*_resolved(recipe, folder), parts, steps, on_log)


def run_of(
    recipe: str | Path | dict[str, Any], folder: str | Path | None = None, parts: list[str] | None = None
) -> Run:
    """A recipe that is checked, but not carried out; the arguments are those of `train`. Raises InputError."""
    with fitting(recipe):
        from ..training.stages import prepare

        return prepare(*_resolved(recipe, folder), parts)


def _resolved(
    recipe: str | Path | dict[str, Any], folder: str | Path | None
) -> tuple[dict[str, Any], Sequence[Course], Path]:
    """What a recipe holds, with folders for the names of embedded models; how its system is trained; the folder of the
    run. Raises InputError."""
    settings = dict(recipe) if isinstance(recipe, dict) else read_recipe(recipe)
    trained = {name: system for name, system in SYSTEMS.items() if "training" in system.rooms}
    if settings.get("system") not in trained and "autoencoder" not in settings:
        raise InputError(f"the {_named(recipe)} must name its system; known are {', '.join(trained)}.")
    if "teacher" in settings:
        settings["teacher"] = zoo.resolve(str(settings["teacher"]))
    for name in ("base", "text_encoder", "model", "vae"):  # a folder, or an embedded model, of which that part is taken
        if isinstance(settings.get(name), str):
            settings[name] = str(zoo.embedded(settings[name]))
    folder = folder or Path("runs") / ("recipe" if isinstance(recipe, dict) else Path(recipe).stem)
    from ..training import autoencoding

    room = autoencoding if "autoencoder" in settings else trained[settings["system"]].room("training")
    return settings, room.STAGES, Path(folder)


def _named(recipe: Any) -> str:
    return "recipe" if isinstance(recipe, dict) else f"recipe {recipe}"


@contextmanager
def fitting(recipe: Any) -> Iterator[None]:
    """Turn what is raised for a value that no constructor takes, and for missing packages, into an InputError."""
    try:
        yield
    except AnimagicError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the {_named(recipe)} does not fit: {first_line(error)}.") from error
    except ImportError as error:  # the extra "train" is not installed; the message says so
        raise InputError(str(error)) from error
