"""Commands that make videos, and look into them."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import AnimagicError, InputError
from ..outside import printable
from ..zoo import DEFAULT
from .app import Json, Model, app, print_json, say, tell
from .options import KEY_VARIABLE, AllowPickle, Device, Given, Grouped, PromptRun, Quiet, Run, takes_options

ANIMATE = "magicanimate-tiny"
TALK = "magicinfinite-tiny"


@app.command(cls=Grouped)
@takes_options(command="generate")
def generate(
    options: Given,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="MP4, WebM or GIF file, or a folder/ for pictures.")
    ] = None,
    model: Model = DEFAULT,
    run: PromptRun = PromptRun(),  # noqa: B008 - frozen
) -> None:
    """Make a video from text, an image or a clip."""
    if options.get("live") and run.enhance is not None:
        raise InputError("--enhance and --live exclude each other: what is typed is read as it is; leave one out.")
    _make_by("generate", options, output, model, run)


def _make_by(command: str, options: Given, output: str | None, model: str, run: Run) -> None:
    """Carry out the options of a command. Raises InputError."""
    from .. import requests

    _keep_seed(options, output, run)
    _check_command(command, model)
    request = requests.build_request(options.pop("prompt", ""), model, **options)
    make(request, str(requests.free_name(Path(), request.title)) if output is None else output, run)


def _keep_seed(options: Given, output: str | None, run: Run) -> None:
    """Give a run that goes on the seed that it began with. Raises InputError."""
    from .. import requests

    if run.resume and "seed" not in options:
        if output is None:
            raise InputError("--resume needs --output, to know which run to go on with.")
        options["seed"] = requests.kept_seed(Path(output))


def _check_command(command: str, model: str) -> None:
    """Raises InputError for a model whose videos another command makes."""
    from .. import requests

    system = requests.system_of(model)
    if system.command != command:
        raise InputError(f"{model} is a model of {system.title}; its videos are made by animagic {system.command}.")


def _enhanced(request: Any, run: Run, output: str) -> Any:
    """The request as the endpoint has rewritten it, if there is one; an unfinished run keeps the prompt that it had."""
    if not isinstance(run, PromptRun) or (run.enhance is None and run.enhance_model is None):
        return request
    if run.enhance is None:
        raise InputError("--enhance-model needs --enhance URL: the address of the endpoint.")
    if run.enhance_model is None:
        raise InputError("--enhance needs --enhance-model NAME: a language model that the endpoint has.")
    from .. import requests
    from ..enhancement import openai_compatible

    enhancer = openai_compatible(run.enhance, run.enhance_model, os.environ.get(KEY_VARIABLE))
    better = requests.enhance(request, enhancer, output if run.resume else None)
    say(f"prompt: {better.prompt}")
    for chunk, text in better.prompts_at.items():
        say(f"prompt at {chunk}: {text}")
    return better


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
    from .. import LivePrompt

    live = LivePrompt(prompt)

    def listen() -> None:
        for line in _lines():
            try:
                live.set(line)
                say(f"animagic: from the next chunk on: {line}")
            except AnimagicError as error:
                say(f"animagic: {error}")

    threading.Thread(target=listen, daemon=True).start()
    return live


def _lines() -> Iterator[str]:
    """What is typed, line by line, as far as it is text; nothing where stdin is closed."""
    with suppress(OSError, ValueError):
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        yield from filter(None, (line.strip() for line in sys.stdin or ()))


def make(request: Any, output: str, run: Run, note: str = "") -> None:
    """Carry out a request as every command does; note: told when the work begins."""
    from dataclasses import asdict

    from .. import requests
    from ..doctor import parse_memory
    from ..parallel.processes import joined
    from ..pipelines.devices import use_threads
    from .progress import reporter

    request = _enhanced(request, run, output)
    use_threads(run.threads)
    live, memory = getattr(request, "live", False), getattr(request, "memory", None)
    picture = Path(output.rstrip("/") + ".preview.png") if run.preview else None
    notes = [note, "" if picture is None else f"preview: {picture}"]
    with ExitStack() as stack:
        group = stack.enter_context(joined())
        if group.size > 1 and run.resume:
            raise InputError("--resume is for one process; leave it out, or start the command without torchrun.")
        request = group.agree(request)
        if not group.is_main:
            requests.assist(request, group, device=run.device, allow_pickle=run.allow_pickle)
            return
        on_report = stack.enter_context(reporter(run.quiet, "\n".join(filter(None, notes))))
        result = requests.generate(
            request,
            output,
            device=run.device,
            contact_sheet=run.contact_sheet,
            preview=picture,
            resume=run.resume,
            allow_pickle=run.allow_pickle,
            on_report=on_report,
            live=_from_stdin(request.prompt) if live else None,
            stop=stack.enter_context(_until_interrupted()) if request.endless and request.frames is None else None,
            memory=None if memory is None else parse_memory(memory),
            on_note=None if run.quiet else say,
            group=group,
        )
    if note and run.quiet:
        say(note)  # else it was said when the work began
    if run.as_json:
        print_json(asdict(result))
    elif not run.quiet:
        say(f"{result.frames} frames, {result.width}x{result.height}, in {result.seconds:.1f} s, seed {result.seed}")
        tell(result.output)
        if result.contact_sheet:
            tell(result.contact_sheet)


@app.command(cls=Grouped)
@takes_options(command="animate")
def animate(
    options: Given,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="MP4, WebM or GIF file, or a folder/ for pictures.")
    ] = None,
    model: Model = ANIMATE,
    run: Run = Run(),  # noqa: B008 - frozen
) -> None:
    """Move a person in a picture as somebody moves in a video."""
    _make_by("animate", options, output, model, run)


@app.command(cls=Grouped)
@takes_options(command="talk")
def talk(
    options: Given,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="MP4, WebM or GIF file, or a folder/ for pictures.")
    ] = None,
    model: Model = TALK,
    run: Run = Run(),  # noqa: B008 - frozen
) -> None:
    """Let a portrait speak, or somebody in a video speak otherwise."""
    _make_by("talk", options, output, model, run)


@app.command()
def reproduce(
    file: Annotated[str, typer.Argument(help="A video made by animagic.")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where; default: beside it.")] = None,
    device: Device = None,
    allow_pickle: AllowPickle = False,
    allow_download: Annotated[
        bool, typer.Option("--allow-download", help="Fetch models that the video names from the hub.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make the frames of a video again, from the request stored in it, and compare."""
    from .. import requests
    from ..media import read_metadata
    from ..media.keeping import check_apart

    path = Path(file)
    again = path.parent / f"{path.stem}-again{path.suffix}"
    target = output or (f"{again}/" if path.is_dir() else str(again))
    check_apart({"video": file}, {"output": target})
    stored = read_metadata(file)
    with nullcontext() if allow_download else _offline(file):
        request = requests.from_metadata(stored, file)
        requests.check_inputs(request, stored)
        make(request, target, Run(allow_pickle=allow_pickle, device=device, quiet=True))
    equal, total = requests.count_equal_frames(file, target)
    if as_json:
        print_json({"output": target, "equal_frames": equal, "frames": total})
    else:
        say(f"{equal} of {total} frames are equal to those of {file}")
        tell(target)


