"""The suite of animated people: held-out people who do what they have never been seen to do, drawn from seeds alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..media.outputs import to_bytes
from ..poses import PART_COLOURS, draw_parts
from ..synthetic import Scene, render
from ..synthetic import people as studio
from .likeness import likeness
from .people import background_psnr, changes_to, kept_colours, part_overlap
from .shots import in_a_row

if TYPE_CHECKING:
    from .suites import Take, Variant

VERSION = 1
"""Of the cases that the seeds stand for. What changes how they are drawn changes this number."""
SEED, COUNT, FRAMES, FPS = 400_000, 60, 24, 12.0
KNOWN = {number: name for number, name in enumerate(studio.REGIONS) if name not in ("background", "eyes")}
"""Materials that are judged, by their number in a region map."""


@dataclass(frozen=True)
class PeopleCase:
    """A held-out person in a photo and, in the same place, doing a held-out motion."""

    seed: int
    person: studio.Person
    movement: studio.Movement
    view: studio.View

    split = "test"

    @property
    def prompt(self) -> str:
        ours = (self.person.skin, self.person.hair, self.person.shirt, self.person.trousers)
        return (
            f"{self.movement.lower}: {' skin, '.join(ours[:2])} hair, {' shirt, '.join(ours[2:])} {self.person.bottoms}"
        )

    @property
    def motion_prompt(self) -> str:
        return self.prompt


@dataclass(frozen=True, eq=False)
class Animation:
    """A case that is drawn.

    photo: uint8 (H, W, 3); driving: what the model follows, body parts in their colours, as they are; from_landmarks:
    as drawn from 33 landmarks; truth: what the model should make, all uint8 (F, H, W, 3); regions: of the truth, uint8
    (F, H, W); shown: where the photo or the truth shows a person, bool (F, H, W); background: (H, W, 3), the scene
    without them; colours: material -> RGB.
    """

    photo: np.ndarray
    driving: np.ndarray
    from_landmarks: np.ndarray
    truth: np.ndarray
    regions: np.ndarray
    shown: np.ndarray
    background: np.ndarray
    colours: dict[int, tuple[int, int, int]]


def people_cases(
    count: int, seed: int, splits: Sequence[str] = (), fits: Callable[..., bool] | None = None, apart: bool = False
) -> list[PeopleCase]:
    """Case i is drawn by seed + i, whatever the count."""
    cases = []
    for number in range(seed, seed + count):
        rng = np.random.default_rng(number)
        person, movement = studio.sample_person(rng, held_out=True), studio.sample_motion(rng, held_out=True)
        cases.append(PeopleCase(number, person, movement, studio.sample_view(rng)))
    return cases


@lru_cache(maxsize=32)
def animation_of(case: PeopleCase, frames: int, height: int, width: int) -> Animation:
    """The case in this size, at FPS frames a second."""
    clip = studio.render_person(case.person, case.movement, case.view, frames, height, width, FPS)
    posed = studio.render_photo(case.person, case.view, height, width, case.seed)
    background = render(Scene(case.view.background, ()), 1, height, width)[0]
    colours = {number: case.person.colours[name] for number, name in KNOWN.items()}
    shown = (clip.regions != 0) | (posed.regions != 0)
    driving = PART_COLOURS[clip.parts], draw_parts(clip.poses, height, width)
    return Animation(posed.frames[0], *driving, clip.frames, clip.regions, shown, background, colours)


def drawn_people(case: PeopleCase, variant: Variant, frames: int, drawing: Mapping[str, Any]) -> np.ndarray | None:
    """The true video of a case; None without frames."""
    return animation_of(case, frames, drawing["height"], drawing["width"]).truth if frames else None


def animate(
    pipe: Any, variant: Variant, cases: Sequence[PeopleCase], clips: Any, frames: int, settings: Mapping[str, Any]
) -> list[np.ndarray]:
    """A video a case, uint8 (F, height, width, 3), from noise that only depends on its seed."""
    size, videos = (pipe.sampling.height, pipe.sampling.width), []
    for case in cases:
        drawn = animation_of(case, frames, *size)
        output = pipe(
            image=Image.fromarray(drawn.photo),
            video=drawn.from_landmarks if variant.name == "from landmarks" else drawn.driving,
            height=size[0],
            width=size[1],
            generator=torch.Generator().manual_seed(case.seed),
            output_type="np",
            **{**variant.settings, **settings},
        )
        videos.append(to_bytes(output.frames[0]))
    return videos


def _drawn(take: Take) -> Animation:
    return animation_of(take.case, *take.video.shape[:3])


def judge_people(take: Take) -> dict[str, dict[str, Any]]:
    """Whether the person keeps their colours, and how like the video is to the true one in what can be measured."""
    drawn = _drawn(take)
    change, still = changes_to(take.video, drawn.truth)
    values = {
        "part overlap": part_overlap(take.video, drawn.regions, drawn.colours, drawn.background),
        "background psnr": background_psnr(take.video, drawn.truth, drawn.shown),
        "flicker ratio": change,
        "flicker where still": still,
    }
    near = likeness(take.video, drawn.truth)
    values |= {name: float(near[name].mean()) for name in ("L1", "PSNR", "SSIM", "LPIPS")}
    kept = kept_colours(take.video, drawn.truth, drawn.regions, list(KNOWN))
    return {"asked": {}, "seen": {}, "right": {"identity colours": kept}, "values": values}


def shown_people(take: Take) -> np.ndarray:
    """Three rows: the photo and what drives it, the truth, the video; five frames each, uint8 (3 * H, W, 3)."""
    drawn = _drawn(take)
    driving = drawn.from_landmarks if take.variant.name == "from landmarks" else drawn.driving
    rows = [in_a_row(frames) for frames in (driving, drawn.truth, take.video)]
    photo = np.pad(drawn.photo, ((0, 0), (0, 1), (0, 0)), constant_values=255)
    first = [photo, *[np.full_like(photo, 255)] * 2]
    return np.concatenate([np.concatenate(pair, axis=1) for pair in zip(first, rows, strict=True)])
