"""How people move: mocap clips and composed motions, re-timed, mirrored, mixed and looped.

A pose is the turns of 19 joints from the zero pose (standing straight, arms down, thumbs to the front) and the place of
the pelvis. Axes: x to the person's left, y up, z to the front.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from .composed import COMPOSED
from .skeleton import JOINTS

FPS = 30  # of the baked clips
CLIP_JOINTS = ("pelvis", "chest", "neck", "right_hip", "right_knee", "right_ankle", "right_shoulder", "right_elbow",
                "left_hip", "left_knee", "left_ankle", "left_shoulder", "left_elbow")  # fmt: skip

CLIPS = ("walk", "run", "dance_a", "dance_b", "kick", "punch", "spin", "jump", "spinkick", "cartwheel", "backflip",
         "crawl", "roll", "getup_facedown", "getup_faceup")  # fmt: skip
"""Motion capture: of the CMU and SFU databases, by way of DeepMimic and pybullet."""
_ENDING, _FADE = ("kick", "punch", "cartwheel", "crawl"), 10  # clips whose last frames become their first
_GROUNDED = ("cartwheel", "crawl", "roll", "getup_facedown", "getup_faceup")  # something always touches the floor

HELD_OUT_MOTIONS = ("dance_b", "kick", "squat", "wave_both")
"""The motions of the test split."""

STANDING = ("walk", "run", "dance_a", "dance_b", "kick", "punch", *COMPOSED)
"""Motions whose upper half goes with the legs of another."""
MOTIONS = (*CLIPS, *COMPOSED)

_SHARES = {"crawl": 0.15, "roll": 0.3, "getup_facedown": 0.2, "getup_faceup": 0.2, "cartwheel": 0.5, "backflip": 0.4,
           "dance_a": 3.0, "walk": 2.0, "run": 1.5, "spinkick": 0.6}  # fmt: skip
_LEGS = ("pelvis", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle")


@dataclass(frozen=True, slots=True)
class Movement:
    """What a person does.

    upper, lower: names of MOTIONS, for the trunk with the arms, and for the pelvis with the legs; rate: speed, 1 as it
    was recorded; phase: where in the loop it begins, 0 to 1; reach: what the swings of composed motions are multiplied
    by; mirrored: left and right exchanged; heading: degrees that the person is turned to their left, and
    turning: degrees a second that this grows by.
    """

    upper: str
    lower: str
    rate: float = 1.0
    phase: float = 0.0
    reach: float = 1.0
    mirrored: bool = False
    heading: float = 0.0
    turning: float = 0.0

    @property
    def held_out(self) -> bool:
        return self.upper in HELD_OUT_MOTIONS or self.lower in HELD_OUT_MOTIONS


def sample_motion(rng: np.random.Generator | int, held_out: bool = False) -> Movement:
    """A movement at random; with `held_out` one of the test split's motions, which never occur without it."""
    rng = np.random.default_rng(rng)
    names = [name for name in MOTIONS if (name in HELD_OUT_MOTIONS) == held_out]
    shares = np.array([_SHARES.get(name, 1.0) for name in names])
    lower = upper = str(rng.choice(names, p=shares / shares.sum()))
    mixable = [name for name in names if name in STANDING and name != "turn"]
    if lower in STANDING and not held_out and rng.random() < 0.35:
        upper = mixable[int(rng.integers(len(mixable)))]
    turning = 0.0
    if lower == "turn":
        turning = float(rng.choice([-1, 1]) * rng.uniform(60, 130))
    elif lower in STANDING and rng.random() < 0.12:
        turning = float(rng.choice([-1, 1]) * rng.uniform(20, 60))
    return Movement(
        upper, lower, float(rng.uniform(0.75, 1.25)), float(rng.random()), float(rng.uniform(0.75, 1.15)),
        bool(rng.random() < 0.5), float(rng.normal(0, 12)), turning,
    )  # fmt: skip


# ---- turns as quaternions (x, y, z, w) and matrices --------------------------------------------------------


def _matrices(quaternions: np.ndarray) -> np.ndarray:
    """(..., 4) of any length to (..., 3, 3)."""
    x, y, z, w = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def about(axis: str, degrees: np.ndarray | float) -> np.ndarray:
    """Turns about "x", "y" or "z": (...) degrees to (..., 3, 3)."""
    angle = np.radians(np.asarray(degrees, float)) / 2
    quaternion = np.zeros((*angle.shape, 4))
    quaternion[..., "xyz".index(axis)], quaternion[..., 3] = np.sin(angle), np.cos(angle)
    return _matrices(quaternion)


