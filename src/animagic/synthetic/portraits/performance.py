"""What somebody does: speech, expression, movements of the head, blinks and gaze, as curves over the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError

EXPRESSIONS = ("neutral", "smiling", "sad", "angry", "surprised")
MOTIONS = (
    "still",
    "nodding",
    "shaking the head",
    "swaying",
    "turning to the left",
    "turning to the right",
    "leaning",
    "turning round",
    "from behind",
)
"""Left and right are those of the picture."""

_MOTION_SHARES = (0.24, 0.15, 0.12, 0.12, 0.1, 0.1, 0.09, 0.04, 0.04)
_EXPRESSION_SHARES = (0.3, 0.25, 0.15, 0.15, 0.15)
_BLINK_EVERY = (2.0, 6.0)  # seconds


@dataclass(frozen=True, slots=True)
class Performance:
    """What somebody does in F frames.

    mouth: float32 (F, 3), opening (0 shut, 1 wide open), width (0 pursed, 0.5 at rest, 1 spread) and rounding (0 to
    1), as animagic.speech.mouth_shapes gives them; angles: float32 (F, 3), yaw (positive looks to the picture's
    right), pitch (up) and roll (clockwise) in degrees; shift: float32 (F, 3), of the head to the right, down and
    towards the camera, and breath: float32 (F,), how far the shoulders rise, all in half heights of the face; blink:
    float32 (F,), 0 open to 1 shut; gaze: float32 (F, 2), to the right and down, -1 to 1. expression, motion: of
    EXPRESSIONS and MOTIONS.
    """

    mouth: np.ndarray
    expression: str
    motion: str
    angles: np.ndarray
    shift: np.ndarray
    breath: np.ndarray
    blink: np.ndarray
    gaze: np.ndarray
    fps: float

    def __len__(self) -> int:
        return len(self.mouth)


def sample_performance(
    rng: np.random.Generator | int,
    mouth: np.ndarray,
    fps: float,
    held_out: bool = False,
    expression: str | None = None,
    motion: str | None = None,
) -> Performance:
    """An expression and movements at random for a mouth that speaks; small idle movements never stop.

    Args:
        mouth: float32 (frames, 3), as in `Performance`.
        held_out: pairs of expression and motion that never occur without it.
        expression, motion: of EXPRESSIONS and MOTIONS; None draws it, and only what is drawn is held out.
    Raises: InputError.
    """
    mouth = np.asarray(mouth, np.float32)
    if mouth.ndim != 2 or mouth.shape[1] != 3 or len(mouth) < 1 or fps <= 0:
        raise InputError(f"mouth is {mouth.shape} at {fps} frames a second; give (frames, 3) and a positive rate.")
    for value, known in ((expression, EXPRESSIONS), (motion, MOTIONS)):
        if value not in (None, *known):
            raise InputError(f"There is no {value!r}; choose one of {', '.join(known)}.")
    rng = np.random.default_rng(rng)
    while True:
        pair = (
            expression or str(rng.choice(EXPRESSIONS, p=_EXPRESSION_SHARES)),
            motion or str(rng.choice(MOTIONS, p=_MOTION_SHARES)),
        )
        if expression or motion or (pair in HELD_OUT) == held_out:
            break
    frames = len(mouth)
    time = np.arange(frames) / fps
    angles, shift = _moved(rng, pair[1], time)
    pace = rng.uniform(0.22, 0.35)
    breath = 0.018 * np.sin(2 * np.pi * (pace * time + rng.random()))
    shift[:, 1] += 0.4 * breath
    return Performance(
        mouth, *pair, np.float32(angles), np.float32(shift), np.float32(breath), _blinks(rng, frames, fps),
        _gaze(rng, frames, fps), float(fps),
    )  # fmt: skip


HELD_OUT = frozenset(
    {
        ("smiling", "nodding"),
        ("sad", "shaking the head"),
        ("angry", "leaning"),
        ("surprised", "turning to the left"),
        ("neutral", "swaying"),
    }
)
"""Pairs of expression and motion of the test split."""


def _wander(rng: np.random.Generator, time: np.ndarray, columns: int) -> np.ndarray:
    """Slow smooth noise (frames, columns), about -1 to 1."""
    out = np.zeros((len(time), columns))
    for rate, share in ((0.13, 0.5), (0.29, 0.32), (0.61, 0.18)):
        pace, phase = rate * rng.uniform(0.75, 1.3, columns), rng.random(columns)
        out += share * np.sin(2 * np.pi * (pace * time[:, None] + phase))
    return out


def _risen(time: np.ndarray, start: float, seconds: float) -> np.ndarray:
    """0 before start, 1 from so many seconds after it on, evenly between."""
    share = ((time - start) / seconds).clip(0, 1)
    return share * share * (3 - 2 * share)


def _moved(rng: np.random.Generator, motion: str, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles in degrees and shifts, (frames, 3) each."""
    idle = 0.45 if motion == "still" else 1.0
    angles = idle * _wander(rng, time, 3) * [5.0, 3.0, 2.5] + rng.normal(0, 1, 3) * [4, 2, 1.5]
    shift = idle * _wander(rng, time, 3) * [0.035, 0.015, 0.015]
    wave = np.sin(2 * np.pi * (rng.uniform(0.7, 1.2) * time + rng.random()))
    slow = np.sin(2 * np.pi * (rng.uniform(0.28, 0.45) * time + rng.random()))
    side = float(rng.choice([-1.0, 1.0]))
    # Once in a while there is a rest between nods and shakes.
    share = 0.65 + 0.35 * np.sin(2 * np.pi * (0.15 * time + rng.random()))
    reach = rng.uniform(0.8, 1.25)
    start, seconds = rng.uniform(0.0, 0.5), rng.uniform(0.5, 1.0)
    if motion == "nodding":
        angles[:, 1] += 9 * reach * share * wave - 2
    elif motion == "shaking the head":
        angles[:, 0] += 17 * reach * share * wave
    elif motion == "swaying":
        angles[:, 2] += 7 * reach * slow
        shift[:, 0] += 0.14 * reach * slow
    elif motion == "leaning":
        angles[:, 2] += side * 11 * reach * _risen(time, start, seconds)
        shift += np.outer(_risen(time, start, seconds), [side * 0.16, 0.03, 0.05 * rng.uniform(-1, 1)])
    elif motion.startswith("turning to"):
        way = 1.0 if motion.endswith("right") else -1.0
        turned = rng.uniform(34, 58) * _risen(time, start, seconds)
        if rng.random() < 0.35:  # and back again
            turned *= 1 - _risen(time, start + seconds + rng.uniform(0.8, 2.0), seconds)
        angles[:, 0] += way * turned
    elif motion == "turning round":
        whole = 2.2 * seconds
        turn = 180 * _risen(time, start, whole)
        if rng.random() < 0.6:  # on to the front again, or back
            turn += float(rng.choice([-1.0, 1.0])) * 180 * _risen(time, start + whole + rng.uniform(0.4, 1.0), whole)
        angles[:, 0] += side * turn
    elif motion == "from behind":
        angles[:, 0] += 180
    return angles, shift


