"""Videos that were made, compared with the true ones of the same name, frame by frame and as two sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..media import iter_video, resize
from .frechet import CLIP, Backbone, frechet_distance
from .likeness import likeness
from .perceptual import alexnet_features
from .published import PUBLISHED
from .reports import sheet
from .running import Result
from .shots import SHOTS, in_a_row

COLUMNS = (
    "L1", "PSNR", "SSIM", "LPIPS", "L1 as published", "PSNR as published", "LPIPS (VGG)", "AlexNet-FD",
    "AlexNet-FD of changes", "FID-VID", "FVD",
)  # fmt: skip
"""Of the table. AlexNet-FD is ours: no one else's FID or FVD compares with it."""
PICTURES, NOTES = (".png", ".jpg", ".jpeg", ".bmp"), (".json", ".txt", ".csv", ".md")
SHOWN = 96  # pixels: the height of the frames on a sheet
_DIGITS = {"L1": ".4f", "L1 as published": ".2e", "SSIM": ".3f", "LPIPS": ".3f", "LPIPS (VGG)": ".3f"}


def videos_in(place: str | Path) -> dict[str, Path]:
    """Name without ending -> film or folder of pictures: all in a folder; or the one video that `place` is, nameless.

    Raises: InputError if there is nothing, or two videos have one name.
    """
    place = Path(place)
    if not place.exists():
        raise InputError(f"there is no {place}: give a folder of videos, or one video.")
    if place.is_file():
        return {"": place}
    files = [file for file in sorted(place.iterdir()) if file.suffix not in NOTES and not file.name.startswith(".")]
    if not files:
        raise InputError(f"{place} has no video in it.")
    if all(file.suffix.lower() in PICTURES for file in files):
        return {"": place}
    found: dict[str, Path] = {}
    for file in files:
        name = file.name if file.is_dir() else file.stem
        if name in found:
            raise InputError(f"{place} has two videos of the name {name}: {found[name].name} and {file.name}.")
        found[name] = file
    return found


def matched(generated: str | Path, truth: str | Path) -> dict[str, tuple[Path, Path]]:
    """Name -> a video that was made and the true one. Raises InputError for one that the other side lacks."""
    ours, theirs = videos_in(generated), videos_in(truth)
    if len(ours) == len(theirs) == 1 and "" in {*ours, *theirs}:
        (one,), (other,) = ours.values(), theirs.values()
        return {one.stem: (one, other)}
    for name in sorted(ours.keys() ^ theirs.keys()):
        has, lacks = (generated, truth) if name in ours else (truth, generated)
        raise InputError(f"{has} has a video {name} that {lacks} lacks: both need the same names.")
    return {name: (ours[name], theirs[name]) for name in ours}


