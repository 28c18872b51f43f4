"""A video of somebody who talks, of whatever origin, judged without knowing the truth; and what it is judged by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..faces import find_faces, follow_faces, mouth_opening, smoothed
from ..media import iter_blocks, read_image, read_sound
from .metrics import changes
from .reports import speech_plot
from .speaking import (
    RATE,
    Heard,
    SyncScore,
    Talk,
    by_phones,
    drift,
    identity_distances,
    jerk,
    share_open,
    viewed,
)
from .suites import Suite, find_suite
from .syncnet import SyncNet
from .talking import judge_talk

FPS = 25.0  # at which a video is looked at
BLOCK = 50  # frames


def sync_scores(syncnet: str | Path | None) -> list[SyncScore]:
    """What tells whether mouth and sound fit: always `by_phones`; with a file of SyncNet's weights that, too.

    Raises: InputError, CheckpointError.
    """
    return [by_phones] if syncnet is None else [by_phones, SyncNet.load(syncnet)]


def with_scores(suite: str, syncnet: str | Path | None) -> Suite:
    """A suite by its name; of talking people also with SyncNet. Raises InputError, CheckpointError."""
    found = find_suite(suite)
    return replace(found, judge=partial(judge_talk, scores=sync_scores(syncnet))) if syncnet else found


def judge_video(
    video: str | Path,
    audio: str | Path | None = None,
    portrait: str | Path | None = None,
    scores: Sequence[SyncScore] = (by_phones,),
) -> tuple[dict[str, Any], np.ndarray]:
    """How well the largest face of a video talks: (a report, a picture of its mouth beside the sound).

    Args:
        video: a film or a folder of pictures. audio: what is said; None: the film's own sound.
        portrait: who it should be; None: who the first frame shows.
    Raises: InputError where nobody is seen; MediaError.
    """
    began = time.monotonic()
    frames = np.concatenate([viewed(block) for block in iter_blocks(video, BLOCK, FPS)])
    samples = read_sound(video if audio is None else audio).samples[: round(len(frames) * RATE / FPS)]
    picture = frames[0] if portrait is None else viewed(read_image(portrait)[None])[0]
    found, faces = find_faces(picture), smoothed(follow_faces(frames, FPS), 0)
    if not found or not faces.confidence.shape[1]:
        raise InputError(f"no face is seen in {portrait or video}: only a face that is found can be judged.")
    first = replace(faces, mesh=faces.mesh[:, :1], confidence=faces.confidence[:, :1])
    opening, heard = mouth_opening(first)[:, 0], Heard(samples)
    talk = Talk(frames, FPS, heard, first.box[:, 0], opening)
    summary: dict[str, float] = {}
    for score in scores:
        summary |= score(talk)
    distances, change = identity_distances(frames, first, picture, found[0]), changes(frames)
    summary |= {
        "open in silence": share_open(opening - np.nanpercentile(opening, 5), heard.silent(FPS, len(frames))),
        "face seen": float(np.isfinite(opening).mean()),
        "identity": float(np.nanmedian(distances)) if np.isfinite(distances).any() else float("nan"),
        "drift": drift(distances, FPS),
        "jerk": jerk(frames),
        "largest change": float(change.max() / max(np.median(change), 1e-6)),
    }
    summary = {name: round(value, 4) for name, value in summary.items() if np.isfinite(value)}
    report = {
        "suite": "talk",
        "video": str(video),
        "audio": None if audio is None else str(audio),
        "portrait": None if portrait is None else str(portrait),
        "frames": len(frames),
        "seconds": round(time.monotonic() - began, 1),
        "summary": summary,
    }
    curves = {"the mouth, as it is seen": opening, "what is heard": heard.curve(FPS, len(frames))}
    return report, speech_plot(samples, curves, FPS)


GOOD = {
    "sync": "0.7 or more",
    "offset": "-1 to 1",
    "LSE-C": "more is better",
    "LSE-D": "less is better",
    "open in silence": "0",
    "face seen": "1",
    "identity": "under 0.6",
    "drift": "1.2 or less",
    "jerk": "noise has 1.7",
    "largest change": "a cut has much more than the rest",
}


def video_table(report: dict[str, Any]) -> str:
    """The summary as Markdown, beside what is good."""
    lines = [f"| {Path(report['video']).name} | | good |", "|---|---:|---|"]
    lines += [f"| {name} | {value:.2f} | {GOOD.get(name, '')} |" for name, value in report["summary"].items()]
    return "\n".join(lines) + "\n"
