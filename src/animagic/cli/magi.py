"""The original command line of MAGI-1: its configuration files and modes, with this library's output."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from .app import app
from .making import make
from .options import Given, Run, Settings, takes_options

TOKENS = (
    "quality",
    "style",
    "first_frames",
    "duration_token",
    "borderness",
    "negative_tokens",
    "special_token_file",
)


@app.command()
@takes_options(["magi1"], only=lambda name, option: name in TOKENS)
def magi(
    tokens: Given,
    config_file: Annotated[str, typer.Option("--config_file", help="An original configuration file, as it is.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What the video should show.")],
    output_path: Annotated[str, typer.Option("--output_path", help="The video: MP4, WebM, GIF or pictures.")],
    mode: Annotated[str, typer.Option("--mode", help="t2v from text, i2v from an image, v2v from a clip.")] = "t2v",
    image_path: Annotated[str | None, typer.Option("--image_path", help="The image, for i2v.")] = None,
    prefix_video_path: Annotated[str | None, typer.Option("--prefix_video_path", help="The clip, for v2v.")] = None,
    settings: Settings = None,
    fit: Annotated[str, typer.Option(help="How image or clip are brought to size: crop, pad or stretch.")] = "stretch",
    run: Run = Run(),  # noqa: B008 - frozen
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
    table = tokens.pop("special_token_file", None) or original.find_special_tokens(config_file, config)
    # The published script turns these on, so they hold where nothing else is said.
    usual = {name: value for name, value in (("quality", "hq"), ("duration_token", True)) if name not in tokens}
    note = ""
    if usual and table is None:
        names = ", ".join("duration" if name == "duration_token" else str(value) for name, value in usual.items())
        note = (
            f"no special_tokens.npz was found, so the tokens that the original turns on ({names}) are left out; give "
            "the file with --special-tokens."
        )
        usual = {}
    request = requests.build_request(
        prompt,
        config_file,
        settings=tuple(settings or ()),
        image=image_path,
        video=prefix_video_path,
        video_part="first" if mode == "v2v" else None,
        seed=config["runtime_config"]["seed"],
        fit=fit,
        special_token_file=None if table is None else str(table),
        **{**usual, **tokens},
    )
    make(request, output_path, run, note)
