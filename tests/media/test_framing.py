"""Pictures of any shape in a model's size, and back."""

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.media.framing import Framing

SOURCES = [(256, 480), (480, 256), (97, 131), (1, 1000), (1000, 1), (64, 64), (7, 5)]
TARGETS = [(128, 128), (64, 96), (96, 64), (1, 50), (3, 2)]


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)
    return ((np.stack([np.sin(x + y), np.cos(x - y), np.sin(x * y)], -1) + 1) * 127).astype(np.uint8)


def checker(height: int, width: int, cell: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] // cell
    return np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_crop_and_pad(source, target):
    height, width = source
    crop, pad = Framing.crop(source, target), Framing.pad(source, target)
    left, top, right, bottom = crop.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left == width or bottom - top == height
    left, top, right, bottom = pad.box
    assert left <= 0 < width <= right
    assert top <= 0 < height <= bottom
    assert right - left == width or bottom - top == height
    picture = smooth(*source)
    for framing in (crop, pad):
        assert framing.into(picture).shape == (*target, 3)
        assert framing.back(framing.into(picture[None]), picture).shape == (1, *source, 3)


def test_aspect_is_kept():
    for source in SOURCES[:3]:
        for make in (Framing.crop, Framing.pad):
            x, y = make(source, (128, 128)).scale
            assert x == pytest.approx(y, rel=0.01)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 50, 140, 150), (70, 50, 170, 150)),  # inside
        ((0, 50, 40, 150), (0, 50, 100, 150)),  # moved in from the left
        ((440, 156, 480, 256), (380, 156, 480, 256)),  # and from the right
        ((10, 0, 300, 100), (10, -17, 300, 273)),  # larger than the picture is high
        ((-20, 50, 40, 150), (0, 50, 100, 150)),  # what is outside is not to be seen
    ],
)
def test_around(box, expected):
    assert Framing.around(box, (256, 480), (128, 128), margin=0).box == expected


def test_margin_gives_way_before_the_picture_is_left():
    assert Framing.around((200, 20, 260, 120), (256, 480), (128, 128), margin=0.2).box == (160, 0, 300, 140)
    assert Framing.around((200, 10, 260, 250), (256, 480), (128, 128), margin=0.2).box == (102, 0, 358, 256)


def test_what_is_outside_repeats_the_border():
    picture = smooth(20, 40)
    seen = Framing.pad((20, 40), (40, 40)).into(picture)
    assert (seen[10:30] == picture).all()
    assert (seen[:10] == picture[0]).all()
    assert (seen[30:] == picture[-1]).all()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_points_go_there_and_back(source, target):
    points = np.random.default_rng(0).uniform(-20, 500, (4, 2, 33, 3)).astype(np.float32)
    for framing in (Framing.crop(source, target), Framing.pad(source, target)):
        left, top, right, bottom = framing.box
        corners = framing.map_points(np.array([[left, top], [right, bottom]]))
        assert np.allclose(corners, [[0, 0], target[::-1]], atol=1e-4)
        assert np.allclose(framing.unmap_points(framing.map_points(points)), points, atol=1e-2)
        flat = framing.map_points(points[..., :2])
        assert np.array_equal(flat, framing.map_points(points)[..., :2])


@pytest.mark.parametrize("make", [Framing.crop, Framing.pad, lambda *sizes: Framing.around((3, 5, 90, 70), *sizes)])
@pytest.mark.parametrize("source", [(97, 131), (131, 97), (201, 77)])
def test_points_and_pixels_agree(make, source):
    height, width = source
    framing = make(source, (128, 96))
    dots = np.array([[width * 0.4, height * 0.3], [width * 0.6, height * 0.5]])
    for dot in dots:
        y, x = np.mgrid[:height, :width] + 0.5
        spot = np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / 18)
        seen = framing.into(np.repeat((spot * 255).astype(np.uint8)[..., None], 3, 2))[..., 0].astype(float)
        y, x = np.mgrid[:128, :96] + 0.5
        centre = np.array([(seen * x).sum(), (seen * y).sum()]) / seen.sum()
        if (centre > 14).all() and (centre < (82, 114)).all():  # all of the spot is seen
            assert np.abs(centre - framing.map_points(dot)).max() < 0.2


@pytest.mark.parametrize("make", [Framing.crop, Framing.pad])
@pytest.mark.parametrize("source", [(96, 160), (160, 96), (97, 161)])
def test_a_checker_pattern_comes_back(make, source):
    picture = checker(*source, 16)
    framing = make(source, (256, 256))  # finer than the picture, so that only the cells' edges are resampled
    back = framing.back(framing.into(picture[None]), picture)[0].astype(int)
    y, x = (np.arange(side) % 16 for side in source)
    inside = np.outer((y >= 3) & (y < 13), (x >= 3) & (x < 13))
    assert np.abs(back - picture)[inside].max() <= 8
    assert np.abs(back - picture).mean() < 10


def test_only_the_box_is_touched_and_the_seam_is_soft():
    picture = np.zeros((100, 200, 3), np.uint8)
    framing = Framing((100, 200), (50, 20, 130, 100), (40, 40))  # its lower side is the picture's
    back = framing.back(np.full((1, 40, 40, 3), 200, np.uint8), picture, feather=0.1)[0, ..., 0].astype(int)
    outside = np.ones((100, 200), bool)
    outside[20:100, 50:130] = False
    assert not back[outside].any()
    assert (back[28:, 58:122] == 200).all()  # down to the lower side
    assert np.abs(np.diff(back, axis=1)).max() < 50
    assert back[60, 50] < 10
    hard = framing.back(np.full((1, 40, 40, 3), 200, np.uint8), picture, feather=0)[0, ..., 0]
    assert (hard[~outside] == 200).all()


