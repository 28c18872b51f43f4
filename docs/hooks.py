"""Puts what the code knows into the pages: the cards of the models with their pictures, the options of the commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ZOO = Path(__file__).resolve().parents[1] / "src" / "animagic" / "zoo"
PLACE = re.compile(r"^<!-- card: (?P<model>[\w.-]+) -->$", re.MULTILINE)
OPTIONS = re.compile(r"^<!-- options: (?P<command>\w+) -->$", re.MULTILINE)
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


def options(command: str) -> str:
    """The options of a command as tables: those of every model, then those that only some systems have."""
    from typer.main import get_command

    from animagic.cli import command_line

    tables: dict[str, list[str]] = {}
    for parameter in get_command(command_line()).commands[command].params:
        if parameter.param_type_name == "argument" or getattr(parameter, "hidden", False):
            continue
        flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
        value = "" if parameter.is_flag else f" `{parameter.metavar or 'VALUE'}`"
        default = parameter.default if isinstance(parameter.default, (str, int, float)) else None
        told = "" if default in (None, "") or parameter.is_flag else f" Default: {default}."
        panel = getattr(parameter, "rich_help_panel", None) or ""
        tables.setdefault(panel, []).append(
            f"| {flags}{value} | {parameter.help}{told} |".replace("|endless", "\\|endless")
        )
    order = sorted(tables, key=lambda panel: panel != "")
    heads = {panel: f"{panel}:\n\n" if panel else "" for panel in order}
    return "\n\n".join(
        "\n".join([f"{heads[panel]}| option | meaning |", "|---|---|", *tables[panel]]) for panel in order
    )


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for picture in sorted(ZOO.glob("*/*")):
        if picture.suffix in (".png", ".jpg", ".gif", ".webp"):
            name = f"models/{picture.parent.name}/{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = OPTIONS.sub(lambda place: options(place["command"]), markdown)
    return PLACE.sub(lambda place: card(place["model"]), markdown)
