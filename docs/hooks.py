"""Puts what the code knows into the pages: models' cards and words, the options of commands, the rooms of the code."""

from __future__ import annotations

import ast
import json
import re
from html import escape
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "animagic"
ZOO = SOURCE / "zoo"
PLACE = re.compile(r"^<!-- card: (?P<model>[\w.-]+) -->$", re.MULTILINE)
WORDS = re.compile(r"^<!-- vocabulary: (?P<model>[\w.-]+) -->$", re.MULTILINE)
OPTIONS = re.compile(r"^<!-- options: (?P<command>\w+) -->$", re.MULTILINE)
ROOMS = re.compile(r"^<!-- rooms -->$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---\n.*?^---\n", re.MULTILINE | re.DOTALL)
ROOMS_STYLE = """
.rooms { display: flex; flex-direction: column; gap: .35rem; margin: 1rem 0 }
.rooms .layer { display: flex; gap: .35rem }
.rooms .room { flex: 1; padding: .3rem .5rem; border-radius: .3rem }
.rooms .room { border: 1px solid var(--md-primary-fg-color, #4051b5) }
.rooms .room > .layer { margin: .3rem 0 .1rem }
.rooms .coming { border-style: dashed; opacity: .6 }
.rooms b { display: block; font-size: .75rem }
.rooms small { display: block; font-size: .6rem; line-height: 1.35 }
@media (max-width: 40rem) { .rooms .layer { flex-direction: column } }
""".replace("\n", " ")
PICTURE = re.compile(r"(!\[[^\]]*\]\()(?=[\w.-]+\.(?:png|jpg|gif|webp)\))")


def card(model: str, zoo: Path = ZOO) -> str:
    """The card of a model as it stands in a page: no front matter, no title, pictures from the model's own folder."""
    file = zoo / model / "README.md"
    if not file.is_file():
        return f"The card of {model} is not there yet: its measurements are part of the training run."
    text = FRONT_MATTER.sub("", file.read_text("utf-8")).strip()
    text = re.sub(r"\A# .*\n", "", text).strip()
    return PICTURE.sub(rf"\g<1>{model}/", text)


def words(model: str, zoo: Path = ZOO) -> str:
    """The vocabulary of a model as a table, a row for each group: words, with other wordings in brackets."""
    rows = []
    for group, known in json.loads((zoo / model / "vocabulary.json").read_text("utf-8")).items():
        others = {word: ", ".join(one for one in wordings if one != word) for word, wordings in known.items()}
        cells = [f"**{word}** ({other})" if other else f"**{word}**" for word, other in others.items()]
        rows.append(f"| {group} | {'; '.join(cells)} |")
    return "\n".join(["| what | words (in other words) |", "|---|---|", *rows])


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


def summary(path: Path) -> str:
    """The first sentence of a module's or package's docstring; "" where there is none."""
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "" if file.is_file() else ""
    return re.split(r"(?<=[.?])\s", " ".join(text.replace("`", "").split("\n\n")[0].split()), maxsplit=1)[0]


def box(name: str, text: str, inside: str = "", kind: str = "room") -> str:
    """A box of the drawing. Where the text begins with the name, it is not said twice."""
    text = re.sub(rf"^(the )?{re.escape(name)}: (\w)", lambda found: found[2].upper(), text, flags=re.IGNORECASE)
    return f'<div class="{kind}"><b>{escape(name)}</b><small>{escape(text)}</small>{inside}</div>'


def rooms() -> str:
    """The rooms of the code as a drawing: the layers that import-linter checks, from top to bottom, and the systems."""
    from animagic.systems import SYSTEMS

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    systems = "".join(box(system.title, summary(SOURCE / "systems" / name)) for name, system in SYSTEMS.items())
    rows = []
    for layer in layers:
        boxes = ""
        for name in layer.split(" | "):
            if name.startswith("("):
                boxes += box(name.strip("()"), "To come.", kind="room coming")
            else:
                inside = f'<div class="layer">{systems}</div>' if name == "systems" else ""
                boxes += box(name, summary(SOURCE / name), inside)
        rows.append(f'<div class="layer">{boxes}</div>')
    return "\n".join(['<div class="rooms">', f"<style>{ROOMS_STYLE}</style>", *rows, "</div>"])


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for picture in sorted(ZOO.glob("*/*")):
        if picture.suffix in (".png", ".jpg", ".gif", ".webp"):
            name = f"models/{picture.parent.name}/{picture.name}"
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = OPTIONS.sub(lambda place: options(place["command"]), markdown)
    markdown = ROOMS.sub(lambda place: rooms(), markdown)
    markdown = PLACE.sub(lambda place: card(place["model"]), markdown)
    return WORDS.sub(lambda place: words(place["model"]), markdown)
