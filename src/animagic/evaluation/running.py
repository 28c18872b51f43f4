"""Running a suite: a model makes every case in every variant, and each video is judged. All cases count: none is left
out or made again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from ..errors import InputError
from ..media import read_image, read_metadata, write_image
from ..media.outputs import to_bytes
from ..timeline import OverlappingWindows
from .metrics import confusion, ratios, summarise
from .shots import in_a_row
from .suites import SUITES, Files, Suite, Take, Variant, find_suite, takes

Judged = list[tuple[dict[str, Any], np.ndarray]]
"""Of each case the row (`metrics.Row`), and SHOTS frames in a row, uint8 (H, W, 3)."""


@dataclass(frozen=True)
class Result:
    """A finished suite.

    report: for JSON. strips: variant -> of every case what a sheet shows, uint8 (H, W, 3), in so many lines.
    """

    report: dict[str, Any]
    strips: dict[str, list[np.ndarray]]
    lines: int = 1


@torch.no_grad()
def reconstruct(pipe: Any, clip: np.ndarray) -> np.ndarray:
    """A clip, uint8 (F, H, W, 3), through the autoencoder and back, second by second, as chunks are decoded."""
    second = round(pipe.sampling.fps)
    pieces = [clip[start : start + second] for start in range(0, len(clip), second)]
    # Some decoders give a first latent frame, which stands for one frame, as several: the last are those that were given.
    decoded = [to_bytes(pipe.decode_frames(pipe.encode_frames(piece))[0])[-len(piece) :] for piece in pieces]
    return np.concatenate(decoded)


@contextmanager
def _active(pipe: Any, variant: Variant) -> Iterator[None]:
    """Inside, the LoRAs of a variant are active, and windows lie as it says."""
    settings = type(pipe.sampling)
    plan = settings.plan

    def still(*arguments: Any, **named: Any) -> Any:
        own = plan(*arguments, **named)
        return replace(own, moving=False) if isinstance(own, OverlappingWindows) else own

    loras = [{str(file): 1.0} if file else {} for file in (variant.lora, variant.motion_lora)]
    using = pipe.using_loras(*loras if loras[1] else loras[:1]) if any(loras) else nullcontext()
    with using, patch.object(settings, "plan", still) if variant.still_windows else nullcontext():
        yield


def make_videos(
    pipe: Any, variant: Variant, cases: Sequence[Any], clips: Sequence[Any], frames: int, settings: Mapping
) -> list[np.ndarray]:
    """A video a case, uint8 (F, height, width, 3), from noise that only depends on its seed."""
    given: dict[str, Any] = {**variant.settings, **settings}
    if getattr(pipe, "reads_motion", False):
        given["motion_prompt"] = [case.motion_prompt for case in cases]
    if clips[0] is not None:
        given["prefix_latents"] = torch.cat([pipe.encode_frames(clip) for clip in clips])
    output = pipe(
        prompt=[case.prompt for case in cases],
        generator=[torch.Generator().manual_seed(case.seed) for case in cases],
        num_frames=frames,
        output_type="np",
        **given,
    )
    return [to_bytes(video) for video in output.frames]


def _kept(folder: Path | None, name: str, run: dict[str, Any], make: Callable[[], Judged]) -> Judged:
    """The result of `make`, from a file in the folder where it is there already: a picture with the rows inside it.

    Raises: InputError for a file of another run.
    """
    if folder is None:
        return make()
    file = folder / f"{re.sub(r'[^a-z0-9-]+', '-', name)}.png"
    if file.exists():
        note = read_metadata(file)
        if note.get("run") != run:
            raise InputError(f"{folder} holds cases of another evaluation: remove it, or name another report.")
        return list(zip(note["rows"], np.split(read_image(file), len(note["rows"])), strict=True))
    judged = make()
    folder.mkdir(exist_ok=True)
    write_image(file, np.concatenate([strip for _, strip in judged]), {"run": run, "rows": [row for row, _ in judged]})
    return judged


def _make_and_judge(
    pipe: Any, suite: Suite, variant: Variant, cases: Sequence[Any], frames: int, settings: Mapping[str, Any]
) -> Judged:
    shown, fps = frames if variant.drawn else suite.given, suite.fps or pipe.sampling.fps
    drawing = {"height": pipe.sampling.height, "width": pipe.sampling.width, "fps": fps}
    clips = [suite.draw(case, variant, shown, drawing) for case in cases]
    if variant.drawn:
        videos = list(clips) if variant.exact else [reconstruct(pipe, clip) for clip in clips]
    else:
        videos = (suite.make or make_videos)(pipe, variant, cases, clips, frames, settings)
    plan = pipe.plan(frames, settings.get("num_inference_steps"))
    windows = [[list(window.frames) for window in step.windows] for step in plan.steps()]
    judged: Judged = []
    for case, video, clip in zip(cases, videos, clips, strict=True):
        take = Take(case, variant, video, clip, fps, windows)
        row: dict[str, Any] = {"seed": case.seed, "split": case.split, "prompt": case.prompt}
        if case.motion_prompt != case.prompt:
            row["motion prompt"] = case.motion_prompt
        judgement = suite.judge(take)
        measured = {name: metric(take) for name, metric in suite.metrics.items()}
        row |= judgement | {"values": {**judgement.get("values", {}), **measured}}
        judged.append((row, suite.shows(take) if suite.shows else in_a_row(video)))
    return judged


def evaluate(
    pipe: Any,
    suite: str | Suite,
    *,
    model: str = "",
    count: int | None = None,
    seed: int | None = None,
    frames: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    batch: int | None = None,
    motion_apart: bool = False,
    loras: Files | None = None,
    motion_loras: Files | None = None,
    folder: Path | None = None,
    on_progress: Callable[[str, int, int], None] = lambda variant, done, total: None,
) -> Result:
    """Ask a model for every case of a suite, and judge what it makes.

    Args:
        pipe: a pipeline, as `animagic.load` gives it. model: its name in the report.
        suite: a Suite or the name of one in SUITES.
        count, seed, frames, batch: cases, seed of the first, length of the videos, videos made together; None: the
            suite's own. steps, guidance: None: the model's own.
        motion_apart: the motion prompt alone says how things move, for models that read one.
        loras, motion_loras: name -> file: the styles and camera moves that are judged.
        folder: finished cases are kept there; those that it holds already are not made again.
        on_progress: gets the variant, and how many cases of how many are done.

    Raises: InputError.
    """
    suite = find_suite(suite) if isinstance(suite, str) else suite
    if lacking := suite.lacking(pipe):
        fitting = ", ".join(name for name, one in SUITES.items() if not one.lacking(pipe))
        raise InputError(
            f"the suite {suite.name} needs a model whose pipeline takes {lacking}; this one fits {fitting}."
        )
    if motion_apart and not getattr(pipe, "reads_motion", False):
        raise InputError("this model reads no motion prompt, so the prompt must say how things move, too.")
    count, batch = suite.count if count is None else count, suite.batch if batch is None else batch
    seed = suite.seed if seed is None else seed
    if frames is None:
        frames = suite.frames or round(suite.seconds * pipe.sampling.fps)
    for name, value, least in (("count", count, 1), ("batch", batch, 1), ("seed", seed, 0), ("frames", frames, 8)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, not {value}.")

    began = time.monotonic()
    given = {"num_inference_steps": steps, "guidance_scale": guidance}
    settings = {name: value for name, value in given.items() if value is not None}
    cases = suite.cases(count, seed, suite.splits, suite.fits, motion_apart)
    variants = suite.variants(loras or {}, motion_loras or {}, takes(pipe, "use_motion"))
    parts = {one.name: cases[: -(-count // 5)] if one.of else cases for one in variants}
    run = {"suite": suite.name, "model": model, "seed": seed, "frames": frames, "steps": steps, "guidance": guidance}
    run |= {"batch": batch, "motion apart": motion_apart}
    if suite.version is not None:
        run["version"] = suite.version
    done, total = 0, sum(map(len, parts.values()))
    judged: dict[str, Judged] = {variant.name: [] for variant in variants}
    for variant in variants:
        with _active(pipe, variant):
            for i in range(0, len(parts[variant.name]), batch):
                on_progress(variant.name, done, total)
                some = parts[variant.name][i : i + batch]
                make = partial(_make_and_judge, pipe, suite, variant, some, frames, settings)
                judged[variant.name] += _kept(folder, f"{variant.name}-{i}-{len(some)}", run, make)
                done += len(some)
    on_progress("done", done, total)
    rows = {name: [row for row, _ in found] for name, found in judged.items()}
    run |= {"targets": suite.targets} if suite.targets else {}
    report = run | {"cases": count, "seconds": round(time.monotonic() - began, 1)} | _summaries(suite, variants, rows)
    strips = {name: [strip for _, strip in found] for name, found in judged.items()}
    return Result(report, strips, suite.lines)


def _summaries(suite: Suite, variants: Sequence[Variant], rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """By variant: its summary, that of each split, what was taken for what, and the rows."""
    summary = {name: summarise(part) for name, part in rows.items()}
    for variant in variants:
        if variant.of is not None:
            for name, values in ratios(rows[variant.of], rows[variant.name]).items():
                summary[variant.name][name] |= {"of": variant.of, **values}
    by_split: dict[str, Any] = {}
    for name, part in rows.items() if len(suite.splits) > 1 else ():
        splits = {split: [row for row in part if row["split"] == split] for split in suite.splits}
        by_split[name] = {split: summarise(some) for split, some in splits.items() if some}
    taken = {name: {one: confusion(part, one) for one in part[0]["asked"]} for name, part in rows.items()}
    return {"summary": summary, "by split": by_split, "confusion": taken, "rows": rows}
