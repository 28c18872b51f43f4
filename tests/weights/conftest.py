"""What the tests of weights share."""

import sys
import weakref
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "systems" / "animatediff"))  # published_files.py


class Alive:
    """Counts the bytes of tensors that come by and are still there."""

    def __init__(self):
        self.bytes = self.peak = 0

    def _forget(self, size: int) -> None:
        self.bytes -= size

    def counted(self, tensors):
        for name, tensor in tensors:
            self.bytes += tensor.nbytes
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(tensor.untyped_storage(), self._forget, tensor.nbytes)
            yield name, tensor
            del tensor


@pytest.fixture
def alive() -> Alive:
    return Alive()
