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
from .options import (
    ENDLESS,
    AllowPickle,
    ClipSkip,
    ContactSheet,
    Control,
    ControlNet,
    ControlScale,
    Device,
    DreamBooth,
    Embedding,
    Fit,
    FreeInit,
    FreeNoise,
    Grouped,
    HandOver,
    Live,
    Loop,
    Memory,
    MotionLora,
    MotionModule,
    MotionPrompt,
    Overlap,
    Preview,
    Quiet,
    Resume,
    Sampler,
    Strength,
    Threads,
    Window,
    WindowWeights,
    parse_control,
    parse_frames,
    parse_lora,
    parse_prompt_at,
    parse_size,
)
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


@app.command(cls=Grouped)
def generate(
    prompt: Annotated[str, typer.Argument(help="What the video should show.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="MP4, WebM or GIF file, or a folder/ for pictures.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="A picture that begins to move.")] = None,
    video: Annotated[
        str | None, typer.Option(help="A clip: MAGI-1 goes on from its last frames, AnimateDiff makes it anew.")
    ] = None,
    model: Model = "magi1-tiny",
    frames: Annotated[str | None, typer.Option(help="Frames of the video, or endless (MAGI-1): until Ctrl-C.")] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How strongly the prompt is followed.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same video; default: a new one.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second at which it is played.")] = None,
    prompt_at: Annotated[
        list[str] | None,
        typer.Option(help="N:TEXT: another prompt at chunk N (MAGI-1) or frame N (AnimateDiff); may be repeated."),
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What the video should not show.")] = None,
    enhance: Enhance = None,
    enhance_model: EnhanceModel = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME[:WEIGHT]: a LoRA, one that came with the model, a file, folder or hub id; may be repeated."
        ),
    ] = None,
    fit: Fit = "crop",
    tiling: Annotated[
        bool, typer.Option("--tiling", help="Decode in tiles: less memory, slightly different pixels.")
    ] = False,
    preview: Preview = False,
    contact_sheet: ContactSheet = None,
    resume: Resume = False,
    allow_pickle: AllowPickle = False,
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
    hand_over: HandOver = 0,
    live: Live = False,
    quality: Quality = None,
    style: Style = None,
    first_frames: FirstFrames = None,
    duration_token: DurationToken = None,
    borderness: Borderness = False,
    negative_tokens: NegativeTokens = False,
    special_tokens: SpecialTokens = None,
    memory: Memory = None,
    motion_prompt: MotionPrompt = None,
    motion_module: MotionModule = None,
    motion_lora: MotionLora = None,
    dreambooth: DreamBooth = None,
    embedding: Embedding = None,
    sampler: Sampler = None,
    window: Window = None,
    overlap: Overlap = None,
    window_weights: WindowWeights = None,
    loop: Loop = False,
    free_noise: FreeNoise = False,
    free_init: FreeInit = 0,
    control: Control = None,
    controlnet: ControlNet = None,
    control_scale: ControlScale = None,
    strength: Strength = None,
    clip_skip: ClipSkip = None,
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
        hand_over=hand_over,
        special_tokens=token_names(quality, style, first_frames, duration_token, borderness),
        negative_special_tokens=negative_names(negative_tokens),
        special_token_file=special_tokens,
        motion_prompt=motion_prompt,
        motion_module=motion_module,
        motion_loras=parse_lora(motion_lora or []),
        dreambooth=dreambooth,
        embeddings=tuple(embedding or ()),
        sampler=sampler,
        window=window,
        overlap=overlap,
        window_weights=window_weights,
        loop=loop,
        free_noise=free_noise,
        free_init=free_init,
        controls=parse_control(control or []),
        controlnet=controlnet,
        control_scale=control_scale,
        strength=strength,
        clip_skip=clip_skip,
        **given,
    )
    request = enhanced(request, enhance, enhance_model, output if resume else None)
    target = str(requests.free_name(Path(), prompt)) if output is None else output
    make(
        request,
        target,
        live=live,
        memory=memory,
        preview=preview,
        contact_sheet=contact_sheet,
        resume=resume,
        allow_pickle=allow_pickle,
        device=device,
        threads=threads,
        quiet=quiet,
        as_json=as_json,
    )


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


def use_threads(count: int | None) -> None:
    """Raises InputError. None: as many as PyTorch takes by itself."""
    if count is None:
        return
    import torch

    if count < 1:
        raise InputError(f"threads must be at least 1, not {count}.")
    torch.set_num_threads(count)


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

    use_threads(threads)
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
    device: Device = None,
    allow_pickle: AllowPickle = False,
    quiet: Quiet = False,
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


@app.command(cls=Grouped)
def plan(
    frames: Annotated[int | None, typer.Option(help="Frames of the video; default: the model's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of a chunk; default: the model's.")] = None,
    model: Model = "magi1-tiny",
    kind: Annotated[
        str | None, typer.Option(help="The model's own if nothing is said; whole: all frames at once, to compare with.")
    ] = None,
    window: Window = None,
    overlap: Overlap = None,
    window_weights: WindowWeights = None,
    loop: Loop = False,
    output: Annotated[str, typer.Option("--output", "-o", help="The picture, a PNG.")] = "plan.png",
    as_json: Json = False,
) -> None:
    """Draw which frames are denoised when, and count what it costs."""
    from .. import requests

    windows = {"window": window, "overlap": overlap, "window_weights": window_weights, "loop": loop}
    summary = requests.draw_plan(model, kind, frames, steps, output, **windows)
    if as_json:
        print_json({"output": output, **summary})
        return
    print(f"network calls          {summary['network_calls']}")
    print(f"calls to first frame   {summary['calls_to_first_frame']}")
    print(f"peak latent frames     {summary['peak_frames']}")
    print(f"latent frames made     {summary['frames']}")
    print(output)
