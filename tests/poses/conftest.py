"""A body that stands, made of numbers, and the sample videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from animagic.poses import LANDMARKS, Poses

# Shares of the body's height: to the left, up from the ground, towards the camera.
_BODY = {
    "nose": (0, 0.93, 0.06), "mouth": (0.015, 0.905, 0.05), "eye": (0.02, 0.95, 0.05), "eye_inner": (0.01, 0.95, 0.05),
    "eye_outer": (0.03, 0.95, 0.045), "ear": (0.043, 0.94, 0), "shoulder": (0.1, 0.82, 0), "elbow": (0.16, 0.64, 0),
    "wrist": (0.2, 0.5, 0.02), "pinky": (0.2, 0.44, 0.02), "index": (0.21, 0.44, 0.03), "thumb": (0.19, 0.46, 0.04),
    "hip": (0.05, 0.53, 0), "knee": (0.07, 0.285, 0.01), "ankle": (0.08, 0.04, 0), "heel": (0.08, 0.01, -0.02),
    "foot_index": (0.1, 0, 0.1),
}  # fmt: skip


def body(turn: float = 0.0) -> np.ndarray:
    """(33, 3): a body 1 high, whose feet stand at y = 0, turned by an angle in radians; 0 faces the camera."""
    points = []
    for name in LANDMARKS:
        side = -1 if "right" in name else 1
        left, up, front = _BODY[
            name.replace("left_", "").replace("right_", "").removesuffix("_left").removesuffix("_right")
        ]
        x, z = side * left, -front
        points.append((x * np.cos(turn) + z * np.sin(turn), -up, z * np.cos(turn) - x * np.sin(turn)))
    return np.array(points, np.float32)


def standing(turns=(0.0,), x: float = 128, ground: float = 240, tall: float = 220, size: int = 256) -> Poses:
    """A person in as many frames as there are turns."""
    points = np.stack([body(turn) for turn in turns])[:, None] * tall + np.array([x, ground, 0])
    return Poses(points.astype(np.float32), np.ones((len(turns), 1, 33), np.float32), size, size, 25.0)


@pytest.fixture
def stand():
    return standing


@pytest.fixture
def together():
    """Puts the people of several poses into the same frames."""

    def together(*several: Poses) -> Poses:
        points, confidence = (
            np.concatenate([getattr(one, name) for one in several], 1) for name in ("points", "confidence")
        )
        return Poses(points, confidence, several[0].height, several[0].width, several[0].fps)

    return together


@pytest.fixture(scope="session")
def samples() -> Path:
    for folder in Path(__file__).parents:
        if (folder / "shared" / "samples").is_dir():
            return folder / "shared" / "samples"
    pytest.skip("the sample files are not here")
