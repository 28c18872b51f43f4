"""From a person, a movement and a view to frames, part maps and poses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...errors import InputError
from ...poses import Poses
from ..drawing import render as draw_scene
from ..scenes import Background, Scene
from . import mesh, puppets
from .body import Body, Posed, body_of, posed_landmarks
from .identity import REGIONS, Person
from .motion import Movement, poses_at, seconds
from .seen import confidences
from .skeleton import JOINTS, forward
from .view import View, camera_of, project


@dataclass(frozen=True, slots=True)
class PersonClip:
    """A clip of a person with all that is known about it.

    frames: uint8 (F, H, W, 3); parts: uint8 (F, H, W), numbers of animagic.poses.PARTS; regions: uint8 (F, H, W),
    numbers of REGIONS; poses: of one person.
    """

    frames: np.ndarray
    parts: np.ndarray
    regions: np.ndarray
    poses: Poses
    person: Person


def _at(body: Body, movement: Movement, times: np.ndarray) -> tuple[Posed, np.ndarray, bool]:
    """The body at these times, with the pelvis where the movement has it; how high that is; and whether it counts."""
    rotations, place, captured = poses_at(movement, times)
    place = place * (body.leg / 0.84)
    turns, places = forward(body.joints, body.align, rotations, place)
    return Posed(turns, places, posed_landmarks(body, turns, places)), place[:, 1], captured


def posed(body: Body, movement: Movement, times: np.ndarray) -> Posed:
    """A body that does a movement on the floor, y = 0. times: (F,) seconds."""
    out, height, captured = _at(body, movement, times)
    if captured:  # the lowest moment of the loop is that on the floor
        loop = np.linspace(0, seconds(movement.lower) / movement.rate, 25)
        lowest = _at(body, movement, loop)[0].landmarks[..., 1].min(1)
        lift = np.full(len(times), -np.quantile(lowest, 0.08))
    else:
        lift = height - out.landmarks[..., 1].min(1)
    up = np.zeros((len(times), 1, 3))
    up[..., 1] = lift[:, None] + 0.012
    return Posed(out.turns, out.places + up, out.landmarks + up)


def render_person(
    person: Person,
    movement: Movement,
    view: View,
    num_frames: int,
    height: int,
    width: int,
    fps: float = 15,
    start: float = 0.0,
) -> PersonClip:
    """Draw a person in motion. The same arguments give the same clip.

    Args:
        start: seconds of the movement at the first frame.
    Raises: InputError.
    """
    if num_frames < 1 or min(height, width) < 16 or fps <= 0:
        raise InputError(
            f"{num_frames} frames of {height} x {width} pixels at {fps} a second were asked for; "
            "at least 1 frame, 16 x 16 pixels and a positive rate are needed."
        )
    body = body_of(person)
    if person.look == "drawing":
        body = puppets.drawn_body(person, body)
    times = start + np.arange(num_frames) / fps
    pose = posed(body, movement, times)
    camera = camera_of(view, body.stature, _neck_height(body, movement), height, width)
    larger = int(np.clip(round(384 / min(height, width)), 2, 4))
    background = _backdrop(view.background, height, width)
    if person.look == "drawing":
        codes = puppets.codes(person, body, pose, camera, height, width, larger)
    else:
        codes = mesh.codes(body, pose, camera, view, height, width, larger)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    parts, regions = np.zeros((2, num_frames, height, width), np.uint8)
    table = _table(person)
    for index, code in enumerate(codes):
        frames[index], regions[index], parts[index] = _finished(code, background, table, larger)
    points = project(camera, pose.landmarks).astype(np.float32)
    poses = Poses(points[:, None], confidences(points, parts)[:, None], height, width, float(fps))
    return PersonClip(frames, parts, regions, poses, person)


def _neck_height(body: Body, movement: Movement) -> float:
    """Metres above the floor, most of the time of a movement."""
    loop = np.linspace(0, seconds(movement.lower) / movement.rate, 9)
    return float(np.median(posed(body, movement, loop).places[:, JOINTS.index("neck"), 1]))


@lru_cache(maxsize=32)
def _backdrop(background: Background, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3)."""
    return draw_scene(Scene(background, ()), 1, height, width)[0]


def _table(person: Person) -> np.ndarray:
    """uint16 (8 * 256, 4): what a pixel of each region in each light adds to a frame, and to how much is covered."""
    colours = np.array([person.colours[name] for name in REGIONS[1:]], float)
    table = np.zeros((8, 256, 4), np.uint16)
    table[1 : len(REGIONS), :, :3] = np.rint(colours[:, None] * np.arange(256)[:, None] / 200).clip(0, 255)
    table[1:, :, 3] = 1
    return table.reshape(-1, 4)


def _finished(
    code: np.ndarray, background: np.ndarray, table: np.ndarray, larger: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame's codes, `larger` times as large, over the background: colours (H, W, 3), regions and parts (H, W)."""
    n, frame = larger, background.copy()
    regions, parts = np.zeros((2, *background.shape[:2]), np.uint8)
    drawn = code.view(np.uint32)[..., 0]
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not len(rows):
        return frame, regions, parts
    high = slice(rows[0] // n, rows[-1] // n + 1)
    wide = slice(columns[0] // n, columns[-1] // n + 1)
    code = code[high.start * n : high.stop * n, wide.start * n : wide.stop * n]
    middle = code[n // 2 :: n, n // 2 :: n]
    regions[high, wide] = middle[..., 0] >> 5
    parts[high, wide] = middle[..., 1] >> 3
    index = (code[..., 0].astype(np.uint16) >> 5 << 8) | code[..., 2]
    mixed = sum(table[index[i::n, j::n]] for i in range(n) for j in range(n))
    behind = background[high, wide] * (n * n - mixed[..., 3:])
    frame[high, wide] = (mixed[..., :3] + behind + n * n // 2) // (n * n)
    return frame, regions, parts
