"""Who speaks: faces that are found, boxes and masks that are given, and what is wrong with them in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from animagic.errors import InputError
from animagic.media import Sound, VideoWriter, write_image
from animagic.pipelines.regions import FaceRegion
from animagic.pipelines.speakers import Speaker, latent_masks, read_speakers
from animagic.pipelines.voices import SILENCE

RATE = 16_000
VOICE = Sound(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), RATE)
SHORT = Sound(VOICE.samples[: RATE // 2], RATE)


def centre(speaker: Speaker, frame: int = 0) -> list[float]:
    left, top, right, bottom = speaker.region.boxes(range(frame, frame + 1))[0]
    return [(left + right) / 2, (top + bottom) / 2]


@pytest.fixture
def photo(tmp_path, portrait, placed):
    """A large face on the right, with its nose at (400, 110), and a smaller one at (90, 100)."""
    small = np.asarray(Image.fromarray(portrait).resize((100, 100)))
    path = tmp_path / "photo.png"
    write_image(path, placed((small, 40, 50), (portrait, 320, 30)))
    return path


@pytest.fixture
def mask(tmp_path):
    def mask(name: str, x: int, size=(256, 512), value=255):
        picture = np.zeros((*size, 3), np.uint8)
        picture[40:100, x : x + 50] = value
        write_image(tmp_path / name, picture)
        return tmp_path / name

    return mask


def test_the_largest_face_has_the_first_voice_and_sounds_are_as_long_as_the_longest(photo):
    first, second = read_speakers(photo, [SHORT, VOICE])
    assert centre(first) == pytest.approx([400, 110], abs=12)
    assert centre(second) == pytest.approx([90, 100], abs=8)
    assert len(first.samples) == len(second.samples) == RATE
    assert first.samples[: RATE // 2].any()
    assert not first.samples[RATE // 2 :].any()
    masks = first.masks(range(2), 128, 256)
    assert masks[0, 55, 200] == 1 > masks[0, 50, 45] == 0


def test_as_many_speak_as_voices_are_given(photo):
    assert len(read_speakers(photo, [VOICE])) == 1
    speaks, rests = read_speakers(photo, [VOICE], people=2)
    assert speaks.samples.any()
    assert not rests.samples.any()
    rests, speaks = read_speakers(photo, [SILENCE, VOICE])
    assert centre(rests)[0] > 300
    assert not rests.samples.any()


def test_masks_and_boxes_belong_to_the_voices_in_order(photo, mask):
    left, right = mask("left.png", 20), mask("right.png", 400)
    first, second = read_speakers(photo, [VOICE, SHORT], masks=[right, left])
    assert (centre(first), centre(second)) == ([425, 70], [45, 70])
    first, second, third = read_speakers(photo, [VOICE, SHORT, SILENCE], [left], ["200,50,60,80", "300, 0, 212, 256"])
    assert (centre(first), centre(second)) == ([45, 70], pytest.approx([230, 90], abs=0.1))
    assert centre(third) == pytest.approx([406, 128], abs=0.1)


def test_the_faces_of_a_video_are_followed(tmp_path, portrait, placed):
    frames = np.stack([placed((portrait, x, 40), size=(224, 320)) for x in range(0, 100, 10)])
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frames)
    counted = []
    (speaker,) = read_speakers(tmp_path / "a.mp4", [VOICE], on_frame=counted.append)
    assert [centre(speaker, frame)[0] - centre(speaker)[0] for frame in (5, 9)] == pytest.approx([50, 90], abs=4)
    assert counted == list(range(1, 11))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"voices": []}, "there is no voice"),
        ({"voices": [SILENCE]}, "every voice is silence: give at least one sound"),
        ({"voices": [VOICE] * 3}, "3 people are to speak, but 2 faces are found in .*photo.png: give each its box as"),
        ({"people": 4}, "4 people are to speak, but 2 faces are found"),
        ({"voices": [VOICE] * 2, "people": 1}, "--people is 1, but 2 voices are given; give at least 2"),
        ({"masks": ["left.png", "right.png"]}, '2 masks or boxes for 1 voice: give one for each voice; "silence"'),
        ({"voices": [VOICE] * 2, "masks": ["left.png"]}, "1 mask or box for 2 voices"),
        ({"masks": ["small.png"]}, r"the mask small.png is 256x128, but .*photo.png is 512x256: make it of the same"),
        ({"masks": ["black.png"]}, "the mask black.png is empty: paint the face white"),
        ({"masks": ["none.png"]}, "none.png does not exist"),
        ({"boxes": ["1,2,3"]}, "--face 1,2,3 is not x,y,width,height: give four numbers"),
        ({"boxes": ["a,b,c,d"]}, "--face a,b,c,d is not x,y,width,height"),
        ({"boxes": ["500,10,50,50"]}, "--face 500,10,50,50 is empty or reaches out of .*photo.png, which is 512x256"),
        ({"boxes": ["10,10,0,50"]}, "--face 10,10,0,50 is empty"),
        ({"boxes": ["nan,10,20,50"]}, "--face nan,10,20,50 is empty or reaches out"),
    ],
)
def test_what_does_not_fit_is_named(photo, mask, tmp_path, monkeypatch, given, sentence):
    monkeypatch.chdir(tmp_path)
    mask("left.png", 20), mask("right.png", 400)
    mask("small.png", 20, size=(128, 256))
    mask("black.png", 20, value=0)
    with pytest.raises((InputError, OSError), match=sentence) as caught:
        read_speakers(photo, **{"voices": [VOICE]} | given)
    assert "\n" not in str(caught.value)


def test_a_picture_without_a_face_wants_a_box_or_a_mask(tmp_path):
    write_image(tmp_path / "wall.png", np.full((64, 64, 3), 128, np.uint8))
    wanted = r"no face is found in .*wall.png: give its box as --face x,y,width,height, or a mask as --mask\."
    with pytest.raises(InputError, match=wanted):
        read_speakers(tmp_path / "wall.png", [VOICE])
    (speaker,) = read_speakers(tmp_path / "wall.png", [VOICE], boxes=["10,10,30,40"])
    assert speaker.masks(range(1), 64, 64)[0, 30, 25] == 1


def test_masks_of_latent_frames_are_means_over_cells_and_their_video_frames(track):
    faces = track(*[(10 + 8 * i, 40) for i in range(9)])
    speaker = Speaker(FaceRegion(faces), VOICE.samples)
    cells = latent_masks([speaker, speaker], range(3), 128, 192)
    assert cells.shape == (2, 3, 16, 24)
    each = speaker.masks(range(9), 128, 192).reshape(9, 16, 8, 24, 8).mean((2, 4))
    assert cells[0, 0] == pytest.approx(each[0], abs=1e-6)
    assert cells[1, 2] == pytest.approx(each[5:9].mean(0), abs=1e-6)
    assert latent_masks([speaker], range(2, 3), 128, 192)[0, 0] == pytest.approx(cells[0, 2])
