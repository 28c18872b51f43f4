"""The judge agrees with what was drawn, sees through blur, and does not agree with anything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from animagic.errors import InputError
from animagic.evaluation import judge
from animagic.evaluation.scenes import direction
from animagic.synthetic import Scene, facts, render, sample_scene


def one_thing_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes of one thing and a still camera, by turns from both splits."""
    rng, scenes = np.random.default_rng(seed), []
    while len(scenes) < count:
        scene = sample_scene(rng, "test" if len(scenes) % 2 else "train")
        if len(scene.things) == 1 and scene.camera == "still":
            scenes.append(scene)
    return scenes


SCENES = one_thing_scenes(70, seed=0)


def judge_scene(frames: np.ndarray, facts: dict[str, str]) -> dict[str, bool]:
    """Which of the facts the video shows."""
    verdict = judge(frames)
    return {name: getattr(verdict, name) == value for name, value in facts.items()}


def accuracy(scenes: list[Scene], num_frames: int = 48, spoil: Callable = lambda frames: frames) -> dict[str, float]:
    answers = [judge_scene(spoil(render(scene, num_frames)), facts(scene)) for scene in scenes]
    return {name: float(np.mean([a[name] for a in answers])) for name in answers[0]}


def to_patches(frames: np.ndarray) -> np.ndarray:
    """(F, 64, 64, 3) to patches of 4 x 8 x 8 pixels, (F / 4 * 64, 768): what the tiny models' autoencoder sees."""
    blocks = frames.reshape(-1, 4, 8, 8, 8, 8, 3)  # (groups, 4, rows, 8, columns, 8, 3)
    return blocks.transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, 768).astype(np.float32)


def from_patches(patches: np.ndarray) -> np.ndarray:
    blocks = patches.reshape(-1, 8, 8, 4, 8, 8, 3).transpose(0, 3, 1, 4, 2, 5, 6).reshape(-1, 64, 64, 3)
    return np.clip(np.rint(blocks), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def low_pass() -> Callable:
    """Through 24 principal components of the patches and back: 27 dB."""
    patches = np.concatenate([to_patches(render(s, 24))[::7] for s in one_thing_scenes(80, seed=99)])
    mean = patches.mean(0)
    basis = np.linalg.eigh(np.cov(patches.T))[1][:, -24:].astype(np.float32)
    return lambda frames: from_patches((to_patches(frames) - mean) @ basis @ basis.T + mean)


def blur(frames: np.ndarray) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(frames.astype(np.float32), (0, 1, 1, 0))).astype(np.uint8)


@pytest.mark.integration
def test_the_judge_sees_what_was_drawn():
    assert min(accuracy(SCENES).values()) >= 0.97


def test_one_chunk_is_enough():
    assert min(accuracy(SCENES[:40], num_frames=24).values()) >= 0.95


def test_the_judge_bears_blur():
    assert min(accuracy(SCENES[:40], spoil=blur).values()) >= 0.95


def test_the_judge_bears_the_loss_of_a_small_autoencoder(low_pass):
    assert min(accuracy(SCENES[:40], spoil=low_pass).values()) >= 0.9


def test_wrong_videos_do_not_pass():
    scenes = SCENES[:40]
    wrong = [judge_scene(render(a, 24), facts(b)) for a, b in zip(scenes, scenes[1:] + scenes[:1], strict=True)]
    for name in ("colour", "shape", "motion", "background"):
        assert np.mean([answer[name] for answer in wrong]) < 0.3


@pytest.mark.parametrize("kind", ["black", "grey", "noise"])
def test_a_video_of_nothing_is_told_by_its_share_or_confidence(kind):
    rng = np.random.default_rng(0)
    frames = {
        "black": np.zeros((24, 64, 64, 3), np.uint8),
        "grey": np.full((24, 64, 64, 3), 128, np.uint8),
        "noise": rng.integers(0, 256, (24, 64, 64, 3), dtype=np.uint8),
    }[kind]
    verdict = judge(frames)
    assert min(verdict.share, verdict.confidence) < 0.5
    assert all(np.isfinite(direction(frames)))


def test_directions_are_measured_to_a_few_degrees():
    ways = {"slides left": (-1, 0), "slides right": (1, 0), "rises": (0, -1), "falls": (0, 1)}
    moving = [s for s in SCENES if s.things[0].motion.name in ways][:30]
    for scene in moving:
        motion = scene.things[0].motion
        measured = np.array(direction(blur(render(scene, 24))))
        way = np.array(ways[motion.name])
        assert measured @ way / np.linalg.norm(measured) > np.cos(np.radians(5))
        assert np.linalg.norm(measured) == pytest.approx(motion.rate, rel=0.15)


def test_pans_are_told_from_slides():
    rng = np.random.default_rng(1)
    panned = [s for s in (sample_scene(rng) for _ in range(300)) if s.camera != "still"]
    assert len(panned) > 10
    answers = [judge_scene(render(scene, 48), facts(scene)) for scene in panned]
    assert np.mean([answer["camera"] and answer["motion"] for answer in answers]) > 0.9


def test_other_shapes_of_video_are_refused():
    with pytest.raises(InputError, match=r"takes uint8 \(F, 64, 64, 3\)"):
        judge(np.zeros((24, 32, 32, 3), np.uint8))
