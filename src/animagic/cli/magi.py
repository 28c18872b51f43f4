"""The original command line of MAGI-1: its configuration files and modes, with this library's output."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from .app import Json, app
from .making import make
from .options import AllowPickle, ContactSheet, Device, Fit, Preview, Quiet, Resume, Threads
from .prompting import (
    Borderness,
    DurationToken,
    Enhance,
    EnhanceModel,
    FirstFrames,
    NegativeTokens,
    Quality,
    SpecialTokens,
    Style,
    enhanced,
    negative_names,
    token_names,
)


@app.command()
def magi(
    config_file: Annotated[str, typer.Option("--config_file", help="An original configuration file, as it is.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What the video should show.")],
    output_path: Annotated[str, typer.Option("--output_path", help="The video: MP4, WebM, GIF or pictures.")],
    mode: Annotated[str, typer.Option("--mode", help="t2v from words, i2v from a picture, v2v from a clip.")] = "t2v",
    image_path: Annotated[str | None, typer.Option("--image_path", help="The picture, for i2v.")] = None,
    prefix_video_path: Annotated[str | None, typer.Option("--prefix_video_path", help="The clip, for v2v.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="In place of the file's value; may be repeated."),
    ] = None,
    quality: Quality = None,
    style: Style = None,
    first_frames: FirstFrames = None,
    duration_token: DurationToken = None,
    borderness: Borderness = False,
    negative_tokens: NegativeTokens = False,
    special_tokens: SpecialTokens = None,
    enhance: Enhance = None,
    enhance_model: EnhanceModel = None,
    fit: Fit = "stretch",
    allow_pickle: AllowPickle = False,
    preview: Preview = False,
    contact_sheet: ContactSheet = None,
    resume: Resume = False,
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a video as the original MAGI-1 command does, from one of its configuration files."""
    from .. import requests
    from ..systems.magi1 import original

    given = {"t2v": None, "i2v": image_path, "v2v": prefix_video_path}
    if mode not in given:
        raise InputError(f"the mode {mode!r} is unknown; choose t2v, i2v or v2v.")
    for name, option, path in (("i2v", "--image_path", image_path), ("v2v", "--prefix_video_path", prefix_video_path)):
        if mode == name and path is None:
            raise InputError(f"--mode {name} needs {option}.")
        if mode != name and path is not None:
            raise InputError(f"{option} is for --mode {name}, not {mode}.")
    config = original.read_config(config_file, settings or ())
    names = token_names(quality, style, first_frames, duration_token, borderness)
    table = special_tokens or original.find_special_tokens(config_file, config)
    # The published script turns these on, so they hold where nothing else is said.
    usual = [*(["hq"] if quality is None else []), *(["duration"] if duration_token is None else [])]
    note = ""
    if usual and table is None:
        note = (
            f"no special_tokens.npz was found, so the tokens that the original turns on ({', '.join(usual)}) are left "
            "out; give the file with --special-tokens."
        )
    elif usual:
        names = (*usual, *names)
    request = requests.Request(
        prompt=prompt,
        model=config_file,
        settings=tuple(settings or ()),
        image=image_path,
        video=prefix_video_path,
        video_part="first" if mode == "v2v" else None,
        seed=config["runtime_config"]["seed"],
        fit=fit,
        special_tokens=names,
        negative_special_tokens=negative_names(negative_tokens),
        special_token_file=None if table is None else str(table),
    )
    request = enhanced(request, enhance, enhance_model, output_path if resume else None)
    make(
        request,
        output_path,
        note=note,
        preview=preview,
        contact_sheet=contact_sheet,
        resume=resume,
        allow_pickle=allow_pickle,
        device=device,
        threads=threads,
        quiet=quiet,
        as_json=as_json,
    )
