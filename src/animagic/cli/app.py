"""The command itself, and what every command shares."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..outside import printable, printable_json

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
    """A line for a person, on stderr."""
    _write(sys.stderr, printable(text))


def tell(text: Any = "") -> None:
    """A line of what was asked for, on stdout."""
    _write(sys.stdout, printable(str(text)))


def print_json(value: dict[str, Any]) -> None:
    _write(sys.stdout, printable_json(value))


def _write(stream: Any, text: str) -> None:
    """The one place where text goes to a terminal, or into what stands in its place."""
    try:
        print(text, file=stream)
    except UnicodeEncodeError:  # a terminal without Unicode
        encoding = stream.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        from .. import __version__

        tell(__version__)
        raise typer.Exit
