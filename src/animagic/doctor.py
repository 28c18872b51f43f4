"""What this machine can do."""

from __future__ import annotations

import os
import platform
from typing import Any

from . import __version__, zoo

# Parameters of the published models, and what a run needs besides the weights, in GiB (activations and cache).
_PUBLISHED = {"MAGI-1 4.5B": (4.46e9, 6.0), "MAGI-1 24B": (23.9e9, 16.0)}


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
    for name, (parameters, extra) in _PUBLISHED.items():
        needed = {"bfloat16": parameters * 2 / 2**30 + extra, "fp8": parameters / 2**30 + extra}
        good = [kind for kind, size in needed.items() if size < room]
        sizes = ", ".join(f"{kind} about {size:.0f} GiB" for kind, size in needed.items())
        verdict = f"yes, in {good[0]}" if good and cuda else "in memory, but a GPU is needed" if good else "no"
        fits[name] = f"{verdict} (needs {sizes})"
    return {"machine": machine, "devices": devices, "attention kernels": dict(available_backends()), "models": fits}
