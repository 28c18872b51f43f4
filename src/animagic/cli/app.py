"""The command itself, and what every command shares."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Make video with diffusion models: stream it while it is made, at any length, on any machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable line on stdout.")]
Model = Annotated[str, typer.Option(help="A name that `animagic models` lists, a folder, or a hub id.")]


def say(text: str) -> None:
    print(text, file=sys.stderr)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        from .. import __version__

        print(__version__)
        raise typer.Exit
