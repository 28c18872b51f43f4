"""Where a person is seen from, and before what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..scenes import FLOORS, PHOTOS, PLAIN, VIEWS, Background
from .motion import about

_DISTANCE = 5.0  # of the camera, in statures of the person


@dataclass(frozen=True, slots=True)
class View:
    """A still camera, the light and what is behind the person.

    azimuth: degrees that the camera stands to the person's left; elevation: degrees above them; zoom: share of the
    picture's height that a standing person fills; x: how far right of the middle they stand, as a share of the
    picture's shorter side; framing: "full" stands the person on a floor near the lower edge, "half" looks at where
    the chest is most of the time; light: degrees that it falls in from the left of the camera.
    """

    background: Background
    azimuth: float = 0.0
    elevation: float = 0.0
    zoom: float = 0.8
    x: float = 0.0
    framing: Literal["full", "half"] = "full"
    light: float = 30.0


def sample_view(rng: np.random.Generator | int, framing: Literal["full", "half"] | None = None) -> View:
    """A view at random, most from the front. framing: None draws it, half of the body in one of five."""
    rng = np.random.default_rng(rng)
    uniform = rng.uniform
    kind = str(rng.choice(("plain", "floor", "photo", *VIEWS), p=(0.2, 0.34, 0.11, *(0.07,) * 5)))
    names = {"plain": tuple(PLAIN), "floor": tuple(FLOORS), "photo": PHOTOS}.get(kind, ("",))
    background = Background(kind, names[int(rng.integers(len(names)))], int(rng.integers(2**31)))
    framing = framing or ("half" if rng.random() < 0.2 else "full")
    turned = uniform(-75, 75) if rng.random() < 0.25 else rng.normal(0, 16)
    return View(
        background,
        float(turned),
        float(uniform(-3, 14)),
        float(uniform(0.64, 0.84) if framing == "full" else uniform(1.15, 1.5)),
        float(rng.normal(0, 0.05)),
        framing,
        float(uniform(-60, 60)),
    )


@dataclass(frozen=True, slots=True)
class Camera:
    """What turns metres into pixels: see `project`."""

    turn: np.ndarray  # (3, 3)
    target: np.ndarray  # (3,), the point that is seen at `centre`
    centre: tuple[float, float]  # x and y, pixels
    scale: float  # pixels a metre at the target
    distance: float  # metres


def camera_of(view: View, stature: float, neck: float, height: int, width: int) -> Camera:
    """The camera for a person of this stature at the origin of the floor, whose neck is at this height; metres."""
    scale = view.zoom * min(height, 1.25 * width) / stature
    if view.framing == "full":
        target, row = np.array([0, 0.5 * stature, 0]), 0.53 * height
    else:
        target, row = np.array([0, neck - 0.1 * stature, 0]), 0.5 * height
    turn = about("x", view.elevation) @ about("y", -view.azimuth)
    return Camera(turn, target, (width / 2 + view.x * min(height, width), row), scale, _DISTANCE * stature)


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """(..., 3) metres to (..., 3): x and y in pixels from the top left corner, and depth in pixels, less is nearer."""
    turned = (points - camera.target.astype(points.dtype)) @ camera.turn.T.astype(points.dtype)
    scale = camera.scale * camera.distance / (camera.distance - turned[..., 2])
    x = camera.centre[0] + scale * turned[..., 0]
    y = camera.centre[1] - scale * turned[..., 1]
    return np.stack([x, y, -camera.scale * turned[..., 2]], -1)
