"""Loading a model for a request: quietly, on a device that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import zoo
from ..errors import InputError


def default_device() -> str:
    """The best device of this machine: "cuda", "mps" or "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def be_quiet() -> None:
    """No bars and no warnings of diffusers and transformers: what is wrong, we say ourselves."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@contextmanager
def refusing(device: str) -> Iterator[None]:
    """What PyTorch raises where a device is not there, or too small, becomes an InputError."""
    try:
        yield
    except (AssertionError, NotImplementedError, RuntimeError) as error:  # AssertionError: PyTorch without CUDA
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"the device {device} cannot be used here: {reason}.") from error


def load_pipeline(model: str, device: str | None = None) -> Any:
    """The pipeline of a model, quietly, on a device, as `zoo.dtype_on` says."""
    be_quiet()
    device = device or default_device()
    with refusing(device):
        pipe = zoo.load(model, dtype=zoo.dtype_on(model, device))
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)
