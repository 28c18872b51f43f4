"""Commands about models and machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..outside import printable
from .app import Json, app, print_json, tell

if TYPE_CHECKING:
    from ..zoo.words import Vocabulary


@app.command()
def models(
    vocabulary: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Instead, the words that this model was trained with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the embedded models."""
    from .. import zoo
    from ..errors import InputError

    if vocabulary is not None:
        words = zoo.vocabulary(vocabulary)
        if words is None:
            raise InputError(
                f"the model {vocabulary} has no vocabulary: its folder does not say what it was trained on."
            )
        print_json(words) if as_json else _print_vocabulary(words)
        return
    facts: dict[str, dict[str, Any]] = {}
    for name in zoo.names():
        entry = zoo.entry(name)
        loras = {kind: list(zoo.loras(name, kind)) for kind in ("loras", "motion_loras")}
        facts[name] = {"system": entry.system, "summary": entry.summary, "bytes": entry.bytes, **loras}
        if not as_json:
            tell(f"{name}  ({entry.system}, {entry.bytes / 2**20:.0f} MiB)  {entry.summary}")
            for kind, names in loras.items():
                if names:
                    tell(f"    --{kind.removesuffix('s').replace('_', '-')}: {', '.join(names)}")
    if as_json:
        print_json(facts)


def _print_vocabulary(vocabulary: Vocabulary) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("word", "in other words", box=box.SIMPLE)
    for group, words in vocabulary.items():
        table.add_row(printable(group.upper(), lines=True))
        for word, wordings in words.items():
            others = ", ".join(other for other in wordings if other != word)
            table.add_row(printable(word, lines=True), printable(others, lines=True))
        table.add_section()
    Console(highlight=False, markup=False).print(table)


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Predict what a video takes: a published or an embedded model, a folder, ...")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels of that video.")] = None,
    frames: Annotated[int | None, typer.Option(help="Its frames.")] = None,
    steps: Annotated[int | None, typer.Option(help="Its denoising steps.")] = None,
    memory: Annotated[str | None, typer.Option(help="Such as 12GB: choose what makes it fit.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu; default: the best there is.")] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16 or float32; default: as it would be loaded.")] = None,
    as_json: Json = False,
) -> None:
    """Say what this machine can do, and with --model how much memory a video would take."""
    from ..doctor import examine, in_words, parse_memory, predict
    from ..errors import InputError
    from ..pipelines.flags import read_size

    if model is not None:
        sides = {} if size is None else read_size(size)
        budget = None if memory is None else parse_memory(memory)
        found = predict(model, **sides, frames=frames, steps=steps, memory=budget, device=device, dtype=dtype)
        print_json(found) if as_json else tell("\n".join(in_words(found)))
        return
    if any(value is not None for value in (size, frames, steps, memory, device, dtype)):
        raise InputError("a prediction needs --model: a published or an embedded model, or a folder.")
    report = examine()
    if as_json:
        print_json(report)
        return
    for section, values in report.items():
        tell(section)
        for name, value in values.items():
            tell(f"  {name:<22} {('no', 'yes')[value] if isinstance(value, bool) else value}")
