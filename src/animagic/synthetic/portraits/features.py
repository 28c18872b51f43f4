"""Mouth, eyes and brows as curves on a flat face, in half heights of it. Both kinds of portraits share the measures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .layout import ROWS, Face
from .performance import Performance

GAPE = 0.3  # the gap of a mouth that is wide open
JAW = 0.11  # by which the chin is lower then
_N = 13


class Expression(NamedTuple):
    """smile: how far the corners of the mouth are raised; wide: by which the mouth is wider; inner, outer: how far the
    ends of the brows are raised; lids: how far the eyes are open; press: by which the lips are thinner."""

    smile: float
    wide: float
    inner: float
    outer: float
    lids: float
    press: float


OF_EXPRESSION = {
    "neutral": Expression(0.02, 0, 0, 0, 1, 0),
    "smiling": Expression(0.105, 0.22, 0.015, 0.02, 0.8, 0.1),
    "sad": Expression(-0.085, -0.06, 0.1, -0.06, 0.78, 0),
    "angry": Expression(-0.05, -0.05, -0.1, 0.05, 0.85, 0.3),
    "surprised": Expression(0.0, -0.12, 0.12, 0.1, 1.38, 0),
}


class Mouth(NamedTuple):
    """Closed curves (F, points, 2), left corner first, along the top and back; gap: (F,), between the lips."""

    outer: np.ndarray
    inner: np.ndarray
    around: np.ndarray
    gap: np.ndarray
    chin: np.ndarray


def mouth_of(face: Face, performance: Performance) -> Mouth:
    """The lips in every frame; chin: (F,), by which it is lower; around: what moves with speech, nose to chin."""
    opening, width, rounding = performance.mouth.astype(float).T[..., None].clip(0, 1)
    mood = OF_EXPRESSION[performance.expression]
    t = np.linspace(-1, 1, _N)[None]
    gap = GAPE * opening * (1 - 0.15 * rounding)
    half = face.mouth_wide * (1 + 0.8 * (width - 0.5) + mood.wide) * (1 - 0.22 * rounding)
    full = (1 - t**2).clip(0) ** (0.75 - 0.22 * rounding)
    line = face.mouth_y + mood.smile * (0.35 - t**2) + 0.012 * (1 - np.abs(t))
    thick = face.lips * (1 - mood.press) * (1 + 0.3 * rounding) * (1 - 0.12 * opening)
    above, below = line - 0.27 * gap * full, line + 0.73 * gap * full
    bow = 1 - 0.3 * np.exp(-((t / 0.2) ** 2))
    edge = (1 - t**2).clip(0) ** 0.8
    top, bottom = above - 0.85 * thick * edge * bow - 0.004, below + 1.2 * thick * edge + 0.004
    x = half * t
    chin = JAW * opening[:, 0]

    def closed(high: np.ndarray, low: np.ndarray, across: np.ndarray) -> np.ndarray:
        upper, lower = np.stack([across, high], -1), np.stack([across, low], -1)
        return np.concatenate([upper, lower[:, -2:0:-1]], 1)

    reach = np.broadcast_to(0.5 * np.sign(t) * np.abs(t) ** 0.7, x.shape)
    round_ = np.sqrt((1 - t**2).clip(0))
    middle = face.mouth_y + 0.04
    around = closed(middle - 0.24 * round_ + 0 * x, middle + (0.4 + chin[:, None]) * round_, reach)
    edge = 0.93 * np.interp(around[..., 1], ROWS, face.wide)
    around[..., 0] = around[..., 0].clip(-edge, edge)
    return Mouth(closed(top, bottom, x), closed(above, below, x), around, gap[:, 0], chin)


def eye_of(face: Face, performance: Performance) -> tuple[np.ndarray, np.ndarray]:
    """The right half's eye about its own middle: closed curves (F, points, 2), inner corner first, along the top and
    back; and how far it is open, (F,), 1 in rest."""
    lids = OF_EXPRESSION[performance.expression].lids
    open_ = lids * (1 - performance.blink.astype(float))
    t = np.linspace(-1, 1, 11)[None]
    full = (1 - t**2).clip(0) ** 0.7 * (1 - 0.12 * t)
    cheek = 0.62 if performance.expression == "smiling" else 0.9
    top = -face.eye_high * (1.05 * open_[:, None] * full - 0.35 * (1 - full)) + 0.02 * (1 - open_[:, None])
    bottom = face.eye_high * (cheek * full * (0.45 + 0.55 * open_[:, None]) + 0.35 * (1 - full))
    top = np.minimum(top, bottom)
    x = np.broadcast_to(face.eye_wide * t, top.shape)
    upper, lower = np.stack([x, top], -1), np.stack([x, bottom], -1)
    return np.concatenate([upper, lower[:, -2:0:-1]], 1), open_


def brow_of(face: Face, performance: Performance) -> np.ndarray:
    """The right half's brow: a closed curve (points, 2), inner end first."""
    mood = OF_EXPRESSION[performance.expression]
    t = np.linspace(0, 1, 8)
    x = face.eye_x - 0.95 * face.eye_wide + 2.1 * face.eye_wide * t
    lift = mood.inner + (mood.outer - mood.inner) * t
    y = face.brow_y - lift - 0.05 * np.sin(np.pi * t**0.8) + 0.03 * t
    thick = face.brow_thick * (1 - 0.65 * t**2)
    return np.concatenate([np.stack([x, y - thick], -1), np.stack([x, y + thick], -1)[::-1]])
