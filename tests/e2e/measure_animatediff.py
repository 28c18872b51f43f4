"""How well an AnimateDiff model keeps its looks, moves as told, stays calm and joins windows; judged by rules.

    python tests/e2e/measure_animatediff.py --model animatediff-tiny --cases 60 -o report.json --sheet sheet.png

For the base and every look in the model's `loras/`: the same held-out scenes (combinations of shape, colour and motion
that training never shows), the same noise. Some of them are also made frame by frame, without the motion module, which
flickers more; and drawn and sent through the autoencoder, which is as good as it can get. Then long videos in windows,
and the camera moves in `motion_loras/`. All cases count. Prints the table of the model's card.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from animatediff_judge import PLAIN_AGAIN, camera_move, flicker, kind_of, seams, style_of
from judge import judge
from measure import share, to_bytes
from PIL import Image, ImageDraw

from animagic.media import write_image
from animagic.synthetic import Scene, caption, facts, motion_caption, picture_caption, render, sample_scene
from animagic.synthetic.cameras import CAMERA_MOVES
from animagic.synthetic.looks import LOOKS, apply_look
from animagic.systems.animatediff.denoiser import AnimateDiffSampling
from animagic.timeline import OverlappingWindows

FRAMES, LONG = 16, 160
FOLLOWED = 0.35  # of the frames in a row, in which the thing is wholly in view and does not jump
JUDGED = {"plain": ("motion", "colour", "shape", "background"), "watercolour": ("motion", "colour", "shape"),
          "blueprint": ("motion",)}  # fmt: skip
"""What can be seen in each look."""


@dataclass(frozen=True)
class Case:
    """A held-out scene and what the model is told of it: what to show, and how it moves."""

    seed: int
    scene: Scene
    prompt: str
    motion: str


def make_cases(count: int, seed0: int, texts: str = "whole", still: bool = False) -> list[Case]:
    """Scenes of one thing before a camera that stands still.

    texts: "whole": both texts are the whole caption; "apart": one tells what is seen, the other how it moves.
    still: things that stay where they are, before something by which a moving camera can be told.
    """
    cases = []
    for seed in range(seed0, seed0 + count):
        rng = np.random.default_rng(seed)
        while True:
            scene = sample_scene(rng, "test")
            fits = not still or (scene.things[0].motion.name == "stays still" and scene.background.kind != "plain")
            if len(scene.things) == 1 and scene.camera == "still" and fits:
                break
        whole = caption(scene, rng)
        told = (whole, whole) if texts == "whole" else (picture_caption(scene, rng), motion_caption(scene, rng))
        cases.append(Case(seed, scene, *told))
    return cases


def make_videos(pipe: Any, cases: Sequence[Case], settings: dict[str, Any]) -> list[np.ndarray]:
    """A video a case, from noise that only depends on its seed: bytes (frames, 64, 64, 3)."""
    output = pipe(
        prompt=[case.prompt for case in cases],
        motion_prompt=[case.motion for case in cases] if pipe.reads_motion else None,
        generator=[torch.Generator().manual_seed(case.seed) for case in cases],
        output_type="np",
        **settings,
    )
    return [to_bytes(video) for video in output.frames]


def judge_video(case: Case, video: np.ndarray, look: str) -> dict[str, Any]:
    """What is right about a video in a look."""
    truth, said = facts(case.scene), judge(PLAIN_AGAIN[look](video), fps=8)
    seen = {name: getattr(said, name) for name in JUDGED[look]}
    # What appears here and there does not move, whatever path lies nearest.
    seen["motion"] = kind_of(said.motion) if said.share >= FOLLOWED else "cannot be followed"
    truth["motion"] = kind_of(truth["motion"])
    return {
        "seed": case.seed,
        "prompt": case.prompt,
        "motion prompt": case.motion,
        "truth": {name: truth[name] for name in seen},
        "said": seen,
        "frames in the look": [style == look for style in style_of(video)],
        "flicker": flicker(video, look),
    }


def measure_look(
    pipe: Any, look: str, cases: Sequence[Case], alone: int, batch: int, settings: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """(A row a case, the videos); the first `alone` cases are also made frame by frame."""
    rows, videos = [], []
    for i in range(0, len(cases), batch):
        part = cases[i : i + batch]
        moved = make_videos(pipe, part, {"num_frames": FRAMES, **settings})
        rows += [judge_video(case, video, look) for case, video in zip(part, moved, strict=True)]
        videos += moved
        single = part[: max(0, alone - i)]
        if single:
            apart = make_videos(pipe, single, {"num_frames": FRAMES, "use_motion": False, **settings})
            for row, video in zip(rows[i:], apart, strict=False):
                row["flicker frame by frame"] = flicker(video, look)
                row["frames in the look, frame by frame"] = [style == look for style in style_of(video)]
        print(f"{look}, {len(rows)} of {len(cases)}: {summarise(rows)['motion']}", file=sys.stderr, flush=True)
    return rows, videos


def drawn(pipe: Any, case: Case, look: str) -> np.ndarray:
    """What the model is to make of a case, through its autoencoder: no model can be better than this."""
    clip = render(case.scene, FRAMES, fps=8)
    clip = apply_look(look, clip, case.seed) if look in LOOKS else clip
    with torch.no_grad():
        pixels = pipe._decode(pipe.encode_frames(clip))[0]
    return to_bytes(pixels.permute(0, 2, 3, 1).cpu().numpy())


def chance(rows: Sequence[dict[str, Any]], name: str) -> float:
    """In percent, how often what was seen would fit if the prompts were dealt out at random."""
    truths, said = ([row[key][name] for row in rows] for key in ("truth", "said"))
    return round(100 * sum(truths.count(value) * said.count(value) for value in set(truths)) / len(rows) ** 2, 1)


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one look."""
    summary: dict[str, Any] = {
        name: share(row["truth"][name] == row["said"][name] for row in rows) | {"chance": chance(rows, name)}
        for name in rows[0]["said"]
    }
    summary["look"] = share(kept for row in rows for kept in row["frames in the look"])
    both = [row for row in rows if "flicker frame by frame" in row]
    if both:
        alone = "frames in the look, frame by frame"
        summary["look, frame by frame"] = share(kept for row in both for kept in row[alone])
        calm, restless = (float(np.mean([row[k] for row in both])) for k in ("flicker", "flicker frame by frame"))
        summary["flicker"] = {
            "mean": round(calm, 3), "frame by frame": round(restless, 3), "ratio": round(calm / max(restless, 1e-6), 3),
            "count": len(both),
        }  # fmt: skip
    return summary


