import numpy as np
import pytest

from animagic.errors import InputError
from animagic.media import beside, contact_sheet, resize


def test_modes():
    frames = np.zeros((2, 40, 80, 3), np.uint8)
    frames[:, :, 20:60] = 200  # a bright middle, as wide as it is high
    assert (np.abs(resize(frames, 20, 20).astype(int) - 200) <= 12).all()  # the border knows its neighbours
    stretched = resize(frames, 20, 20, "stretch")
    assert (np.abs(stretched[:, :, 8:12].astype(int) - 200) <= 2).all()
    assert (stretched[:, :, :3] <= 2).all()
    padded = resize(frames + 55, 20, 20, "pad")
    assert padded.shape == (2, 20, 20, 3)
    assert (padded[:, :5] == 0).all()
    assert (padded[:, 15:] == 0).all()
    assert (padded[:, 5:15] > 50).all()


def test_antialiasing():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, 16, 16)[:, 3:-3].astype(int) - 127).max() <= 1


@pytest.mark.parametrize("shape", [(9, 7, 3), (0, 9, 7, 3), (2, 3, 9, 7, 3)])
@pytest.mark.parametrize("mode", ["crop", "stretch", "pad"])
def test_any_leading_axes(shape, mode):
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert resize(frames, 5, 31, mode).shape == (*shape[:-3], 5, 31, 3)
    assert resize(frames, 9, 7, mode) is frames


def test_extreme_aspects():
    assert resize(np.zeros((1, 1000, 3), np.uint8), 1000, 1).shape == (1000, 1, 3)
    assert resize(np.zeros((1, 1000, 3), np.uint8), 3, 3, "pad").shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("frames", "height", "mode"),
    [
        (np.zeros((4, 4, 3), np.float32), 2, "crop"),
        (np.zeros((4, 4, 4), np.uint8), 2, "crop"),
        (np.zeros((4, 0, 3), np.uint8), 2, "crop"),
        (np.zeros((4, 4, 3), np.uint8), 0, "crop"),
        (np.zeros((4, 4, 3), np.uint8), 2, "fill"),
        ([[1]], 2, "crop"),
    ],
)
def test_wrong_input(frames, height, mode):
    with pytest.raises(InputError):
        resize(frames, height, 2, mode)


def test_contact_sheet(clip):
    sheet = contact_sheet(clip, columns=4, rows=2)
    # 64x96 is enlarged twice, with gaps of 2
    assert sheet.shape == (2 * 128 + 2, 4 * 192 + 3 * 2, 3)
    assert (sheet[:128:2, :192:2] == clip[0]).all()
    assert (sheet[130::2, -192::2] == clip[-1]).all()
    assert (contact_sheet(clip, 4, 2, labels=True) != sheet).any()


@pytest.mark.parametrize("count", [1, 5, 24])
def test_contact_sheet_holds_few_frames(clip, count):
    assert contact_sheet(clip[:count]).shape[1] == min(count, 6) * 194 - 2


def test_contact_sheet_refuses_nothing(clip):
    with pytest.raises(InputError):
        contact_sheet(clip[:0])
    with pytest.raises(InputError):
        contact_sheet(clip, columns=0)


# Side by side


def test_beside(clip):
    photo, pose, made = clip[0, :32, :30], clip[:10], clip[:12, :16, :16]
    sheet = beside(photo, pose, made)
    # 60 + 2 + 96 + 2 + 64 pixels of one height
    assert sheet.shape == (12, 64, 224, 3)
    assert (sheet[:10, :, 62:158] == pose).all()
    assert (sheet[10:, :, 62:158] == pose[-1]).all()
    assert (sheet[:, :, :60] == resize(photo, 64, 60)).all()
    assert (sheet[:, :, 160:] == resize(made, 64, 64)).all()
    assert beside(photo).shape == (1, 32, 30, 3)


def test_beside_has_even_sides_that_every_player_takes(clip):
    assert beside(clip[:1, :33, :31], clip[:1, :33, :30]).shape == (1, 34, 64, 3)


def test_labels(clip):
    names = ("photo", "pose", "a label that is far too long for its clip and ends with it")
    sheet = beside(clip[0], clip, clip[0], labels=names)
    assert sheet.shape == (24, 78, 292, 3)
    strip, plain = sheet[0, :14], beside(clip[0], clip, clip[0])
    assert (sheet[:, 14:] == plain).all()
    for left in (0, 98, 196):
        assert (strip[:, left : left + 96] < 100).any()
    assert (strip[:, 96:98] == 255).all()
    assert (sheet[5, :14] == strip).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_label_each(clip, count):
    with pytest.raises(InputError, match="a label each"):
        beside(clip, clip, labels=["a"] * count) if count else beside()


def test_beside_refuses_empty_clips(clip):
    with pytest.raises(InputError, match="have frames"):
        beside(clip, clip[:0])
