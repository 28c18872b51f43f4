"""People of the studio as training data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.poses import PART_COLOURS
from animagic.training.people import PeopleBatches, Taken

CLIPS = PeopleBatches(3, 5, batch_size=2, num_frames=4, height=32, width=32)


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in ("photo", "video", "poses"))


@pytest.fixture(scope="module")
def batch() -> dict:
    return CLIPS[1]


def test_shapes(batch):
    assert batch["photo"].shape == (2, 3, 32, 32)
    assert batch["video"].shape == batch["poses"].shape == (2, 3, 4, 32, 32)
    assert {batch[name].dtype for name in ("photo", "video", "poses")} == {torch.uint8}
    assert batch["index"] == 1


def test_a_batch_depends_on_seed_and_item_alone(batch):
    assert same(replace(CLIPS, steps=99)[1], batch)
    assert not same(CLIPS[0], batch)
    assert not same(replace(CLIPS, seed=4)[1], batch)


def test_pose_pictures_have_the_colours_of_body_parts(batch):
    colours = {tuple(colour) for colour in batch["poses"].permute(0, 2, 3, 4, 1).reshape(-1, 3).tolist()}
    assert colours <= {tuple(colour) for colour in PART_COLOURS.tolist()}
    assert len(colours) > 5


def test_skeletons_are_drawn_on_black():
    poses = replace(CLIPS, pose="skeleton", batch_size=1)[0]["poses"]
    assert poses[:, :, :, 0, 0].max() == 0
    assert poses.max() > 100


def test_take_keeps_the_order():
    frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    taken = replace(CLIPS, take=2)
    taken._clip = lambda step, i, rng: Taken(frames[0], frames, np.zeros((4, 8, 8), np.uint8))
    for item in range(5):
        shown = taken[item]["video"][:, 0, :, 0, 0]
        assert shown.shape == (2, 2)
        assert (shown[:, 0] < shown[:, 1]).all()


def test_a_folder_keeps_clips(tmp_path):
    kept = replace(CLIPS, batch_size=1, folder=str(tmp_path), clips=1, begin=1)
    first = kept[0]
    (file,) = tmp_path.rglob("*.clip")
    before = file.stat().st_mtime_ns
    assert same(kept[3], first)  # the only clip there is
    assert file.stat().st_mtime_ns == before


def test_held_out_people_are_others(tmp_path):
    seen, held = (replace(CLIPS, batch_size=1, folder=str(tmp_path), held_out=out) for out in (False, True))
    assert not same(seen[0], held[0])
    assert len({file.parent for file in tmp_path.rglob("*.clip")}) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"pose": "lines"}, "pose is 'lines'; choose parts or skeleton"), ({"take": 5}, "take is 5; clips have 4 frames")],
)
def test_wrong_settings(settings, said):
    with pytest.raises(InputError, match=said):
        replace(CLIPS, **settings)
