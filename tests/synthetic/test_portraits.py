from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("skia")

from animagic import InputError
from animagic.synthetic.portraits import (
    EXPRESSIONS,
    HELD_OUT,
    KINDS,
    MOTIONS,
    caption,
    held_out_portrait,
    render_photo,
    render_portrait,
    render_scene,
    sample_performance,
    sample_portrait,
    sample_still,
    scene_caption,
)
from animagic.synthetic.portraits.identity import BEARDS, GARMENTS, GLASSES, HAIR_STYLES

SHUT = np.tile(np.float32([0, 0.5, 0]), (4, 1))


def speaking(*openings: float) -> np.ndarray:
    return np.float32([[opening, 0.5, 0] for opening in openings])


def facing(portrait, mouth, expression="neutral", yaw=0.0):
    """A performance that looks in one direction, without idle movements."""
    done = sample_performance(0, mouth, 25, motion="still", expression=expression)
    angles = np.zeros_like(done.angles)
    angles[:, 0] = yaw
    still = {name: 0 * getattr(done, name) for name in ("shift", "breath", "blink", "gaze")}
    return replace(done, angles=angles, **still)


@pytest.fixture(scope="module", params=KINDS)
def portrait(request):
    return replace(sample_portrait(3, kind=request.param), beard="none", glasses="none", size=0.65)


@pytest.fixture(scope="module")
def clip(portrait):
    return render_portrait(portrait, facing(portrait, speaking(0, 0.3, 0.6, 1.0)), 128, 112)


def test_shapes_and_types(clip):
    assert (clip.frames.shape, clip.frames.dtype) == ((4, 128, 112, 3), np.uint8)
    assert (clip.face.shape, clip.face.dtype) == ((4, 128, 112), np.uint8)
    assert (clip.mouth.shape, clip.mouth.dtype) == ((4, 128, 112), np.uint8)
    assert (clip.opening.shape, clip.opening.dtype) == ((4,), np.float32)


