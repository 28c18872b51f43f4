"""Scenes that lie encoded on the disk: made once, the same in every run, cut into pieces."""

import pytest
import torch

from animagic.errors import InputError
from animagic.training.bank import LABELS, SceneBank

SIZE = {"height": 32, "width": 32, "num_frames": 16, "scenes": 64, "begin": 32, "grow": 2}


def encode_video(video):
    """The mean colour of every 4 x 8 x 8 pixels."""
    return torch.nn.functional.avg_pool3d(video.float() / 255, (4, 8, 8))


def encode_text(texts):
    lengths = torch.tensor([len(text.split()) for text in texts])
    mask = torch.arange(24) < lengths[:, None]
    return mask[..., None].float() * lengths[:, None, None], mask


def opened(folder, first=0, **settings):
    bank = SceneBank(seed=3, steps=10, **SIZE | settings)
    bank.open(folder, encode_video, encode_text, "encoders", first)
    return bank


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_batch_is_made_of_pieces_of_scenes(tmp_path):
    batch = opened(tmp_path, batch_size=6, lengths=(2,))[0]
    assert batch["latents"].shape == (3, 3, 2, 4, 4)
    assert batch["inside"].shape == (3, 2, 8, 8)
    assert batch["labels"].shape == (3, len(LABELS))
    assert batch["text"].shape[:2] == batch["text_mask"].shape
    assert batch["text_mask"].any(0).all()  # no token that no caption uses
    assert batch["inside"].max() == 1


def test_things_lie_where_the_bank_says(tmp_path):
    batch = opened(tmp_path, batch_size=40, held_share=0.0)[0]
    inside = torch.nn.functional.avg_pool2d(batch["inside"], 2)[:, 0]
    colours = batch["latents"][:, :, 0]
    change = (colours - colours.median(-1, keepdim=True).values).abs().mean(1)
    assert change[inside > 0.9].mean() > 2 * change[inside == 0].mean()


def test_a_second_run_reads_what_the_first_has_made(tmp_path):
    first = opened(tmp_path)
    batches = [first[i] for i in range(3)]
    again = SceneBank(seed=3, steps=10, **SIZE)
    again.open(tmp_path, None, None, "encoders")  # nothing is left to encode
    assert all(same(a, again[i]) for i, a in enumerate(batches))
    assert not same(batches[0], batches[1])


def test_scenes_join_as_training_goes_on(tmp_path):
    bank = opened(tmp_path)
    bank[0]
    assert len(list(bank.folder.iterdir())) == 1
    bank[5]
    assert len(list(bank.folder.iterdir())) == 2
    later = opened(tmp_path / "later")
    assert same(later[5], bank[5])


def test_a_run_whose_files_are_lost_goes_on_at_once(tmp_path):
    bank = opened(tmp_path)
    before = [bank[i] for i in (0, 3, 4)]
    resumed = opened(tmp_path, first=3)
    assert same(resumed[3], before[1])
    assert same(resumed[4], before[2])
    lost = opened(tmp_path / "elsewhere", first=3)
    lost[3]
    assert len(list(lost.folder.iterdir())) == 1  # as it began
    lost[5]
    assert len(list(lost.folder.iterdir())) == 2


def test_other_encoders_or_scenes_lie_elsewhere(tmp_path):
    bank, other = opened(tmp_path), SceneBank(seed=3, steps=10, **SIZE)
    other.open(tmp_path, encode_video, encode_text, "other encoders")
    assert other.folder != bank.folder
    assert opened(tmp_path, simple_share=0.5).folder != bank.folder
    assert opened(tmp_path, batch_size=7).folder == bank.folder


def test_a_still_begins_a_held_scene(tmp_path):
    batch = opened(tmp_path, batch_size=40, lengths=(2,), held_share=1.0)[0]
    assert batch["held"].all()
    pictures = opened(tmp_path, batch_size=40, lengths=(1,), held_share=1.0)[0]
    assert not pictures["held"].any()


def test_a_piece_cannot_be_longer_than_a_scene():
    with pytest.raises(InputError, match="lengths"):
        SceneBank(seed=0, steps=1, **SIZE, lengths=(5,))
