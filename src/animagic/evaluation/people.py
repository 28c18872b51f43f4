"""The judge of animated people: which material every pixel shows, whether a person keeps their colours and the scene
its background, and how much flickers. It knows the colours and the scene, and tells pixels apart by colour alone.

Frames are uint8 (F, H, W, 3); regions are numbers of materials, uint8 (F, H, W), 0 for the background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.color import rgb2lab

from .metrics import psnr

LIGHTS = np.linspace(0.45, 1.1, 6)
"""What the light can multiply a colour with."""
LIGHTNESS = 0.5  # share of lightness in a distance from a material: shading is no other material
MIXED = 0.7  # share of the one in a pixel that shows two, at a border
MIXING = 2.0  # CIELAB: what a mixed pixel is taken to be farther away
EDGES = 0.8  # of a distance from the background, whose edges may have been blurred
ALIKE = 12.0  # CIELAB: materials nearer to each other than this count as one
FAR = 40.0  # CIELAB: what is farther from everything than this is equally nothing
FEWEST_NEAR = 2  # pixels of a material in 3x3: a lone one is what most around it are
KEPT = 15.0  # CIELAB: how far a region's colour may be from the true one
FEWEST = 8  # pixels of a region in a frame of 64x64, below which its colour is not judged
BORDER = 1  # pixels at 64x64 on either side of a border, which may be either
MARGIN = 3  # pixels at 64x64 around a person that do not count as background
STILL = 2  # 0 to 255: what the true video changes less than this does not move


def _scaled(pixels: int, frames: np.ndarray) -> int:
    return max(1, round(pixels * min(frames.shape[1:3]) / 64))


def shades(colour: Sequence[int]) -> np.ndarray:
    """A colour in every light: CIELAB, (lights, 3)."""
    return rgb2lab((np.asarray(colour) * LIGHTS[:, None]).clip(0, 255)[None] / 255)[0]


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances between CIELAB colours, in which lightness counts half."""
    return np.sqrt(np.square((a - b) * (LIGHTNESS, 1, 1)).sum(-1))


def groups_of(colours: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Material -> the first of those that look like it: whose colours cannot be told apart once light falls on them."""
    group = {number: number for number in colours}
    for number, colour in colours.items():
        for other in colours:
            if other >= number:
                break
            near = _apart(shades(colour)[:, None], shades(colours[other])[None])
            if max(np.median(near.min(1)), np.median(near.min(0))) < ALIKE:
                group = {one: group[other] if was == group[number] else was for one, was in group.items()}
    return group


def classified(frames: np.ndarray, colours: Mapping[int, Sequence[int]], background: np.ndarray) -> np.ndarray:
    """The material of every pixel, uint8 (F, H, W): the nearest of the person's colours in any light, or background.

    colours: material -> RGB. background: (H, W, 3), the scene without the person.
    """
    lab, plate = rgb2lab(frames).astype(np.float32), rgb2lab(background).astype(np.float32)
    costs = [np.full(frames.shape[:3], FAR, np.float32)]
    for y, x in np.ndindex(3, 3):
        moved = np.roll(plate, (y - 1, x - 1), (0, 1))
        costs[0] = np.minimum(costs[0], EDGES * np.linalg.norm(lab - moved, axis=-1))
    for colour in colours.values():
        cost = np.full(frames.shape[:3], FAR, np.float32)
        for shade in shades(colour).astype(np.float32):
            cost = np.minimum(cost, _apart(lab, shade))
            cost = np.minimum(cost, _apart(lab, MIXED * shade + (1 - MIXED) * plate) + MIXING)
            costs[0] = np.minimum(costs[0], _apart(lab, MIXED * plate + (1 - MIXED) * shade) + MIXING)
        costs.append(cost)
    nearest = np.stack(costs).argmin(0)
    near = np.stack([ndimage.uniform_filter((nearest == one) * 9.0, (0, 3, 3)) for one in range(len(costs))])
    alone = np.take_along_axis(near, nearest[None], 0)[0] < FEWEST_NEAR + 0.5
    return np.array([0, *colours], np.uint8)[np.where(alone, near.argmax(0), nearest)]


def overlap(found: np.ndarray, true: np.ndarray, known: Sequence[int], border: int) -> float:
    """Mean over the materials in `known`, as far as the true regions have them, of intersection over union.

    A pixel within `border` of where a material is counts neither as too much nor as too little of it.
    """
    shares, beside = [], np.ones((1, 2 * border + 1, 2 * border + 1), bool)
    for number in known:
        ours, theirs = found == number, true == number
        if theirs.any():
            both = (ours & theirs).sum()
            more = (ours & ~ndimage.binary_dilation(theirs, beside)).sum()
            less = (theirs & ~ndimage.binary_dilation(ours, beside)).sum()
            shares.append(both / max(1, both + more + less))
    return float(np.mean(shares))


def part_overlap(
    frames: np.ndarray, regions: np.ndarray, colours: Mapping[int, Sequence[int]], background: np.ndarray
) -> float:
    """Overlap of the regions seen in frames with the true ones, background included, 0 to 1.

    Materials whose colours are alike count as one, and true regions without a colour, such as eyes, are left out.
    """
    group = groups_of(colours)
    merge = np.arange(256, dtype=np.uint8)
    merge[list(group)] = list(group.values())
    judged = np.isin(regions, [0, *colours])
    found, true = (np.where(judged, merge[one], 255) for one in (classified(frames, colours, background), regions))
    return overlap(found, true, [0, *sorted(set(group.values()))], _scaled(BORDER, frames))


def kept_colours(frames: np.ndarray, truth: np.ndarray, regions: np.ndarray, known: Sequence[int]) -> list[bool]:
    """For each frame and material: whether its median colour, where it truly is, is that of the true frame."""
    fewest, kept = FEWEST * _scaled(1, frames) ** 2, []
    for frame, true, region in zip(frames, truth, regions, strict=True):
        for number in known:
            where = region == number
            inner = ndimage.binary_erosion(where)
            where = inner if inner.sum() >= fewest else where
            if where.sum() >= fewest:
                pair = np.stack([np.median(frame[where], 0), np.median(true[where], 0)])
                ours, theirs = rgb2lab(pair / 255)
                kept.append(bool(np.linalg.norm(ours - theirs) <= KEPT))
    return kept


def background_psnr(frames: np.ndarray, truth: np.ndarray, people: np.ndarray) -> float:
    """Likeness in dB where neither the photo nor the true frame shows the person. people: bool (F, H, W)."""
    near = ndimage.binary_dilation(people, np.ones((1, 3, 3)), iterations=_scaled(MARGIN, frames))
    return psnr(frames[~near], truth[~near])


def changes_to(frames: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(The change from frame to frame over that of the true video, the change where the true video stands still).

    The second is 0 to 255; where all of the true video moves, it is 0.
    """
    ours, theirs = (np.abs(np.diff(one.astype(np.float32), axis=0)).mean(-1) for one in (frames, truth))
    still = theirs <= STILL
    return float(ours.mean() / max(theirs.mean(), 1e-6)), float(ours[still].mean()) if still.any() else 0.0
