"""Commands that turn published weights into other forms."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import Json, app, print_json, say
from .progress import bar


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="MAGI-1: folder of a published transformer, or its configuration. AnimateDiff: motion module."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The pipeline folder to write.")],
    config: Annotated[
        str | None,
        typer.Option(
            help="MAGI-1: the original configuration (JSON); AnimateDiff: folder of what a single file lacks."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="AnimateDiff: the base model, a folder of diffusers or a single file.")
    ] = None,
    dreambooth: Annotated[
        str | None, typer.Option(help="AnimateDiff: a personalised base model in place of the base's parts.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="AnimateDiff: v1, v2, v3 or sdxl; default: recognised from the motion module.")
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="MAGI-1: folder of the autoencoder, or none; default: looked for.")
    ] = None,
    t5: Annotated[
        str | None, typer.Option(help="MAGI-1: folder of the text encoder, or none; default: looked for.")
    ] = None,
    special_tokens: Annotated[
        str | None, typer.Option(help="MAGI-1: special_tokens.npz, or none; default: looked for.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickles (.ckpt, .bin), tensors only.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn published files into a folder that every command can load."""
    from dataclasses import asdict
    from pathlib import Path

    from ..pipelines.devices import be_quiet
    from ..systems import SYSTEMS

    rows = [(row, row.room("conversion")) for row in SYSTEMS.values() if "conversion" in row.rooms]
    system, room = next((pair for pair in rows if pair[1].recognises(Path(source))), rows[0])
    options = {
        "base": base, "dreambooth": dreambooth, "version": version,
        "vae": vae, "t5": t5, "special_tokens": special_tokens,
    }  # fmt: skip
    given = {name: None if value == "none" else value for name, value in options.items() if value is not None}
    for name in given:
        if name not in room.OPTIONS:
            raise InputError(f"--{name.replace('_', '-')} has no meaning for {system.title}; leave it out.")
    be_quiet()
    with bar(in_bytes=True) as show:

        def on_written(written: Any) -> None:
            show("writing", written.done, written.total, written.part)

        result = room.convert(source, output, config=config, allow_pickle=allow_pickle, on_written=on_written, **given)
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
        request = requests.build_request(text or "default", model, frames=frames, steps=steps, seed=seed)
    check_writable(Path(output), folder=True)
    pipe = requests.pipeline_for(request, device)

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
