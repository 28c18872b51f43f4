"""The command that lets a model learn from a few pictures."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Annotated

import typer

from ..pipelines.devices import use_threads
from .app import Json, Model, app, print_json, say, tell
from .options import Quiet, Threads
from .progress import bar


@app.command()
def personalize(
    pictures: Annotated[
        str, typer.Argument(help="A folder with 3 to 20 pictures; NAME.txt may say what NAME.png shows.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A .safetensors file; for dreambooth the folder of a whole model.")
    ],
    method: Annotated[str, typer.Option(help="dreambooth, lora or textual-inversion.")] = "lora",
    model: Model = "animatediff-tiny",
    prompt: Annotated[str | None, typer.Option(help="What a picture shows, such as: a picture of sks ball.")] = None,
    class_prompt: Annotated[
        str | None, typer.Option(help="The prompt without what is new, such as: a picture of a ball.")
    ] = None,
    prior_preservation: Annotated[
        int | None, typer.Option(help="So many pictures of the class keep the model from forgetting; default: none.")
    ] = None,
    prior_weight: Annotated[float, typer.Option(help="How much these count.")] = 1.0,
    train_text_encoder: Annotated[
        bool, typer.Option("--train-text-encoder", help="Of dreambooth: the text encoder learns, too.")
    ] = False,
    rank: Annotated[int | None, typer.Option(help="Of the LoRA; default: 8.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The LoRA counts alpha / rank times; default: the rank.")] = None,
    token: Annotated[str | None, typer.Option(help="The new word of textual inversion, such as <look>.")] = None,
    initial_word: Annotated[
        str | None, typer.Option(help="The word with which the new one begins; default: the mean of all.")
    ] = None,
    vectors: Annotated[int | None, typer.Option(help="How many the new word stands for; default: 1.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of the training; default: 800, textual inversion 3000.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: dreambooth 5e-6, lora 1e-4, textual inversion 5e-3.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures a step.")] = 1,
    max_snr_weight: Annotated[
        float, typer.Option(help="Errors of noisy levels count up to this many times; small models learn sooner so.")
    ] = 1.0,
    most_weight: Annotated[float | None, typer.Option(hidden=True, help="The name of earlier versions.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the result in float16.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was interrupted, if any.")] = False,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let a model learn a thing or a style from a few pictures; the result drops into the animated model."""
    given = locals()  # all options by name, which are those of Personalization

    from ..pipelines.devices import be_quiet

    be_quiet()  # before the networks are imported, which warn of what is not needed here

    from .. import zoo
    from ..training.personalization import Personalization, sheet_file, work_folder
    from ..training.personalization import personalize as run

    use_threads(threads)
    given["train_text_encoder"] = train_text_encoder or None
    given["max_snr_weight"] = max_snr_weight if most_weight is None else most_weight
    settings = Personalization(**{field.name: given[field.name] for field in fields(Personalization)})
    began = time.monotonic()
    try:
        with bar(quiet) as show:

            def on_progress(stage: str, done: int, total: int, values: dict[str, float]) -> None:
                show(stage, done, total, f"loss {values['loss']:.4f}" if "loss" in values else "")

            target = run(settings, zoo.resolve(model), output, resume=resume, on_progress=on_progress)
    except KeyboardInterrupt:
        if work_folder(output).exists():
            say(f"{work_folder(output)} holds what is done so far: the same command with --resume goes on.")
        raise
    seconds, sheet = time.monotonic() - began, sheet_file(output)
    if as_json:
        print_json({"output": str(target), "samples": str(sheet), "seed": seed, "seconds": round(seconds, 3)})
        return
    say(f"done in {seconds:.1f} s; {sheet} shows the pictures, and the model before and after")
    tell(target)
