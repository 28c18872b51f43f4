"""What does a second of a portrait that speaks cost on this machine, and how long is live sound waited for?

    OMP_NUM_THREADS=1 python benchmarks/magicinfinite.py   # writes docs/benchmarks/magicinfinite-cpu.md
    python benchmarks/magicinfinite.py --quick             # short videos, few steps, writes nothing

Every model and length runs in a process of its own, so that its peak memory is its own, from sound to pixels, streamed;
frames are thrown away as they come. Then each model hears a voice in real time, and its latency report is printed. The
portrait is drawn by the studio (or given), the voice a murmur with pauses (or given): times do not depend on them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from magi1_tiny import cpu_name, matmul_rate, peak_mib, verdict

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "magicinfinite-cpu.md"
MODELS = ("magicinfinite-tiny", "magicinfinite-tiny-distilled")
PROMPT = "a person is speaking, smiling, nodding"
LENGTHS, QUICK_LENGTHS = (10.0, 60.0, 300.0), (1.0, 2.0)
RATE = 16_000


@dataclass(frozen=True)
class Job:
    """One measurement. steps None: the model's own; live: the voice is heard in real time."""

    model: str
    seconds: float
    steps: int | None = None
    live: bool = False
    portrait: str | None = None
    audio: str | None = None


# ---- in a process of its own -------------------------------------------------------------------------------


def murmur(seconds: float) -> Any:
    """Buzzing with syllables, two seconds, and a second of silence, in turns: float32 (n,)."""
    import numpy as np

    time_ = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 120 * k * time_) / k for k in range(1, 20))
    speaks = (time_ % 3 >= 1) * np.sin(np.pi * time_ / 0.2) ** 2
    return (0.15 * buzz * speaks).astype(np.float32)


def inputs(job: Job, pipe: Any) -> dict[str, Any]:
    """Portrait, voice and mask of the model's size; the mask of a given portrait is found by the pipeline."""
    import numpy as np

    from animagic.media import read_image, read_sound

    voice = murmur(job.seconds)
    if job.audio is not None:
        given = read_sound(job.audio).samples
        voice = np.resize(given, len(voice))  # again and again
    if job.portrait is not None:
        return {"image": read_image(job.portrait), "voices": [voice]}
    from animagic.synthetic.portraits import render_photo, sample_portrait

    photo = render_photo(sample_portrait(1, held_out=True), 1, pipe.sampling.height, pipe.sampling.width)
    return {"image": photo.frames[0], "masks": [photo.face[0, 0] / 255], "voices": [voice]}


