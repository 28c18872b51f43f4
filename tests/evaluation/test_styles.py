"""Judges of styles, flicker, windows and cameras agree with what was drawn, blurred or not, and with nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from animagic.evaluation import judge
from animagic.evaluation.cameras import camera_motion, camera_move
from animagic.evaluation.metrics import changes, seams
from animagic.evaluation.styles import STYLES, TO_PLAIN, drawn_frames, flicker, kind_of, style_of
from animagic.synthetic import Scene, facts, render, sample_scene
from animagic.synthetic.cameras import CAMERA_MOVES, move_camera
from animagic.synthetic.styles import STYLES as DRAWN_STYLES
from animagic.synthetic.styles import apply_style
from animagic.timeline import OverlappingWindows


def scenes(count: int, seed: int, fits=lambda scene: True) -> list[Scene]:
    """Held-out scenes of one thing and a still camera."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        scene = sample_scene(rng, "test")
        if len(scene.things) == 1 and scene.camera == "still" and fits(scene):
            found.append(scene)
    return found


SCENES = scenes(30, seed=5)


def blur(frames: np.ndarray, pixels: float = 0.7) -> np.ndarray:
    return np.rint(ndimage.gaussian_filter(frames.astype(np.float32), (0, pixels, pixels, 0))).astype(np.uint8)


def drawn(scene: Scene, style: str, seed: int = 0) -> np.ndarray:
    """What the model is to make of a scene: 16 frames, 8 a second, a little blurred."""
    frames = render(scene, 16, fps=8)
    return blur(apply_style(style, frames, seed) if style in DRAWN_STYLES else frames)


def motion_in(frames: np.ndarray, style: str) -> str:
    return kind_of(judge(TO_PLAIN[style](frames), fps=8).motion)


def test_styles_are_told_apart():
    frames, styles = drawn_frames(240, seed=2)
    seen = style_of(frames)
    assert np.mean([STYLES[style] == name for style, name in zip(styles, seen, strict=True)]) >= 0.98


def test_a_flat_frame_has_no_style():
    flat = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in (0, 128, 255)])
    assert set(style_of(flat)) == {"noise"}


@pytest.mark.parametrize("style", TO_PLAIN)
def test_motion_is_seen_in_every_style(style):
    right = [
        motion_in(drawn(scene, style, i), style) == kind_of(facts(scene)["motion"]) for i, scene in enumerate(SCENES)
    ]
    assert np.mean(right) >= 0.9


@pytest.mark.parametrize("style", DRAWN_STYLES)
def test_frames_in_disorder_do_not_move_as_prompted(style):
    moving = [scene for scene in SCENES if scene.things[0].motion.name not in ("stays still", "spins")]
    order = np.random.default_rng(0).permutation(16)
    right = [motion_in(drawn(scene, style)[order], style) == kind_of(facts(scene)["motion"]) for scene in moving]
    assert np.mean(right) < 0.4


@pytest.mark.parametrize("style", TO_PLAIN)
def test_flicker_is_what_changes_beside_the_thing(style):
    moving = next(scene for scene in SCENES if scene.things[0].motion.name == "slides right")
    clip = drawn(moving, style)
    calm = flicker(clip, style)
    assert calm < 0.3 * changes(clip).mean()
    noise = np.random.default_rng(0).integers(-8, 9, clip.shape)  # differences of two of it: 5.9 on average
    restless = flicker(np.clip(clip.astype(int) + noise, 0, 255).astype(np.uint8), style)
    assert restless == pytest.approx(5.9, abs=1.2)


def test_seams_are_found_where_windows_meet():
    plan = OverlappingWindows(48, 4, moving=False)
    windows = [plan.windows_at(step) for step in range(4)]
    assert windows[0][:2] == [list(range(16)), list(range(12, 28))]
    even = np.arange(48, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    assert seams(even, windows) == pytest.approx((1.0, 1.0))
    jump = even.copy()
    jump[12:] += 20  # the second window begins at frame 12
    mean, worst = seams(jump, windows)
    assert mean == pytest.approx(worst)
    assert mean > 3
    moving = OverlappingWindows(48, 4)
    mean, worst = seams(jump, [moving.windows_at(step) for step in range(4)])
    assert worst > mean > 1
    assert seams(even[:16], [[list(range(16))]]) == (1.0, 1.0)


@pytest.mark.parametrize("move", [*CAMERA_MOVES, "still"])
def test_the_camera_s_move_is_seen(move):
    def fits(scene):
        return scene.things[0].motion.name == "stays still" and scene.background.kind != "plain"

    for scene in scenes(2, seed=3, fits=fits):
        clip = render(scene, 16, 128, 128, 8)
        frames = blur(clip[:, ::2, ::2] if move == "still" else move_camera(clip, move, 64, 64))
        assert camera_move(frames) == move
        if move == "roll-clockwise":  # 40 degrees in 15 steps; the picture turns the other way
            assert np.degrees(camera_motion(frames)[3]) == pytest.approx(-40 / 15, rel=0.15)
