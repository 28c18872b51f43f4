"""Fits the reading of the speech encoder that says how far a mouth opens with a voice whose phones nobody knows.

    python benchmarks/heard_opening.py   # writes src/animagic/evaluation/weights/heard_opening.npy; 2 minutes

Needs flite and espeak-ng. It prints the correlation with the phones' curve for voices and sentences that were not fitted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from animagic.evaluation import speaking
from animagic.speech import at_frames
from animagic.training.voices import VoiceBank

FPS = 25
RIDGE = 100.0  # on channels of variance 1


def heard_and_opened(count: int, held_out: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each recording what the encoder's last layer hears, (F, 384), and the opening that its phones say, (F,)."""
    pairs = []
    for recording in VoiceBank(None, count, held_out, seed=1):
        opened = recording.mouth(FPS)[:, 0]
        pairs.append((at_frames(recording.features, FPS, len(opened))[:, -1].numpy(), opened))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="recordings that are fitted")
    arguments = parser.parse_args()
    heard, opened = (np.concatenate(part) for part in zip(*heard_and_opened(arguments.count, False), strict=True))
    middle, spread = heard.mean(0), heard.std(0) + 1e-6
    x = (heard - middle) / spread
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (opened - opened.mean())) / spread
    readout = np.append(weights, opened.mean() - middle @ weights).astype(np.float32)
    found = [np.corrcoef(x @ readout[:-1], y)[0, 1] for x, y in heard_and_opened(40, True) if y.std() > 0]
    print(f"held-out voices and sentences: correlation {np.mean(found):.3f}, worst {np.min(found):.3f} of {len(found)}")
    np.save(Path(speaking.__file__).parent / "weights" / "heard_opening.npy", readout)


if __name__ == "__main__":
    main()