@contextmanager
def _offline(file: str) -> Iterator[None]:
    """Whoever sent the file must not choose what is fetched. Raises InputError for what would have to be."""
    from ..weights.places import is_offline, offline

    try:
        with offline():
            yield
    except AnimagicError as error:
        if not is_offline(error):
            raise
        raise InputError(
            f"{file} names what is not on this machine ({str(error).rstrip('.')}); fetch it with --allow-download, "
            "if you trust where the file comes from."
        ) from error


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
        tell(f"{name.replace('_', ' '):>16}  {value}")
    if not stored:
        tell("not made by animagic: no request inside")
    for section, values in stored.items():
        tell("\n" + printable(section, lines=True))
        for name, value in values.items() if isinstance(values, dict) else [("", values)]:
            if value not in (None, False, {}, [], ""):
                tell(printable(f"{name:>16}  {value}", lines=True))


@app.command(cls=Grouped)
@takes_options(only=lambda name, option: option.plan and name != "strength", command="generate")
def plan(
    options: Given,
    model: Model = DEFAULT,
    kind: Annotated[
        str | None, typer.Option(help="The model's own if nothing is said; whole: all frames at once, to compare with.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The picture, a PNG.")] = "plan.png",
    as_json: Json = False,
) -> None:
    """Draw which frames are denoised when, and count what it costs."""
    from .. import requests

    request = requests.build_request("any", model, **options)
    summary = requests.draw_plan(request, kind, output)
    if as_json:
        print_json({"output": output, **summary})
        return
    tell(f"network calls          {summary['network_calls']}")
    tell(f"calls to first frame   {summary['calls_to_first_frame']}")
    tell(f"peak latent frames     {summary['peak_frames']}")
    tell(f"latent frames made     {summary['frames']}")
    tell(output)