def _read(name: str, generated: Path, truth: Path) -> Iterator[np.ndarray]:
    """Both videos, CLIP frames at a time: uint8 (2, n, H, W, 3). Raises InputError for other sizes or lengths."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for count, (one, other) in enumerate(zip_longest(iter_video(generated), iter_video(truth))):
        if one is None or other is None:
            raise InputError(
                f"the video {name} has {count} frames {'in truth' if other is None else 'as made'}, and more "
                f"{'as made' if other is None else 'in truth'}: both need the same number."
            )
        if one.shape != other.shape:
            sizes = " and ".join(f"{frame.shape[1]}x{frame.shape[0]}" for frame in (one, other))
            raise InputError(f"the video {name} and the true one have the sizes {sizes}: resize one of them first.")
        held.append((one, other))
        if len(held) == CLIP:
            yield np.stack(held, axis=1)
            held = []
    if held:
        yield np.stack(held, axis=1)


class _Features:
    """What a network finds in both sets: the features of every video that was made, and of every true one."""

    def __init__(self) -> None:
        self.generated: list[np.ndarray] = []
        self.truth: list[np.ndarray] = []

    def add(self, generated: np.ndarray, truth: np.ndarray) -> None:
        self.generated.append(generated)
        self.truth.append(truth)

    def distance(self, changes: bool = False) -> float:
        """Raises InputError."""
        sides = (self.generated, self.truth)
        a, b = (np.concatenate([np.diff(one, axis=0) if changes else one for one in side]) for side in sides)
        return frechet_distance(a, b)


def _compare(
    name: str, files: tuple[Path, Path], backbones: Mapping[str, Backbone], features: Mapping[str, _Features]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The measures of every frame, and frames of both videos to look at, small, uint8 (2, frames, 96, W, 3)."""
    measured: dict[str, list[np.ndarray]] = {}
    clips: dict[str, list[tuple[np.ndarray, ...]]] = {one: [] for one in backbones}
    found: list[tuple[np.ndarray, ...]] = []
    shots: list[np.ndarray] = []
    frames = 0
    for both in _read(name, *files):
        frames += both.shape[1]
        height, width = both.shape[2:4]
        shots.append(resize(both[:, :: CLIP // SHOTS], SHOWN, max(1, round(width * SHOWN / height)), "stretch"))
        for measure, values in likeness(*both).items():
            measured.setdefault(measure, []).append(values)
        found.append(tuple(alexnet_features(side) for side in both))
        for one, backbone in backbones.items() if both.shape[1] == CLIP else ():
            clips[one].append(tuple(backbone.features(side[None]) for side in both))
    if frames < (CLIP if backbones else 2):
        raise InputError(
            f"the video {name} has {frames} frames: {'a backbone needs' if backbones else 'it takes'} at least "
            f"{CLIP if backbones else 2}."
        )
    features["AlexNet-FD"].add(*map(np.concatenate, zip(*found, strict=True)))
    for one, pairs in clips.items():
        features[one].add(*map(np.concatenate, zip(*pairs, strict=True)))
    return {measure: np.concatenate(values) for measure, values in measured.items()}, np.concatenate(shots, axis=1)


def compare_videos(
    generated: str | Path,
    truth: str | Path,
    *,
    backbones: Mapping[str, str | Path] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Result:
    """Compare the videos of a folder with the true ones of the same names in another, or one video with another.

    Args:
        generated, truth: folders of videos or of folders of pictures; endings may differ, sizes and lengths may not.
        backbones: "FID-VID" or "FVD" -> a TorchScript file, see `Backbone`.
        on_progress: gets a name, and how many videos of how many are done.
    Returns: the report; its summary has the mean over all frames of all videos.
    Raises: InputError, MediaError.
    """
    began, networks = time.monotonic(), {name: Backbone.load(file) for name, file in (backbones or {}).items()}
    features = {name: _Features() for name in ("AlexNet-FD", *networks)}
    rows: list[dict[str, Any]] = []
    strips: dict[str, list[np.ndarray]] = {"truth": [], "generated": []}
    per_frame: dict[str, list[np.ndarray]] = {}
    pairs = matched(generated, truth)
    for done, (name, files) in enumerate(pairs.items()):
        on_progress(name, done, len(pairs))
        measured, shown = _compare(name, files, networks, features)
        for measure, values in measured.items():
            per_frame.setdefault(measure, []).append(values)
        means = {measure: round(float(values.mean()), 7) for measure, values in measured.items()}
        rows.append({"name": name, "frames": len(measured["L1"]), "values": means})
        for side, frames in zip(("generated", "truth"), shown, strict=True):
            strips[side].append(in_a_row(frames))
    on_progress("done", len(pairs), len(pairs))
    summary = {measure: round(float(np.concatenate(values).mean()), 7) for measure, values in per_frame.items()}
    summary["AlexNet-FD of changes"] = round(features["AlexNet-FD"].distance(changes=True), 4)
    summary |= {name: round(found.distance(), 4) for name, found in features.items()}
    report = {
        "suite": "pairs",
        "generated": str(generated),
        "truth": str(truth),
        "cases": len(rows),
        "frames": sum(row["frames"] for row in rows),
        "seconds": round(time.monotonic() - began, 1),
        "backbones": {name: str(file) for name, file in (backbones or {}).items()},
        "summary": summary,
        "published": PUBLISHED,
        "rows": rows,
    }
    return Result(report, strips)


def pairs_table(report: Mapping[str, Any]) -> str:
    """The summary as Markdown, above what others published."""
    videos = f"{report['cases']} video{'s' if report['cases'] != 1 else ''}"
    lines = [["method", *COLUMNS], ["---", *["---:"] * len(COLUMNS)]]
    for name, values in {f"here: {videos}": report["summary"], **report["published"]}.items():
        cells = (format(values[one], _DIGITS.get(one, ".2f")) if one in values else "" for one in COLUMNS)
        lines.append([name, *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\nhere: {report['frames']} frames of {report['generated']} against {report['truth']}; below it what "
        "was published for the TikTok videos (Champ, arXiv 2403.14781, and DisCo, arXiv 2307.00040): only the columns "
        "that both fill compare, and those on the same videos.\n"
    )


def pairs_sheet(result: Result) -> np.ndarray:
    """Each true video beside the one that was made, five frames of either: uint8 (H, W, 3)."""
    blank: dict[str, Any] = {"right": {}, "seen": {}, "values": {}}
    truth = [blank | {"prompt": row["name"]} for row in result.report["rows"]]
    generated = [
        true | {"values": {name: row["values"][name] for name in COLUMNS[:4]}}
        for true, row in zip(truth, result.report["rows"], strict=True)
    ]
    return sheet(Result({"rows": {"truth": truth, "generated": generated}}, result.strips))
