"""The judge of talking people: what it says of curves, colours and points whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from animagic.evaluation import speaking
from animagic.evaluation.expressions import POINTS, expression_of, features, fitted
from animagic.evaluation.speaking import Heard, Talk, by_phones, drift, jerk, only, share_open, synchrony, widest
from animagic.faces import Face, Faces, face_in, follow_faces
from animagic.speech import Phone, mouth_curve
from animagic.synthetic.portraits import EXPRESSIONS, render_portrait, sample_performance, sample_portrait

PHONES = (Phone("AA1", 0.4, 0.7), Phone("M", 0.7, 0.8), Phone("IY1", 0.8, 1.1), Phone("AA1", 1.6, 2.0))

SKIN = (206, 152, 114)


def sound(seconds=3.0):
    samples = np.zeros(round(16_000 * seconds), np.float32)
    for start, end in ((0.4, 1.1), (1.6, 2.0)):
        at = np.arange(round(16_000 * start), round(16_000 * end))
        samples[at] = 0.3 * np.sin(0.1 * at)
    return samples


def still(x=20.0, size=40.0, frames=1):
    face = face_in(x, 20, size, size)
    mesh = np.repeat(face.mesh[None, None], frames, 0)
    return Faces(mesh, np.ones((frames, 1), np.float32), 100, 100, 25)


@pytest.mark.parametrize("late", [-4, -1, 0, 2, 5])
def test_the_shift_between_mouth_and_sound_is_found(late):
    curve = mouth_curve(PHONES, 25, 75)
    r, lag = synchrony(0.2 * np.roll(curve, late) + 0.01, curve)
    assert lag == late
    assert r == pytest.approx(1, abs=1e-5)


def test_what_does_not_move_or_is_hardly_seen_is_not_in_time():
    curve = mouth_curve(PHONES, 25, 75)
    assert synchrony(np.full(75, 0.2), curve) == (0, 0)
    opening = curve.astype(float)
    opening[:45] = np.nan
    assert synchrony(opening, curve)[0] == 0
    opening = curve.astype(float)
    opening[10:30] = np.nan
    assert synchrony(opening, curve)[0] == pytest.approx(1, abs=1e-5)


def test_a_mouth_that_chatters_is_not_in_time():
    noise = np.random.default_rng(0).random(250)
    phones = [replace(one, start=one.start + 2 * k, end=one.end + 2 * k) for k in range(5) for one in PHONES]
    assert synchrony(noise, mouth_curve(phones, 25, 250))[0] < 0.3


def test_silence_is_where_nobody_speaks_nor_will_soon():
    silent = Heard(sound(), PHONES).silent(25, 75)
    assert silent[:5].all()
    assert not silent[8:30].any()
    assert not silent[38:52].any()
    assert silent[60:].all()


def test_a_mouth_that_is_open_in_silence_is_found():
    curve, silent = mouth_curve(PHONES, 25, 75).astype(float), Heard(sound(), PHONES).silent(25, 75)
    assert share_open(curve, silent) == 0
    assert share_open(curve + 0.3, silent) == 1
    assert np.isnan(share_open(curve, np.zeros(75, bool)))
    assert share_open(curve, silent, wide=1.0) == 0
    assert np.isnan(widest(np.full(5, np.nan)))


def test_by_phones_is_a_score():
    curve = mouth_curve(PHONES, 25, 75)
    talk = Talk(np.zeros((75, 8, 8, 3), np.uint8), 25, Heard(sound(), PHONES), np.zeros((75, 4)), np.roll(curve, 2))
    assert by_phones(talk) == {"sync": pytest.approx(1, abs=1e-5), "offset": 2}


def test_without_phones_the_sound_itself_is_heard():
    loud = Heard(sound()).curve(25, 75)
    assert loud.shape == (75,)
    assert loud[60:].max() < 0.3


def test_an_opening_grows_with_what_is_not_skin():
    faces = still(78, 100)
    faces = replace(faces, mesh=faces.mesh + np.float32([0, 60, 0]), height=256, width=256)
    x, y = faces.mesh[0, 0, list(speaking.LIPS), :2].mean(0).round().astype(int)
    seen, soft = [], []
    for gap in (0, 4, 8, 12):
        frames = np.full((1, 256, 256, 3), SKIN, np.uint8)
        frames[0, y - gap // 2 : y + gap // 2, x - 12 : x + 12] = (66, 16, 24)
        seen.append(speaking.opening_by_colour(frames, faces, [SKIN])[0])
        blurred = ndimage.gaussian_filter(frames.astype(float), (0, 2, 2, 0)).round().astype(np.uint8)
        soft.append(speaking.opening_by_colour(blurred, faces, [SKIN])[0])
    assert seen[0] < 0.02
    assert np.diff(seen) == pytest.approx(np.full(3, seen[1] - seen[0]), rel=0.02)
    assert (np.array(soft[1:]) > 0.3 * np.array(seen[1:])).all()
    assert (np.diff(soft) > 0).all()


def test_no_face_no_opening():
    faces = still()
    nobody = replace(faces, confidence=np.zeros_like(faces.confidence))
    none = replace(faces, mesh=faces.mesh[:, :0], confidence=faces.confidence[:, :0])
    frames = np.zeros((1, 100, 100, 3), np.uint8)
    assert np.isnan(speaking.opening_by_colour(frames, nobody, [(0, 0, 0)])).all()
    assert np.isnan(speaking.opening_by_colour(frames, none, [(0, 0, 0)])).all()


def test_of_two_faces_the_near_one_is_taken():
    left, right = still(5, 30, 3), still(65, 30, 3)
    both = replace(left, mesh=np.concatenate([left.mesh, right.mesh], 1), confidence=np.ones((3, 2), np.float32))
    assert only(both, (0.8, 0.35)).box[0, 0, 0] == pytest.approx(65, abs=1)
    assert only(both, (0.2, 0.35)).box[0, 0, 0] == pytest.approx(5, abs=1)
    assert only(both, (0.5, 0.95)).confidence.shape == (3, 0)


def test_drift_compares_the_end_with_the_beginning():
    distances = np.concatenate([np.full(100, 0.2), np.linspace(0.2, 0.5, 900), np.full(100, 0.5)])
    assert drift(distances, 25) == pytest.approx(2.5)
    assert drift(np.full(1000, 0.3), 25) == 1
    distances[-100:] = np.nan
    assert np.isnan(drift(distances, 25))


def test_noise_jerks_and_a_slide_does_not():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (20, 1))
    slide = np.stack([np.roll(ramp, f, 1)[:, 30:150] for f in range(20)])[..., None].repeat(3, -1)
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    assert jerk(slide) < 0.1
    assert jerk(noise) == pytest.approx(1.73, abs=0.1)


def test_colours_that_change_are_told():
    rng = np.random.default_rng(0)
    photo = rng.integers(60, 200, (20, 20, 3), dtype=np.uint8)
    everywhere, faces = np.ones((20, 20), bool), still()
    unseen = replace(faces, confidence=np.zeros_like(faces.confidence))
    assert speaking.colour_distance(photo[None, ::-1], unseen, photo, everywhere) == pytest.approx(0, abs=1e-6)
    redder = (photo + np.uint8([20, 0, 0]))[None]
    assert speaking.colour_distance(redder, unseen, photo, everywhere) > 4


def test_colours_are_those_of_the_face_where_it_is():
    photo, moved = np.zeros((100, 100, 3), np.uint8), still(50)
    frame = photo.copy()
    photo[20:60, 20:60] = frame[20:60, 50:90] = (206, 152, 114)
    where = photo.any(-1)
    assert speaking.colour_distance(frame[None], moved, photo, where) < 2
    assert speaking.colour_distance(frame[None], still(20), photo, where) > 20


def with_brows(height):
    face = face_in(20, 20, 100, 120)
    mesh = face.mesh.copy()
    mesh[list(POINTS[:20]), 1] -= height
    return Face(mesh, 1.0)


def moving(face, frames=5):
    mesh = np.repeat(face.mesh[None, None], frames, 0)
    return Faces(mesh, np.ones((frames, 1), np.float32), 160, 160, 25)


def test_the_features_do_not_depend_on_size_or_place():
    one, still_one = moving(with_brows(6)), with_brows(0)
    other = replace(one, mesh=one.mesh * 1.7 + np.float32([30, -5, 0]))
    still_other = replace(still_one, mesh=still_one.mesh * 2.1)
    np.testing.assert_allclose(features(one, still_one), features(other, still_other), atol=1e-4)


def test_the_expressions_of_a_drawn_person_are_told_apart():
    portrait, shut = sample_portrait(11, held_out=True, kind="drawn"), np.tile(np.float32([0, 0.5, 0]), (8, 1))
    talks = np.abs(np.sin(np.arange(8)))[:, None] * np.float32([0.8, 0, 0]) + shut

    def faces_of(mouth, expression):
        act = sample_performance(3, mouth, 25, True, expression, "still")
        return follow_faces(speaking.viewed(render_portrait(portrait, act, 128, 128).frames), 25)

    photo = faces_of(shut, "neutral").at(0, 0)
    seen = {asked: expression_of(faces_of(talks, asked), photo) for asked in EXPRESSIONS}
    assert sum(asked == found for asked, found in seen.items()) >= 4, seen


def test_who_is_not_seen_shows_nothing():
    faces = moving(with_brows(0))
    assert expression_of(replace(faces, confidence=0 * faces.confidence), with_brows(0)) is None
    assert (
        expression_of(replace(faces, mesh=faces.mesh[:, :0], confidence=faces.confidence[:, :0]), with_brows(0)) is None
    )


def test_discriminants_find_what_they_are_fitted_to():
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 5
    points = rng.normal(0, 0.1, (100, 192)) + np.eye(5, 192)[labels]
    found = (np.column_stack([points, np.ones(100)]) @ fitted(points, labels).T).argmax(1)
    assert (found == labels).mean() > 0.95
