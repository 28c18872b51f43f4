"""The original command line of AnimateDiff: its inference files, with this library's output."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import Json, app, print_json, say
from .options import AllowPickle, Device, Quiet, Threads


@app.command()
def animatediff(
    config: Annotated[str, typer.Option("--config", help="An original inference file (.yaml), as it is.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder of the videos; default: samples/NAME-TIME.")
    ] = None,
    pretrained_model_path: Annotated[
        str | None, typer.Option(help="Stable Diffusion 1.5: folder or hub id; default: where the original has it.")
    ] = None,
    inference_config: Annotated[
        str | None, typer.Option(help="For entries without one; default: configs/inference/inference-v1.yaml.")
    ] = None,
    length: Annotated[int | None, typer.Option("--L", help="Frames, for entries without L; default: 16.")] = None,
    width: Annotated[int | None, typer.Option("--W", help="Width, for entries without W; default: 512.")] = None,
    height: Annotated[int | None, typer.Option("--H", help="Height, for entries without H; default: 512.")] = None,
    without_xformers: Annotated[
        bool, typer.Option("--without-xformers", help="No effect: attention is PyTorch's own.")
    ] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Weights in float32 on a GPU, too, as the original.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[N.]FIELD=VALUE", help="In place of the file's (entry N's); may be repeated."),
    ] = None,
    format: Annotated[str, typer.Option("--format", help="Of the videos: mp4, webm or gif.")] = "mp4",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the run on disk, go on with it, make only videos that are missing.")
    ] = False,
    allow_pickle: AllowPickle = False,
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make the videos that an original inference file of AnimateDiff asks for."""
    from dataclasses import asdict
    from datetime import datetime

    from ..pipelines.devices import be_quiet, use_threads
    from ..requests.many import SHEET, generate_all
    from ..systems import SYSTEMS
    from .progress import reporter

    if resume and output is None:
        raise InputError("--resume needs --output, to know which run to go on with.")
    use_threads(threads)
    given = {
        "--pretrained-model-path": pretrained_model_path,
        "--inference-config": inference_config,
        "--L": length,
        "--W": width,
        "--H": height,
        "--fp32": "true" if fp32 else None,
    }
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    folder = Path(output or f"samples/{Path(config).stem}-{datetime.now():%Y-%m-%dT%H-%M-%S}")

    def reporting(number: int, count: int, request: Any) -> AbstractContextManager[Any]:
        return reporter(quiet, f"{number + 1} of {count}: {request.prompt}")

    be_quiet()
    videos_of = SYSTEMS["animatediff"].get("original_job:videos_of")
    videos = list(videos_of(config, [*options, *(settings or ())]))
    made = []
    for result in generate_all(
        videos,
        folder,
        format=format,
        resume=resume,
        device=device,
        allow_pickle=allow_pickle,
        reporting=reporting,
    ):
        made.append(result)
        if not quiet and not as_json:
            say(
                f"{result.frames} frames, {result.width}x{result.height}, in {result.seconds:.1f} s, seed {result.seed}"
            )
            print(result.output)
    sheet = str(folder / SHEET)
    if as_json:
        print_json({"output": str(folder), "videos": [asdict(result) for result in made], "contact_sheet": sheet})
    elif not quiet:
        print(sheet)
