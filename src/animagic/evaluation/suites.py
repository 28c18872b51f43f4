"""Suites: which held-out cases a model is asked to make, in which ways, and how each video is judged. A new suite is a
new entry of SUITES."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..media import resize
from ..synthetic import Scene, caption, facts, motion_caption, picture_caption, render, sample_scene
from ..synthetic.cameras import CAMERA_MOVES
from ..synthetic.captions import VIEW_WORDS
from ..synthetic.styles import STYLES as DRAWN_STYLES
from ..synthetic.styles import apply_style
from . import animation, talking
from .cameras import camera_move
from .metrics import angle, psnr, seams
from .published import TALKING
from .scenes import direction, judge
from .styles import TO_PLAIN, flicker, kind_of, style_of

SIDE = 64
"""Pixels of the pictures that the judges look at, whatever size a model makes."""
Split = str
"""Part of a suite whose cases are also told of alone: "train" and "test", or what the suite calls them."""
Files = Mapping[str, Any]
"""Name -> file of a LoRA."""
Judgement = dict[str, dict[str, Any]]
"""The part of a row (`metrics.Row`) that a judge gives: `asked`, `seen` and `right`."""

STRAIGHT = ("slides left", "slides right", "rolls left", "rolls right", "rises", "falls")
FOLLOWED = 0.35  # of the frames in a row, in which the thing is wholly in view and does not jump
VISIBLE = {"plain": ("motion", "colour", "shape", "background"), "watercolour": ("motion", "colour", "shape"),
           "blueprint": ("motion",)}  # fmt: skip
"""Style -> facts that can be seen in it."""
_BACKGROUND_WORDS = VIEW_WORDS | {
    "plain": ("background", "wall", "backdrop"),
    "floor": ("floor", "ground"),
    "photo": ("photo", "picture"),
}


@dataclass(frozen=True)
class Case:
    """A held-out scene and the prompts for it. split: "train" or "test", whether training shows such combinations."""

    seed: int
    split: Split
    scene: Scene
    prompt: str
    motion_prompt: str

    @property
    def names_background(self) -> bool:
        """Whether the prompt speaks of the background; some captions do not, and then any will do."""
        return any(word in self.prompt for word in _BACKGROUND_WORDS[self.scene.background.kind])


def make_cases(
    count: int,
    seed: int,
    splits: Sequence[Split] = ("test",),
    fits: Callable[[Scene], bool] = lambda scene: True,
    apart: bool = False,
) -> list[Case]:
    """Scenes of one thing before a camera that stands still; case i is drawn by seed + i, whatever the count.

    apart: the prompt says what is seen and the motion prompt how it moves; else both are the whole caption.
    """
    cases = []
    for number in range(seed, seed + count):
        rng, split = np.random.default_rng(number), splits[number % len(splits)]
        while True:
            scene = sample_scene(rng, "train" if split == "train" else "test")
            if len(scene.things) == 1 and scene.camera == "still" and fits(scene):
                break
        whole = caption(scene, rng)
        prompts = (picture_caption(scene, rng), motion_caption(scene, rng)) if apart else (whole, whole)
        cases.append(Case(number, split, scene, *prompts))
    return cases


@dataclass(frozen=True)
class Variant:
    """One way in which a model makes the cases of a suite; the report has a row for each.

    style: in which the judge sees the videos. lora, motion_lora: files that are active. settings: of the call.
    drawn: not made but drawn, and sent through the autoencoder: no model can be better. exact: nor even that.
    still_windows: windows lie the same way at every step. of: the variant that it is compared with, on a fifth of the
    cases.
    """

    name: str
    style: str = "plain"
    lora: Any = None
    motion_lora: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    drawn: bool = False
    exact: bool = False
    still_windows: bool = False
    of: str | None = None


@dataclass(frozen=True)
class Take:
    """A video of a case, uint8 (F, height, width, 3), and what it was made from.

    clip: pixels that it began from: a picture, a clip or, for the autoencoder alone, all frames; None: only a prompt.
    windows: the frames of every window of every step of its plan.
    """

    case: Any
    variant: Variant
    video: np.ndarray
    clip: Any
    fps: float
    windows: Sequence[Sequence[Sequence[int]]]

    @property
    def small(self) -> np.ndarray:
        """The video as the judges look at it, (F, SIDE, SIDE, 3)."""
        return resize(self.video, SIDE, SIDE, "stretch")


def drawn_scene(case: Case, variant: Variant, frames: int, drawing: Mapping[str, Any]) -> np.ndarray | None:
    """The first frames of a scene, in the variant's style; None without frames."""
    clip = render(case.scene, frames, **drawing) if frames else None
    if clip is not None and variant.drawn and variant.style in DRAWN_STYLES:
        clip = apply_style(variant.style, clip, case.seed)
    return clip


