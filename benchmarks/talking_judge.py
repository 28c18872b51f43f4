"""Fits what the judge of talking people has learned, and tells how far it can be trusted.

    python benchmarks/talking_judge.py   # writes src/animagic/evaluation/weights/{heard_opening,expressions}.npy

Needs flite and espeak-ng; some 10 minutes on one core. It prints, for people, voices and sentences that were not fitted:

- heard opening: the correlation of the opening that is heard with the one that the phones say;
- expressions: how many are found, on drawings and on blurred ones;
- seen opening: the correlation of the opening that is seen, by colour and by the face mesh, with the drawn one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from animagic.evaluation import expressions, speaking
from animagic.evaluation.talking import MOTIONS, outside
from animagic.faces import follow_faces, mouth_opening, smoothed
from animagic.speech import at_frames, mouth_shapes
from animagic.synthetic.portraits import EXPRESSIONS, render_scene, sample_performance, sample_portrait, sample_still
from animagic.training.voices import VoiceBank

FPS = 25
SIDE, FRAMES = 128, 48
RIDGE = 100.0  # on channels of variance 1
SHUT = np.float32([[0, 0.5, 0]])


def heard_and_opened(count: int, held_out: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each recording what the encoder's last layer hears, (F, 384), and the opening that its phones say, (F,)."""
    pairs = []
    for recording in VoiceBank(None, count, held_out, seed=1):
        opened = recording.mouth(FPS)[:, 0]
        pairs.append((at_frames(recording.features, FPS, len(opened))[:, -1].numpy(), opened))
    return pairs


def fit_heard(count: int) -> np.ndarray:
    heard, opened = (np.concatenate(part) for part in zip(*heard_and_opened(count, False), strict=True))
    middle, spread = heard.mean(0), heard.std(0) + 1e-6
    x = (heard - middle) / spread
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (opened - opened.mean())) / spread
    readout = np.append(weights, opened.mean() - middle @ weights).astype(np.float32)
    found = [np.corrcoef(x @ readout[:-1], y)[0, 1] for x, y in heard_and_opened(40, True) if y.std() > 0]
    print(f"heard opening: correlation {np.mean(found):.3f}, worst {np.min(found):.3f} of {len(found)}", flush=True)
    return readout


def blurred(frames: np.ndarray) -> np.ndarray:
    """As an autoencoder might leave them."""
    return ndimage.gaussian_filter(frames.astype(np.float32), (0, 1, 1, 0)).round().astype(np.uint8)


def drawn(number: int, held_out: bool, mouths: list[np.ndarray], kind: str):
    """A portrait, a clip in which they speak with an expression, and a photo of them without."""
    rng = np.random.default_rng((number, held_out))
    portrait = sample_portrait(rng, held_out, kind)
    asked, motion = EXPRESSIONS[number % 5], MOTIONS[number // 5 % 5]
    act = sample_performance(rng, mouths[number % len(mouths)], FPS, held_out, asked, motion)
    still = replace(sample_still(rng), expression="neutral", mouth=SHUT)
    return portrait, render_scene([portrait], [act], SIDE, SIDE), render_scene([portrait], [still], SIDE, SIDE).frames


def measure_people(count: int, held_out: bool, kind: str, change) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and numbers of the expressions, and correlations of the seen opening, by colour and by the mesh."""
    bank = VoiceBank(None, 12, held_out, seed=2)
    mouths = [mouth_shapes(one.phones, FPS, FRAMES + 10)[10:] for one in bank if one.phones]
    points, labels, agree = [], [], []
    for number in range(count):
        portrait, clip, photo = drawn(number, held_out, mouths, kind)
        frames, still = (speaking.viewed(change(one)) for one in (clip.frames, photo))
        faces, before = smoothed(follow_faces(frames, FPS), 0), follow_faces(still, FPS)
        if not (faces.confidence.shape[1] and before.confidence.shape[1]):
            continue
        found = expressions.features(faces, before.at(0, 0))
        if found is not None:
            points.append(found)
            labels.append(number % 5)
        opening, true = speaking.opening_by_colour(frames, faces, outside(portrait)), clip.opening[:, 0]
        known = np.isfinite(opening)
        if known.sum() > 20 and true[known].std() > 0.01:
            both = opening[known], mouth_opening(faces)[known, 0]
            agree.append([np.corrcoef(one, true[known])[0, 1] if one.std() > 0 else 0 for one in both])
    return np.array(points), np.array(labels), np.array(agree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=300, help="that are fitted")
    parser.add_argument("--people", type=int, default=250, help="that are fitted, each once sharp and once blurred")
    parser.add_argument("--kinds", nargs="+", default=["drawn"], help="of portraits: drawn, head")
    parser.add_argument("--only-people", action="store_true", help="leave the reading of sound as it is")
    arguments = parser.parse_args()
    weights = Path(speaking.__file__).parent / "weights"
    if not arguments.only_people:
        np.save(weights / "heard_opening.npy", fit_heard(arguments.recordings))
    ways = {"sharp": lambda frames: frames, "blurred": blurred}
    parts = [measure_people(arguments.people, False, kind, way) for kind in arguments.kinds for way in ways.values()]
    readout = expressions.fitted(np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts]))
    np.save(weights / "expressions.npy", readout)
    for kind in arguments.kinds:
        for name, way in ways.items():
            points, labels, agree = measure_people(arguments.people // 2, True, kind, way)
            right = (np.column_stack([points, np.ones(len(points))]) @ readout.T).argmax(1) == labels
            print(f"{kind}, {name}: expressions {right.mean():.1%} of {len(right)}; seen opening by colour mean "
                  f"{agree[:, 0].mean():.3f}, worst {agree[:, 0].min():.3f}, by mesh mean {agree[:, 1].mean():.3f}, "
                  f"worst {agree[:, 1].min():.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
