"""Puts the model cards of the zoo, and their pictures, into the pages of docs/models/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ZOO = Path(__file__).resolve().parents[1] / "src" / "animagic" / "zoo"
PLACE = re.compile(r"^<!-- card: (?P<model>[\w.-]+) -->$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---\n.*?^---\n", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"(!\[[^\]]*\]\()(?=[\w.-]+\.(?:png|jpg|gif|webp)\))")


def card(model: str, zoo: Path = ZOO) -> str:
    """The card of a model as it stands in a page: no front matter, no title, pictures from the model's own folder."""
    file = zoo / model / "README.md"
    if not file.is_file():
        return f"The card of {model} is not there yet: its measurements are part of the training run."
    text = FRONT_MATTER.sub("", file.read_text("utf-8")).strip()
    text = re.sub(r"\A# .*\n", "", text).strip()
    return PICTURE.sub(rf"\g<1>{model}/", text)


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for picture in sorted(ZOO.glob("*/*")):
        if picture.suffix in (".png", ".jpg", ".gif", ".webp"):
            name = f"models/{picture.parent.name}/{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return PLACE.sub(lambda place: card(place["model"]), markdown)
