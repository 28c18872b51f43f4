"""What this machine can do, and what a video would take on it."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import replace
from typing import Any

from . import __version__, zoo
from .errors import InputError
from .systems import SYSTEMS

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
        "CPU threads": torch.get_num_threads(),
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
    for system in [system for system in SYSTEMS.values() if "memory" in system.rooms]:
        for name, kinds in system.room("memory").MemoryNetworks.published.items():
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
    """GiB on a GPU at the model's own size and length: (with nothing saved, with everything but tiles)."""
    import torch

    from .pipelines.memory import Predictor

    predictor = Predictor(zoo.networks_of(name, torch.bfloat16), "cuda")
    everything = predictor.combinations()[-1]
    return predictor.predict().peak / 2**30, predictor.predict(replace(everything, tiling=False)).peak / 2**30


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
    """The memory that a video from text takes at the worst moment, part by part.

    Args:
        model: see `zoo.networks_of`. height, width, frames, steps: None: the model's own.
        memory: bytes that may be used, so that the techniques are chosen that make it fit; None: nothing is saved.
        device: "cuda" or "cpu", which need not be here; None: the best that is.
        dtype: "bfloat16" or "float32"; None: as it would be loaded.
    Raises: InputError, CheckpointError.
    """
    import torch

    from .pipelines.devices import be_quiet
    from .pipelines.memory import Predictor, Techniques

    be_quiet()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
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
    networks = zoo.networks_of(model, getattr(torch, dtype))
    predictor = Predictor(networks, device, height, width, frames, steps, tight=memory is not None)
    if memory is None:
        saved, prediction = Techniques(), predictor.predict()
    else:
        fitted = predictor.fit(memory)
        saved, prediction = fitted.techniques, fitted.prediction
    video = predictor.video
    return {
        "model": model,
        "height": video.height,
        "width": video.width,
        "frames": video.frames,
        "steps": video.steps,
        "dtype": f"{dtype} with fp8 layers" if networks.fp8 else dtype,
        "device": device,
        "techniques": str(saved),
        "stages": prediction.stages,
        "peak_bytes": prediction.peak,
        "host_bytes": prediction.host,
        "choices": [
            {"techniques": str(choice), "peak_bytes": predictor.predict(choice).peak} for choice in predictor.choices()
        ],
    }


def in_words(found: dict[str, Any]) -> list[str]:
    """Lines for a person: a table of the parts, a bar of what fills the memory at the worst moment, the choices."""
    stages, peak = found["stages"], found["peak_bytes"]
    worst = max(stages, key=lambda stage: sum(stages[stage].values()))
    parts = sorted({part for stage in stages.values() for part in stage}, key=lambda p: -stages[worst].get(p, 0))
    lines = [
        f"{found['model']}: {found['width']}x{found['height']}, {found['frames']} frames, "
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
        lines.append(f"waiting in the CPU's memory: {found['host_bytes'] / 1e9:.2f} GB")
    lines += ["", f"{'GB':>8}  saved by"]
    lines += [f"{c['peak_bytes'] / 1e9:>8.2f}  {c['techniques']}" for c in found["choices"]]
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