# ---- long videos, cameras --------------------------------------------------------------------------------


class StillWindows(AnimateDiffSampling):
    """Lays the windows of a long clip the same way at every step."""

    def plan(self, num_steps: int, **options: Any) -> OverlappingWindows:
        size, overlap = self.context_frames, self.context_overlap
        return OverlappingWindows(self.num_frames, num_steps, size=size, overlap=overlap, moving=False)


def measure_seams(pipe: Any, cases: Sequence[Case], frames: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Change at windows' borders over change inside, for windows that move and for those that do not."""
    own, figures = pipe.sampling, {}
    try:
        for name, kind in (("moving", AnimateDiffSampling), ("still", StillWindows)):
            pipe.sampling = kind(**{field: getattr(own, field) for field in own.__dataclass_fields__})
            chosen = pipe.sampling.changed(num_frames=frames, num_inference_steps=settings.get("num_inference_steps"))
            plan = chosen.plan(chosen.num_inference_steps)
            windows = [plan.windows_at(step) for step in range(plan.num_steps)]
            ratios = []
            for case in cases:
                (video,) = make_videos(pipe, [case], {"num_frames": frames, **settings})
                ratios.append(seams(video, windows))
                print(f"{frames} frames, {name} windows: {ratios[-1]}", file=sys.stderr, flush=True)
            mean, worst = np.mean(ratios, axis=0)
            figures[name] = {"ratio": round(float(mean), 3), "worst step": round(float(worst), 3), "count": len(cases)}
    finally:
        pipe.sampling = own
    return figures


def measure_cameras(
    pipe: Any, files: Mapping[str, Path], cases: Sequence[Case], batch: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """What camera is seen with every MotionLoRA, and without any."""
    figures = {}
    for name, file in ({"still": None} | dict(files)).items():
        seen = []
        with nullcontext() if file is None else pipe.using_loras({}, {str(file): 1.0}):
            for i in range(0, len(cases), batch):
                videos = make_videos(pipe, cases[i : i + batch], {"num_frames": FRAMES, **settings})
                seen += [camera_move(video) for video in videos]
        figures[name] = share(move == name for move in seen) | {"seen": seen}
        print(f"camera {name}: {seen}", file=sys.stderr, flush=True)
    return figures


# ---- what is shown ---------------------------------------------------------------------------------------


def table(report: Mapping[str, Any]) -> str:
    """The figures as Markdown, for a model's card."""

    def cell(figure: Mapping[str, Any] | None) -> str:
        return "" if figure is None else f"{figure['percent']:.0f} %"

    lines = [
        "| version | look kept | motion as prompted (by chance) | colour | shape | background | flicker |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    names = {look: "base" if look == "plain" else look for look in report["looks"]}
    versions = [(names[look], figures) for look, figures in report["looks"].items()]
    versions += [(f"{names[look]}: drawn scenes, through the autoencoder", f) for look, f in report["drawn"].items()]
    for name, figures in versions:
        calm = figures.get("flicker")
        cells = [
            cell(figures["look"]), f"{cell(figures['motion'])} ({figures['motion']['chance']:.0f} %)",
            *(cell(figures.get(name)) for name in ("colour", "shape", "background")),
            "" if calm is None else f"{calm['mean']:.2f} of {calm['frame by frame']:.2f}: {calm['ratio']:.2f}",
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{report['cases']} held-out scenes each, {report['steps']} steps, guidance {report['guidance']}. "
        "Flicker: mean change from frame to frame where nothing moves, of 255, with and without the motion module.",
    ]
    if report.get("seams"):
        ratios = ", ".join(f"{v['ratio']:.2f} with {k} windows" for k, v in report["seams"].items())
        lines += ["", f"{report['long']} frames in windows: change at borders over change inside is {ratios}."]
    if report.get("cameras"):
        moves = ", ".join(f"{name} {figure['percent']:.0f} %" for name, figure in report["cameras"].items())
        lines += ["", f"The camera moves as its MotionLoRA says: {moves}."]
    return "\n".join(lines) + "\n"


def contact_sheet(
    looks: Mapping[str, tuple[Sequence[dict[str, Any]], Sequence[np.ndarray]]], count: int = 8
) -> np.ndarray:
    """The first cases: a row a case, four frames of each look, what was asked and which motion was seen."""
    side, shots, line = 80, 4, 13
    width = shots * (side + 2) + 10
    rows = min(count, *(len(videos) for _, videos in looks.values()))
    height = side + 3 * line + 6
    sheet = Image.new("RGB", (len(looks) * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (judged, videos) in enumerate(looks.values()):
        for i in range(rows):
            x, y, row = column * width, i * height, judged[i]
            texts = (
                row["prompt"] if row["prompt"] == row["motion prompt"] else f"{row['prompt']} + {row['motion prompt']}"
            )
            for number, words in enumerate(textwrap.wrap(texts, width // 6)[:2]):
                draw.text((x + 2, y + number * line), words, "black")
            right = row["said"]["motion"] == row["truth"]["motion"]
            seen = "right" if right else f"seen: {row['said']['motion']}"
            draw.text((x + 2, y + 2 * line), seen, "green" if right else "firebrick")
            for shot, frame in enumerate(np.linspace(0, len(videos[i]) - 1, shots).astype(int)):
                picture = Image.fromarray(videos[i][frame]).resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(picture, (x + shot * (side + 2), y + 3 * line + 2))
    return np.asarray(sheet)


def measure(pipe: Any, model: str, asked: argparse.Namespace) -> tuple[dict[str, Any], np.ndarray]:
    """(The report, the contact sheet.)"""
    from animagic import zoo

    settings = {"num_inference_steps": asked.steps, "guidance_scale": asked.guidance}
    settings = {name: value for name, value in settings.items() if value is not None}
    cases = make_cases(asked.cases, asked.seed, asked.texts)
    files: dict[str, Path | None] = {"plain": None} | {k: v for k, v in zoo.loras(model).items() if k in PLAIN_AGAIN}
    results = {}
    for look, file in files.items():
        with nullcontext() if file is None else pipe.using_loras({str(file): 1.0}):
            results[look] = measure_look(pipe, look, cases, asked.alone, asked.batch, settings)
    cameras = {name: file for name, file in zoo.loras(model, "motion_loras").items() if name in CAMERA_MOVES}
    chosen = pipe.sampling.changed(**settings)
    report: dict[str, Any] = {
        "model": model,
        "cases": asked.cases,
        "seed": asked.seed,
        "texts": asked.texts,
        "steps": chosen.num_inference_steps,
        "guidance": chosen.guidance_scale,
        "looks": {look: summarise(rows) for look, (rows, _) in results.items()},
        "drawn": {
            look: summarise([judge_video(case, drawn(pipe, case, look), look) for case in cases[: asked.alone]])
            for look in results
            if asked.alone
        },
        "rows": {look: rows for look, (rows, _) in results.items()},
    }
    if asked.long:
        report["long"] = LONG
        report["seams"] = measure_seams(pipe, cases[: asked.long], LONG, settings)
    if cameras and asked.camera_cases:
        filmed = make_cases(asked.camera_cases, asked.seed, asked.texts, still=True)
        report["cameras"] = measure_cameras(pipe, cameras, filmed, asked.batch, settings)
    return report, contact_sheet(results)


def parse(words: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="animatediff-tiny", help="a zoo name or a folder")
    parser.add_argument("--cases", type=int, default=60, help="scenes, for every look")
    parser.add_argument("--alone", type=int, default=12, help="of these, how many are also made frame by frame, and "
                        "drawn, to see what the judge makes of them")  # fmt: skip
    parser.add_argument("--long", type=int, default=2, help=f"videos of {LONG} frames; 0: none")
    parser.add_argument("--camera-cases", type=int, default=6, help="scenes for every MotionLoRA; 0: none")
    parser.add_argument("--texts", choices=("whole", "apart"), default="whole", help="the motion prompt is the prompt, "
                        "or tells nothing but the motion, of which the prompt then tells nothing")  # fmt: skip
    parser.add_argument("--seed", type=int, default=200_000, help="of the first case")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--guidance", type=float, help="text guidance (default: the model's)")
    parser.add_argument("--batch", type=int, default=10, help="videos made at once")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.json"))
    parser.add_argument("--sheet", type=Path, help="a PNG of the first 8 cases in every look")
    return parser.parse_args(None if words is None else list(words))


def main() -> None:
    import animagic

    asked, began = parse(), time.monotonic()
    pipe = animagic.load(asked.model)
    pipe.set_progress_bar_config(disable=True)
    report, sheet = measure(pipe, asked.model, asked)
    report["seconds"] = round(time.monotonic() - began, 1)
    asked.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if asked.sheet is not None:
        write_image(asked.sheet, sheet)
    print(table(report))


if __name__ == "__main__":
    main()