def test_a_seed_decides_everything(portrait):
    assert sample_portrait(4) == sample_portrait(np.random.default_rng(4))
    one, other = (sample_performance(5, SHUT, 25) for _ in range(2))
    np.testing.assert_array_equal(one.angles, other.angles)
    first, second = (render_portrait(portrait, one, 64, 64) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(render_photo(portrait, 1, 64, 64).frames, render_photo(portrait, 1, 64, 64).frames)


def test_the_mouth_opens_as_it_is_told(clip):
    assert clip.opening[0] < 0.02
    assert (np.diff(clip.opening) > 0.03).all()
    assert 0.2 < clip.opening[3] < 0.45


def test_an_open_mouth_is_dark_inside_and_changes_nothing_above_the_nose(clip):
    shut, wide = clip.frames[0].astype(int), clip.frames[3].astype(int)
    changed = np.abs(wide - shut).max(-1)
    inside = clip.mouth[3] > 128
    assert changed[inside].mean() > 12
    assert (wide.sum(-1) < 0.5 * np.median(shut[inside].sum(-1)))[inside].sum() > 15
    top = np.flatnonzero(inside.any(1))[0]
    assert changed[: top - 2].max() <= 20


def test_masks_lie_in_the_face(clip, portrait):
    assert (clip.mouth <= clip.face).all()
    rows = np.flatnonzero((clip.face[0] > 128).any(1))
    assert len(rows) == pytest.approx(portrait.size * 112, rel=0.15)
    assert 0.08 < (clip.mouth[0] > 128).sum() / (clip.face[0] > 128).sum() < 0.5


def test_from_behind_there_is_no_face(portrait):
    clip = render_portrait(portrait, facing(portrait, SHUT, yaw=180.0), 64, 64)
    assert not clip.face.any()
    assert not clip.mouth.any()
    front = render_portrait(portrait, facing(portrait, SHUT), 64, 64)
    assert np.abs(front.frames.astype(int) - clip.frames).mean() > 4


def test_every_expression_is_seen(portrait):
    faces = [render_portrait(portrait, facing(portrait, SHUT[:1], name), 96, 96) for name in EXPRESSIONS]
    for i, one in enumerate(faces):
        assert one.opening[0] < 0.05
        for other in faces[:i]:
            differ = np.abs(one.frames.astype(int) - other.frames).max(-1)[one.face > 128]
            assert (differ > 30).sum() > 8


def test_the_background_stays_where_nobody_is(portrait):
    mouth = np.tile(np.float32([[0, 0.5, 0], [1, 0.6, 0]]), (3, 1))
    clip = render_portrait(replace(portrait, size=0.45, x=0.5), facing(portrait, mouth), 64, 96)
    assert (clip.frames[:, :20, :12] == clip.frames[:1, :20, :12]).all()


def test_held_out_portraits_and_performances_stay_apart():
    for seed in range(40):
        for held_out in (True, False):
            assert held_out_portrait(sample_portrait(seed, held_out)) == held_out
            done = sample_performance(seed, SHUT, 25, held_out)
            assert ((done.expression, done.motion) in HELD_OUT) == held_out


def test_nobody_freezes_and_everybody_blinks():
    for motion in MOTIONS:
        done = sample_performance(1, np.tile(SHUT[:1], (400, 1)), 25, motion=motion)
        steps = np.abs(np.diff(done.angles, axis=0))
        assert 0 < steps.max() < 15  # degrees from frame to frame: no jumps
        assert (steps[:, 0].reshape(-1, 57) > 0).any(1).all()
        assert done.breath.std() > 0.005
        starts = np.flatnonzero((done.blink[1:] > 0) & (done.blink[:-1] == 0))
        assert 2 <= len(starts) <= 9
        assert 2 <= (done.blink > 0).sum() / len(starts) <= 6


def test_turns_go_the_way_they_say():
    for seed in range(8):
        left = sample_performance(seed, np.tile(SHUT[:1], (50, 1)), 25, motion="turning to the left")
        right = sample_performance(seed, np.tile(SHUT[:1], (50, 1)), 25, motion="turning to the right")
        assert left.angles[:, 0].min() < -20 < 20 < right.angles[:, 0].max()


def test_every_look_can_be_drawn_from_all_sides(portrait):
    looks = [{"hair_style": style} for style in HAIR_STYLES] + [{"garment": garment} for garment in GARMENTS]
    looks += [{"beard": beard} for beard in BEARDS] + [{"glasses": glasses} for glasses in GLASSES]
    around = facing(portrait, SHUT[:3])
    around.angles[:, 0] = [0, 100, 180]
    drawn = [render_portrait(replace(portrait, **look), around, 48, 48).frames for look in looks]
    for group in (drawn[:11], drawn[11:16], drawn[16:20], drawn[20:]):
        assert len({frames[0].tobytes() for frames in group}) == len(group)


def test_two_people_have_masks_of_their_own():
    people = [sample_portrait(1, kind="drawn"), sample_portrait(2, kind="head")]
    clip = render_scene(people, [sample_performance(i, SHUT, 25, motion="still") for i in range(2)], 64, 64)
    assert clip.face.shape == clip.mouth.shape == (4, 2, 64, 64)
    assert clip.opening.shape == (4, 2)
    columns = [np.flatnonzero((clip.face[0, i] > 128).any(0)).mean() for i in range(2)]
    assert columns[0] < 28 < 36 < columns[1]
    assert not ((clip.face[:, 0] > 128) & (clip.face[:, 1] > 128)).any()
    photo = render_photo(people, 0, 64, 64)
    assert photo.frames.shape == (1, 64, 64, 3)


def test_photos_have_the_mouth_shut():
    openings = [sample_still(seed).mouth[0, 0] for seed in range(60)]
    assert max(openings) <= 0.08


def test_captions_say_what_is_true():
    rng = np.random.default_rng(0)
    for seed in range(60):
        person = sample_portrait(seed)
        done = sample_performance(seed, speaking(0, 1) if seed % 2 else SHUT, 25)
        said = caption(person, done, rng)
        assert any(word in said for word in ("speaking", "talking")) == bool(seed % 2)
        if "glasses" in said:
            assert person.glasses != "none"
        if "beard" in said:
            assert person.beard == "full"
        if f" {person.garment}" in said:
            assert f"{person.clothes} {person.garment}" in said
        assert "  " not in said
    both = scene_caption([sample_portrait(0)] * 2, [sample_performance(0, SHUT, 25)] * 2, rng)
    assert "left" in both
    assert "right" in both


def test_what_cannot_be_drawn_is_named(portrait):
    done = sample_performance(0, SHUT, 25)
    with pytest.raises(InputError, match="at least 32 x 32"):
        render_portrait(portrait, done, 16, 64)
    with pytest.raises(InputError, match="1 portraits with 2 performances"):
        render_scene([portrait], [done, done], 64, 64)
    with pytest.raises(InputError, match=r"give \(frames, 3\)"):
        sample_performance(0, SHUT[:, :2], 25)
    with pytest.raises(InputError, match="There is no 'joy'"):
        sample_performance(0, SHUT, 25, expression="joy")
