"""Poses as JSON: ours, and that of OpenPose and COCO.

    {"format": "animagic poses", "version": 1, "skeleton": "blazepose-33", "landmarks": ["nose", ...],
     "height": 480, "width": 640, "fps": 25.0, "frames": [[[x, y, depth, confidence, x, y, ...], null], ...]}

`frames` has for each frame a list with the same people in the same order, and of each its landmarks one after the
other, or null while nobody sees the person. Lengths are in pixels, to a tenth; confidence is 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..wording import spell
from .body import INDEX
from .extraction import MOST_PEOPLE
from .skeleton import LANDMARKS, Poses

VERSION = 1
FORMAT = "animagic poses"
MOST_FRAMES = 100_000
MOST_PIXELS = 16_384  # height and width, each
_DEFAULT_FPS = 24.0  # of files that say none

COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
OPENPOSE = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
_BODY_25 = (
    *OPENPOSE[:8], "mid_hip", *OPENPOSE[8:], "left_foot_index", "left_small_toe", "left_heel", "right_foot_index",
    "right_small_toe", "right_heel",
)  # fmt: skip
_SKELETONS = {len(names): names for names in (COCO, OPENPOSE, _BODY_25)}
_NEEDED = [f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "hip", "knee")]

_Frames = list[list[np.ndarray | None]]  # of each frame, people, (landmarks, 4) or None


def to_json(poses: Poses) -> str:
    """The poses as one line of JSON."""
    values = np.concatenate([poses.points.round(1), poses.confidence[..., None].round(2)], -1, dtype=np.float64).round(
        2
    )
    frames = [[one.ravel().tolist() if one[:, 3].any() else None for one in people] for people in values]
    head = {"format": FORMAT, "version": VERSION, "skeleton": "blazepose-33", "landmarks": LANDMARKS}
    size = {"height": poses.height, "width": poses.width, "fps": poses.fps}
    return json.dumps({**head, **size, "frames": frames}, separators=(",", ":"))


def from_json(text: str, name: str = "the pose JSON") -> Poses:
    """The poses in a JSON text: ours; one frame of OpenPose or a list of them; COCO results or annotations.

    Points that another skeleton does not have get confidence 0, and its depths are 0. Where no size is said the frame
    is as large as the points need.

    Args:
        name: what the text is called in errors.
    Raises: InputError where it is something else, damaged, too large, or of a skeleton that cannot be converted.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON ({error}); give a file that `animagic pose` has written.") from error
    try:
        if isinstance(value, dict) and "frames" in value:
            return _ours(value, name)
        return _foreign(value, name)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} holds no poses that can be read; give JSON of ours, OpenPose or COCO.") from error


def _ours(value: dict[str, Any], name: str) -> Poses:
    if value.get("format") != FORMAT or value.get("version") != VERSION:
        said = f"{spell(value.get('format'))}, version {spell(value.get('version'))}"
        raise InputError(f'{name} is "{said}"; "{FORMAT}", version {VERSION} can be read.')
    landmarks = value["landmarks"]
    frames: _Frames = [
        [None if one is None else np.array(one, float).reshape(-1, 4) for one in f] for f in value["frames"]
    ]
    return _poses(frames, landmarks, (value["height"], value["width"]), value["fps"], name)


def _foreign(value: Any, name: str) -> Poses:
    size: tuple[Any, Any] = (None, None)
    if isinstance(value, dict) and "annotations" in value:
        image = value["images"][0]
        size, value = (image["height"], image["width"]), value["annotations"]
    if isinstance(value, dict):
        value = [value]
    if not value:
        raise InputError(f"{name} holds no frames; give at least one.")
    if "keypoints" in value[0]:
        by_image: dict[Any, list[Any]] = {one["image_id"]: [] for one in value}
        for one in value:
            by_image[one["image_id"]].append(one["keypoints"])
        people = [by_image[image] for image in sorted(by_image)]
    else:
        people = [[one["pose_keypoints_2d"] for one in frame["people"]] for frame in value]
        size = (value[0].get("canvas_height"), value[0].get("canvas_width"))
    frames: _Frames = [[_with_depth(one) for one in frame] for frame in people]
    counts = {len(one) for frame in frames for one in frame if one is not None}
    if len(counts) > 1 or not counts <= set(_SKELETONS):
        known = ", ".join(map(str, sorted(_SKELETONS)))
        said = " and ".join(map(str, sorted(counts)))
        raise InputError(f"{name} has people of {said} points; bodies of {known} (COCO, OpenPose) can be read.")
    return _poses(frames, _SKELETONS[counts.pop()] if counts else OPENPOSE, size, _DEFAULT_FPS, name)


def _with_depth(values: Sequence[float]) -> np.ndarray | None:
    """(landmarks, 4) from x, y and confidence; COCO says 0: not there, 1: hidden, 2: seen."""
    points = np.array(values, float).reshape(-1, 3)
    confidence = points[:, 2] / 2 if (points[:, 2] > 1).any() else points[:, 2]
    full = np.stack([points[:, 0], points[:, 1], np.zeros(len(points)), confidence], -1)
    return full if (confidence > 0).any() else None


def _poses(frames: _Frames, landmarks: Sequence[str], size: tuple[Any, Any], fps: Any, name: str) -> Poses:
    """Poses of points that go by these names."""
    places = [(i, INDEX[landmark]) for i, landmark in enumerate(landmarks) if landmark in INDEX]
    missing = set(_NEEDED) - {LANDMARKS[place] for _, place in places}
    if missing or len(places) != len({place for _, place in places}):
        lacks = f"it lacks {min(missing)}" if missing else "names occur twice"
        raise InputError(
            f"{name} is of another skeleton ({lacks}); one with BlazePose, COCO or OpenPose names is needed."
        )
    people = max(map(len, frames), default=0)
    if not 1 <= len(frames) <= MOST_FRAMES or people > MOST_PEOPLE:
        allowed = f"1 to {MOST_FRAMES} frames of up to {MOST_PEOPLE} people can be read"
        raise InputError(f"{name} has {len(frames)} frames of {people} people; {allowed}.")
    values = np.zeros((len(frames), people, len(LANDMARKS), 4), np.float32)
    source, target = np.array(places).T
    for number, frame in enumerate(frames):
        for person, one in enumerate(frame):
            if one is not None:
                if one.shape != (len(landmarks), 4):
                    raise InputError(f"{name} has {len(one)} points in frame {number}, but {len(landmarks)} names.")
                values[number, person, target] = one[source]
    if not np.isfinite(values).all() or not ((values[..., 3] >= 0) & (values[..., 3] <= 1)).all():
        raise InputError(f"{name} has points that are no numbers or a confidence beyond 0 to 1; write the file again.")
    height, width = (
        given if given is not None else max(8, int(np.ceil((values[..., axis].max() + 1) / 8)) * 8)
        for given, axis in zip(size, (1, 0), strict=True)
    )
    for what, pixels in (("height", height), ("width", width)):
        if not isinstance(pixels, int) or not 1 <= pixels <= MOST_PIXELS:
            raise InputError(
                f"{name} has the {what} {spell(pixels)}; a whole number from 1 to {MOST_PIXELS} is needed."
            )
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps <= 1000:
        raise InputError(f"{name} has the fps {spell(fps)}; a number above 0, at most 1000, is needed.")
    return Poses(np.ascontiguousarray(values[..., :3]), values[..., 3].copy(), height, width, float(fps))
