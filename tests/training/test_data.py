"""Batches from the drawing studio: clips, clips of several chunks, images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.synthetic.cameras import CAMERA_MOVES
from animagic.synthetic.captions import MOTION_WORDS
from animagic.training import SceneBatches
from animagic.training.data import draw_scene

CLIPS = SceneBatches(3, 5, batch_size=3, num_frames=4, height=16, width=24, motion_share=0.5, alone_share=0.5)
CHUNKS = SceneBatches(3, 20, 4, 4, height=16, width=16, clip_chunks=(1, 2), clip_shares=(0.5, 0.5), held_share=0.5)
IMAGES = SceneBatches(3, 5, 5, 1, height=16, width=16, anywhere=True, looks={"plain": 0.5, "blueprint": 0.5})
KINDS = {"clips": CLIPS, "chunks": CHUNKS, "images": IMAGES}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        for name, value in a.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_depends_on_seed_and_item_alone(kind):
    batches = KINDS[kind]
    first = [batches[item] for item in range(4)]
    again = replace(batches, steps=99)
    assert all(same(again[item], first[item]) for item in (3, 0, 2, 1))
    for other in (first[1], {**replace(batches, seed=4)[0]}):
        assert not same({**other, "index": 0}, first[0])
    assert [batch["index"] for batch in first] == [0, 1, 2, 3]
    assert all(batch["video"].dtype == torch.uint8 and all(batch["captions"]) for batch in first)
    assert len(batches) == batches.steps


def test_shapes():
    assert CLIPS[0]["video"].shape == (3, 3, 4, 16, 24)
    assert IMAGES[0]["video"].shape == (5, 3, 1, 16, 16)
    # Batches of longer clips hold as many chunks, so fewer clips.
    shapes = {tuple(CHUNKS[item]["video"].shape) for item in range(12)}
    assert shapes == {(4, 3, 4, 16, 16), (2, 3, 8, 16, 16)}
    assert [set(batches[0]) - {"video", "captions", "index"} for batches in KINDS.values()] == [
        {"motions"}, {"held"}, set(),
    ]  # fmt: skip


def test_held_clips_begin_as_a_still():
    batch = replace(CHUNKS, held_share=1.0, held_frames=3)[0]
    assert batch["held"].all()
    assert (batch["video"][:, :, :4] == batch["video"][:, :, :1]).all()
    assert not replace(CHUNKS, held_share=0.0)[0]["held"].any()


def test_late_clips_show_what_comes_later():
    once = {"clip_chunks": None, "clip_shares": None, "held_share": None}
    early, late = (replace(CHUNKS, **once, late_share=share)[0] for share in (0.0, 1.0))
    assert early["captions"][0] == late["captions"][0]
    assert not torch.equal(early["video"][0], late["video"][0])


def tells_motion(text: str) -> bool:
    return any(word in text for forms in MOTION_WORDS.values() for form in forms for word in form)


def test_captions_tell_the_motion_as_often_as_they_should():
    small = {"batch_size": 12, "num_frames": 1, "height": 8, "width": 8}
    silent = replace(CLIPS, **small, motion_share=0.0, alone_share=1.0)[0]
    assert not any(tells_motion(text) for text in silent["captions"])
    assert all(tells_motion(text) for text in silent["motions"])
    told = replace(CLIPS, **small, motion_share=1.0, alone_share=0.0)[0]
    assert all(tells_motion(text) for text in told["captions"] + told["motions"])
    assert len(" ".join(told["motions"])) > len(" ".join(silent["motions"]))
    assert all(tells_motion(text) for text in replace(CLIPS, **small, motion_share=None)[0]["captions"])


def test_a_camera_may_look():
    still = CLIPS[0]["video"]
    moves = [replace(CLIPS, camera=move)[0]["video"] for move in CAMERA_MOVES]
    assert {tuple(video.shape) for video in moves} == {tuple(still.shape)}
    assert all(not torch.equal(video, still) for video in moves)
    with pytest.raises(InputError, match="'sideways' is unknown"):
        replace(CLIPS, camera="sideways")[0]


def test_looks_change_the_picture_and_not_the_caption():
    plain, blueprint = (replace(IMAGES, height=64, width=64, looks={look: 1.0})[0] for look in ("plain", "blueprint"))
    assert plain["captions"] == blueprint["captions"]
    assert (plain["video"] != blueprint["video"]).float().mean() > 0.5


def test_simple_scenes_show_one_thing_before_a_drawn_background():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = draw_scene(rng, simple_share=1.0)
        assert len(scene.things) == 1
        assert scene.camera == "still"
        assert scene.background.kind != "photo"
