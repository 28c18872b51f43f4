"""Commands about models and machines."""

from __future__ import annotations

from typing import Annotated

import typer

from .app import Json, app, print_json, say


@app.command()
def models(as_json: Json = False) -> None:
    """List the embedded models."""
    from .. import zoo

    entries = [zoo.entry(name) for name in zoo.names()]
    if as_json:
        print_json({e.name: {"system": e.system, "summary": e.summary, "bytes": e.bytes} for e in entries})
        return
    for e in entries:
        print(f"{e.name}  ({e.system}, {e.bytes / 2**20:.0f} MiB)  {e.summary}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do: devices, kernels, memory, and which models fit."""
    from ..doctor import examine

    report = examine()
    if as_json:
        print_json(report)
        return
    for section, values in report.items():
        print(section)
        for name, value in values.items():
            shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            print(f"  {name:<22} {shown}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file (YAML).")],
    folder: Annotated[str | None, typer.Option(help="Where the run lives; default: runs/NAME-OF-RECIPE.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Train only this part; may be repeated.")] = None,
    steps: Annotated[int | None, typer.Option(help="Another number of steps for the parts trained.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads to use.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model by a recipe; a run that is started again goes on where it stopped."""
    from ..training_runs import train as run

    def on_log(name: str, line: dict) -> None:
        figures = "  ".join(f"{k} {v:.4g}" for k, v in line.items() if k != "step")
        say(f"{name}  step {line['step']}  {figures}")

    target = run(recipe, folder, part, steps, threads, on_log)
    print_json({"output": str(target)}) if as_json else print(target)