def _between(a: np.ndarray, b: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Quaternions from a (share 0) to b (share 1), the short way."""
    near = np.where((a * b).sum(-1, keepdims=True) < 0, -b, b)
    mixed = a + (near - a) * share
    return mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)


@cache
def _clip(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A baked clip whose end goes over into its beginning: places (F, 3) and quaternions (F, 13, 4)."""
    from safetensors import safe_open

    with safe_open(Path(__file__).with_name("motions.safetensors"), "np") as file:
        place, turns = (file.get_tensor(f"{name}.{what}").astype(np.float64) for what in ("place", "rotations"))
    if name.startswith("getup"):  # no way leads from standing to lying but back
        place, turns = np.concatenate([place, place[-2:0:-1]]), np.concatenate([turns, turns[-2:0:-1]])
    # The person stays where the camera looks: what is left is the way to and fro within a loop.
    drift = np.arange(len(place))[:, None] / (len(place) - 1) * (place[-1] - place[0])
    place = place - drift * [1, 0, 1]
    place -= place.mean(0) * [1, 0, 1]
    if name not in _ENDING:
        return place, turns
    head, tail = slice(0, _FADE), slice(len(place) - _FADE, len(place))
    share = (np.arange(_FADE)[:, None] + 1) / (_FADE + 1)
    turns[head] = _between(turns[tail], turns[head], share[..., None])
    place[head] = place[tail] + share * (place[head] - place[tail])
    return place[:-_FADE], turns[:-_FADE]


def seconds(name: str) -> float:
    """How long one loop of a motion takes at rate 1."""
    return len(_clip(name)[0]) / FPS if name in CLIPS else COMPOSED[name][0]


def _captured(name: str, cycle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places, turns = _clip(name)
    at = (cycle % 1.0) * len(places)
    first = np.floor(at).astype(int) % len(places)
    second, share = (first + 1) % len(places), (at % 1.0)[:, None]
    place = places[first] + share * (places[second] - places[first])
    between = _between(turns[first], turns[second], share[..., None])
    out = np.tile(np.eye(3), (len(cycle), len(JOINTS), 1, 1))
    for i, joint in enumerate(CLIP_JOINTS):
        out[:, JOINTS.index(joint)] = _matrices(between[:, i])
    still = np.array([0.0, 0, 0, 1])
    for lower, upper, column in (("spine", "chest", 1), ("neck", "head", 2)):  # one joint there is two here
        half = _matrices(_between(np.broadcast_to(still, between[:, column].shape), between[:, column], 0.5))
        out[:, JOINTS.index(lower)] = out[:, JOINTS.index(upper)] = half
    return out, place


def _composed(name: str, cycle: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    out = np.tile(np.eye(3), (len(cycle), len(JOINTS), 1, 1))
    for joint, axis, mean, swing, cycles, phase in COMPOSED[name][1]:
        j = JOINTS.index(joint)
        wave = np.sin(2 * np.pi * (cycles * cycle + phase))
        out[:, j] = about(axis, mean + swing * (1 + (reach - 1) * (cycles > 0)) * wave) @ out[:, j]
    place = np.zeros((len(cycle), 3))
    if name == "hop":
        up = (cycle - 0.28) % 1.0 / 0.44
        place[:, 1] = np.where(up < 1, 4 * 0.26 * reach * up * (1 - up), 0)
    elif name == "side_step":
        place[:, 0] = 0.16 * reach * np.sin(2 * np.pi * cycle)
    elif name == "twist":
        place[:, 0] = 0.02 * np.sin(2 * np.pi * cycle)
    return out, place


def _mirrored(turns: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = [
        JOINTS.index(name.replace("left", "right") if "left" in name else name.replace("right", "left"))
        for name in JOINTS
    ]
    flip = np.diag([-1.0, 1, 1])
    return flip @ turns[:, order] @ flip, place @ flip


def poses_at(movement: Movement, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """The poses of a movement at these times.

    Args:
        times: (F,) seconds.
    Returns: turns (F, 19, 3, 3) relative to the parent's; place (F, 3) of the pelvis, metres, of a person whose legs
        are 0.84 m long; and whether its height counts (if not, it is that above a floor which the feet stand on).
    """

    def one(name: str) -> tuple[np.ndarray, np.ndarray]:
        cycle = movement.phase + np.asarray(times, float) * movement.rate / seconds(name)
        return _captured(name, cycle) if name in CLIPS else _composed(name, cycle, movement.reach)

    turns, place = one(movement.lower)
    if movement.upper != movement.lower:
        upper, _ = one(movement.upper)
        for j, joint in enumerate(JOINTS):
            if joint not in _LEGS:
                turns[:, j] = upper[:, j]
    _lift_shoulders(turns)
    if movement.mirrored:
        turns, place = _mirrored(turns, place)
    heading = about("y", movement.heading + movement.turning * np.asarray(times, float))
    turns[:, 0] = heading @ turns[:, 0]
    place = np.einsum("fij,fj->fi", heading, place)
    captured = movement.lower in CLIPS and movement.lower not in _GROUNDED
    if movement.lower in _GROUNDED:
        place[:, 1] = 0
    return turns, place, captured


def _lift_shoulders(turns: np.ndarray) -> None:
    """A raised arm takes the shoulder along by a quarter of what it rises above 40 degrees."""
    for side, sign in (("left", 1.0), ("right", -1.0)):
        shoulder, clavicle = JOINTS.index(f"{side}_shoulder"), JOINTS.index(f"{side}_clavicle")
        down = turns[:, shoulder] @ np.array([0.0, -1, 0])
        raised = np.degrees(np.arccos((-down[:, 1]).clip(-1, 1)))
        lift = about("z", sign * 0.25 * (raised - 40).clip(0))
        turns[:, clavicle] = lift
        turns[:, shoulder] = np.swapaxes(lift, -1, -2) @ turns[:, shoulder]