class Changes:
    """How much a frame differs from the one before it, of a video that comes in pieces."""

    def __init__(self):
        self.values: list[float] = []
        self.last: Any = None

    def add(self, frames: Any) -> None:
        for frame in frames:
            if self.last is not None:
                self.values.append(float(abs(frame - self.last).mean()))
            self.last = frame

    def seam(self, borders: set[int]) -> float | None:
        """The mean change from a latent frame to the next where a window of the last step ends, over that elsewhere.
        borders: latent frames that are the first of a window, or the first after one."""
        steps = {latent: self.values[4 * latent - 4] for latent in range(1, (len(self.values) + 3) // 4 + 1)}
        at = [value for latent, value in steps.items() if latent in borders]
        elsewhere = [value for latent, value in steps.items() if latent not in borders]
        return sum(at) / len(at) / (sum(elsewhere) / len(elsewhere)) if at and elsewhere and sum(elsewhere) else None


def borders_of(plan: Any) -> set[int]:
    """Where the windows of the last step begin and end, by their weights, but for the ends of the clip."""
    *_, last = plan.steps()
    counted = [
        [f for f, w in zip(one.frames, one.weights, strict=True) if w > 0] for one in last.windows if one.weights
    ]
    ends = {frames[0] for frames in counted} | {frames[-1] + 1 for frames in counted}
    return ends - {last.span.start, last.span.stop}


def work(job: Job) -> dict[str, Any]:
    """Make a video of that length; count its seconds, memory and network calls."""
    import torch

    import animagic

    pipe = animagic.load(job.model)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.float().requires_grad_(False)
    given, sampling = inputs(job, pipe), pipe.sampling
    settings = {"prompt": PROMPT, "num_inference_steps": job.steps, "output_type": "np"}

    def make(frames: int | None, **changed: Any) -> Any:
        yield from pipe.stream(
            num_frames=frames, generator=torch.Generator().manual_seed(0), **(settings | given | changed)
        )

    loaded, frames, changes = peak_mib(), round(job.seconds * sampling.fps), Changes()
    for _ in make(5, num_inference_steps=1):
        pass  # kernels are chosen at the first call; so little that what it holds is not the most
    if job.live:
        return hear(job, pipe, make, given["voices"][0])
    rate = matmul_rate()
    began, began_cpu = time.perf_counter(), time.process_time()
    for chunk in make(frames):
        changes.add(chunk.frames[0])
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    grown = peak_mib() - loaded
    plan, encoder = pipe.plan(frames, job.steps), pipe.speech_encoder
    steps, ratio = list(plan.steps()), pipe.pixels_per_latent
    one = pipe.latent_channels * (sampling.height // ratio) * (sampling.width // ratio)
    return {
        "frames": frames,
        "fps": sampling.fps,
        "steps": plan.num_steps,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "grown": grown,
        "loaded": loaded,
        "rate": max(rate, matmul_rate()),
        "calls": sum(len(step.windows) for step in steps),
        # While a step ends: the state, the sum of what its windows predict, and the next state.
        "latents": 3 * 4 * one * steps[0].span.stop / 2**20,
        "speech": 4 * frames * encoder.layers * encoder.channels / 2**20,
        "seam": changes.seam(borders_of(plan)),
        "picture": f"{sampling.width}x{sampling.height}",
        "windows": f"{sampling.window} latent frames that share {sampling.window_overlap}",
        "parameters": sum(p.numel() for p in pipe.transformer.parameters()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def hear(job: Job, pipe: Any, make: Any, voice: Any) -> dict[str, Any]:
    """The latency report of a voice that is heard in real time, and what its plan alone costs."""
    from animagic.pipelines.latency import theoretical_delay
    from animagic.pipelines.sound_source import LiveSound
    from animagic.speech import FeatureStream

    encoder, fps, shown = pipe.speech_encoder, pipe.sampling.fps, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voice.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((voice.clip(-1, 1) * 32767).astype("<i2").tobytes())
        sound = LiveSound.from_file(encoder, fps, path)
        for chunk in make(None, voices=[sound]):
            shown += [time.monotonic()] * len(chunk)
    plan = pipe.plan(num_inference_steps=job.steps, endless=True)
    report = sound.latency(shown)
    delay = theoretical_delay(plan, fps, FeatureStream(encoder).longest_wait_ms)
    return {
        "lines": report.lines(),
        "facts": report.facts(),
        "front": delay.latent_frames,
        "steps": plan.num_steps,
        "theory": delay.milliseconds / 1000,
    }


# ---- in the process that asks ------------------------------------------------------------------------------


def run_job(job: Job) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def name_of(model: str) -> str:
    return Path(model).name


def lengths_table(results: dict[Job, list[dict[str, Any]]], busy: bool) -> list[str]:
    def mid(job: Job, name: str) -> float:
        return median(one[name] for one in results[job])

    clock = "cpu_seconds" if busy else "seconds"
    lines = [
        "| model | steps | seconds of video | calls of the network | seconds | CPU seconds | a second of video takes "
        "| memory over the model's, MiB | three times its latents, and speech, MiB | beside them, MiB "
        "| change at borders |",
        "|---|" + "---:|" * 10,
    ]
    models = list(dict.fromkeys(job.model for job in results))
    beside, pace = {}, {}
    for job in results:
        kept = mid(job, "latents") + mid(job, "speech")
        beside[job] = mid(job, "grown") - kept
        pace[job] = median(one[clock] for one in results[job]) / (mid(job, "frames") / mid(job, "fps"))
        seam = results[job][0]["seam"]
        cells = [name_of(job.model), f"{mid(job, 'steps'):.0f}", f"{job.seconds:g}", f"{mid(job, 'calls'):.0f}"]
        cells += [f"{mid(job, 'seconds'):.1f}", f"{mid(job, 'cpu_seconds'):.1f}", f"{pace[job]:.2f}"]
        cells += [f"{mid(job, 'grown'):.1f}", f"{kept:.1f}", f"{beside[job]:.1f}"]
        cells.append("" if seam is None else f"{seam:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for model in models:
        jobs = [job for job in results if job.model == model]
        first, last = jobs[0], jobs[-1]
        growth, slower = beside[last] / beside[first], pace[last] / pace[first]
        whole = (mid(last, "loaded") + mid(last, "grown")) / (mid(first, "loaded") + mid(first, "grown"))
        lines.append(
            f"- {name_of(model)}, from {first.seconds:g} to {last.seconds:g} s: memory of the process {whole:.3f} x, "
            f"beside latents and speech {growth:.3f} x; target: at most 1.1: {verdict(growth <= 1.1)}. "
            f"Time a second of video {slower:.2f} x: linear is 1."
        )
        seams = [one["seam"] for job in jobs for one in results[job][:1] if one["seam"] is not None]
        if seams:
            lines.append(
                f"- {name_of(model)}: at window borders frames change at most {max(seams):.2f} x as much as elsewhere; "
                f"target: at most 1.2: {verdict(max(seams) <= 1.2)}."
            )
    if len(models) == 2:
        pairs = zip(*([pace[job] for job in results if job.model == model] for model in models), strict=True)
        faster = median(plain / distilled for plain, distilled in pairs)
        lines.append(f"- {name_of(models[1])} makes {faster:.1f} x as many frames a second as {name_of(models[0])}.")
    return lines


def latency_lines(live: dict[Job, dict[str, Any]]) -> list[str]:
    lines = []
    for job, result in live.items():
        facts = result["facts"]
        keeps_up = facts.get("gap_mean", 0) <= 1.02 / facts["fps"]
        lines += [f"### {name_of(job.model)}", "", *(f"- {line}" for line in result["lines"])]
        lines += [
            f"- the plan alone, a front of {result['front']} latent frames and what must be heard in advance: "
            f"{result['theory']:.2f} s; {result['steps']} steps",
            f"- real time, so that the wait does not grow: {verdict(keeps_up)}",
            "",
        ]
    return lines


def report(asked: Any, results: dict[Job, list[dict[str, Any]]], live: dict[Job, dict[str, Any]], load: float) -> str:
    first = next(iter(results.values()))[0]
    rate = max(one["rate"] for many in results.values() for one in many)
    lines = [
        "# MagicInfinite on a CPU",
        "",
        "Written by `benchmarks/magicinfinite.py`, which measures everything on this page in one run.",
        "",
        f"{first['picture']}, {first['fps']:g} frames a second, windows of {first['windows']} and move from step to "
        f"step, guidance as the models have it; network of {first['parameters'] / 1e6:.2f} M parameters. {cpu_name()}, "
        f"{os.cpu_count()} cores, of which {first['threads']} used; PyTorch {first['torch']}, float32; a large matrix "
        f"product runs at {rate / 1e9:.0f} GFLOP/s; {datetime.date.today().isoformat()}; medians of {asked.rounds} "
        "rounds in which models and lengths take turns.",
        "",
    ]
    busy = load > 0.3
    if busy:
        lines += [
            f"**The machine was busy with other work** (load {load:.1f} a core before the run): a second of video is "
            "told in CPU time, and the latency reports wait too long.",
            "",
        ]
    lines += [
        "## Videos of several lengths",
        "",
        "From sound to pixels, streamed. *Change at borders*: how much a frame differs from the one before it where a "
        "window of the last step begins or ends, over the same between other latent frames.",
        "",
        *lengths_table(results, busy),
        "",
        "## Live",
        "",
        f"A voice of {asked.live:g} s is heard in real time, in pieces of 20 ms; the front of the plan moves with it.",
        "",
        *latency_lines(live),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="zoo names or folders, the plain one first")
    parser.add_argument("--lengths", type=float, nargs="+", help=f"seconds; default: {', '.join(map(str, LENGTHS))}")
    parser.add_argument("--live", type=float, default=20.0, help="seconds of the voice that is heard in real time")
    parser.add_argument("--steps", type=int, help="denoising steps; default: each model's own")
    parser.add_argument("--portrait", type=Path, help="a picture with a face; default: a drawn one")
    parser.add_argument("--audio", type=Path, help="a voice; default: a murmur")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is measured")
    parser.add_argument("--quick", action="store_true", help="short videos, 2 steps; no page is written")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT.relative_to(ROOT)})")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        print(json.dumps(work(Job(**json.loads(asked.job)))))
        return
    lengths = asked.lengths or LENGTHS
    if asked.quick:
        lengths, asked.live, asked.steps = asked.lengths or QUICK_LENGTHS, 2.0, asked.steps or 2

    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    given = {"portrait": asked.portrait and str(asked.portrait), "audio": asked.audio and str(asked.audio)}
    jobs = [Job(model, seconds, asked.steps, **given) for model in asked.models for seconds in lengths]
    results: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
    for round_ in range(asked.rounds):
        for job in jobs if round_ % 2 == 0 else jobs[::-1]:
            results[job].append(run_job(job))
            took = results[job][-1]["seconds"]
            print(f"{name_of(job.model)}, {job.seconds:g} s: {took:.1f} s", file=sys.stderr, flush=True)
    live = {}
    for model in asked.models:
        job = Job(model, asked.live, asked.steps, live=True, **given)
        live[job] = run_job(job)
        print("\n".join(live[job]["lines"]), file=sys.stderr, flush=True)
    page = report(asked, results, live, load)
    print(page)
    output = asked.output or (None if asked.quick else REPORT)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
