"""What this machine can do, and what a video would take on it."""

from __future__ import annotations

import functools
import os
import platform
from typing import TYPE_CHECKING, Any

from . import __version__, zoo
from .errors import InputError

if TYPE_CHECKING:
    from .systems.magi1.memory import Predictor, Techniques

_PUBLISHED = {
    "MAGI-1 4.5B": {"bfloat16": "4.5B_base", "fp8": "4.5B_distill_quant"},
    "MAGI-1 24B": {"bfloat16": "24B_base", "fp8": "24B_distill_quant"},
}
# Of a GPU that is not there to be measured: about what an H100 reaches, on PCIe 5.
_ASSUMED = {"flops": 400e12, "attention": 400e12, "memory": 2.0e12, "transfer": 40e9}
_BAR = 56  # characters


def _memory() -> float:
    """GiB of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def examine() -> dict[str, dict[str, Any]]:
    """Sections of findings, for printing."""
    import torch

    from .layers.attention import available_backends

    cuda = torch.cuda.is_available()
    machine: dict[str, Any] = {
        "animagic": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor threads": torch.get_num_threads(),
        "memory": f"{_memory():.1f} GiB",
    }
    devices: dict[str, Any] = {"cpu": "float32 (the default; half precision is slow or missing here)"}
    room = _memory()
    if cuda:
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            room = properties.total_memory / 2**30
            major, minor = properties.major, properties.minor
            devices[f"cuda:{i}"] = f"{properties.name}, {room:.0f} GiB, compute {major}.{minor}"
        devices["bfloat16"] = torch.cuda.is_bf16_supported()
        devices["fp8 matmul"] = torch.cuda.get_device_capability() >= (8, 9)
    devices["mps"] = torch.backends.mps.is_available()
    fits: dict[str, Any] = {}
    for name in zoo.names():
        fits[name] = f"yes, embedded ({zoo.entry(name).bytes / 2**20:.0f} MiB)"
    for name, kinds in _PUBLISHED.items():
        fits[name] = _verdict({kind: _needs(published) for kind, published in kinds.items()}, room, cuda)
    return {"machine": machine, "devices": devices, "attention kernels": dict(available_backends()), "models": fits}


def _verdict(needs: dict[str, tuple[float, float]], room: float, cuda: bool) -> str:
    sizes = ", ".join(f"{kind} {most:.0f} GiB, or {least:.0f} offloaded" for kind, (most, least) in needs.items())
    whole = [kind for kind, (most, _) in needs.items() if most < room]
    some = [kind for kind, (_, least) in needs.items() if least < room]
    if not cuda:
        return f"a GPU is needed ({sizes})"
    verdict = f"yes, in {whole[0]}" if whole else f"with --memory, in {some[0]}" if some else "no"
    return f"{verdict} (needs {sizes})"


@functools.cache
def _needs(name: str) -> tuple[float, float]:
    """GiB on a GPU at the model's own size and length: (with nothing saved, with everything that saves)."""
    import torch

    from .systems.magi1.memory import Predictor, combinations
    from .zoo.sizes import networks_of

    predictor = Predictor(networks_of(name, torch.bfloat16), device="cuda", speed=None)
    peaks = [predictor.predict(techniques).peak / 2**30 for techniques in combinations(cuda=True)]
    return peaks[0], min(peaks)


def parse_memory(text: str) -> int:
    """ "12GB", "11.5 GiB", "800MB" to bytes. Raises InputError."""
    units = {f"{p}b": 1000**i for i, p in enumerate("kmgt", 1)} | {f"{p}ib": 1024**i for i, p in enumerate("kmgt", 1)}
    compact = text.lower().replace(" ", "")
    number = compact.rstrip("abcdefghijklmnopqrstuvwxyz")
    try:
        size = float(number) * units[compact[len(number) :]]
        if not 0 < size < 2**60:
            raise ValueError
        return int(size)
    except (KeyError, ValueError):
        raise InputError(
            f"{text!r} is not an amount of memory; write a number with its unit, such as 12GB or 11.5GiB."
        ) from None


