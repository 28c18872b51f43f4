"""Do we compute what the original MAGI-1 computes? Names, shapes and numbers, side by side.

    python benchmarks/magi1_parity.py    # writes docs/benchmarks/magi1-parity.md, about a minute

The goldens (names, shapes and dtypes of the six published checkpoints, and whole sampling runs of the original code
with small random weights) are looked for under $ANIMAGIC_GOLDENS, else in ../shared/goldens beside the repository.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from animagic import checkpoints
from animagic.layers.fp8 import Fp8Linear
from animagic.pipelines.text import TextEmbedding
from animagic.systems.magi1.denoiser import Magi1Denoiser, Magi1Sampling
from animagic.systems.magi1.prompts import ChunkPrompts, null_caption
from animagic.systems.magi1.published import NAMES, config_of
from animagic.systems.magi1.weights import transformer_from_config
from animagic.timeline import FlowEuler, Sampler, Timeline
from animagic.weights.fit import loading_dtype
from animagic.weights.quantize import quantize_network, recorded_maxima

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "magi1-parity.md"
GOLDENS = Path(os.environ.get("ANIMAGIC_GOLDENS") or ROOT.parent / "shared" / "goldens") / "magi1"
RUNS = {
    "t2v_base": "4.5B base, text",
    "i2v_base": "4.5B base, a picture",
    "v2v_base_one_chunk_prefix": "4.5B base, a clip of one chunk",
    "v2v_base_ragged_prefix": "4.5B base, a clip of a chunk and a bit",
    "t2v_distill_8": "4.5B distill, 8 steps",
    "t2v_distill_12_8_16_16": "4.5B distill, 12 steps (8,16,16)",
    "t2v_24b_style": "24B base, text",
}
FORWARD_TARGET, RUN_TARGET = 1e-4, 1e-3


def relative_error(ours: Tensor, golden: Tensor) -> float:
    return ((ours - golden).norm() / golden.norm()).item()


# ---- names, shapes, dtypes ---------------------------------------------------------------------------------


def published_rows() -> list[str]:
    """One row a published model: what of its checkpoint our network has under the same name, in the same shape, and
    in the same dtype when it is loaded as bfloat16."""
    keys = json.loads((GOLDENS / "keys_dit.json").read_text("utf-8"))
    rows = []
    for name in NAMES:
        with torch.device("meta"):
            network = transformer_from_config(config_of(name))
        ours = network.state_dict()
        golden = {key: (tuple(shape), getattr(torch, dtype)) for key, (shape, dtype) in keys[name]["tensors"].items()}
        kept = network._keep_in_fp32_modules
        shapes = sum(key in ours and tuple(ours[key].shape) == shape for key, (shape, _) in golden.items())
        dtypes = sum(
            key in ours and loading_dtype(key, ours[key].dtype, torch.bfloat16, kept) == dtype
            for key, (_, dtype) in golden.items()
        )
        parameters = sum(tensor.numel() for tensor in ours.values())
        same = "same" if parameters == keys[name]["parameters"] else f"original: {keys[name]['parameters']:,}"
        size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in golden.values())
        rows.append(
            f"| {name} | {shapes} of {len(golden)} | {dtypes} of {len(golden)} | {len(ours.keys() - golden.keys())} | "
            f"{parameters:,} ({same}) | {size / 1e9:.2f} GB |"
        )
    return rows


# ---- numbers -----------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A sampling run: velocities of every forward and the chunks that come out, in order."""

    velocities: list[Tensor]
    chunks: list[Tensor]


def sample(transformer: torch.nn.Module, config: dict, golden: dict[str, Tensor]) -> Run:
    """What the pipeline does, on the noise, text and given frames of a golden."""
    sampling, noise = Magi1Sampling.from_config(config), golden["noise"]
    prefix = golden.get("prefix")
    chunks = noise.shape[2] // sampling.chunk_width
    plan = sampling.plan(chunks, 0 if prefix is None else prefix.shape[2])
    caption = TextEmbedding(golden["caption"][:, 0], golden["caption_mask"])
    null = null_caption(transformer.y_embedder.null_caption_embedding, 1)
    prompts = ChunkPrompts(((0, caption),), null, num_chunks=chunks).to(torch.device("cpu"))
    guided = sampling.guide(Magi1Denoiser(transformer, prompts, plan, sampling))
    run = Run([], [])

    def denoise(latents, window):
        run.velocities.append(guided(latents, window))
        return run.velocities[-1]

    timeline = Timeline(lambda frames: noise[:, :, frames.start : frames.stop].clone(), prefix)
    with torch.no_grad():
        sampler = Sampler(plan, denoise, FlowEuler(sampling.times()), timeline)
        run.chunks += [clean.latents for clean in sampler.run()]
    # The forwards that only fill the cache with given chunks have no golden.
    run.velocities = run.velocities[plan.whole_prefix_chunks :]
    return run


def read_golden(name: str) -> tuple[dict, dict[str, Tensor], torch.nn.Module]:
    """Configuration, tensors and our transformer with the weights of a golden."""
    config = json.loads((GOLDENS / "manifest.json").read_text("utf-8"))[name]["config"]
    golden = load_file(GOLDENS / f"{name}.safetensors")
    weights = {key.removeprefix("weight."): tensor for key, tensor in golden.items() if key.startswith("weight.")}
    return config, golden, checkpoints.from_original("magi1", "transformer", weights, config)


