"""From a person, a movement and a view to frames, part maps and poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import skia

from ...errors import InputError
from ...poses import Poses
from ..drawing import render as draw_scene
from ..scenes import Scene
from .body import Body, body_of, posed_landmarks, skin
from .identity import REGIONS, Person
from .motion import Movement, poses_at, seconds
from .seen import confidences
from .skeleton import forward
from .view import View, camera_of, project

_FLOOR = (*range(7, 9), *range(15, 23), *range(23, 33), 0)  # landmarks that a body can stand or lie on


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


@dataclass(frozen=True, slots=True)
class Posed:
    """A skeleton in motion: turns (F, J, 3, 3) from rest, places (F, J, 3) and landmarks (F, 33, 3), metres."""

    turns: np.ndarray
    places: np.ndarray
    landmarks: np.ndarray


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
        lowest = _at(body, movement, loop)[0].landmarks[:, _FLOOR, 1].min(1)
        lift = np.full(len(times), -np.quantile(lowest, 0.08))
    else:
        lift = height - out.landmarks[:, _FLOOR, 1].min(1)
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
    times = start + np.arange(num_frames) / fps
    pose = posed(body, movement, times)
    camera = camera_of(view, body.stature, height, width)
    times_larger = int(np.clip(round(288 / min(height, width)), 2, 4))
    background = draw_scene(Scene(view.background, ()), 1, height, width)[0]
    codes = _codes(body, pose, camera, view, height, width, times_larger)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    parts, regions = np.zeros((2, num_frames, height, width), np.uint8)
    palette = np.array([(0, 0, 0), *(person.colours[name] for name in REGIONS[1:])], np.float32)
    for index, code in enumerate(codes):
        frames[index], regions[index], parts[index] = _finished(code, background, palette, times_larger)
    points = project(camera, pose.landmarks).astype(np.float32)
    poses = Poses(points[:, None], confidences(points, parts)[:, None], height, width, float(fps))
    return PersonClip(frames, parts, regions, poses, person)


def _codes(body, pose, camera, view, height, width, times_larger):
    """Frame by frame, uint8 (H * n, W * n, 4): 32 * region + 16, 8 * part + 4 and light of what is seen, else zeros."""
    surface = body.surface
    points, normals = skin(body, pose.turns, pose.places)
    screen = project(camera, points)
    direction = np.radians(view.light)
    light = np.array([np.sin(-direction) * 0.75, 0.45, np.cos(direction) * 0.75])
    light = (camera.turn.T @ (light / np.linalg.norm(light))).astype(np.float32)
    shade = (0.62 + 0.46 * (normals @ light).clip(-0.35, 1)) * surface.shade
    blue = np.rint(shade * 200).clip(1, 255).astype(np.int64)
    base = (
        (255 << 24)
        | ((surface.regions.astype(np.int64) * 32 + 16) << 16)
        | ((surface.parts.astype(np.int64) * 8 + 4) << 8)
    )
    pixels = np.zeros((height * times_larger, width * times_larger, 4), np.uint8)
    canvas = skia.Surface(pixels, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
    paint = skia.Paint(AntiAlias=False, Dither=False)
    bias = surface.bias * camera.scale
    for frame in range(len(screen)):
        place = screen[frame]
        a, b, c = (place[surface.triangles[:, i]] for i in range(3))
        facing = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]) < 0
        visible = np.flatnonzero(facing | surface.two_sided)
        depth = (a[visible, 2] + b[visible, 2] + c[visible, 2]) / 3 - bias[visible]
        order = surface.triangles[visible[np.argsort(-depth, kind="stable")]]
        pixels[...] = 0
        vertices = skia.Vertices(
            skia.Vertices.kTriangles_VertexMode,
            list(map(skia.Point, *(place[:, :2].T * times_larger).tolist())),
            None,
            (base | blue[frame]).tolist(),
            order.reshape(-1).tolist(),
        )
        canvas.drawVertices(vertices, paint, skia.BlendMode.kDst)
        yield pixels


def _finished(code, background, palette, n):
    """One frame of `_codes` over the background: colours (H, W, 3), regions and parts (H, W)."""
    frame = background.copy()
    regions, parts = np.zeros((2, *background.shape[:2]), np.uint8)
    rows = np.flatnonzero(code[..., 3].any(1))
    if not len(rows):
        return frame, regions, parts
    columns = np.flatnonzero(code[..., 3].any(0))
    top, bottom = rows[0] // n, rows[-1] // n + 1
    left, right = columns[0] // n, columns[-1] // n + 1
    code = code[top * n : bottom * n, left * n : right * n]
    middle = code[n // 2 :: n, n // 2 :: n]
    regions[top:bottom, left:right] = middle[..., 0] >> 5
    parts[top:bottom, left:right] = middle[..., 1] >> 3
    colour = palette[code[..., 0] >> 5] * (code[..., 2:3] * np.float32(1 / 200))
    np.minimum(colour, 255, out=colour)
    high, wide = bottom - top, right - left
    colour = colour.reshape(high, n, wide, n, 3).sum((1, 3))
    covered = (code[..., 3] > 0).reshape(high, n, wide, n).sum((1, 3))[..., None]
    behind = background[top:bottom, left:right]
    mixed = (colour + behind * (n * n - covered)) / (n * n)
    frame[top:bottom, left:right] = np.rint(mixed).clip(0, 255)
    return frame, regions, parts
