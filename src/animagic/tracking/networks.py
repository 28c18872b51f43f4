"""Networks in LiteRT's format, and the detectors among them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import AnimagicError
from .crops import anchors_of

_LEAST_SCORE = 0.5


class Network:
    """A .tflite file, run on one thread. Raises AnimagicError where LiteRT is not installed."""

    def __init__(self, file: Path) -> None:
        with _without_notices():
            try:
                from ai_edge_litert.interpreter import Interpreter
            except ImportError as error:
                raise AnimagicError(
                    f"finding faces and poses needs LiteRT ({error}): pip install ai-edge-litert."
                ) from error
            self._interpreter = Interpreter(str(file), num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """The outputs for one picture, float32 (height, width, 3)."""
        self._interpreter.set_tensor(self._input, picture[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


class Detector:
    """A network that answers in every cell of its grids whether something is there (SSD; arXiv 1512.02325).

    size: of its picture in pixels, square. strides: of its grids in pixels, each with the anchors in a cell.
    """

    def __init__(self, file: Path, size: int, strides: tuple[tuple[int, int], ...]) -> None:
        self.size = size
        self._network = Network(file)
        self._anchors = anchors_of(size, strides)

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes, (n, 4 + 2 points): x, y, width, height and points, 0 to 1; and their scores, (n,), 0.5 or more."""
        raw, logits = self._network(picture * 2 - 1)
        return placed(raw[0], logits[0, :, 0], self._anchors, self.size)


def placed(raw: np.ndarray, logits: np.ndarray, anchors: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores, as of `Detector`, of what a network answers relative to its anchors, in pixels."""
    scores = sigmoid(logits)
    kept = scores >= _LEAST_SCORE
    boxes = raw[kept] / size
    pairs = boxes.reshape(len(boxes), boxes.shape[1] // 2, 2)
    pairs[:, [0, *range(2, pairs.shape[1])]] += anchors[kept, None]  # all but width and height
    return boxes, scores[kept]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))


@contextmanager
def _without_notices() -> Iterator[None]:
    """LiteRT writes to stderr by itself how it has begun, and cannot be told not to."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
