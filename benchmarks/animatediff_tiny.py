"""What do 16 frames of animatediff-tiny cost on this machine, beside diffusers' AnimateDiffPipeline?

    OMP_NUM_THREADS=2 python benchmarks/animatediff_tiny.py   # writes docs/benchmarks/animatediff-tiny-cpu.md
    python benchmarks/animatediff_tiny.py --quick             # few steps, one round, writes nothing: does it run?

Both pipelines get the same base model, motion modules, prompt, noise, scheduler, steps and guidance. diffusers'
motion modules know no motion text and stand at every level, so both get modules of two attentions over frames, with
random weights, their outputs not zero. Measured are:

- diffusers: as it is. Its motion modules' group norm takes all frames together, in as many groups as the base model
  has; the original takes each frame on its own, in 32 groups.
- diffusers, mended: with the norm of the original in its place. Then the numbers must agree.
- ours, and ours with the model's own motion modules, motion text and steps: what a user waits for.

They take turns, round after round, in one process; compared are medians and the medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from magi1_tiny import count_flop, cpu_name, matmul_rate, verdict
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "docs" / "benchmarks" / "animatediff-tiny-cpu.md"
PROMPT, MOTION = "a red ball on a green floor", "bouncing up and down"
FRAMES = 16
AS_IT_IS, MENDED, OURS, OWN = "diffusers", "diffusers, mended", "ours", "ours, the model's own motion modules"
PARTS = {
    "ResNets": ("ResnetBlock2D",),
    "attention in a frame, and to the text": ("Transformer2DModel",),
    "motion modules": ("MotionModule", "AnimateDiffTransformer3D"),
    "autoencoder": ("Decoder",),
    "text encoder": ("CLIPTextModel", "CLIPTextTransformer"),
}


class FrameNorm(nn.GroupNorm):
    """Group norm of every frame on its own, for diffusers' motion modules: (batch, channels, frames, height, width)."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        frames = hidden_states.transpose(1, 2)
        return super().forward(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


def picture_unet(unet: Any) -> Any:
    """The base model of one of our UNets, as diffusers has it."""
    import inspect

    from diffusers import UNet2DConditionModel

    known = inspect.signature(UNet2DConditionModel).parameters
    made = UNet2DConditionModel(**{name: value for name, value in unet.config.items() if name in known})
    made.load_state_dict(unet.base_state_dict())
    return made.eval()


def with_two_attentions(unet: Any) -> Any:
    """Our UNet with motion modules such as diffusers has, with random weights."""
    from animagic.systems.animatediff.unet import AnimateDiffUNet

    torch.manual_seed(0)
    made = AnimateDiffUNet.from_unet2d(
        picture_unet(unet),
        motion_num_attention_heads=unet.config.motion_num_attention_heads,
        motion_resolutions=tuple(2**i for i in range(len(unet.config.block_out_channels))),
        motion_mid_block=True,
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "temporal_transformer.proj_out.weight" in name:
                parameter.normal_(std=0.5 / parameter.shape[1] ** 0.5)
    return made.eval()


def diffusers_unet(unet: Any, mended: bool) -> Any:
    """diffusers' UNetMotionModel with the weights of ours."""
    from diffusers import MotionAdapter
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionModel
    from diffusers_unet import diffusers_motion_name

    adapter = MotionAdapter(
        block_out_channels=unet.config.block_out_channels,
        motion_layers_per_block=unet.config.layers_per_block,
        motion_num_attention_heads=unet.config.motion_num_attention_heads,
        motion_max_seq_length=unet.config.motion_max_length,
        use_motion_mid_block=unet.config.motion_mid_block,
    )
    names = {diffusers_motion_name(name): tensor for name, tensor in unet.motion_state_dict().items()}
    missing, unexpected = adapter.load_state_dict(names, strict=False)
    if unexpected or any(not name.endswith("pos_embed.pe") for name in missing):
        raise AssertionError(f"diffusers' motion adapter lacks {unexpected} and wants {missing}")
    made = UNetMotionModel.from_unet2d(picture_unet(unet), adapter).eval()
    if mended:
        for module in [m for m in made.modules() if isinstance(m, AnimateDiffTransformer3D)]:
            norm = FrameNorm(32, module.in_channels, eps=module.norm.eps)
            norm.load_state_dict(module.norm.state_dict())
            module.norm = norm
    return made


class Way:
    """One of the pipelines: a call makes FRAMES frames, (1, frames, 3, height, width) in [0, 1]."""

    def __init__(self, pipe: Any, latents: torch.Tensor, **settings: Any):
        self.pipe, self.latents, self.settings = pipe, latents, settings
        pipe.set_progress_bar_config(disable=True)

    def __call__(self) -> torch.Tensor:
        frames = self.pipe(
            prompt=PROMPT, num_frames=FRAMES, latents=self.latents, output_type="pt", **self.settings
        ).frames
        return frames.reshape(1, FRAMES, *frames.shape[-3:])


def make_ways(model: str, steps: int | None) -> dict[str, Way]:
    from diffusers import AnimateDiffPipeline as Theirs

    import animagic
    from animagic import AnimateDiffPipeline

    own = animagic.load(model)
    parts = {name: getattr(own, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    for part in (own.unet, own.vae, own.text_encoder):
        part.float().eval().requires_grad_(False)
    unet = with_two_attentions(own.unet)
    settings = own.sampling.changed(num_inference_steps=steps, num_frames=FRAMES)
    same = {"num_inference_steps": settings.num_inference_steps, "guidance_scale": settings.guidance_scale}
    ratio = own.pixels_per_latent
    shape = (1, own.unet.config.in_channels, FRAMES, settings.height // ratio, settings.width // ratio)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    config = {"height": settings.height, "width": settings.width, "context_frames": FRAMES}
    size = {"height": settings.height, "width": settings.width}

    def theirs(mended: bool) -> Way:
        pipe = Theirs(unet=diffusers_unet(unet, mended), motion_adapter=None, **parts)
        return Way(pipe, latents.clone(), **same, **size)

    motion = {"motion_prompt": MOTION} if own.reads_motion else {}
    return {
        AS_IT_IS: theirs(mended=False),
        MENDED: theirs(mended=True),
        OURS: Way(AnimateDiffPipeline(unet=unet, config=config, **parts), latents, **same),
        OWN: Way(own, latents, **same, **motion),
    }


@contextmanager
def timed_parts(pipe: Any) -> Iterator[dict[str, float]]:
    """Seconds in every part of PARTS, while inside."""
    spent, handles = dict.fromkeys(PARTS, 0.0), []

    def watch(module: nn.Module, part: str) -> None:
        began: list[float] = []

        def end(*_: Any) -> None:
            spent[part] += time.perf_counter() - began.pop()

        handles.append(module.register_forward_pre_hook(lambda *_: began.append(time.perf_counter())))
        handles.append(module.register_forward_hook(end))

    for network in (pipe.unet, pipe.vae, pipe.text_encoder):
        inside: list[str] = []
        for name, module in network.named_modules():
            part = next((part for part, kinds in PARTS.items() if type(module).__name__ in kinds), None)
            # The autoencoder is one part, whatever it is made of; and no part of a part counts twice.
            if part is not None and not any(name.startswith(outer) for outer in inside):
                watch(module, part)
                inside.append(f"{name}." if name else "")
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def where_time_goes(way: Way) -> dict[str, float]:
    """Seconds by part, and "the rest"."""
    began = time.perf_counter()
    with timed_parts(way.pipe) as spent:
        way()
    return spent | {"the rest": time.perf_counter() - began - sum(spent.values())}


def measure(ways: dict[str, Way], rounds: int) -> dict[str, Any]:
    frames = {name: way() for name, way in ways.items()}  # also chooses kernels and makes buffers
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in ways}
    rates = []
    for round_ in range(rounds):
        order = list(ways) if round_ % 2 == 0 else list(ways)[::-1]
        rates.append(matmul_rate())
        for name in order:
            began, began_cpu = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name].append(time.perf_counter() - began)
            cpu_seconds[name].append(time.process_time() - began_cpu)
            print(f"round {round_ + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    pixel = 255 * (frames[OURS] - frames[MENDED]).abs()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rate": max(rates),
        "flop": {name: count_flop(way) for name, way in ways.items()},
        "parts": {name: where_time_goes(ways[name]) for name in (MENDED, OURS, OWN)},
        "difference": {
            "forward": forward_difference(ways),
            "as it is": relative(frames[AS_IT_IS], frames[OURS]),
            "mended": relative(frames[MENDED], frames[OURS]),
            "largest": float(pixel.max()),
        },
    }


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def forward_difference(ways: dict[str, Way]) -> float:
    """Relative difference of one call of the networks, ours and the mended one."""
    ours, theirs = ways[OURS].pipe.unet, ways[MENDED].pipe.unet
    text = torch.randn(1, 8, ours.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    latents = ways[OURS].latents
    with torch.no_grad():  # diffusers wants the text of every frame
        expected = theirs(latents, 500, text.repeat_interleave(latents.shape[2], dim=0)).sample
        return relative(expected, ours(latents, 500, text).sample)


def ratio(above: list[float], below: list[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(above, below, strict=True))


def report(model: str, ways: dict[str, Way], results: dict[str, Any], rounds: int, load: float) -> str:
    """The page."""
    settings, sampling = ways[OURS].settings, ways[OURS].pipe.sampling
    rate, difference, seconds = results["rate"], results["difference"], results["seconds"]
    lines = [
        f"# {Path(model).name} on a CPU",
        "",
        "Written by `benchmarks/animatediff_tiny.py`, which measures everything on this page in one run.",
        "",
        f"{FRAMES} frames of {sampling.width}x{sampling.height} in {settings['num_inference_steps']} steps, guidance "
        f"{settings['guidance_scale']}, from text to pixels. {cpu_name()}, {os.cpu_count()} cores, of which "
        f"{torch.get_num_threads()} used; PyTorch {torch.__version__}, float32; a large matrix product runs at "
        f"{rate / 1e9:.0f} GFLOP/s; {datetime.date.today().isoformat()}; medians of {rounds} rounds in which the ways "
        "take turns.",
        "",
    ]
    if load > 0.3:
        lines += [
            f"**The machine was busy with other work** (load {load:.1f} a core before the run): its times are too "
            "long; CPU time holds.",
            "",
        ]
    lines += [
        "## Beside diffusers",
        "",
        "| way | seconds | CPU seconds | against ours | GFLOP | floor, seconds | x floor |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ways:
        flop, middle = results["flop"][name], median(seconds[name])
        cells = [name, f"{middle:.2f}", f"{median(results['cpu_seconds'][name]):.2f}"]
        cells += [f"{ratio(seconds[name], seconds[OURS]):.2f}", f"{flop / 1e9:.0f}", f"{flop / rate:.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{middle * rate / flop:.1f}'])} |")
    faster, own = ratio(seconds[MENDED], seconds[OURS]), median(seconds[OWN])
    faster_cpu = ratio(results["cpu_seconds"][MENDED], results["cpu_seconds"][OURS])
    at_least = faster_cpu if load > 0.3 else faster  # other work on the machine falls on the ways by chance
    # In fewer steps than the model's own the target means nothing.
    full = settings["num_inference_steps"] >= ways[OWN].pipe.sampling.num_inference_steps
    target = f"; target: under 10 s on 2 cores: {verdict(own < 10)}" if full else ""
    lines += [
        "",
        "*Floor* is how long the arithmetic (matrix products, convolutions, attention) takes at the rate of a large "
        "matrix product, measured in the same run. The first three have the same weights: the base model's, and "
        "random motion modules of two attentions over frames at every level, as diffusers has them.",
        "",
        f"- diffusers (mended) takes {faster:.2f} x our time "
        f"({faster_cpu:.2f} x the CPU time); target: at least 1: {verdict(at_least >= 1)}.",
        f"- {FRAMES} frames with the model's own motion modules and motion text: {own:.2f} s{target}.",
        f"- Numbers, ours and diffusers mended: one forward differs by {difference['forward']:.1e}, all frames by "
        f"{difference['mended']:.1e} (relative), the largest pixel by {difference['largest']:.2g} of 255. diffusers as "
        f"it is differs by {difference['as it is']:.1e}.",
        "",
        "*Mended*: its motion modules' group norm takes each frame on its own, in 32 groups, as the original does. As "
        "it is, it takes all frames together, in as many groups as the base model's norms have.",
        "",
        "## Where the time goes",
        "",
        "Seconds in one run of each, measured around the networks' parts.",
        "",
        "| part | " + " | ".join(results["parts"]) + " |",
        "|---|" + "---:|" * len(results["parts"]),
    ]
    for part in next(iter(results["parts"].values())):
        lines.append(f"| {part} | " + " | ".join(f"{spent[part]:.2f}" for spent in results["parts"].values()) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="animatediff-tiny", help="a zoo name or a folder")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--quick", action="store_true", help="3 steps, one round; no page is written")
    parser.add_argument("-o", "--output", type=Path, help=f"the page (default: {REPORT.relative_to(ROOT)})")
    asked = parser.parse_args()
    steps, rounds = (3, 1) if asked.quick else (asked.steps, asked.rounds)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    ways = make_ways(asked.model, steps)
    page = report(asked.model, ways, measure(ways, rounds), rounds, load)
    print(page)
    output = asked.output or (None if asked.quick else REPORT)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