def run_rows() -> list[str]:
    rows = []
    for name, title in RUNS.items():
        config, golden, transformer = read_golden(name)
        run = sample(transformer, config, golden)
        stored = [key for key in golden if key.startswith("velocity_")]
        forward = max(relative_error(run.velocities[int(key.split("_")[1])], golden[key]) for key in stored)
        chunks = [golden[f"chunk_{i}"] for i in range(len(run.chunks))]
        whole = relative_error(torch.cat(run.chunks, dim=2), torch.cat(chunks, dim=2))
        held = "yes" if forward <= FORWARD_TARGET and whole <= RUN_TARGET else "**no**"
        layers = config["model_config"]["num_layers"]
        rows.append(f"| {title} | {layers} | {len(stored)} | {forward:.1e} | {len(chunks)} | {whole:.1e} | {held} |")
    return rows


def dequantised(layer: Fp8Linear, x: Tensor) -> Tensor:
    """What the layout means, spelled out in float64: round what comes in to e4m3, multiply, scale."""
    divisor = layer.input_scale if layer.smooth_scale is None else layer.input_scale * layer.smooth_scale[0]
    rounded = (x / divisor).clamp(-448, 448).to(torch.float8_e4m3fn).double()
    return rounded @ layer.weight[0].double().T * layer.input_scale[0].double() * layer.weight_scale.double()


def fp8_lines() -> list[str]:
    """FP8 layers against the dequantised reference, and a whole FP8 run against the run in 32 bits."""
    name = "t2v_distill_8"
    config, golden, transformer = read_golden(name)
    with recorded_maxima(transformer) as maxima:
        full = sample(transformer, config, golden)
    quantised = quantize_network(transformer, maxima)
    worst: dict[str, float] = {}

    def compare(layer: Fp8Linear, inputs, output) -> None:
        kind = "per-channel input scale" if layer.smooth_scale is None else "smoothed"
        worst[kind] = max(worst.get(kind, 0.0), relative_error(output.double(), dequantised(layer, inputs[0])))

    layers = [module for module in quantised.modules() if isinstance(module, Fp8Linear)]
    for layer in layers:
        layer.register_forward_hook(compare)
    run = sample(quantised, config, golden)
    forward = max(relative_error(a, b) for a, b in zip(run.velocities, full.velocities, strict=True))
    whole = relative_error(torch.cat(run.chunks, dim=2), torch.cat(full.chunks, dim=2))
    return [
        "| what | against | relative error |",
        "|---|---|---:|",
        *(
            f"| FP8 layers, {kind} | the dequantised product in float64 | {e:.1e} |"
            for kind, e in sorted(worst.items())
        ),
        f"| FP8 forwards, the worst of {len(run.velocities)} | the same in float32 | {forward:.1e} |",
        f"| the FP8 run | the same in float32 | {whole:.1e} |",
        "",
        f"{len(layers)} of the network's layers are in FP8: as published, those of its inner blocks ({name}, which has "
        "three blocks). The first two rows say whether the arithmetic is right; the last two what e4m3's rounding "
        "costs with these random weights.",
    ]


def report() -> str:
    lines = [
        "# MAGI-1 beside the original",
        "",
        "Written by `benchmarks/magi1_parity.py`, which computes everything on this page in one run.",
        "",
        f"PyTorch {torch.__version__}, float32 on a CPU; {datetime.date.today().isoformat()}.",
        "",
        "## The six published checkpoints",
        "",
        "Each network is built at full size without memory (on the meta device) and compared with the list of tensors "
        "of the published files: name and shape, and the dtype that a tensor gets when the model is loaded as "
        "bfloat16. *Extra* counts tensors of ours that the files do not have.",
        "",
        "| model | names and shapes | dtypes | extra | parameters | on disk |",
        "|---|---:|---:|---:|---:|---:|",
        *published_rows(),
        "",
        "Parameters include the scales of the FP8 layers.",
        "",
        "## The original's numbers",
        "",
        "Whole sampling runs at reduced depth, on the weights, noise, text and given frames that the original code "
        "ran on in float32: relative error ||ours - original|| / ||original||. *Forward* is the worst of the guided "
        f"velocities that are stored, target {FORWARD_TARGET:.0e}; *run* is what comes out, all chunks together, "
        f"target {RUN_TARGET:.0e}.",
        "",
        "| model and task | layers | forwards | forward | chunks | run | met |",
        "|---|---:|---:|---:|---:|---:|---|",
        *run_rows(),
        "",
        "## FP8",
        "",
        "There is no golden run of the original in FP8. So the layout is checked twice: names, shapes and dtypes "
        "above; and here its arithmetic, against what the scales say.",
        "",
        *fp8_lines(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=REPORT, help="the page")
    output = parser.parse_args().output
    if not GOLDENS.is_dir():
        parser.error(f"there are no goldens in {GOLDENS}; set ANIMAGIC_GOLDENS to their folder.")
    torch.set_num_threads(1)  # networks as small as these are slower on several
    page = report()
    output.write_text(page, "utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
