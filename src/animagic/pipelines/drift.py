"""Drift: how far the person and the background move away from the picture in the course of a video."""

from __future__ import annotations

import numpy as np

from ..faces import SAME_PERSON, find_faces, identity, identity_distance

_WHITE = np.array([0.95047, 1.0, 1.08883])
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """sRGB pixels uint8 (..., 3) in CIELAB (D65), in which a distance of 2 can just be seen."""
    share = pixels / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


class Drift:
    """Distances from the picture, window by window.

    Of the background, the mean distance in CIELAB between each pixel and the same one of the picture, where neither
    shows a person. Of the person, the distance between the colours that the picture and the window show: each one's
    `_COLOURS` quantiles of every channel, over the pixels of the person; that says of clothes, skin and hair together
    whether they keep their colours, wherever they move. Of the face, where the picture and the last frame of a window
    show one that is large enough to be found, the distance between who they are (`animagic.faces.identity`).

    Args:
        picture: uint8 (height, width, 3). person: who is seen in it, bool (height, width); None: unknown, which is then
            the first window.
        size: frames of a window.
    """

    _COLOURS = np.linspace(0.05, 0.95, 10)

    def __init__(self, picture: np.ndarray, person: np.ndarray | None, size: int):
        self.picture, self.person, self.size = to_lab(picture), person, size
        self._windows: list[dict[str, float]] = []
        self._colours = None if person is None or not person.any() else self._spread(self.picture[person])
        self._count, self._background, self._people = 0, [], []  # type: ignore[var-annotated]
        self._face, self._last = _identity(picture), picture

    def _spread(self, pixels: np.ndarray) -> np.ndarray:
        return np.quantile(pixels, self._COLOURS, axis=0)

    def add(self, frames: np.ndarray, masks: np.ndarray) -> None:
        """Take the next frames, uint8 (F, height, width, 3), and where people are in them, bool (F, height, width)."""
        for frame, mask in zip(frames, masks, strict=True):
            lab = to_lab(frame)
            free = ~mask if self.person is None else ~(mask | self.person)
            if free.any():
                self._background.append(float(np.linalg.norm(lab - self.picture, axis=-1)[free].mean()))
            if mask.any():
                self._people.append(self._spread(lab[mask]))
            self._count, self._last = self._count + 1, frame
            if self._count % self.size == 0:
                self._end()

    def _end(self) -> None:
        window: dict[str, float] = {"frames": self._count}
        if self._background:
            window["background"] = round(float(np.mean(self._background)), 2)
        if self._people:
            colours = np.mean(self._people, axis=0)
            self._colours = colours if self._colours is None else self._colours
            window["person"] = round(float(np.linalg.norm(colours - self._colours, axis=-1).mean()), 2)
        if self._face is not None and (now := _identity(self._last)) is not None:
            window["identity"] = round(float(identity_distance(self._face, now)), 3)
        self._windows.append(window)
        self._background, self._people = [], []

    def windows(self) -> list[dict[str, float]]:
        """Of each window: the number of frames at its end, and the distances of background and person."""
        if self._background or self._people:
            self._end()
        return self._windows

    def lines(self) -> list[str]:
        """What there is to say at the end."""
        windows = self.windows()
        said = {}
        for name, digits in (("person", 1), ("background", 1), ("identity", 2)):
            if values := [window[name] for window in windows if name in window]:
                first, last = (f"{value:.{digits}f}" for value in (values[0], values[-1]))
                said[name] = f"{name} {first} in the first window, {last} in the last"
        face = said.pop("identity", None)
        lines = [f"distance from the picture (CIELAB; 2 can just be seen): {'; '.join(said.values())}"] if said else []
        return lines if face is None else [*lines, f"{face} (above {SAME_PERSON} it is another face)"]


def _identity(frame: np.ndarray) -> np.ndarray | None:
    """Who the largest face in a frame is; None: none is found."""
    faces = find_faces(frame)
    return identity(frame, faces[0]) if faces else None
