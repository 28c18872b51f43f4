"""Commands that make videos, and look into them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import Json, Model, app, print_json, say
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

ENDLESS = "endless"


def parse_size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" to (height, width); raises InputError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.strip().removeprefix("-").isdecimal() for part in parts):
        raise InputError(f"the size {text!r} is not understood; write it as WIDTHxHEIGHT, for example 64x64.")
    return int(parts[1]), int(parts[0])


def parse_frames(text: str | None) -> int | None:
    """A number, or None for "endless" or nothing; raises InputError."""
    if text is None or text == ENDLESS:
        return None
    if not text.removeprefix("-").isdecimal():
        raise InputError(f"--frames takes an integer or {ENDLESS}, not {text!r}.")
    return int(text)


def parse_prompt_at(values: list[str]) -> dict[int, str]:
    """["CHUNK:TEXT", ...] to {chunk: text}; raises InputError."""
    prompts: dict[int, str] = {}
    for value in values:
        chunk, colon, text = value.partition(":")
        if not colon or not chunk.strip().isdecimal() or not text.strip():
            raise InputError(f"{value!r} is not understood; write --prompt-at CHUNK:TEXT, for example 2:'it falls'.")
        prompts[int(chunk)] = text.strip()
    return prompts


def parse_lora(values: list[str]) -> dict[str, float]:
    """["FILE", "FILE:WEIGHT", ...] to {file: weight}; raises InputError. What follows the last colon is a weight only
    if it is a number: C:\\styles\\ink.safetensors has none."""
    loras: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition(":")
        try:
            weight = float(number)
        except ValueError:
            name, weight = "", 1.0
        name = name or value
        if name in loras:
            raise InputError(f"the LoRA {name} is given twice; give it once, with its weight.")
        loras[name] = weight
    return loras


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the video should show.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="MP4, WebM or GIF file, or a folder/ for pictures.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="A picture that begins to move.")] = None,
    video: Annotated[str | None, typer.Option(help="A clip that goes on; its last frames are kept in front.")] = None,
    model: Model = "magi1-tiny",
    frames: Annotated[str | None, typer.Option(help="Frames of the video, or endless: until Ctrl-C.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt is followed.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same video; default: a new one.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second at which it is played.")] = None,
    prompt_at: Annotated[
        list[str] | None, typer.Option(help="CHUNK:TEXT: another prompt from that chunk on; may be repeated.")
    ] = None,
    hand_over: Annotated[int, typer.Option(help="Chunks over which a later prompt takes over; 0: at once.")] = 0,
    live: Annotated[
        bool, typer.Option("--live", help="Each line typed meanwhile is the prompt from the next chunk on.")
    ] = False,
    negative_prompt: Annotated[str | None, typer.Option(help="What the video should not show.")] = None,
    quality: Quality = None,
    style: Style = None,
    first_frames: FirstFrames = None,
    duration_token: DurationToken = None,
    borderness: Borderness = False,
    negative_tokens: NegativeTokens = False,
    special_tokens: SpecialTokens = None,
    enhance: Enhance = None,
    enhance_model: EnhanceModel = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="FILE[:WEIGHT]: a LoRA (file, folder or hub id); may be repeated.")
    ] = None,
    fit: Annotated[str, typer.Option(help="How image or clip are brought to size: crop, pad or stretch.")] = "crop",
    memory: Annotated[
        str | None, typer.Option(help="Such as 12GB: choose what makes the video fit into that much, and say so.")
    ] = None,
    tiling: Annotated[
        bool, typer.Option("--tiling", help="Decode in tiles: less memory, slightly different pixels.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Keep a picture of what is being made beside the output.")
    ] = False,
    contact_sheet: Annotated[str | None, typer.Option(help="Also write a PNG of evenly spaced frames.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the run on disk, and go on from it if there is one.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the best there is.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads to use.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Make a video from words, a picture or a clip."""
    from .. import requests

    if live and enhance is not None:
        raise InputError("--enhance and --live exclude each other: what is typed is read as it is; leave one out.")
    height, width = parse_size(size) if size is not None else (None, None)
    given: dict[str, Any] = {"seed": seed} if seed is not None else {}
    if resume and seed is None:
        if output is None:
            raise InputError("--resume needs --output, to know which run to go on with.")
        given = {"seed": requests.kept_seed(Path(output))}
    request = requests.Request(
        prompt=prompt,
        model=model,
        image=image,
        video=video,
        frames=parse_frames(frames),
        endless=frames == ENDLESS,
        hand_over=hand_over,
        height=height,
        width=width,
        steps=steps,
        guidance=guidance,
        fps=fps,
        negative_prompt=negative_prompt,
        prompts_at=parse_prompt_at(prompt_at or []),
        fit=fit,
        loras=parse_lora(lora or []),
        tiling=tiling,
        special_tokens=token_names(quality, style, first_frames, duration_token, borderness),
        negative_special_tokens=negative_names(negative_tokens),
        special_token_file=special_tokens,
        **given,
    )
    request = enhanced(request, enhance, enhance_model, output if resume else None)
    target = str(requests.free_name(Path(), prompt)) if output is None else output
    make(request, target, live=live, **_options(locals()))


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C has been pressed: the first one ends an endless video, a second one throws it away."""
    pressed = threading.Event()

    def first(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)
        say("animagic: ending after this step; Ctrl-C again throws the video away.")

    before = signal.signal(signal.SIGINT, first)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _from_stdin(prompt: str) -> Any:
    """A prompt that each line of stdin replaces."""
    from ..systems.magi1.live import LivePrompt

    live = LivePrompt(prompt)

    def listen() -> None:
        for line in sys.stdin:
            if line.strip():
                live.set(line)
                say(f"animagic: from the next chunk on: {line.strip()}")

    threading.Thread(target=listen, daemon=True).start()
    return live


def _options(values: dict[str, Any]) -> dict[str, Any]:
    names = ("memory", "preview", "contact_sheet", "resume", "device", "threads", "quiet", "as_json")
    return {name: values[name] for name in names}


def make(
    request: Any,
    output: str,
    *,
    note: str = "",
    live: bool = False,
    memory: str | None = None,
    preview: bool = False,
    contact_sheet: str | None = None,
    resume: bool = False,
    allow_pickle: bool = False,
    device: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
    as_json: bool = False,
) -> Any:
    from dataclasses import asdict

    from .. import requests
    from .progress import reporter

    if threads is not None:
        import torch

        if threads < 1:
            raise InputError(f"threads must be at least 1, not {threads}.")
        torch.set_num_threads(threads)
    budget = None
    if memory is not None:
        from ..doctor import parse_memory

        budget = parse_memory(memory)
    picture = Path(output.rstrip("/") + ".preview.png") if preview else None
    notes = [note, "" if picture is None else f"preview: {picture}"]
    with ExitStack() as stack:
        on_report = stack.enter_context(reporter(quiet, "\n".join(filter(None, notes))))
        result = requests.generate(
            request,
            output,
            device=device,
            contact_sheet=contact_sheet,
            preview=picture,
            resume=resume,
            allow_pickle=allow_pickle,
            on_report=on_report,
            live=_from_stdin(request.prompt) if live else None,
            stop=stack.enter_context(_until_interrupted()) if request.endless and request.frames is None else None,
            memory=budget,
            on_note=None if quiet else say,
        )
    if note and quiet:
        say(note)  # else it was said when the work began
    if as_json:
        print_json(asdict(result))
    elif not quiet:
        say(f"{result.frames} frames, {result.width}x{result.height}, in {result.seconds:.1f} s, seed {result.seed}")
        print(result.output)
        if result.contact_sheet:
            print(result.contact_sheet)
    return result


@app.command()
def reproduce(
    file: Annotated[str, typer.Argument(help="A video made by animagic.")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where; default: beside it.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read original weights that are pickle files.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Make the frames of a video again, from the request stored in it, and compare."""
    from .. import requests
    from ..media import read_metadata

    stored = read_metadata(file)
    request = requests.Request.from_metadata(stored, file)
    requests.check_inputs(request, stored)
    path = Path(file)
    again = path.with_name(f"{path.stem}-again{path.suffix}")
    target = output or (f"{again}/" if path.is_dir() else str(again))
    make(request, target, allow_pickle=allow_pickle, device=device, quiet=True)
    equal, total = requests.count_equal_frames(file, target)
    if as_json:
        print_json({"output": target, "equal_frames": equal, "frames": total})
    else:
        say(f"{equal} of {total} frames are equal to those of {file}")
        print(target)


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="A picture or video.")],
    as_json: Json = False,
) -> None:
    """Print what a file is and what it was made from."""
    from ..media import probe, read_metadata

    facts, stored = probe(file), read_metadata(file)
    if as_json:
        print_json({**facts, "metadata": stored})
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):>16}  {value}")
    if not stored:
        print("not made by animagic: no request inside")
    for section, values in stored.items():
        print(f"\n{section}")
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            if value not in (None, {}, [], ""):
                print(f"{name:>16}  {value}")


@app.command()
def plan(
    frames: Annotated[int | None, typer.Option(help="Frames of the video; default: the model's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of a chunk; default: the model's.")] = None,
    model: Model = "magi1-tiny",
    kind: Annotated[str, typer.Option(help="staircase, or whole for the whole clip at once.")] = "staircase",
    output: Annotated[str, typer.Option("--output", "-o", help="The picture, a PNG.")] = "plan.png",
    as_json: Json = False,
) -> None:
    """Draw which frames are denoised when, and count what it costs."""
    from .. import requests

    summary = requests.draw_plan(model, kind, frames, steps, output)
    if as_json:
        print_json({"output": output, **summary})
        return
    print(f"network calls          {summary['network_calls']}")
    print(f"calls to first frame   {summary['calls_to_first_frame']}")
    print(f"peak latent frames     {summary['peak_frames']}")
    print(f"latent frames made     {summary['frames']}")
    print(output)