@dataclass(frozen=True)
class Suite:
    """Held-out cases for a model, and how its videos are judged.

    needs: arguments that the pipeline must take. animates, talks: for pipelines that move a photo as a video says, or
    let it speak with a voice, and no others. targets: what a good model reaches; published: what others did, both in
    words. given: drawn frames that the model begins from. seconds: of the video; frames and fps: in place of what the
    model's own rate makes of them. variants: from (the style LoRAs, the motion LoRAs, whether frames can be made one by
    one). version: of the cases, where others are to make the same.
    cases: from (count, seed of the first, splits, fits, whether the motion prompt stands apart); each has a `seed`,
    `split`, `prompt` and `motion_prompt`. draw: a case's clip, from (the case, variant, frames, size and fps). make:
    how a pipeline is asked; None: by `running.make_videos`. shows: what a sheet shows of a video, in so many `lines`;
    None: five frames.
    """

    name: str
    summary: str
    judge: Callable[[Take], Judgement]
    metrics: Mapping[str, Callable[[Take], float]] = field(default_factory=dict)
    variants: Callable[[Files, Files, bool], list[Variant]] = lambda loras, motion_loras, by_frame: [Variant("model")]
    splits: tuple[Split, ...] = ("test",)
    fits: Callable[[Scene], bool] = lambda scene: True
    needs: tuple[str, ...] = ()
    given: int = 0
    seconds: float = 2
    count: int = 200
    seed: int = 100_000
    batch: int = 20
    animates: bool = False
    talks: bool = False
    targets: str = ""
    version: int | None = None
    frames: int | None = None
    fps: float | None = None
    cases: Callable[..., Sequence[Any]] = make_cases
    draw: Callable[[Any, Variant, int, Mapping[str, Any]], Any] = drawn_scene
    make: Callable[..., list[np.ndarray]] | None = None
    shows: Callable[[Take], np.ndarray] | None = None
    lines: int = 1
    published: str = ""

    def lacking(self, pipe: Any) -> str:
        """What the suite needs and a pipeline does not take, in words; empty where it fits."""
        moves, speaks = takes(pipe, "pose_frames"), takes(pipe, "voices")
        if self.animates and not moves:
            return "a photo and a video that moves it"
        if self.talks and not speaks:
            return "a portrait and a voice"
        if (moves, speaks) != (self.animates, self.talks):
            return "prompts"
        return ", ".join(argument for argument in self.needs if not takes(pipe, argument))


def takes(pipe: Any, argument: str) -> bool:
    """Whether an argument is one that a pipeline's own part of a call knows."""
    return argument in inspect.signature(pipe.prepare).parameters


def _compared(asked: dict[str, str], seen: dict[str, str]) -> Judgement:
    return {"asked": asked, "seen": seen, "right": {name: asked[name] == seen[name] for name in seen}}


def judge_prompt(take: Take) -> Judgement:
    """Whether colour, shape, motion and background are those of the prompt."""
    truth, verdict = facts(take.case.scene), judge(take.small, take.fps)
    names = ("colour", "shape", "motion", "background")
    judgement = _compared({name: truth[name] for name in names}, {name: getattr(verdict, name) for name in names})
    if take.clip is None and not take.case.names_background:
        del judgement["right"]["background"]
    return judgement


def judge_style(take: Take) -> Judgement:
    """Which frames are in the style, and whether what can be seen in it is that of the prompt."""
    style = take.variant.style
    truth, verdict = facts(take.case.scene), judge(TO_PLAIN[style](take.small), take.fps)
    # What appears here and there does not move, whatever path lies nearest.
    motion = kind_of(verdict.motion) if verdict.share >= FOLLOWED else "cannot be followed"
    seen = {name: getattr(verdict, name) for name in VISIBLE[style]} | {"motion": motion}
    judgement = _compared({name: truth[name] for name in seen} | {"motion": kind_of(truth["motion"])}, seen)
    judgement["right"]["style"] = [one == style for one in style_of(take.small)]
    return judgement


def judge_camera(take: Take) -> Judgement:
    """Whether the camera moves as its LoRA is named, or stands still without one."""
    return _compared({"camera": take.variant.name}, {"camera": camera_move(take.small)})


def in_styles(loras: Files, motion_loras: Files, by_frame: bool) -> list[Variant]:
    """The base and every style LoRA that can be judged: as they are, frame by frame, and as good as it can get."""
    variants = []
    for name, style in (("base", "plain"), *((name, name) for name in loras if name in TO_PLAIN)):
        lora = loras.get(name)
        variants.append(Variant(name, style, lora))
        if by_frame:
            variants.append(Variant(f"{name}, frame by frame", style, lora, settings={"use_motion": False}, of=name))
        variants.append(Variant(f"{name}, drawn", style, drawn=True, of=name))
    return variants


def with_cameras(loras: Files, motion_loras: Files, by_frame: bool) -> list[Variant]:
    """Without a motion LoRA, and with each that is named after a camera move. Raises InputError if there is none."""
    moves = [Variant(name, motion_lora=file) for name, file in motion_loras.items() if name in CAMERA_MOVES]
    if not moves:
        raise InputError(f"this model has no motion LoRA to judge; known camera moves are {', '.join(CAMERA_MOVES)}.")
    return [Variant("still"), *moves]


