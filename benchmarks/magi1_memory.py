"""How well is the memory of a video predicted? Random models on the CPU, prediction beside measurement.

    python benchmarks/magi1_memory.py            # writes docs/benchmarks/magi1-memory-cpu.md, about ten minutes
    python benchmarks/magi1_memory.py --quick    # the smallest case, writes nothing

Each case runs in a process of its own: the networks are built with random weights, two chunks or more are denoised and
decoded, and after each stage the most memory that the process held is read (VmHWM, which Linux lets a process reset).
"Tight" is what `animagic generate --memory` does: glibc hands freed memory back at once. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "magi1-memory-cpu.md"
SMALL = {"num_layers": 2, "hidden_size": 512, "ffn_hidden_size": 2048, "num_attention_heads": 8, "kv_channels": 64}
SMALL |= {"num_query_groups": 4, "caption_channels": 256, "caption_max_length": 200}
WIDE = SMALL | {"num_layers": 1, "hidden_size": 1024, "ffn_hidden_size": 4096, "num_attention_heads": 16}
DEEP = SMALL | {"num_layers": 8}
QUICK = SMALL | {"num_layers": 1}
# Name -> transformer, width, height, frames, tight, tiling.
CASES: dict[str, tuple[dict[str, int], int, int, int, bool, bool]] = {
    "2 layers of 512": (SMALL, 192, 192, 96, True, False),
    "the same, not tight": (SMALL, 192, 192, 96, False, False),
    "the same, in tiles": (SMALL, 384, 192, 96, True, True),
    "1 layer of 1024": (WIDE, 384, 256, 72, True, True),
    "8 layers of 512": (DEEP, 256, 256, 48, True, False),
}
QUICK_CASE = (QUICK, 256, 192, 24, True, False)


def _status(key: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(network: dict[str, int], width: int, height: int, frames: int, tight: bool, tiling: bool) -> dict[str, Any]:
    """One case, in this process: bytes predicted and measured."""
    import torch

    from animagic import AutoencoderKLMagi1, Magi1Pipeline, Magi1Transformer3DModel
    from animagic.media.outputs import to_bytes
    from animagic.pipelines import memory
    from animagic.systems.magi1.memory import MemoryNetworks

    torch.set_num_threads(1)
    settings = {"num_frames": frames, "video_size_h": height, "video_size_w": width, "num_steps": 4}
    config = {"runtime_config": settings}
    coder: dict[str, Any] = {"depth": 2, "embed_dim": 512, "num_heads": 8}
    if tight:
        memory.give_back_freed_memory()
    with torch.device("meta"):
        parts = Magi1Transformer3DModel(**network), AutoencoderKLMagi1(**coder)
    networks = MemoryNetworks(Magi1Pipeline(*parts, config=config), 0)
    predictor = memory.Predictor(networks, "cpu", tight=tight)
    before = memory.process_bytes()
    prediction = predictor.predict(memory.Techniques(tiling=tiling))
    stages = {stage: dict(prediction.stages[stage]) for stage in ("denoise", "decode")}
    for stage in stages.values():  # the first costs of decoding are counted in between, and leave something behind
        stage["libraries"] = before

    torch.manual_seed(0)
    pipe = Magi1Pipeline(*(part.eval() for part in _build(network, coder)), config=config)
    pipe.set_progress_bar_config(disable=True)
    if tiling:
        pipe.enable_vae_tiling()
    peaks: dict[str, int] = {}

    def mark(stage: str) -> None:
        peaks[stage] = max(peaks.get(stage, 0), _status("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew

    decode = pipe.decode_frames

    def marked(*arguments: Any) -> Any:
        mark("denoise")
        result = decode(*arguments)
        mark("decode")
        return result

    pipe.decode_frames = marked
    Path("/proc/self/clear_refs").write_text("5")
    text = torch.randn(1, 128, network["caption_channels"]), torch.ones(1, 128)
    for chunk in pipe.stream(prompt_embeds=text[0], prompt_embeds_mask=text[1], output_type="np"):
        to_bytes(chunk.frames[0])
    return {
        "weights": sum(map(memory.bytes_of, networks.parts.values())),
        "libraries": before,
        "predicted": {stage: sum(sizes.values()) for stage, sizes in stages.items()},
        "measured": peaks,
    }


def _build(network: dict[str, int], coder: dict[str, Any]) -> tuple[Any, Any]:
    from animagic import AutoencoderKLMagi1, Magi1Transformer3DModel

    return Magi1Transformer3DModel(**network), AutoencoderKLMagi1(**coder)


def in_own_process(case: tuple) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[str, tuple[tuple, dict[str, Any]]]) -> str:
    columns = ("model", "size, frames", "weights", "stage", "predicted", "measured", "predicted / measured")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, (case, result) in results.items():
        _, width, height, frames, _, _ = case
        for stage, measured in result["measured"].items():
            predicted = result["predicted"][stage]
            sizes = [f"{x / 1e6:.0f}" for x in (result["weights"], predicted, measured)]
            cells = [name, f"{width}x{height}, {frames}", sizes[0], stage, *sizes[1:], f"{predicted / measured:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(results: dict[str, tuple[tuple, dict[str, Any]]]) -> str:
    ratios = [r["predicted"][s] / r["measured"][s] for _, r in results.values() for s in r["measured"]]
    worst = max(abs(ratio - 1) for ratio in ratios)
    libraries = max(r["libraries"] for _, r in results.values()) / 1e6
    return f"""# Predicted memory, measured

Written by `python benchmarks/magi1_memory.py` on {platform.machine()}, {platform.system()}, one thread. MB (10^6 bytes)
of the whole process at its fullest moment, Python and its libraries (about {libraries:.0f}) included; random weights.

{table(results)}

The largest difference is {100 * worst:.0f} %. "Not tight" is glibc as it is; the others have it hand freed memory back
at once, as `animagic generate --memory` does.

On a GPU nothing has been measured yet: what is said there about memory is arithmetic.
`tests/pipelines/test_memory.py` holds it against `torch.cuda.max_memory_allocated` wherever there is a GPU.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=REPORT)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(measure(*json.loads(asked.case))))
        return
    if asked.quick:
        print(table({"quick": (QUICK_CASE, in_own_process(QUICK_CASE))}))
        return
    results = {}
    for name, case in CASES.items():
        results[name] = (case, in_own_process(case))
        print(table({name: results[name]}), flush=True)
    asked.output.write_text(report(results), "utf-8")
    print(asked.output)


if __name__ == "__main__":
    main()
