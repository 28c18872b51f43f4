"""Commands that turn published weights into other forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import Json, app, print_json, say


@contextmanager
def bytes_written() -> Iterator[Callable[[Any], None]]:
    """Gives a function that shows a `Written` on stderr: the part, gigabytes, time left. Drawn on terminals only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda written: bar.update(task, description=written.part, completed=written.done, total=written.total)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Folder of a published MAGI-1 transformer, or its configuration.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The pipeline folder to write.")],
    config: Annotated[
        str | None, typer.Option(help="The original configuration (JSON); default: recognised from the weights.")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Folder of the autoencoder, or none; default: looked for.")] = None,
    t5: Annotated[str | None, typer.Option(help="Folder of the text encoder, or none; default: looked for.")] = None,
    special_tokens: Annotated[
        str | None, typer.Option(help="special_tokens.npz, or none; default: looked for.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read the text encoder from pickles, tensors only.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn the published files of MAGI-1 into a folder that every command can load."""
    from dataclasses import asdict

    from ..systems.magi1.conversion import convert as run

    places = {"vae": vae, "t5": t5, "special_tokens": special_tokens}
    given: dict[str, Any] = {k: None if v == "none" else v for k, v in places.items() if v is not None}
    with bytes_written() as on_written:
        result = run(source, output, config=config, allow_pickle=allow_pickle, on_written=on_written, **given)
    if as_json:
        print_json(asdict(result))
        return
    kind = "" if result.model is None else f"{result.model}: "
    say(f"{kind}{', '.join(result.parts)}; {result.bytes / 1e9:.2f} GB in {result.seconds:.1f} s")
    print(result.output)


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(help="A name that `animagic models` lists, a folder, or a hub id.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The model folder to write.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="Words of a video to measure the model on; may be repeated.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="A text file with such words, those of a video in a line.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of these videos; default: the model's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of these videos; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise that these videos begin with.")] = 0,
    original: Annotated[
        bool, typer.Option("--original", help="Also write the weights as MAGI-1 publishes them.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the best there is.")] = None,
    as_json: Json = False,
) -> None:
    """Make the FP8 form of a model: large layers take one byte a weight."""
    from dataclasses import asdict
    from pathlib import Path

    from .. import requests
    from ..media.files import check_writable

    texts = read_prompts(prompt or [], prompts)
    for text in texts or [""]:  # now, not after the model is loaded
        requests.Request(text or "default", frames=frames, steps=steps, seed=seed)
    check_writable(Path(output), folder=True)
    pipe = requests.load_pipeline(model, device)

    from ..systems.magi1 import quantize as magi1

    chosen = texts or magi1.PROMPTS
    announced: set[int] = set()

    def on_progress(index: int, _: Any) -> None:
        if index not in announced:
            announced.add(index)
            say(f"measuring {index + 1} of {len(chosen)}: {chosen[index]}")

    result = magi1.quantize(
        pipe,
        output,
        chosen,
        num_frames=frames,
        num_steps=steps,
        seed=seed,
        original=original,
        on_progress=on_progress,
    )
    if as_json:
        print_json(asdict(result))
        return
    say(f"transformer: {result.bytes_before / 1e6:.1f} MB -> {result.bytes / 1e6:.1f} MB in {result.seconds:.1f} s")
    print(result.output)


def read_prompts(given: list[str], file: str | None) -> list[str]:
    """The prompts of the command line, or the lines of a file; raises InputError."""
    from pathlib import Path

    if file is None:
        if not all(text.strip() for text in given):
            raise InputError("a --prompt is empty; say what its video should show.")
        return given
    if given:
        raise InputError("give either --prompt or --prompts, not both.")
    try:
        texts = [line.strip() for line in Path(file).read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"the prompts {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the prompts {file} are not text in UTF-8.") from error
    if not texts:
        raise InputError(f"the prompts {file} hold no line of words.")
    return texts
