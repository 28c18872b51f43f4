"""Commands that turn published weights into other forms."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..systems import SYSTEMS
from .app import Json, app, print_json, say, tell
from .options import AllowPickle, Device
from .progress import bar


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A published motion module, folder of a transformer, of MagicAnimate or HunyuanVideo, or a "
            "configuration."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The pipeline folder to write.")],
    config: Annotated[
        str | None,
        typer.Option(help="The original configuration (JSON); of a motion module: folder of what a single file lacks."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Of a motion module or MagicAnimate: the base model, a folder of diffusers or a single file; of a "
            "file of HunyuanVideo's transformer: the folder of its other parts."
        ),
    ] = None,
    dreambooth: Annotated[
        str | None, typer.Option(help="Of a motion module: a personalised base model in place of the base's parts.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Of a motion module: v1, v2, v3 or sdxl; default: recognised.")
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="Folder of the autoencoder; of a transformer also none; default: looked for.")
    ] = None,
    t5: Annotated[
        str | None, typer.Option(help="Of a transformer: folder of the text encoder, or none; default: looked for.")
    ] = None,
    special_tokens: Annotated[
        str | None, typer.Option(help="Of a transformer: special_tokens.npz, or none; default: looked for.")
    ] = None,
    wav2vec: Annotated[
        str | None, typer.Option(help="Of HunyuanVideo: folder of wav2vec 2.0; default: the embedded speech encoder.")
    ] = None,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
) -> None:
    """Turn published files into a folder that every command can load."""
    from ..pipelines.devices import be_quiet

    be_quiet()
    rows = [(row, row.room("conversion")) for row in SYSTEMS.values() if "conversion" in row.rooms]
    system, room = next((pair for pair in reversed(rows) if pair[1].takes(Path(source))), rows[0])
    options = {
        "base": base, "dreambooth": dreambooth, "version": version,
        "vae": vae, "t5": t5, "special_tokens": special_tokens, "wav2vec": wav2vec,
    }  # fmt: skip
    given = {name: None if value == "none" else value for name, value in options.items() if value is not None}
    for name in given:
        if name not in room.OPTIONS:
            raise InputError(f"--{name.replace('_', '-')} has no meaning for {system.title}; leave it out.")
    with bar(in_bytes=True) as show:

        def on_written(written: Any) -> None:
            show("writing", written.done, written.total, written.part)

        result = room.convert(source, output, config=config, allow_pickle=allow_pickle, on_written=on_written, **given)
    if as_json:
        print_json(asdict(result))
        return
    kind = "" if result.model is None else f"{result.model}: "
    say(f"{kind}{', '.join(result.parts)}; {result.bytes / 1e9:.2f} GB in {result.seconds:.1f} s")
    tell(result.output)


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(help="A name that `animagic models` lists, a folder, or a hub id.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The model folder to write.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt of a video to measure the model on; may be repeated.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="A text file with such prompts, one in a line.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of these videos; default: the model's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of these videos; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise that these videos begin with.")] = 0,
    original: Annotated[
        bool, typer.Option("--original", help="Also write the weights in their published layout.")
    ] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Make the FP8 form of a model: large layers take one byte a weight."""
    from .. import requests
    from ..media.files import check_writable

    texts = _read_prompts(prompt or [], prompts)
    for text in texts or [""]:  # now, not after the model is loaded
        request = requests.build_request(text or "default", model, frames=frames, steps=steps, seed=seed)
    check_writable(Path(output), folder=True)
    system = requests.system_of(model)
    if "quantize" not in system.rooms:
        raise InputError(f"{model} is a model of {system.title}, which has no FP8 form.")
    pipe, room = requests.pipeline_for(request, device), system.room("quantize")
    chosen = texts or room.PROMPTS
    announced: set[int] = set()

    def on_progress(index: int, _: Any) -> None:
        if index not in announced:
            announced.add(index)
            say(f"measuring {index + 1} of {len(chosen)}: {chosen[index]}")

    options = {"num_frames": frames, "num_steps": steps, "seed": seed, "original": original}
    result = room.quantize(pipe, output, chosen, on_progress=on_progress, **options)
    if as_json:
        print_json(asdict(result))
        return
    say(f"transformer: {result.bytes_before / 1e6:.1f} MB -> {result.bytes / 1e6:.1f} MB in {result.seconds:.1f} s")
    tell(result.output)


def _read_prompts(given: list[str], file: str | None) -> list[str]:
    """The prompts of the command line, or the lines of a file; raises InputError."""
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