@pytest.fixture
def scene():
    """A framing; a picture with a white person at the left, and 2 frames with a grey one at the right, then lower, on a
    background that came out redder; the masks of both."""
    framing = Framing((96, 160), (32, 0, 128, 96), (64, 64))
    mask, person = np.zeros((2, 64, 64), bool), np.zeros((64, 64), bool)
    mask[0, 8:30, 40:52] = mask[1, 36:58, 40:52] = person[8:30, 10:22] = True
    empty = (smooth(96, 160) * 0.8).astype(np.uint8)
    picture = empty.copy()
    picture[12:45, 32 + 15 : 32 + 33] = 255
    frames = np.stack([framing.into(empty) + np.array([30, 0, 0], np.uint8)] * 2)
    frames[mask] = 128
    return framing, empty, picture, frames, mask, person


def test_another_tone_shows_no_seam():
    picture = (smooth(96, 160) * 0.7).astype(np.uint8)
    framing = Framing((96, 160), (32, 0, 128, 96), (64, 64))
    frames = framing.into(picture)[None] + np.array([24, 8, 0], np.uint8)
    back = framing.back(frames, picture)[0].astype(int) - picture
    assert np.abs(back[:, 32:40]).max() < 10
    assert np.abs(back[:, 78:82] - [24, 8, 0]).max() <= 4  # far from the seam it stays as it was made
    steps = np.abs(np.diff(back, axis=1))
    assert steps.max() <= 6


def test_a_mask_keeps_the_background(scene):
    framing, _, picture, frames, mask, person = scene
    back = framing.back(frames, picture, mask, person).astype(int)
    for i, top in enumerate((12, 54)):
        assert (np.abs(back[i, top : top + 33, 92:110] - 128) <= 40).all()  # the new person, to the very edge
        assert (np.abs(back[i, top + 3 : top + 30, 95:107] - 128) <= 2).all()
    assert (back[:, 60:, :80] == picture[60:, :80]).all()
    assert (back[:, :, 132:] == picture[:, 132:]).all()
    assert (framing.back(frames, picture, mask.astype(np.float32), person) == back).all()
    assert (framing.back(frames, picture, mask, np.stack([person] * 2)) == back).all()
    # Only the mask of the new person: the old one stays.
    assert (framing.back(frames, picture, mask)[:, 20:35, 50:62] == 255).all()


def test_no_ghost_and_no_seam(scene):
    framing, empty, picture, frames, mask, person = scene
    back = framing.back(frames, picture, mask, person).astype(int)
    off = np.abs(back[1, :50, 32:72] - empty[:50, 32:72])  # where the old person stood, and around
    assert off.max() <= 12  # the frames are off by 30
    assert off.mean() < 2


def test_a_person_who_fills_the_frame_has_no_background_to_match(scene):
    framing, empty, picture, frames, mask, person = scene
    back = framing.back(frames, picture, np.ones_like(mask), person).astype(int)
    assert np.abs(back[1, 10:50, 80:120] - empty[10:50, 80:120] - [30, 0, 0]).max() <= 3


def test_moving_pictures():
    film = np.random.default_rng(0).integers(0, 255, (3, 40, 60, 3), np.uint8)
    framing = Framing.around((20, 10, 40, 30), (40, 60), (20, 20), margin=0)
    back = framing.back(framing.into(film), film)
    assert np.abs(back.astype(int) - film).max() <= 1
    assert framing.into(film[None]).shape == (1, 3, 20, 20, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Framing.crop((0, 9), (8, 8)),
        lambda: Framing.pad((9, 9), (8, 0)),
        lambda: Framing.around((5, 5, 5, 9), (9, 9), (8, 8)),
        lambda: Framing.around((10, 0, 20, 9), (9, 9), (8, 8)),
        lambda: Framing.around((np.nan, 0, 5, 9), (9, 9), (8, 8)),
        lambda: Framing.around((1, 1, 5, 9), (9, 9), (8, 8), margin=-1),
        lambda: Framing.crop((9, 9), (8, 8)).into(np.zeros((8, 9, 3), np.uint8)),
        lambda: Framing.crop((9, 9), (8, 8)).into(np.zeros((9, 9, 3))),
    ],
)
def test_wrong_framings(wrong):
    with pytest.raises(InputError):
        wrong()


@pytest.mark.parametrize(
    "options",
    [
        {"frames": np.zeros((2, 9, 8, 3), np.uint8)},
        {"picture": np.zeros((9, 8, 3), np.uint8)},
        {"picture": np.zeros((3, 9, 9, 3), np.uint8)},
        {"mask": np.zeros((1, 8, 8), bool)},
        {"person": np.zeros((8, 8), bool), "mask": None},
        {"person": np.zeros((9, 9), bool)},
        {"feather": 0.5},
    ],
)
def test_wrong_ways_back(options):
    right = {
        "frames": np.zeros((2, 8, 8, 3), np.uint8),
        "picture": np.zeros((9, 9, 3), np.uint8),
        "mask": np.zeros((2, 8, 8), bool),
    }
    framing = Framing.crop((9, 9), (8, 8))
    assert framing.back(**right).shape == (2, 9, 9, 3)
    with pytest.raises(InputError):
        framing.back(**right | options)
