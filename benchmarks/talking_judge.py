"""Fits what the judge of talking people has learned, and tells how far it can be trusted.

    python benchmarks/talking_judge.py   # writes src/animagic/evaluation/weights/{heard_opening,expressions}.npy

Needs flite and espeak-ng; some 10 minutes on one core. It prints, for people and sentences that were not fitted:

- heard opening: the correlation of the opening that is heard with the one that the phones say;
- expressions: how many are found, on drawings and on blurred ones;
- seen opening: the correlation of the opening that is seen, by colour and by the face mesh, with the drawn one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from animagic.evaluation import expressions, speaking
from animagic.evaluation.talking import MOTIONS, outside
from animagic.faces import follow_faces, mouth_opening, smoothed
from animagic.layers.autoencoder import ConvAutoencoder
from animagic.speech import at_frames, mouth_shapes
from animagic.synthetic.portraits import EXPRESSIONS, render_scene, sample_performance, sample_portrait, sample_still
from animagic.training.voices import VoiceBank

FPS = 25
SIDE, FRAMES = 128, 48
RIDGE = 100.0  # on channels of variance 1
Change = Callable[[np.ndarray], np.ndarray]
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


def through(autoencoder: ConvAutoencoder) -> Change:
    """What an autoencoder leaves of frames."""

    @torch.no_grad()
    def change(frames: np.ndarray) -> np.ndarray:
        whole = np.pad(frames, ((0, -len(frames) % 4), (0, 0), (0, 0), (0, 0)), "edge")
        video = torch.from_numpy(whole).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        decoded = autoencoder.decode(autoencoder.encode(video).latent_dist.mode(), whole=True).sample[0]
        pixels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
        return pixels.permute(1, 2, 3, 0).numpy()[: len(frames)]

    return change


def drawn(number: int, held_out: bool, mouths: list[np.ndarray], kind: str):
    """A portrait, a clip in which they speak with an expression, and a photo of them without."""
    rng = np.random.default_rng((number, held_out))
    portrait = sample_portrait(rng, held_out, kind)
    asked, motion = EXPRESSIONS[number % 5], MOTIONS[number // 5 % 5]
    act = sample_performance(rng, mouths[number % len(mouths)], FPS, held_out, asked, motion)
    still = replace(sample_still(rng), expression="neutral", mouth=SHUT)
    return portrait, render_scene([portrait], [act], SIDE, SIDE), render_scene([portrait], [still], SIDE, SIDE).frames


def mouths_of(held_out: bool) -> list[np.ndarray]:
    """How a mouth moves with a dozen sentences, (F, 3) each."""
    bank = VoiceBank(None, 12, held_out, seed=2)
    return [mouth_shapes(one.phones, FPS, FRAMES + 10)[10:] for one in bank if one.phones]


def shown(count: int, held_out: bool, kind: str, ways: Mapping[str, Change]) -> tuple[dict[str, list], dict[str, list]]:
    """By way: features and numbers of the expressions; correlations of the opening by colour and by the mesh."""
    mouths, points, agree = mouths_of(held_out), {name: [] for name in ways}, {name: [] for name in ways}
    for number in range(count):
        portrait, clip, photo = drawn(number, held_out, mouths, kind)
        for name, change in ways.items():
            frames, still = (speaking.viewed(change(one)) for one in (clip.frames, photo))
            if not held_out:
                frames = frames[::3]  # fewer are enough for expressions
            faces, before = smoothed(follow_faces(frames, FPS), 0), follow_faces(still, FPS)
            if not (faces.confidence.shape[1] and before.confidence.shape[1]):
                continue
            if (found := expressions.features(faces, before.at(0, 0))) is not None:
                points[name].append((found, number % 5))
            if held_out:
                opening, true = speaking.opening_by_colour(frames, faces, outside(portrait)), clip.opening[:, 0]
                known = np.isfinite(opening)
                if known.sum() > FRAMES // 2 and true[known].std() > 0.01:
                    both = opening[known], mouth_opening(faces)[known, 0]
                    agree[name].append([np.corrcoef(one, true[known])[0, 1] if one.std() > 0 else 0 for one in both])
    return points, agree


def fit_expressions(kinds: Sequence[str], count: int, ways: Mapping[str, Change]) -> np.ndarray:
    pairs = [pair for kind in kinds for some in shown(count, False, kind, ways)[0].values() for pair in some]
    return expressions.fitted(np.stack([one for one, _ in pairs]), np.array([label for _, label in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=300, help="that are fitted")
    parser.add_argument(
        "--people", type=int, default=120, help="of each kind that are fitted, each once sharp and once blurred"
    )
    parser.add_argument("--kinds", nargs="+", default=["drawn", "head"], help="of portraits: drawn, head")
    parser.add_argument("--only-people", action="store_true", help="leave the reading of sound as it is")
    parser.add_argument("--autoencoder", help="a folder: also tell how it is on what this autoencoder leaves")
    parser.add_argument("--only-measure", action="store_true", help="fit nothing")
    arguments = parser.parse_args()
    weights = Path(speaking.__file__).parent / "weights"
    if not (arguments.only_people or arguments.only_measure):
        np.save(weights / "heard_opening.npy", fit_heard(arguments.recordings))
    ways = {"sharp": lambda frames: frames, "blurred": blurred}
    if not arguments.only_measure:
        np.save(weights / "expressions.npy", fit_expressions(arguments.kinds, arguments.people, ways))
    readout = np.load(weights / "expressions.npy")
    if arguments.autoencoder:
        ways["autoencoder"] = through(ConvAutoencoder.from_pretrained(arguments.autoencoder))
    for kind in arguments.kinds:
        points, agree = shown(arguments.people // 3, True, kind, ways)
        for name in ways:
            right = [(readout @ np.append(one, 1)).argmax() == label for one, label in points[name]]
            colour, mesh = (f"mean {np.mean(one):.3f}, worst {np.min(one):.3f}" for one in np.transpose(agree[name]))
            print(f"{kind}, {name}: expressions {np.mean(right):.0%} of {len(right)}; seen opening by colour {colour}, "
                  f"by mesh {mesh}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