def animated(loras: Files, motion_loras: Files, by_frame: bool) -> list[Variant]:
    """What drives is exact, or drawn from landmarks as for a real video; and what no model can be better than."""
    return [
        Variant("model"),
        Variant("from landmarks", of="model"),
        Variant("autoencoder", drawn=True, of="model"),
        Variant("truth", drawn=True, exact=True, of="model"),
    ]


def with_truth(*_: Any) -> list[Variant]:
    """The model, what the autoencoder leaves of the truth, and the truth: no model can be better than these."""
    bounds = [Variant("autoencoder", drawn=True, of="model"), Variant("truth", drawn=True, exact=True, of="model")]
    return [Variant("model"), *bounds]


def stands_before_something(scene: Scene) -> bool:
    """Whether a moving camera can be told: by the background, not by a thing that moves itself."""
    return scene.things[0].motion.name == "stays still" and scene.background.kind != "plain"


_BOTH: tuple[Split, ...] = ("train", "test")
_LATER: dict[str, Any] = {"seed": 200_000, "batch": 10}
_TALKING: dict[str, Any] = {
    "judge": talking.judge_talk,
    "talks": True,
    "targets": talking.TARGETS,
    "version": talking.VERSION,
    "frames": talking.FRAMES,
    "batch": 2,
    "cases": talking.talk_cases,
    "draw": talking.drawn_talk,
    "make": talking.talk,
    "shows": talking.shown_talk,
    "lines": 2,
}
_SUITES = (
    Suite("text", "are colour, shape, motion and background those of the prompt?", judge_prompt, splits=_BOTH),
    Suite(
        "image",
        "is a given picture kept, and what the prompt says of it?",
        judge_prompt,
        {"psnr": lambda take: psnr(take.clip[0], take.video[0])},
        splits=_BOTH,
        needs=("prefix_latents",),
        given=1,
    ),
    Suite(
        "video",
        "does the motion of a given clip go on?",
        judge_prompt,
        {"degrees": lambda take: angle(direction(resize(take.clip, SIDE, SIDE)), direction(take.small))},
        splits=_BOTH,
        fits=lambda scene: scene.things[0].motion.name in STRAIGHT,
        needs=("prefix_latents",),
        given=32,
        seconds=1,
    ),
    Suite(
        "reconstruct",
        "what does the autoencoder alone lose? It bounds all other suites.",
        judge_prompt,
        {"psnr": lambda take: psnr(take.clip, take.video)},
        lambda loras, motion_loras, by_frame: [Variant("autoencoder", drawn=True)],
        splits=_BOTH,
    ),
    Suite(
        "styles",
        "is each style LoRA's style kept, does it move as prompted, how much flickers?",
        judge_style,
        {"flicker": lambda take: flicker(take.small, take.variant.style)},
        in_styles,
        count=60,
        **_LATER,
    ),
    Suite(
        "windows",
        "does a long video change more at its windows' borders than inside them?",
        lambda take: _compared({}, {}),
        {
            "change at borders": lambda take: seams(take.video, take.windows)[0],
            "in the worst step": lambda take: seams(take.video, take.windows)[1],
        },
        lambda *_: [Variant("moving windows"), Variant("still windows", still_windows=True)],
        needs=("context_frames",),
        seconds=20,
        count=2,
        **_LATER | {"batch": 1},
    ),
    Suite(
        "camera",
        "does the camera move as each motion LoRA says?",
        judge_camera,
        variants=with_cameras,
        fits=stands_before_something,
        count=6,
        **_LATER,
    ),
    Suite(
        "people",
        "does the person of a photo move as a video says, and stay who they are?",
        animation.judge_people,
        variants=animated,
        animates=True,
        version=animation.VERSION,
        frames=animation.FRAMES,
        fps=animation.FPS,
        count=animation.COUNT,
        seed=animation.SEED,
        batch=4,
        cases=animation.people_cases,
        draw=animation.drawn_people,
        make=animation.animate,
        shows=animation.shown_people,
        lines=3,
    ),
    Suite(
        "talk",
        "does a portrait speak in time with a voice, look as asked and stay who it is?",
        variants=with_truth,
        splits=("one person",) * 3 + (talking.PAIR,),
        seed=talking.SEED,
        count=talking.COUNT,
        **_TALKING,
    ),
    Suite(
        "talk-long",
        "is a portrait that speaks for a minute still the same person, without seams?",
        variants=lambda *_: [variant for variant in with_truth() if variant.name != "autoencoder"],
        splits=("one person",),
        seed=talking.SEED + 10_000,
        count=2,
        **_TALKING | {"frames": talking.LASTING, "batch": 1},
    ),
    Suite(
        "talk-benchmark",
        f"the same, by kinds of portraits: {', '.join(talking.KINDS)}",
        variants=with_truth,
        splits=talking.KINDS,
        seed=talking.SEED + 20_000,
        count=20 * len(talking.KINDS),
        published=TALKING,
        **_TALKING,
    ),
)
SUITES = {suite.name: suite for suite in _SUITES}


def find_suite(name: str) -> Suite:
    """Raises InputError."""
    if name not in SUITES:
        raise InputError(f"there is no suite {name!r}; choose from {', '.join(SUITES)}.")
    return SUITES[name]
