"""Options that several commands share, and those of one system; what they are written as, read."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import InputError


class Grouped(TyperCommand):
    """A command whose help has a section for each `rich_help_panel`; the rest stands under Options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            name = "Arguments" if parameter.param_type_name == "argument" else "Options"
            line = parameter.get_help_record(ctx)
            if line is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or name, []).append(line)
        for name, lines in sorted(sections.items(), key=lambda section: section[0] in PANELS):
            with formatter.section(name):
                formatter.write_dl(lines)


MAGI1, ANIMATEDIFF = PANELS = ("Only MAGI-1", "Only AnimateDiff")

# Of every command that makes a video
Fit = Annotated[str, typer.Option(help="How image or clip are brought to size: crop, pad or stretch.")]
Preview = Annotated[bool, typer.Option("--preview", help="Keep a picture of what is being made beside the output.")]
ContactSheet = Annotated[str | None, typer.Option(help="Also write a PNG of evenly spaced frames.")]
Resume = Annotated[bool, typer.Option("--resume", help="Keep the run on disk, and go on from it if there is one.")]
AllowPickle = Annotated[
    bool,
    typer.Option("--allow-pickle", help="Read weights that are pickle files, such as .ckpt; no code in them runs."),
]
Device = Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the best there is.")]
Threads = Annotated[int | None, typer.Option(help="Processor threads to use.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]

# Of MAGI-1
HandOver = Annotated[
    int, typer.Option(help="Chunks over which a later prompt takes over; 0: at once.", rich_help_panel=MAGI1)
]
Live = Annotated[
    bool,
    typer.Option(
        "--live", help="Each line typed meanwhile is the prompt from the next chunk on.", rich_help_panel=MAGI1
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Such as 12GB: choose what makes the video fit into that much, and say so.", rich_help_panel=MAGI1
    ),
]


# Of AnimateDiff
def _of_animatediff(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=ANIMATEDIFF)


MotionPrompt = Annotated[str | None, _of_animatediff("How it moves, for motion modules that read words of their own.")]
MotionModule = Annotated[str | None, _of_animatediff("A motion module's file, in place of the model's.")]
MotionLora = Annotated[
    list[str] | None, _of_animatediff("NAME[:WEIGHT]: a camera move, from the model or a file; may be repeated.")
]
DreamBooth = Annotated[str | None, _of_animatediff("A personalised picture model (file or folder) to animate.")]
Embedding = Annotated[
    list[str] | None, _of_animatediff("A file of textual inversion: the prompt may use its word; may be repeated.")
]
Sampler = Annotated[str | None, _of_animatediff("ddim, euler, euler_a, dpm++_2m, lcm, ...")]
Window = Annotated[int | None, _of_animatediff("Frames that are denoised together; longer videos are made in windows.")]
Overlap = Annotated[int | None, _of_animatediff("Frames that neighbouring windows share.")]
WindowWeights = Annotated[str | None, _of_animatediff("How windows are blended where they overlap: pyramid or flat.")]
Loop = Annotated[bool, _of_animatediff("The last frame goes over into the first.", "--loop")]
FreeNoise = Annotated[bool, _of_animatediff("The noise of later windows is the first one's, shuffled.", "--free-noise")]
FreeInit = Annotated[
    int, _of_animatediff("Sample that often in all, each time from the slow part of the last: less flicker.")
]
Control = Annotated[
    list[str] | None, _of_animatediff("FILE@FRAME: a picture that frame is to look like; may be repeated.")
]
ControlNet = Annotated[str | None, _of_animatediff("The network that reads --control: a folder or file.")]
ControlScale = Annotated[float | None, _of_animatediff("How strongly --control is followed; default: 1.")]
Strength = Annotated[
    float | None,
    _of_animatediff("How far --image or --video is left behind, above 0 and at most 1 (anew); default: 0.8."),
]
ClipSkip = Annotated[int | None, _of_animatediff("Last layers of the text encoder to leave out.")]


def parse_size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" to (height, width); raises InputError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.strip().removeprefix("-").isdecimal() for part in parts):
        raise InputError(f"the size {text!r} is not understood; write it as WIDTHxHEIGHT, for example 64x64.")
    return int(parts[1]), int(parts[0])


ENDLESS = "endless"


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
            raise InputError(
                f"{value!r} is not understood; write --prompt-at CHUNK:TEXT (with AnimateDiff FRAME:TEXT), for example "
                "2:'it falls'."
            )
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


def parse_control(values: list[str]) -> dict[int, str]:
    """["FILE@FRAME", ...] to {frame: file}; raises InputError."""
    controls: dict[int, str] = {}
    for value in values:
        file, _, frame = value.rpartition("@")
        if not file or not frame.isdecimal():
            raise InputError(f"{value!r} is not understood; write --control FILE@FRAME, for example sketch.png@0.")
        if int(frame) in controls:
            raise InputError(f"frame {frame} has two pictures; give one --control for a frame.")
        controls[int(frame)] = file
    return controls
