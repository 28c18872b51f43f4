"""Loading models on a device that is there, without the libraries' own messages."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

MOST_THREADS = 256
"""More make nothing faster, where the machine has not more itself; many thousands end the process."""


def default_device() -> str:
    """The best device of this machine: "cuda", "mps" or "cpu"; of several processes each gets a GPU of its own."""
    import torch

    if torch.cuda.is_available():
        return f"cuda:{rank}" if (rank := os.environ.get("LOCAL_RANK")) else "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def be_quiet() -> None:
    """No bars and no warnings of diffusers and transformers: what is wrong, we say ourselves."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if not os.environ.get("ANIMAGIC_DEBUG"):
        for name in ("diffusers", "transformers", "huggingface_hub", "peft", "accelerate"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def refusing(device: str) -> Iterator[None]:
    """Turn the errors that PyTorch raises for a device that is missing, at once, or too small into an InputError."""
    import torch

    try:
        torch.ones(1, device=device).item()
        yield
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # AssertionError: PyTorch without CUDA
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"the device {device} cannot be used here: {reason}.") from error


def use_threads(count: int | None) -> None:
    """Let PyTorch use `count` CPU threads; None: as many as it takes by itself. Raises InputError."""
    if count is None:
        return
    import torch

    most = max(MOST_THREADS, os.cpu_count() or 1)
    if not 1 <= count <= most:
        raise InputError(f"threads must be at least 1 and at most {most}, not {count}.")
    torch.set_num_threads(count)
