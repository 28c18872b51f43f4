"""The command that finds the poses of people in a video."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ..errors import InputError
from .app import app, say, tell
from .options import Quiet
from .progress import bar


@app.command()
def pose(
    source: Annotated[str, typer.Argument(help="A video or a photo of people; or a pose JSON, to draw it.")],
    output: Annotated[str, typer.Option("--output", "-o", help="MP4, WebM, GIF, a folder/ for pictures, or JSON.")],
    parts: Annotated[bool, typer.Option("--parts", help="Draw body parts as DensePose does; the default.")] = False,
    skeleton: Annotated[bool, typer.Option("--skeleton", help="Draw a skeleton as OpenPose does.")] = False,
    people: Annotated[int | None, typer.Option(help="The most people that it may show; default: up to 10.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="A photo: the poses get the build, place and framing of its person.")
    ] = None,
    json: Annotated[str | None, typer.Option(help="A file: keep the poses as JSON, too.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Write the video beside what was found in it.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find the poses of people in a video, and draw them or keep them as JSON."""
    if parts and skeleton:
        raise InputError("--parts and --skeleton exclude each other; leave one out.")
    from ..requests.poses import make_poses

    look: Literal["parts", "skeleton"] | None = "skeleton" if skeleton else "parts" if parts else None
    with bar(quiet) as progress:
        made = make_poses(source, output, look, people, reference, json, show, None if quiet else progress)
    if not quiet:
        say(
            f"{made.frames} frame{'s' * (made.frames != 1)}, {made.people} {'person' if made.people == 1 else 'people'}"
        )
        for start, end in made.empty:
            say(f"nobody is seen from {start:.1f} to {end:.1f} s: nothing is drawn there")
    tell(made.output)
    if made.json:
        tell(made.json)
