"""The suites of talking people: held-out faces and held-out sentences, drawn and read from seeds alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from ..faces import Face, Faces, follow_faces, smoothed
from ..media.outputs import to_bytes
from ..speech import Phone, mouth_shapes
from ..speech.frames import GROUP
from ..synthetic import Scene, render
from ..synthetic import portraits as studio
from ..synthetic.portraits.identity import STYLISED_SKINS
from ..training.voices import VoiceBank
from .expressions import expression_of
from .metrics import psnr, seams
from .shots import in_a_row
from .speaking import (
    QUIET,
    RATE,
    Heard,
    SyncScore,
    Talk,
    above_shut,
    by_phones,
    colour_distance,
    drift,
    identity_distances,
    jerk,
    only,
    opening_by_colour,
    viewed,
    widest,
)

if TYPE_CHECKING:
    from .suites import Take, Variant

VERSION = 1
"""Of the cases that the seeds stand for. What changes how they are drawn or read changes this number."""
SEED, COUNT, FRAMES, FPS = 500_000, 40, 125, 25.0
LASTING = 1501  # frames: a minute
MOTIONS = ("still", "nodding", "shaking the head", "swaying", "leaning")
SHUT = np.array([[0, 0.5, 0]], np.float32)
PAIR = "two people"
KINDS = ("drawn", "realistic", "stylised", "half figure", "turned away", PAIR)
"""Of portraits, as the splits of the benchmark: flat drawings, heads in three dimensions, drawings with outlines and
large eyes or of no human colour, people farther away, photos that look aside, and two people of whom one speaks."""
TARGETS = (
    "sync 0.7 or more with an offset of a frame or less, expression 80 %, the other one shut 85 %, drift 1.2 or less, "
    "seams 1.2 or less"
)
SMALLER = 0.36  # of the shorter side, from hairline to chin: the half figures of the benchmark
TURNED = (22.0, 38.0)  # degrees, to either side: the photos of the benchmark that look aside
MARGIN = 0.06  # of the frame, around a person, that does not count as background
MANY = 100  # recordings, more than a case needs
LONG = 10.0  # seconds from which on drift is told
CHANGED = 8  # 0 to 255: what differs more from the background is a person


@dataclass(frozen=True)
class TalkCase:
    """Held-out people in a photo, of whom one says a held-out sentence.

    split: which part of the suite it belongs to. speaker: which of the people speaks. yaw: degrees by which the photo
    looks to the right.
    """

    seed: int
    split: str
    people: tuple[studio.Portrait, ...]
    speaker: int
    expression: str
    motion: str
    yaw: float = 0.0

    @property
    def prompt(self) -> str:
        rng, acts = np.random.default_rng(self.seed), _performances(self, 2)
        if len(self.people) == 2:
            return studio.scene_caption((self.people[0], self.people[1]), (acts[0], acts[1]), rng)
        return studio.caption(self.people[0], acts[0], rng)

    @property
    def motion_prompt(self) -> str:
        return self.prompt


@dataclass(frozen=True, eq=False)
class Talking:
    """A case that is drawn.

    photo: uint8 (H, W, 3), everybody without expression and with the mouth shut; masks: their faces in it, float32
    (people, H, W), 0 to 1; truth: what a model might make, uint8 (F, H, W, 3); shown: where neither shows only the
    background, bool (H, W); voices: what each says, the silent one silence, float32 (n,), 16 kHz.
    """

    photo: np.ndarray
    masks: np.ndarray
    truth: np.ndarray
    shown: np.ndarray
    heard: Heard
    voices: list[np.ndarray]

    def place(self, person: int) -> tuple[float, float]:
        """Where a face is in the photo: x and y, in shares of it."""
        y, x = ndimage.center_of_mass(self.masks[person])
        return x / self.photo.shape[1], y / self.photo.shape[0]


def talk_cases(
    count: int, seed: int, splits: Sequence[str] = ("one person",), fits: Callable[..., bool] | None = None,
    apart: bool = False,
) -> list[TalkCase]:  # fmt: skip
    """Case i is drawn by seed + i, whatever the count; the splits take turns."""
    cases = []
    for number in range(seed, seed + count):
        rng, split = np.random.default_rng(number), splits[number % len(splits)]
        people = tuple(_portrait(rng, split) for _ in range(2 if split == PAIR else 1))
        expression = studio.EXPRESSIONS[number % len(studio.EXPRESSIONS)]
        yaw = float(rng.choice((-1, 1)) * rng.uniform(*TURNED)) if split == "turned away" else 0.0
        motion = str(rng.choice(MOTIONS))
        cases.append(TalkCase(number, split, people, int(rng.integers(len(people))), expression, motion, yaw))
    return cases


def _portrait(rng: np.random.Generator, split: str) -> studio.Portrait:
    kind = "head" if split == "realistic" else "drawn"
    while True:
        portrait = studio.sample_portrait(rng, held_out=True, kind=kind)  # type: ignore[arg-type]
        if split == "stylised" and not (portrait.outlined or portrait.skin in STYLISED_SKINS):
            continue
        return replace(portrait, size=SMALLER, y=0.4) if split == "half figure" else portrait


@lru_cache(maxsize=64)
def _heard(seed: int, seconds: float) -> Heard:
    """Held-out sentences in held-out voices, for so long or longer. Raises InputError where nothing can read them."""
    bank, samples, phones = VoiceBank(None, MANY, held_out=True, seed=seed), np.zeros(0, np.float32), list[Phone]()
    for number in range(MANY):
        if (recording := bank[number]).phones:
            start = len(samples) / RATE
            phones += [Phone(one.name, one.start + start, one.end + start) for one in recording.phones]
            samples = np.concatenate([samples, recording.samples])
        if len(samples) >= seconds * RATE:
            break
    return Heard(samples, phones)


def _performances(case: TalkCase, frames: int, fps: float = FPS, heard: Heard | None = None) -> list[Any]:
    """What everybody does. heard: None: they only move; that is enough for words."""
    rng, acts = np.random.default_rng((case.seed, 1)), []
    for person in range(len(case.people)):
        speaks, mouth = person == case.speaker, np.repeat(SHUT, frames, axis=0)
        if speaks:
            mouth = mouth + 1 if heard is None else mouth_shapes(heard.phones or (), fps, frames)
        expression, motion = (case.expression, case.motion) if speaks else ("neutral", "still")
        acts.append(studio.sample_performance(rng, mouth, fps, True, expression, motion))
    return acts


def _stills(case: TalkCase) -> list[Any]:
    """Everybody in the photo: the mouth shut, no expression."""
    rng = np.random.default_rng((case.seed, 2))
    stills = [studio.sample_still(rng) for _ in case.people]
    aside = np.array([[case.yaw, 0, 0]], np.float32)
    return [replace(one, mouth=SHUT, expression="neutral", angles=one.angles + aside) for one in stills]


@lru_cache(maxsize=16)
def talking_of(case: TalkCase, frames: int, height: int, width: int, fps: float = FPS) -> Talking:
    """The case in this size. Raises InputError where no synthesiser is installed."""
    heard = _heard(case.seed, frames / fps)
    clip = studio.render_scene(case.people, _performances(case, frames, fps, heard), height, width)
    photo = studio.render_scene(case.people, _stills(case), height, width)
    background = render(Scene(case.people[0].background, ()), 1, height, width)[0].astype(np.int16)
    everything = np.concatenate([photo.frames, clip.frames]).astype(np.int16)
    shown = (np.abs(everything - background).max(-1) > CHANGED).any(0)
    voices = [heard.samples if one == case.speaker else np.zeros_like(heard.samples) for one in range(len(case.people))]
    return Talking(photo.frames[0], photo.face[0].astype(np.float32) / 255, clip.frames, shown, heard, voices)


def drawn_talk(case: TalkCase, variant: Variant, frames: int, drawing: Mapping[str, Any]) -> np.ndarray | None:
    """The true video of a case; None without frames."""
    return talking_of(case, frames, **drawing).truth if frames else None


def talk(
    pipe: Any, variant: Variant, cases: Sequence[TalkCase], clips: Any, frames: int, settings: Mapping[str, Any]
) -> list[np.ndarray]:
    """A video a case, uint8 (F, height, width, 3), from noise that only depends on its seed."""
    size, videos = (pipe.sampling.height, pipe.sampling.width), []
    for case in cases:
        drawn = talking_of(case, frames, *size, pipe.sampling.fps)
        output = pipe(
            case.prompt,
            image=Image.fromarray(drawn.photo),
            voices=drawn.voices,
            masks=list(drawn.masks),
            num_frames=frames,
            height=size[0],
            width=size[1],
            generator=torch.Generator().manual_seed(case.seed),
            output_type="np",
            **{**variant.settings, **settings},
        )
        videos.append(to_bytes(output.frames[0]))
    return videos


def outside(portrait: studio.Portrait) -> list[tuple[int, int, int]]:
    """What is seen around the inside of a mouth: the colours of skin, lips and beard."""
    colours = portrait.colours
    return [colours[name] for name in ("skin", "lips", *(("hair",) if portrait.beard != "none" else ()))]


def openings(case: TalkCase, drawn: Talking, frames: np.ndarray, faces: Faces, still: Faces) -> list[np.ndarray]:
    """How far everybody's mouth is open in frames as they are `viewed`, above what is seen of it in the photo, (F,).
    still: the faces of the photo. Who speaks has shut their mouth at least in a twentieth of the frames: blurred lips
    need not look like those of the photo."""
    photo, found = viewed(drawn.photo[None]), []
    for person, portrait in enumerate(case.people):
        place, colours = drawn.place(person), outside(portrait)
        shut = opening_by_colour(photo, only(still, place), colours)[0]
        opening = opening_by_colour(frames, only(faces, place), colours)
        shut = 0.0 if np.isnan(shut) else shut
        if person == case.speaker and np.isfinite(opening).any():
            shut = max(shut, float(np.nanpercentile(opening, 5)))
        found.append(above_shut(opening, shut))
    return found


def judge_talk(take: Take, scores: Sequence[SyncScore] = (by_phones,)) -> dict[str, dict[str, Any]]:
    """Whether the one who speaks does so in time, shuts the mouth in silence, looks as asked and stays who they are;
    and whether the other one listens."""
    case: TalkCase = take.case
    drawn = talking_of(case, *take.video.shape[:3], take.fps)
    frames, photo = viewed(take.video), viewed(drawn.photo[None])
    everybody, still = smoothed(follow_faces(frames, take.fps), 0), follow_faces(photo, take.fps)
    place = drawn.place(case.speaker)
    faces, before = only(everybody, place), only(still, place)
    opened = openings(case, drawn, frames, everybody, still)
    mine = opened[case.speaker]
    values = {"face seen": float(np.isfinite(mine).mean())}
    heard = Heard(drawn.heard.samples[: round(len(frames) * RATE / take.fps)], drawn.heard.phones)
    boxes = faces.box[:, 0] if faces.confidence.shape[1] else np.zeros((len(frames), 4))
    talked = Talk(frames, take.fps, heard, boxes, mine)
    for score in scores:
        values |= score(talked)
    first = before.at(0, 0) if before.confidence.shape[1] else None
    distances = np.full(len(frames), np.nan) if first is None else _identity(frames, faces, photo[0], first)
    if np.isfinite(distances).any():
        values["identity"] = float(np.nanmedian(distances))
    whole = viewed(np.uint8(255 * drawn.masks[case.speaker])[None, ..., None].repeat(3, -1))[0, ..., 0] > 127
    values["colour"] = colour_distance(frames[::5], _every(faces, 5), photo[0], whole)
    free = ~ndimage.binary_dilation(drawn.shown, iterations=round(MARGIN * min(drawn.shown.shape)))
    if free.any():
        there = take.video[:, free]
        values["background psnr"] = psnr(there, np.broadcast_to(drawn.photo[free], there.shape))
        values["background flicker"] = float(np.abs(np.diff(there.astype(np.float32), axis=0)).mean())
    values["jerk"] = jerk(take.video)
    if windows := in_frames(take.windows):
        values["seams"] = seams(take.video, windows)[0]
    if len(frames) >= LONG * take.fps and np.isfinite(gone := drift(distances, take.fps)):
        values["drift"] = gone
    right: dict[str, Any] = {}
    shown = "not seen" if first is None else expression_of(faces, first) or "not seen"
    right["expression"] = shown == case.expression
    right["shut in silence"] = _shut(mine, heard.silent(take.fps, len(frames)), widest(mine))
    if len(case.people) == 2:
        right["the other one shut"] = _shut(opened[1 - case.speaker], np.ones(len(frames), bool), widest(mine))
    return {"asked": {"expression": case.expression}, "seen": {"expression": shown}, "right": right, "values": values}


def _identity(frames: np.ndarray, faces: Faces, photo: np.ndarray, first: Face) -> np.ndarray:
    """`identity_distances`, of every fifth frame; the others are nan."""
    distances = np.full(len(frames), np.nan)
    distances[::5] = identity_distances(frames[::5], _every(faces, 5), photo, first)
    return distances


def _every(faces: Faces, step: int) -> Faces:
    return replace(faces, mesh=faces.mesh[::step], confidence=faces.confidence[::step])


def _shut(opening: np.ndarray, where: np.ndarray, wide: float) -> list[bool]:
    """Of each frame `where` the mouth is seen, whether it is shut."""
    return [bool(one <= QUIET * wide) for one in opening[where & np.isfinite(opening)]]


def in_frames(windows: Sequence[Sequence[Sequence[int]]]) -> list[list[list[int]]]:
    """Windows of latent frames as windows of frames: the first latent frame is one frame, every other one GROUP."""
    return [[[max(0, GROUP * (window[0] - 1) + 1), GROUP * window[-1]] for window in step] for step in windows]


def shown_talk(take: Take) -> np.ndarray:
    """Two rows: the photo and the truth, the photo and the video, five frames each, uint8 (2 * H, W, 3)."""
    drawn = talking_of(take.case, *take.video.shape[:3], take.fps)
    photo = np.pad(drawn.photo, ((0, 0), (0, 1), (0, 0)), constant_values=255)
    return np.concatenate([np.concatenate([photo, in_a_row(one)], axis=1) for one in (drawn.truth, take.video)])