def _blinks(rng: np.random.Generator, frames: int, fps: float) -> np.ndarray:
    """float32 (frames,): blinks of 3 to 5 frames at 25 frames a second."""
    time, out = np.arange(frames) / fps, np.zeros(frames, np.float32)
    start = rng.uniform(0.2, _BLINK_EVERY[1] / 2)
    while start < time[-1]:
        length = rng.uniform(0.12, 0.2)
        share = (time - start) / length
        out[(share > 0) & (share < 1)] = np.sin(np.pi * share[(share > 0) & (share < 1)]) ** 0.6
        start += rng.uniform(*_BLINK_EVERY)
    return np.float32(out)


def _gaze(rng: np.random.Generator, frames: int, fps: float) -> np.ndarray:
    """float32 (frames, 2): mostly at the camera, with quick changes in between."""
    out, frame = np.zeros((frames, 2), np.float32), 0
    while frame < frames:
        away = rng.random() < 0.3
        last = frame + max(2, round(fps * (rng.uniform(0.3, 0.9) if away else rng.uniform(0.8, 2.5))))
        out[frame:last] = rng.normal(0, 1, 2) * ((0.5, 0.25) if away else (0.1, 0.06))
        frame = last
    return out.clip(-1, 1)


def sample_still(rng: np.random.Generator | int) -> Performance:
    """One frame as on a photo: the mouth shut or nearly so, mostly without an expression, the head a little turned."""
    rng = np.random.default_rng(rng)
    mouth = np.array([[rng.choice([0.0, rng.uniform(0, 0.08)]), 0.5, 0.0]], np.float32)
    expression = "neutral" if rng.random() < 0.6 else EXPRESSIONS[int(rng.integers(len(EXPRESSIONS)))]
    angles = np.float32(rng.normal(0, 1, (1, 3)) * [7, 3, 2.5])
    zero = np.zeros(1, np.float32)
    shift = np.float32(rng.normal(0, 1, (1, 3)) * [0.03, 0.015, 0.01])
    return Performance(mouth, expression, "still", angles, shift, zero, zero, np.zeros((1, 2), np.float32), 25.0)
