"""Findings about this machine, and the memory that a video would take on it."""

from __future__ import annotations

import functools
import os
import platform
import re
from dataclasses import replace
from typing import Any

from . import __version__, zoo
from .errors import InputError

_BAR = 40  # characters


def examine() -> dict[str, dict[str, Any]]:
    """Sections of findings, for printing."""
    import torch

    from .layers.attention import available_backends

    cuda = torch.cuda.is_available()
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30  # GiB
    machine: dict[str, Any] = {
        "animagic": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "CPU threads": torch.get_num_threads(),
        "memory": f"{room:.1f} GiB",
    }
    devices: dict[str, Any] = {"cpu": "float32 (the default; half precision is slow or missing here)"}
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        room = gpu.total_memory / 2**30
        devices[f"cuda:{i}"] = f"{gpu.name}, {room:.0f} GiB, compute {gpu.major}.{gpu.minor}"
    if cuda:
        devices["bfloat16"] = torch.cuda.is_bf16_supported()
        devices["fp8 matmul"] = torch.cuda.get_device_capability() >= (8, 9)
    devices["mps"] = torch.backends.mps.is_available()
    fits = {name: f"yes, embedded ({zoo.entry(name).bytes / 2**20:.0f} MiB)" for name in zoo.names()}
    for networks in zoo.memory_networks().values():
        for name, kinds in networks.published.items():
            fits[name] = _verdict({kind: _needs(published) for kind, published in kinds.items()}, room, cuda)
    return {"machine": machine, "devices": devices, "attention kernels": dict(available_backends()), "models": fits}


def _verdict(needs: dict[str, tuple[float, float]], room: float, cuda: bool) -> str:
    sizes = ", ".join(f"{kind} {most:.0f} GiB, or {least:.0f} offloaded" for kind, (most, least) in needs.items())
    if not cuda:
        return f"a GPU is needed ({sizes})"
    ways = [f"yes, in {kind}" for kind, (most, _) in needs.items() if most < room]
    ways += [f"with --memory, in {kind}" for kind, (_, least) in needs.items() if least < room]
    return f"{[*ways, 'no'][0]} (needs {sizes})"


@functools.cache
def _needs(name: str) -> tuple[float, float]:
    """GiB on a GPU at the model's own size and length: (with nothing saved, with everything but tiles)."""
    import torch

    from .pipelines.memory import Predictor

    predictor = Predictor(zoo.networks_of(name, torch.bfloat16), "cuda")
    everything = replace(predictor.combinations()[-1], tiling=False)
    return predictor.predict().peak / 2**30, predictor.predict(everything).peak / 2**30


def parse_memory(text: str) -> int:
    """ "12GB", "11.5 GiB", "800MB" to bytes. Raises InputError."""
    amount = re.fullmatch(r"(\d+\.?\d*|\.\d+)([kmgt])(i?)b", text.lower().replace(" ", ""))
    unit = (1024 if amount[3] else 1000) ** (1 + "kmgt".index(amount[2])) if amount else 0
    if not amount or not 0 < float(amount[1]) * unit < 2**60:
        raise InputError(f"{text!r} is not an amount of memory; write a number with its unit, such as 12GB or 11.5GiB.")
    return int(float(amount[1]) * unit)


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
    from .pipelines.options import VideoOptions

    be_quiet()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cuda", "cpu"):
        raise InputError(f"predictions are made for cuda and cpu, not for {device}.")
    if dtype is None and (model in zoo.names() or os.path.isdir(model)):
        dtype = str(zoo.dtype_on(model, device)).removeprefix("torch.")
    dtype = dtype or ("bfloat16" if device == "cuda" else "float32")
    if dtype not in ("bfloat16", "float32"):
        raise InputError(f"the dtype must be bfloat16 or float32, not {dtype}.")
    if (height is None) != (width is None):
        raise InputError("give both height and width, or neither.")
    asked = {"height": height, "width": width, "frames": frames, "steps": steps}
    VideoOptions(prompt="any", model=model, **asked)  # refuses sizes that no video has
    networks = zoo.networks_of(model, getattr(torch, dtype))
    predictor = Predictor(networks, device, height, width, frames, steps, tight=memory is not None)
    techniques = Techniques() if memory is None else predictor.fit(memory).techniques
    prediction, settings = predictor.predict(techniques), predictor.settings
    return {
        "model": model,
        "height": settings.height,
        "width": settings.width,
        "frames": settings.num_frames,
        "steps": settings.num_inference_steps,
        "dtype": f"{dtype} with fp8 layers" if networks.fp8 else dtype,
        "device": device,
        "techniques": str(techniques),
        "stages": prediction.stages,
        "peak_bytes": prediction.peak,
        "host_bytes": prediction.host,
        "choices": [{"techniques": str(one), "peak_bytes": predictor.predict(one).peak} for one in predictor.choices()],
    }


def in_words(found: dict[str, Any]) -> list[str]:
    """Lines for a person: a table of the parts, with bars of what fills the memory at the worst moment; the choices."""
    stages, peak = found["stages"], found["peak_bytes"]
    worst = max(stages, key=lambda stage: sum(stages[stage].values()))
    lines = [
        f"{found['model']}: {found['width']}x{found['height']}, {found['frames']} frames, "
        f"{found['steps']} steps, {found['dtype']}, on {found['device']}",
        f"saved by: {found['techniques']}",
        "",
        f"{'GB':<18}" + "".join(f"{stage:>10}" for stage in stages),
    ]
    parts = dict.fromkeys(part for stage in stages.values() for part in stage)
    for part in sorted(parts, key=lambda part: -stages[worst].get(part, 0)):
        sizes = [stage.get(part, 0) for stage in stages.values()]
        if any(sizes):
            cells = "".join(f"{size / 1e9:>10.2f}" if size else f"{'-':>10}" for size in sizes)
            lines.append(f"{part:<18}{cells}  {'█' * round(_BAR * stages[worst].get(part, 0) / peak)}".rstrip())
    lines.append(f"{'together':<18}" + "".join(f"{sum(stage.values()) / 1e9:>10.2f}" for stage in stages.values()))
    lines += ["", f"{worst}, the fullest moment: {peak / 1e9:.2f} GB"]
    if found["host_bytes"]:
        lines.append(f"waiting in the CPU's memory: {found['host_bytes'] / 1e9:.2f} GB")
    lines += ["", f"{'GB':>8}  saved by"]
    return lines + [f"{choice['peak_bytes'] / 1e9:>8.2f}  {choice['techniques']}" for choice in found["choices"]]
