"""Where the golden tensors lie, and how closeness to them is measured."""

import os
from pathlib import Path

import pytest
from torch import Tensor

SHARED = Path(__file__).resolve().parents[3] / "shared"


def golden_path(*parts: str) -> Path:
    """A file of the goldens: under $ANIMAGIC_GOLDENS, else under ../shared/goldens beside the repository.

    Skips the test only where neither exists; a single file that is missing fails it.
    """
    given = os.environ.get("ANIMAGIC_GOLDENS")
    if not given and not SHARED.is_dir():
        pytest.skip(f"no golden tensors: {SHARED} is missing and ANIMAGIC_GOLDENS is not set")
    path = Path(given or SHARED / "goldens", *parts)
    if not path.is_file():
        pytest.fail(f"the golden file {path} is missing; restore it or point ANIMAGIC_GOLDENS to its folder")
    return path


def relative_error(ours: Tensor, golden: Tensor) -> float:
    """||ours - golden|| / ||golden||, for tensors of the same shape."""
    assert ours.shape == golden.shape, f"ours is {tuple(ours.shape)}, the golden {tuple(golden.shape)}"
    return ((ours - golden).norm() / golden.norm()).item()
