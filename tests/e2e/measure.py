"""How well a model does what it is asked, on scenes that it has never seen; judged by rules on the frames.

    python tests/e2e/measure.py --model magi1-tiny --count 200 -o report.json --sheet sheet.png
    python tests/e2e/measure.py --task image ...          # is the given picture kept?
    python tests/e2e/measure.py --task video ...          # does the given motion go on?
    python tests/e2e/measure.py --task reconstruct ...    # the autoencoder alone: what bounds the other figures

Case i is drawn by seed0 + i; training uses other streams, and every second case is a combination of shape, colour and
motion that training never shows. All cases count: none is left out or made again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge import direction, judge
from PIL import Image, ImageDraw

from animagic.media import write_image
from animagic.synthetic import Scene, caption, facts, render, sample_scene
from animagic.synthetic.captions import VIEW_WORDS

TASKS = ("text", "image", "video", "reconstruct")
STRAIGHT = ("slides left", "slides right", "rolls left", "rolls right", "rises", "falls")
GIVEN = 32  # frames of a clip that is to go on
JUDGED = ("colour", "shape", "motion", "background")
SLOWEST = 0.1  # pixels a frame: what moves less goes nowhere


@dataclass(frozen=True)
class Case:
    """A held-out scene and what the model is told of it."""

    seed: int
    split: str
    scene: Scene
    prompt: str

    @property
    def tells_where(self) -> bool:
        """Whether the prompt speaks of the background; some captions do not, and then any will do."""
        kind = self.scene.background.kind
        words = {
            "plain": ("background", "wall", "backdrop"),
            "floor": ("floor", "ground"),
            "photo": ("photo", "picture"),
        }
        return any(word in self.prompt for word in words.get(kind) or VIEW_WORDS[kind])


def make_cases(count: int, seed0: int, task: str = "text") -> list[Case]:
    """Scenes of one thing before a still camera, by turns from both splits; for "video" it moves straight on."""
    cases = []
    for seed in range(seed0, seed0 + count):
        rng, split = np.random.default_rng(seed), ("train", "test")[seed % 2]
        while True:
            scene = sample_scene(rng, split)
            straight = scene.things[0].motion.name in STRAIGHT
            if len(scene.things) == 1 and scene.camera == "still" and (straight or task != "video"):
                break
        cases.append(Case(seed, split, scene, caption(scene, rng)))
    return cases


def to_bytes(frames: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(frames) * 255).clip(0, 255).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of bytes, in dB; at most 99."""
    error = np.square(a.astype(np.float64) - b.astype(np.float64)).mean()
    return float(min(99.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def angle(a: Sequence[float], b: Sequence[float]) -> float:
    """Degrees between two motions (pixels a frame); 180 where one of them goes nowhere."""
    if min(math.hypot(*a), math.hypot(*b)) < SLOWEST:
        return 180.0
    turn = math.degrees(math.atan2(a[1], a[0]) - math.atan2(b[1], b[0]))
    return abs((turn + 180) % 360 - 180)


def reconstruct(pipe: Any, clip: np.ndarray) -> np.ndarray:
    """A clip through the autoencoder, in chunks as the pipeline decodes them; bytes in and out."""
    chunk, pieces = pipe.sampling.chunk_width * pipe.sampling.temporal_downsample_factor, []
    with torch.no_grad():
        for start in range(0, len(clip), chunk):
            latents = pipe.encode_frames(clip[start : start + chunk]) / pipe.sampling.scale_factor
            video = pipe.vae.decode(latents.to(pipe.vae.dtype)).sample[0].float()
            pieces.append(to_bytes((video / 2 + 0.5).permute(1, 2, 3, 0).cpu().numpy()))
    return np.concatenate(pieces)


def make_videos(
    pipe: Any, task: str, cases: Sequence[Case], given: Sequence[np.ndarray], frames: int, settings: dict
) -> Iterable[np.ndarray]:
    """What the model makes of a batch: bytes (frames, 64, 64, 3) a case."""
    if task == "reconstruct":
        return [reconstruct(pipe, clip) for clip in given]
    prefix = None if task == "text" else torch.cat([pipe.encode_frames(clip) for clip in given])
    output = pipe(
        prompt=[case.prompt for case in cases],
        generator=[torch.Generator().manual_seed(case.seed) for case in cases],
        prefix_latents=prefix,
        num_frames=frames,
        output_type="np",
        **settings,
    )
    return [to_bytes(video) for video in output.frames]


def measure(
    pipe: Any, task: str, cases: Sequence[Case], frames: int, batch: int, settings: dict
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Make and judge a video of every case: (a row a case, the videos)."""
    rows: list[dict[str, Any]] = []
    videos: list[np.ndarray] = []
    shown = {"text": 1, "image": 1, "video": GIVEN, "reconstruct": frames}[task]
    for i in range(0, len(cases), batch):
        part = cases[i : i + batch]
        given = [render(case.scene, shown) for case in part]
        for case, clip, video in zip(part, given, make_videos(pipe, task, part, given, frames, settings), strict=True):
            truth, said = facts(case.scene), judge(video)
            row: dict[str, Any] = {"seed": case.seed, "split": case.split, "prompt": case.prompt, "truth": truth}
            row["said"] = {name: getattr(said, name) for name in JUDGED}
            row["right"] = {name: truth[name] == row["said"][name] for name in JUDGED}
            if task == "text" and not case.tells_where:
                del row["right"]["background"]
            if task == "image":
                row["psnr"] = psnr(clip[0], video[0])
            if task == "reconstruct":
                row["psnr"] = psnr(clip, video)
            if task == "video":
                row["degrees"] = angle(direction(clip), direction(video))
            rows.append(row)
            videos.append(video)
        print(f"{len(rows)} of {len(cases)}: {in_words(summarise(rows))}", file=sys.stderr, flush=True)
    return rows, videos


def wilson(successes: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    if not count:
        return 0.0, 1.0
    share, spread = successes / count, z * z / count
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def share(values: Iterable[bool]) -> dict[str, Any]:
    """In percent, with its interval."""
    values = list(values)
    low, high = wilson(sum(values), len(values))
    percent = round(100 * sum(values) / max(1, len(values)), 1)
    return {"percent": percent, "interval": [round(100 * low, 1), round(100 * high, 1)], "count": len(values)}


def confusion(rows: Sequence[dict[str, Any]], name: str) -> dict[str, dict[str, int]]:
    """What was asked for -> what was seen -> how often."""
    asked = sorted({row["truth"][name] for row in rows})
    return {
        truth: dict(Counter(row["said"][name] for row in rows if row["truth"][name] == truth).most_common())
        for truth in asked
    }


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a set of rows."""
    summary = {name: share(row["right"][name] for row in rows if name in row["right"]) for name in JUDGED}
    summary["all four"] = share(all(row["right"].values()) for row in rows)
    if "psnr" in rows[0]:
        values = [row["psnr"] for row in rows]
        summary["psnr"] = {"mean": round(float(np.mean(values)), 2), "median": round(float(np.median(values)), 2)}
        summary["psnr of 24 dB or more"] = share(value >= 24 for value in values)
    if "degrees" in rows[0]:
        values = [row["degrees"] for row in rows]
        summary["degrees"] = {"mean": round(float(np.mean(values)), 2), "median": round(float(np.median(values)), 2)}
        summary["under 30 degrees"] = share(value < 30 for value in values)
    return summary


def in_words(summary: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value.get('percent', value.get('mean'))}" for name, value in summary.items())


def contact_sheet(rows: Sequence[dict], videos: Sequence[np.ndarray], count: int = 24, columns: int = 2) -> np.ndarray:
    """Randomly chosen results (the same for the same cases): five frames each, the prompt, and what is wrong."""
    chosen = sorted(np.random.default_rng(0).permutation(len(rows))[:count])
    side, shots, line = 96, 5, 13
    width, height = shots * (side + 2) + 10, side + 3 * line + 8
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for cell, index in enumerate(chosen):
        x, y, row, video = cell % columns * width, cell // columns * height, rows[index], videos[index]
        text = textwrap.wrap(row["prompt"], width // 6)[:2]
        wrong = [f"{name} {row['said'][name]}" for name, right in row["right"].items() if not right]
        for number, words in enumerate(text):
            draw.text((x + 2, y + number * line), words, "black")
        draw.text(
            (x + 2, y + 2 * line), f"seen: {', '.join(wrong)}" if wrong else "right", "firebrick" if wrong else "green"
        )
        for shot, frame in enumerate(np.linspace(0, len(video) - 1, shots).astype(int)):
            picture = Image.fromarray(video[frame]).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(picture, (x + shot * (side + 2), y + 3 * line + 2))
    return np.asarray(sheet)


def main() -> None:
    import animagic

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="magi1-tiny", help="a zoo name or a folder")
    parser.add_argument("--task", choices=TASKS, default="text")
    parser.add_argument("--count", type=int, default=200, help="cases")
    parser.add_argument("--seed0", type=int, default=100_000, help="seed of the first case")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--guidance", type=float, help="text guidance (default: the model's)")
    parser.add_argument("--frames", type=int, help="frames that are made (default: 48; 24 for --task video)")
    parser.add_argument("--batch", type=int, default=20, help="videos made at once")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.json"))
    parser.add_argument("--sheet", type=Path, help="a PNG of 24 random results")
    asked = parser.parse_args()

    began = time.monotonic()
    pipe = animagic.load(asked.model)
    pipe.set_progress_bar_config(disable=True)
    frames = asked.frames or (24 if asked.task == "video" else 48)
    settings = {"num_inference_steps": asked.steps, "guidance_scale": asked.guidance}
    cases = make_cases(asked.count, asked.seed0, asked.task)
    rows, videos = measure(pipe, asked.task, cases, frames, asked.batch, settings)
    report = {
        "model": asked.model,
        "task": asked.task,
        "frames": frames,
        "seeds": [asked.seed0, asked.seed0 + asked.count - 1],
        "steps": asked.steps or pipe.sampling.num_steps,
        "guidance": asked.guidance if asked.guidance is not None else max(pipe.sampling.text_scales),
        "seconds": round(time.monotonic() - began, 1),
        "summary": summarise(rows),
        "by split": {s: summarise(part) for s in ("train", "test") if (part := [r for r in rows if r["split"] == s])},
        "confusion": {name: confusion(rows, name) for name in ("shape", "motion")},
        "cases": rows,
    }
    asked.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if asked.sheet is not None:
        write_image(asked.sheet, contact_sheet(rows, videos))
    for name, value in summarise(rows).items():
        if "percent" in value:
            low, high = value["interval"]
            print(f"{name:>24}  {value['percent']:5.1f} %  ({low} to {high} in 95 %, of {value['count']})")
        else:
            print(f"{name:>24}  mean {value['mean']}, median {value['median']}")


if __name__ == "__main__":
    main()
