"""Embedded models are replaced by better ones: weights, scores, picture and card in one step."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..media import write_image
from . import EmbeddedModel, embedded

SCORES = "scores.json"
_FIGURES = re.compile(r"(?<=<!-- scores -->\n).*(?=<!-- /scores -->)", re.DOTALL)


def scores(model: EmbeddedModel) -> dict[str, Any]:
    """What is known of the weights of an embedded model since they were last replaced; {}: nothing."""
    file = model.folder / SCORES
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def fingerprint(model: EmbeddedModel) -> str:
    """A hash of the weights of an embedded model, those of its base among them; "": it has none yet."""
    folders = [model.folder] + ([] if model.base is None else [Path(embedded(model.base))])
    files = [file for folder in folders for file in sorted(folder.rglob("*.safetensors"))]
    if not (model.folder / "model_index.json").exists():
        return ""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def check_card(model: EmbeddedModel) -> None:
    """Raises InputError if the card has no place for figures."""
    card = model.folder / "README.md"
    if not card.exists() or not _FIGURES.search(card.read_text("utf-8")):
        raise InputError(
            f"{card} has no lines <!-- scores --> and <!-- /scores -->, between which figures are written."
        )


def replace(model: EmbeddedModel, source: Path, values: dict[str, Any], figures: str, sheet: np.ndarray) -> None:
    """Replace an embedded model by another one, all of it or nothing.

    Args:
        source: a model folder. Its components come in place of the old ones, but for those that the embedded model
            gets from elsewhere.
        values: for `scores`. figures: Markdown, which comes between the marks in the card.
        sheet: a picture of results, uint8 (H, W, 3).
    """
    folder, new, old = model.folder, *_beside(model.folder)
    recover(model)
    shutil.copytree(folder, new)
    elsewhere = _elsewhere(folder)
    for part in source.iterdir():
        if part.is_file():
            shutil.copyfile(part, new / part.name)
        elif part.name not in elsewhere:
            shutil.rmtree(new / part.name, ignore_errors=True)
            shutil.copytree(part, new / part.name)
    (new / SCORES).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", "utf-8")
    card = new / "README.md"
    card.write_text(_FIGURES.sub(lambda _: f"\n{figures.strip()}\n\n", card.read_text("utf-8")), "utf-8")
    write_image(new / "sheet.jpg", sheet)
    for file in filter(Path.is_file, new.rglob("*")):
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)


def _elsewhere(folder: Path) -> set[str]:
    """The components that a model folder names and does not have."""
    index = folder / "model_index.json"
    named = json.loads(index.read_text("utf-8")) if index.exists() else {}
    return {name for name in named if not (folder / name).is_dir()}


def recover(model: EmbeddedModel) -> None:
    """Put an embedded model back that was being replaced when the process was killed."""
    new, old = _beside(model.folder)
    if old.exists() and not model.folder.exists():
        old.rename(model.folder)
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
