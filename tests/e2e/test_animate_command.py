"""`animagic animate`: a picture of a person and a video of another become a video, with a random model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from animagic.media import VideoWriter, iter_video, probe, read_metadata, write_image
from animagic.media.sound import Sound
from animagic.poses import Poses, draw_parts, draw_skeleton, to_json

SIDE, FRAMES, FPS = 64, 6, 10


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from diffusers import ControlNetModel, UNet2DConditionModel

    from animagic import AppearanceEncoder, MagicAnimatePipeline, MagicAnimateUNet
    from animagic.layers.autoencoder import ConvAutoencoder

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, block_out_channels=(32, 32), layers_per_block=1, cross_attention_dim=8,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2, norm_num_groups=8,
        attention_head_dim=4,
    )  # fmt: skip
    settings = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "text_tokens": 1, "windows": "moving"}
    pipe = MagicAnimatePipeline(
        MagicAnimateUNet.from_unet2d(unet, motion_num_attention_heads=2),
        AppearanceEncoder.from_unet2d(unet),
        ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4, 8)),
        vae=ConvAutoencoder(patch_length=1, latent_channels=4, widths=(16, 16, 16)),
        config=settings,
    )
    folder = tmp_path_factory.mktemp("models") / "person"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip():
    """Somebody who waves, and somebody else, by the studio."""
    from animagic.synthetic.people import render_person, sample_motion, sample_person, sample_view

    view = sample_view(3, "full")
    return [render_person(sample_person(seed), sample_motion(1), view, FRAMES, 256, 256, FPS) for seed in (1, 5)]


@pytest.fixture(scope="module")
def media(tmp_path_factory, clip) -> Path:
    """photo.png (512x256), dance.mp4 with sound, poses.json, parts.mp4, skeleton.mp4."""
    folder = tmp_path_factory.mktemp("media")
    photo = np.pad(clip[1].frames[0], ((0, 0), (128, 128), (0, 0)), "edge")
    write_image(folder / "photo.png", photo)
    tone = np.sin(np.arange(16000) * 0.2).astype(np.float32) / 4
    with VideoWriter(folder / "dance.mp4", FPS, sound=Sound(tone, 16000)) as writer:
        writer.write(clip[0].frames)
    poses = clip[0].poses
    (folder / "poses.json").write_text(to_json(poses))
    for name, draw in (("parts", draw_parts), ("skeleton", draw_skeleton)):
        with VideoWriter(folder / f"{name}.mp4", FPS) as writer:
            writer.write(draw(poses, 256, 256))
    return folder


@pytest.fixture
def animate(run, model, media):
    def animate(video, *words, photo="photo.png", output="out.mp4"):
        return run("animate", media / photo, media / video, "--model", model, "--seed", 1, "-o", output, *words)

    return animate


def test_any_video_moves_the_person(animate):
    ran = animate("dance.mp4", "--json")
    assert ran.code == 0, ran.err
    made, stored = json.loads(ran.out), read_metadata("out.mp4")
    # Of the model's area, and the picture's aspect.
    assert (made["frames"], made["fps"], made["height"], made["width"]) == (FRAMES, FPS, 48, 96)
    assert probe("out.mp4")["audio"]
    assert stored["request"]["video"].endswith("dance.mp4")
    assert {"frames", "person", "background"} <= set(stored["drift"][0])
    assert "looking for people" in ran.err
    again = animate("dance.mp4", "-q", output="again.mp4")
    assert again.code == 0
    assert np.array_equal(np.stack(list(iter_video("out.mp4"))), np.stack(list(iter_video("again.mp4"))))


@pytest.mark.parametrize("video", ["poses.json", "parts.mp4"])
def test_poses_may_be_given(animate, video):
    ran = animate(video, "--frames", 4, "--size", "64x64")
    assert ran.code == 0, ran.err
    assert "looking for people" not in ran.err
    facts = probe("out.mp4")
    assert (facts["frames"], facts["fps"], facts["width"], facts["audio"]) == (4, FPS, 64, False)


def test_the_pose_is_shown(animate):
    assert animate("dance.mp4", "--show-pose", "--no-sound", "--size", "64x64").code == 0
    facts = probe("out.mp4")
    assert facts["width"] >= 3 * 64
    assert not facts["audio"]


def test_the_background_stays(animate, media):
    assert animate("dance.mp4", "--around-person", "--keep-background", output="frames/").code == 0
    frames, photo = np.stack(list(iter_video("frames"))), next(iter_video(media / "photo.png"))
    assert frames.shape == (FRAMES, 256, 512, 3)
    assert np.array_equal(frames[0][:, :20], photo[:, :20])  # far from the person
    assert not np.array_equal(frames[0], photo)


def test_a_part_of_the_driving_video(animate):
    assert animate("dance.mp4", "--offset", 2, "--frames", 3, "--size", "64x64").code == 0
    assert probe("out.mp4")["frames"] == 3


def two_people(clip) -> Poses:
    poses = clip[0].poses
    moved = poses.points + np.array([60, 0, 0], np.float32)
    return replace(
        poses,
        points=np.concatenate([poses.points, moved], axis=1),
        confidence=np.concatenate([poses.confidence] * 2, axis=1),
    )


def test_several_people_are_told_of(animate, media, clip):
    (media / "two.json").write_text(to_json(two_people(clip)))
    ran = animate("two.json", "--size", "64x64", "--no-retarget")
    assert ran.code == 0, ran.err
    assert "2 people were found" in ran.err
    ran = animate("two.json", "--people", 2, "--size", "64x64", "--no-retarget")
    assert ran.code == 0, ran.err
    assert "people were found" not in ran.err


@pytest.mark.parametrize(
    ("video", "words", "sentence"),
    [
        ("nothing.mp4", (), "does not exist"),
        ("photo.png", (), "only one frame"),
        ("empty.mp4", (), "shows no person in its"),
        ("dance.mp4", ("--people", 2), "2 people are asked for, but 1 were found"),
        ("dance.mp4", ("--frames", 99), "has 6 frames; 99 cannot be made of it"),
        ("dance.mp4", ("--offset", 6), "--offset 6 leaves none"),
        ("dance.mp4", ("--size", "63x64"), "multiples of 8"),
        ("skeleton.mp4", (), "trained on body parts"),
        ("other.json", (), "has people of 21 points"),
        ("dance.mp4", ("--prompt-at", "3:x"), "No such option"),
    ],
)
def test_wrong_input(animate, media, video, words, sentence, make_moving_clip):
    if video == "empty.mp4":
        with VideoWriter(media / video, FPS) as writer:
            writer.write(np.full((3, 64, 64, 3), 128, np.uint8))
    if video == "other.json":
        (media / video).write_text(json.dumps([{"image_id": 1, "keypoints": [1.0, 2.0, 0.5] * 21}]))
    ran = animate(video, *words)
    assert ran.code == 2
    assert sentence in ran.err
    assert not Path("out.mp4").exists()


def test_a_picture_without_a_person(animate, media):
    write_image(media / "grey.png", np.full((64, 64, 3), 128, np.uint8))
    ran = animate("dance.mp4", photo="grey.png")
    assert ran.code == 2
    assert "grey.png shows no person" in ran.err
    assert animate("dance.mp4", "--no-retarget", photo="grey.png").code == 0


def test_models_of_other_commands(run, model, media):
    ran = run("generate", "a ball", "--model", model)
    assert ran.code == 2
    assert "animagic animate" in ran.err
    ran = run("animate", media / "photo.png", media / "dance.mp4", "--model", "magi1-tiny")
    assert ran.code == 2
    assert "animagic generate" in ran.err
