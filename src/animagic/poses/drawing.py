"""Poses as pictures: a map of body parts as DensePose draws it, or a skeleton as OpenPose draws it."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from .body import INDEX, SEEN, drawable, middle
from .files import OPENPOSE
from .shapes import shapes_of
from .skeleton import PART_COLOURS, Poses

# Of the points of OpenPose, "neck" being between the shoulders.
_BONES = [
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
]  # fmt: skip
_COLOURS = [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / 18, 1, 1)) for i in range(18)]
_DARKER = 0.6  # bones, so that points stand out


def part_map(poses: Poses, height: int, width: int) -> np.ndarray:
    """uint8 (frames, height, width): the number of the body part (see PARTS) that each pixel shows; 0 is background.

    Of a person nearer limbs hide farther ones; of two people the one who reaches lower in the frame hides the other.
    """
    poses = _scaled(poses, height, width)
    shapes = shapes_of(poses)
    # Of two shapes equally far away the later one is drawn over the earlier: a limb's front over the whole limb.
    order = np.argsort(-shapes.depths, axis=-1, kind="stable")
    people = _farthest_first(poses)
    maps = np.empty((len(poses.points), height, width), np.uint8)
    for frame, canvas in enumerate(maps):
        picture = Image.new("L", (width, height))
        fill = ImageDraw.Draw(picture).polygon
        for person in people[frame]:
            drawn = shapes.drawn[frame, person]
            corners = shapes.polygons[frame, person].reshape(len(drawn), -1).tolist()
            for shape in order[frame, person]:
                if drawn[shape]:
                    fill(corners[shape], fill=int(shapes.parts[shape]))
        canvas[:] = np.asarray(picture)
    return maps


def draw_parts(poses: Poses, height: int, width: int) -> np.ndarray:
    """uint8 (frames, height, width, 3): the part map in the colours of a DensePose video."""
    return PART_COLOURS[part_map(poses, height, width)]


def draw_skeleton(poses: Poses, height: int, width: int) -> np.ndarray:
    """uint8 (frames, height, width, 3): coloured bones and joints on black, as OpenPose draws them."""
    return np.stack([np.asarray(picture) for picture, _ in _skeletons(poses, height, width)])


def overlay(frames: np.ndarray, poses: Poses) -> np.ndarray:
    """The frames, uint8 (frames, height, width, 3), with the skeletons drawn over them."""
    drawn = _skeletons(poses, *frames.shape[1:3])
    pairs = zip(frames, drawn, strict=True)
    return np.stack([np.asarray(Image.composite(bones, Image.fromarray(f), mask)) for f, (bones, mask) in pairs])


def _scaled(poses: Poses, height: int, width: int) -> Poses:
    """The same poses in frames of another size."""
    across, down = width / poses.width, height / poses.height
    scale = np.array([across, down, (across * down) ** 0.5], np.float32)
    return replace(poses, points=poses.points * scale, height=height, width=width)


def _farthest_first(poses: Poses) -> np.ndarray:
    """(frames, people): the order in which to draw people."""
    lowest = np.where(poses.confidence > SEEN, poses.points[..., 1], -np.inf).max(-1)
    return np.argsort(lowest, axis=-1, kind="stable")


def _skeletons(poses: Poses, height: int, width: int) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Of each frame the bones on black, and where there are any (L); drawn at twice the size against jagged edges."""
    poses = _scaled(poses, 2 * height, 2 * width)
    neck = middle(poses.points, "left_shoulder", "right_shoulder")
    both = poses.confidence[..., [INDEX["left_shoulder"], INDEX["right_shoulder"]]].min(-1)
    chosen = [INDEX.get(name, 0) for name in OPENPOSE]
    points, seen = poses.points[..., chosen, :2], drawable(poses.confidence)[..., chosen]
    points[..., 1, :], seen[..., 1] = neck[..., :2], both > SEEN
    thick = max(2, round(min(height, width) / 40))  # of the doubled size; OpenPose: 4 pixels of 368
    people = _farthest_first(poses)
    for frame in range(len(points)):
        picture, mask = Image.new("RGB", (2 * width, 2 * height)), Image.new("L", (2 * width, 2 * height))
        pens = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
        for person in people[frame]:
            corners, there = points[frame, person].tolist(), seen[frame, person]
            for (a, b), colour in zip(_BONES, _COLOURS[:-1], strict=True):
                if there[a] and there[b]:
                    line = (*corners[a], *corners[b])
                    pens[0].line(line, fill=tuple(round(_DARKER * c) for c in colour), width=thick)
                    pens[1].line(line, fill=255, width=thick)
            for i, colour in enumerate(_COLOURS):
                if there[i]:
                    x, y = corners[i]
                    circle = (x - thick, y - thick, x + thick, y + thick)
                    pens[0].ellipse(circle, fill=colour)
                    pens[1].ellipse(circle, fill=255)
        yield picture.reduce(2), mask.reduce(2)