def predict(
    model: str,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    steps: int | None = None,
    memory: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """What a video from words takes: memory at the worst moment, part by part, and seconds a chunk.

    Args:
        model: see `zoo.sizes.networks_of`. height, width, frames, steps: None: the model's own.
        memory: bytes that may be used, so that the techniques are chosen that make it fit; None: nothing is saved.
        device: "cuda" or "cpu"; None: the best that is here. If it is not here, its speed is assumed.
        dtype: "bfloat16" or "float32"; None: as it would be loaded.
    Raises: InputError, CheckpointError.
    """
    import torch

    from .systems.magi1.memory import Predictor, Speed, Techniques, measure_speed, plan_memory
    from .zoo.sizes import networks_of

    cuda = torch.cuda.is_available()
    device = device or ("cuda" if cuda else "cpu")
    if device not in ("cuda", "cpu"):
        raise InputError(f"predictions are made for cuda and cpu, not for {device}.")
    folder = model in zoo.names() or os.path.isdir(model)
    if dtype is None and folder:
        dtype = str(zoo.dtype_on(model, device)).removeprefix("torch.")
    dtype = dtype or ("bfloat16" if device == "cuda" else "float32")
    if dtype not in ("bfloat16", "float32"):
        raise InputError(f"the dtype must be bfloat16 or float32, not {dtype}.")
    if (height is None) != (width is None):
        raise InputError("give both height and width, or neither.")
    kind = getattr(torch, dtype)
    networks = networks_of(model, kind)
    assumed = device == "cuda" and not cuda
    speed = Speed(**_ASSUMED) if assumed else measure_speed(device, torch.float32 if device == "cpu" else kind)
    tight = memory is not None
    predictor = Predictor(networks, height, width, frames, steps, device=device, speed=speed, tight=tight)
    techniques = Techniques() if memory is None else plan_memory(memory, predictor)[0]
    prediction = predictor.predict(techniques)
    choices = [_choice(predictor, other) for other in _ladder(device == "cuda")]
    return {
        "model": model,
        "height": predictor.height,
        "width": predictor.width,
        "frames": predictor.num_frames,
        "chunks": predictor.chunks,
        "steps": predictor.networks.sampling.num_steps,
        "dtype": f"{dtype} with fp8 layers" if networks.fp8 else dtype,
        "device": device,
        "speed_is_assumed": assumed,
        "techniques": str(techniques),
        "stages": prediction.stages,
        "peak_bytes": prediction.peak,
        "host_bytes": prediction.host,
        "seconds_per_chunk": prediction.seconds + prediction.extra,
        "seconds": (prediction.seconds + prediction.extra) * predictor.chunks,
        "choices": choices,
    }


def _ladder(cuda: bool) -> list[Techniques]:
    """Each technique with all the cheaper ones that go with it."""
    from .systems.magi1.memory import Techniques

    steps = [Techniques(), Techniques("drop"), Techniques("drop", True)]
    if cuda:
        steps += [Techniques("drop", True, "model"), Techniques("drop", True, "model", True)]
        steps += [Techniques("processor", True, "block", True), Techniques("processor", True, "leaf", True)]
    return steps


def _choice(predictor: Predictor, techniques: Techniques) -> dict[str, Any]:
    prediction = predictor.predict(techniques)
    return {"techniques": str(techniques), "peak_bytes": prediction.peak, "time_factor": round(prediction.factor, 3)}


def in_words(found: dict[str, Any]) -> list[str]:
    """Lines for a person: a table of the parts, a bar of what fills the memory at the worst moment, the choices."""
    stages, peak = found["stages"], found["peak_bytes"]
    worst = max(stages, key=lambda stage: sum(stages[stage].values()))
    parts = sorted({part for stage in stages.values() for part in stage}, key=lambda p: -stages[worst].get(p, 0))
    lines = [
        f"{found['model']}: {found['width']}x{found['height']}, {found['frames']} frames ({found['chunks']} chunks), "
        f"{found['steps']} steps, {found['dtype']}, on {found['device']}",
        f"saved by: {found['techniques']}",
        "",
        f"{'GB':<18}" + "".join(f"{stage:>10}" for stage in stages),
    ]
    for part in parts:
        sizes = [stages[stage].get(part, 0) / 1e9 for stage in stages]
        if max(sizes) > 0:
            lines.append(f"{part:<18}" + "".join(f"{size:>10.2f}" if size else f"{'-':>10}" for size in sizes))
    lines.append(f"{'together':<18}" + "".join(f"{sum(stage.values()) / 1e9:>10.2f}" for stage in stages.values()))
    lines += ["", f"{worst}, the fullest moment: {peak / 1e9:.2f} GB", *_bar(stages[worst], parts)]
    if found["host_bytes"]:
        lines.append(f"waiting in the processor's memory: {found['host_bytes'] / 1e9:.2f} GB")
    how = "assumed: 400 TFLOP/s, 40 GB/s to the GPU" if found["speed_is_assumed"] else "from what this machine reached"
    chunk, whole = _duration(found["seconds_per_chunk"]), _duration(found["seconds"])
    lines += ["", f"a chunk takes {chunk}, the video {whole} ({how})", "", f"{'GB':>8}  {'time':>6}  saved by"]
    lines += [f"{c['peak_bytes'] / 1e9:>8.2f}  {c['time_factor']:>5.2f}x  {c['techniques']}" for c in found["choices"]]
    return lines


def _bar(parts: dict[str, int], order: list[str]) -> list[str]:
    """The parts as shares of one bar, and what its marks mean."""
    marks = dict(zip(order, "█▓▒░▚·+o", strict=False))
    total, bar, shown = sum(parts.values()), "", []
    for part in order:
        count = round(_BAR * parts.get(part, 0) / total)
        bar += marks[part] * count
        if count:
            shown.append(f"{marks[part]} {part}")
    return [bar, "   ".join(shown)]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
