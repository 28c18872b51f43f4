"""How long it takes from sound in to picture out: measured while a video is made, and by its plan alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..speech.frames import CONTEXT, FEATURES_PER_SECOND, GROUP
from ..timeline import MovingFront


@dataclass(frozen=True)
class LatencyReport:
    """What a listener waited for, in seconds: from the arrival of the sound that a video frame shows (that of its
    beginning) until the frame was handed out.

    Args:
        fps: video frames per second.
        arrived: when each 20 ms of sound had arrived.
        shown: when each video frame was handed out, by the same clock. Those without sound are left out.
        voiced: whether somebody speaks in each 20 ms, see `animagic.speech.voiced`; None: not known.

    Raises: InputError if nothing arrived, or nothing was handed out.
    """

    fps: float
    arrived: Sequence[float]
    shown: Sequence[float]
    voiced: Sequence[bool] | np.ndarray | None = None

    def __post_init__(self):
        if not len(self.arrived) or not len(self.shown):
            raise InputError("there is no latency to report: no sound has arrived, or no frame was handed out.")

    @cached_property
    def waits(self) -> np.ndarray:
        """Of each video frame that has sound."""
        sound = (np.arange(len(self.shown)) * (FEATURES_PER_SECOND / self.fps)).astype(int)
        sound = sound[sound < len(self.arrived)]
        return np.asarray(self.shown, float)[: len(sound)] - np.asarray(self.arrived, float)[sound]

    @cached_property
    def gaps(self) -> np.ndarray:
        """Between one frame and the next; those that are handed out together have none."""
        return np.diff(np.asarray(self.shown, float))

    @cached_property
    def speech_waits(self) -> np.ndarray:
        """Of each switch from silence to speech, until the first frame that shows it."""
        starts = np.flatnonzero(np.diff(np.asarray(self.voiced if self.voiced is not None else [], int), prepend=0) > 0)
        frames = (starts * (self.fps / FEATURES_PER_SECOND)).astype(int)
        starts, frames = starts[frames < len(self.shown)], frames[frames < len(self.shown)]
        return np.asarray(self.shown, float)[frames] - np.asarray(self.arrived, float)[starts]

    @property
    def held_back(self) -> float:
        """How long a player must hold the first frame back so that it never waits for another one."""
        due = np.arange(len(self.shown)) / self.fps
        return float((np.asarray(self.shown, float) - self.shown[0] - due).max())

    def facts(self) -> dict[str, float]:
        """The numbers of the report, in seconds; those on gaps and on speech only where there are any."""
        facts: dict[str, float] = {"frames": len(self.shown), "fps": self.fps}
        facts |= {"wait_first": self.waits[0], "wait_median": np.median(self.waits)}
        facts |= {"wait_95_percent": np.percentile(self.waits, 95), "wait_worst": self.waits.max()}
        if len(self.gaps):
            facts |= {"gap_mean": self.gaps.mean(), "gap_deviation": self.gaps.std(), "gap_worst": self.gaps.max()}
            facts["held_back"] = self.held_back
        if len(self.speech_waits):
            facts |= {"speech_starts": len(self.speech_waits), "speech_wait_median": np.median(self.speech_waits)}
            facts["speech_wait_worst"] = self.speech_waits.max()
        return {name: value if isinstance(value, int) else round(float(value), 4) for name, value in facts.items()}

    def lines(self) -> list[str]:
        """The report for people, in one to three lines."""
        facts = self.facts()
        lines = [
            f"sound in to picture out: {facts['wait_first']:.2f} s for the first frame, median "
            f"{facts['wait_median']:.2f} s, 95 % within {facts['wait_95_percent']:.2f} s, "
            f"at worst {facts['wait_worst']:.2f} s ({facts['frames']} frames)"
        ]
        if len(self.gaps):
            mean, deviation, worst = (1000 * facts[f"gap_{name}"] for name in ("mean", "deviation", "worst"))
            lines.append(
                f"a frame every {mean:.0f} ms (real time: {1000 / self.fps:.0f} ms), standard deviation "
                f"{deviation:.0f} ms, at worst {worst:.0f} ms; a player that holds back {facts['held_back']:.2f} s "
                "never stalls"
            )
        if len(self.speech_waits):
            lines.append(
                f"from silence to speech, {facts['speech_starts']} times: seen after a median of "
                f"{facts['speech_wait_median']:.2f} s, at worst {facts['speech_wait_worst']:.2f} s"
            )
        return lines


class Delay(NamedTuple):
    """A delay in latent frames, and in milliseconds from sound in to picture out."""

    latent_frames: int
    milliseconds: float


def theoretical_delay(plan: MovingFront, fps: float, lookahead_ms: float = 0.0) -> Delay:
    """What a plan alone costs with live sound, computing not counted: the longest wait of any video frame.

    A frame leaves when the last one of the front has entered, and that one enters when its own sound and two video
    frames more have been heard: 4 F + 2 video frames after the beginning of the sound that it shows.

    lookahead_ms: what must be heard after a feature before it is final: `FeatureStream.longest_wait_ms`.
    """
    frames = GROUP * plan.front + CONTEXT
    return Delay(plan.front, 1000 * frames / fps + lookahead_ms)
