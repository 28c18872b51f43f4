"""Speaking portraits of the studio as training data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.speech import Phone, per_latent
from animagic.training import portraits
from animagic.training.autoencoding import PortraitCrops
from animagic.training.portraits import PortraitBatches, Talk, in_cells
from animagic.training.voices import RATE, Recording

FIELDS = ("photo", "video", "speech", "masks", "mouth")
CLIPS = PortraitBatches(3, 5, batch_size=2, latents=2, kept=2, height=64, width=64, pairs=0, drawn_share=1)


class Bank(list):
    """Two recordings of 2 s: in each a vowel of 1 s, and features that are the number of their frame, from 1 on."""

    silence = torch.zeros(200, 2, 3)

    def __init__(self):
        for start in (0.2, 0.8):
            phones = (Phone("AA1", start, start + 1),)
            features = torch.arange(1, 101.0)[:, None, None].expand(-1, 2, 3)
            self.append(Recording(np.zeros(2 * RATE, np.float32), phones, features, "ah", "test"))


def of(**settings) -> PortraitBatches:
    made = replace(CLIPS, **settings)
    made.bank = Bank()
    return made


def same(a: dict, b: dict) -> bool:
    return a["captions"] == b["captions"] and all(torch.equal(a[name], b[name]) for name in FIELDS)


def talk(frames: int = 20, speakers: int = 1) -> Talk:
    """Everything is the number of its frame."""
    numbers = np.arange(frames, dtype=np.uint8)
    pictures = np.broadcast_to(numbers[:, None, None, None], (frames, 16, 8, 3))
    cells = np.broadcast_to(numbers[:, None, None], (frames, 2, 1))
    speech = np.broadcast_to(numbers[:, None, None], (speakers, frames, 2, 3)).astype(np.float16)
    return Talk(pictures[0], pictures, speech, np.stack([cells] * speakers), cells, "somebody")


@pytest.fixture(scope="module")
def batch() -> dict:
    return of()[1]


def test_shapes(batch):
    assert batch["photo"].shape == (2, 3, 64, 64)
    assert batch["video"].shape == (2, 3, 8, 64, 64)
    assert batch["speech"].shape == (2, 1, 2, 8, 2, 3)
    assert batch["masks"].shape == (2, 1, 2, 8, 8)
    assert batch["mouth"].shape == (2, 2, 8, 8)
    assert {batch[name].dtype for name in ("photo", "video")} == {torch.uint8}
    assert {batch[name].dtype for name in ("speech", "masks", "mouth")} == {torch.float32}
    assert len(batch["captions"]) == 2
    assert batch["index"] == 1


def test_a_batch_depends_on_seed_and_item_alone(batch):
    assert same(of(steps=99)[1], batch)
    assert not same(of()[0], batch)
    assert not same(of(seed=4)[1], batch)


def test_a_window_inside_a_video():
    window = talk().window(5, 2, begins=False)
    assert window.video[:, 0, 0, 0].tolist() == list(range(5, 13))
    assert window.speech[0, :, :, 0, 0].tolist() == [list(range(3, 11)), list(range(7, 15))]
    assert window.masks[0, :, 0, 0] * 255 == pytest.approx([6.5, 10.5])
    assert window.mouth[:, 0, 0] * 255 == pytest.approx([6.5, 10.5])


@pytest.mark.parametrize("start", [0, 4])
def test_a_window_at_the_beginning_hears_what_a_model_will_hear(start):
    window = talk(40).window(start, 3, begins=True)
    assert window.video[:, 0, 0, 0].tolist() == [start] * 4 + list(range(start + 1, start + 9))
    features = torch.arange(start, 40.0).repeat_interleave(2)[:, None, None].expand(-1, 2, 3)
    heard = per_latent(features, 25, 4)[:3]  # a longer video, so that the last one hears what comes next
    assert np.array_equal(window.speech[0], heard.numpy())


def test_windows_come_from_everywhere():
    kept = of(latents=1, kept=3, windows=2, begins=0.5)
    kept._clip = lambda step, i, rng: talk(16)
    seen = [video[0, :, 0, 0].tolist() for item in range(60) for video in kept[item]["video"]]
    begun = {shown[0] for shown in seen if len(set(shown)) == 1}
    going = {shown[0] for shown in seen if len(set(shown)) == 4}
    assert begun == set(range(14))  # two frames are heard after it
    assert going == set(range(2, 11))


def test_a_clip_speaks_when_it_hears(monkeypatch):
    drawn = of(kept=3)._drawn("drawn", 1, (1,))
    assert drawn.speech.shape == (1, 16, 2, 3)
    steps = np.diff(drawn.speech[0, :, 0, 0].astype(float))
    assert (steps == 2).all()  # 50 a second, and 25 frames


def test_pairs_have_two_faces_of_which_one_may_be_silent():
    drawn = [of()._drawn("drawn", 2, (i,)) for i in range(12)]
    heard = {tuple(speech.any() for speech in clip.speech) for clip in drawn}
    assert heard == {(True, True), (True, False), (False, True)}
    for clip in drawn:
        left, right = clip.masks.max(1)
        assert left.max() > 200 or right.max() > 200
        assert (np.minimum(left, right) > 64).sum() <= 2


def test_where_pairs_are_possible_a_single_person_has_a_silent_companion(batch):
    found = of(pairs=1e-9)[1]
    assert found["speech"].shape == (2, 2, 2, 8, 2, 3)
    assert not found["speech"][:, 1].any()
    assert not found["masks"][:, 1].any()
    assert torch.equal(found["masks"][:, :1], batch["masks"])
    assert torch.equal(found["video"], batch["video"])


def test_close_ups_hold_the_mouth_and_its_cells():
    clips = of(latents=1, batch_size=1, close_up=24, close_up_share=1.0)
    clips._clip = lambda step, i, rng: of()._drawn("drawn", 1, (i,))
    whole, close = of()._drawn("drawn", 1, (0,)), clips[1]
    assert close["video"].shape == (7, 3, 4, 24, 24)  # 64 x 64 pixels are seven times as many
    assert close["photo"].shape == (7, 3, 24, 24)
    assert close["masks"].shape == (7, 1, 1, 3, 3)
    assert (close["mouth"].amax((1, 2, 3)) > 0.1).all()
    photo = close["photo"][0].permute(1, 2, 0).numpy()
    assert any(
        np.array_equal(whole.photo[y : y + 24, x : x + 24], photo) for y in range(0, 41, 8) for x in range(0, 41, 8)
    )


def test_all_heads_may_move_in_one_way(monkeypatch):
    asked = []
    act = portraits.sample_performance
    monkeypatch.setattr(
        portraits, "sample_performance", lambda *given, motion: asked.append(motion) or act(*given, motion=motion)
    )
    of(motion="nodding")[0]
    assert set(asked) == {"nodding"}


def test_some_batches_hold_single_latent_frames():
    mixed = of(batch_size=2, latents=4, kept=4, alone_share=0.5)
    shapes = {tuple(mixed[step]["video"].shape[:3]) for step in range(12)}
    assert shapes == {(2, 3, 16), (4, 3, 4)}


def test_a_folder_keeps_clips(tmp_path):
    kept = of(batch_size=1, folder=str(tmp_path), clips=1, begin=1, begins=0)
    first = kept[0]
    (file,) = tmp_path.rglob("*.clip")
    before = file.stat().st_mtime_ns
    assert same(kept[3], first)  # the only clip there is, and a single window
    assert file.stat().st_mtime_ns == before


def test_held_out_people_are_others(tmp_path):
    seen, held = (of(batch_size=1, folder=str(tmp_path), held_out=out) for out in (False, True))
    assert not same(seen[0], held[0])
    assert len({file.parent for file in tmp_path.rglob("*.clip")}) == 2


def test_cells_are_means():
    masks = np.zeros((1, 16, 8), np.uint8)
    masks[0, :4] = 255
    assert in_cells(masks).tolist() == [[[128], [0]]]


def test_pieces_for_an_autoencoder_hold_mouths():
    crops = PortraitCrops(3, 9, batch_size=8, windows=8, latents=1, height=64, width=64, pairs=0, crop=16, mouths=1.0)
    shown = talk()
    shown = replace(shown, frames=np.zeros((20, 64, 64, 3), np.uint8), photo=np.zeros((64, 64, 3), np.uint8),
                    masks=np.zeros((1, 20, 8, 8), np.uint8), mouth=np.zeros((20, 8, 8), np.uint8))  # fmt: skip
    shown.frames[:, 40:48, 24:32] = shown.mouth[:, 5, 3] = 255
    crops._clip = lambda step, i, rng: shown
    for step in range(5):
        assert crops[step]["video"].shape == (8, 3, 4, 16, 16)
        assert crops[step]["video"].flatten(1).amax(1).tolist() == [255] * 8
    anywhere = replace(crops, mouths=0.0)
    anywhere._clip = crops._clip
    assert {int(video.max()) for step in range(5) for video in anywhere[step]["video"]} == {0, 255}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latents": 3}, "latents is 3; clips are kept with 2"),
        ({"windows": 3}, "windows is 3; it must divide batch_size, which is 2"),
        ({"begins": 1.5}, "begins is 1.5; give a share, 0 to 1"),
        ({"height": 60}, "height is 60; give a multiple of 8"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_wrong_settings(settings, said):
    with pytest.raises(InputError, match=said):
        replace(CLIPS, **settings)


def test_a_piece_cannot_be_larger_than_its_clip():
    with pytest.raises(InputError, match="crop is 80; clips are 64x64"):
        PortraitCrops(3, 5, kept=8, height=64, width=64, crop=80)
