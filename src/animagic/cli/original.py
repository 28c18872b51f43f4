"""The original command lines: their configuration files and flags, with this library's output."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import app, print_json, say, tell
from .generation import make
from .options import FolderRun, Given, PromptRun, Settings, takes_options

TOKENS = {"quality", "style", "first_frames", "duration_token", "borderness", "negative_tokens", "special_token_file"}


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
    run: PromptRun = PromptRun(),  # noqa: B008 - frozen
) -> None:
    """Make a video as the original MAGI-1 command does, from one of its configuration files."""
    from .. import requests
    from ..systems.magi1 import original

    modes = {"t2v": None, "i2v": ("--image_path", image_path), "v2v": ("--prefix_video_path", prefix_video_path)}
    if mode not in modes:
        raise InputError(f"the mode {mode!r} is unknown; choose t2v, i2v or v2v.")
    for name, flag, path in ((name, *given) for name, given in modes.items() if given is not None):
        if mode == name and path is None:
            raise InputError(f"--mode {name} needs {flag}.")
        if mode != name and path is not None:
            raise InputError(f"{flag} is for --mode {name}, not {mode}.")
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


@app.command()
@takes_options(["animatediff"], place="schema:Options")
def animatediff(
    config: Annotated[str, typer.Option("--config", help="An original inference file (.yaml), as it is.")],
    options: Given,
    run: FolderRun = FolderRun(),  # noqa: B008 - frozen
) -> None:
    """Make the videos that an original inference file of AnimateDiff asks for."""
    _make_all("animatediff", config, options, run)


@app.command()
@takes_options(["magicanimate"], place="schema:Options")
def magicanimate(
    config: Annotated[str, typer.Option("--config", help="An original configuration (.yaml), as it is.")],
    options: Given,
    run: FolderRun = FolderRun(),  # noqa: B008 - frozen
) -> None:
    """Make the videos that an original configuration of MagicAnimate asks for."""
    _make_all("magicanimate", config, options, run)


def _make_all(system: str, config: str, options: Given, run: FolderRun) -> None:
    from ..pipelines.devices import be_quiet, use_threads
    from ..requests.many import SHEET, generate_all
    from ..systems import SYSTEMS
    from .progress import reporter

    if run.resume and run.output is None:
        raise InputError("--resume needs --output, to know which run to go on with.")
    use_threads(run.threads)
    changes = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()] + list(run.settings or ())
    folder = Path(run.output or f"samples/{Path(config).stem}-{datetime.now():%Y-%m-%dT%H-%M-%S}")

    def reporting(number: int, count: int, request: Any) -> AbstractContextManager[Any]:
        return reporter(run.quiet, f"{number + 1} of {count}: {request.title}")

    be_quiet()
    videos = list(SYSTEMS[system].get("original_job:videos_of")(config, changes))
    how = {name: getattr(run, name) for name in ("format", "resume", "device", "allow_pickle")}
    made = []
    for result in generate_all(videos, folder, **how, reporting=reporting):
        made.append(result)
        if not run.quiet and not run.as_json:
            say(
                f"{result.frames} frames, {result.width}x{result.height}, in {result.seconds:.1f} s, seed {result.seed}"
            )
            tell(result.output)
    sheet = str(folder / SHEET)
    if run.as_json:
        print_json({"output": str(folder), "videos": [asdict(result) for result in made], "contact_sheet": sheet})
    elif not run.quiet:
        tell(sheet)
