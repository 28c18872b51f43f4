"""What pipelines hand out, in every form."""

import numpy as np
import pytest
import torch
from PIL import Image

from animagic import InputError
from animagic.media import Sound, iter_video, probe, read_metadata
from animagic.media.outputs import OUTPUT_TYPES, Chunk, VideoOutput, check_output_type, in_form, joined, to_bytes

FRAMES, HEIGHT, WIDTH = 5, 16, 24


@pytest.fixture
def videos(smooth) -> torch.Tensor:
    """Two videos, (2, frames, 3, height, width) in [0, 1], no two frames of them equal."""
    clip = smooth(2 * FRAMES, HEIGHT, WIDTH).reshape(2, FRAMES, HEIGHT, WIDTH, 3)
    return torch.from_numpy(clip).permute(0, 1, 4, 2, 3) / 255


def as_bytes(videos: torch.Tensor) -> np.ndarray:
    return (videos * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()


def test_every_form_shows_the_same_pixels(videos):
    assert in_form(videos, "pt") is videos
    array, pictures = in_form(videos, "np"), in_form(videos, "pil")
    assert (array.shape, array.dtype) == ((2, FRAMES, HEIGHT, WIDTH, 3), np.float32)
    assert [len(video) for video in pictures] == [FRAMES, FRAMES]
    assert isinstance(pictures[1][0], Image.Image)
    for i, expected in enumerate(as_bytes(videos)):
        for form in (videos[i], array[i], pictures[i]):
            assert np.array_equal(to_bytes(form), expected)


def test_bytes_are_rounded_and_kept_in_range():
    assert to_bytes(np.array([-0.2, 0.0, 0.5019, 0.998, 1.4]).reshape(1, 1, 5, 1)).flatten().tolist() == [
        0, 0, 128, 254, 255,
    ]  # fmt: skip
    assert to_bytes(torch.full((1, 3, 1, 1), 0.5, dtype=torch.float16)).dtype == np.uint8


def test_pictures_of_any_mode_become_rgb():
    assert to_bytes([Image.new("L", (4, 2), 7), Image.new("RGBA", (4, 2), (1, 2, 3, 4))]).shape == (2, 2, 4, 3)


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_pieces_are_joined_in_every_form(videos, output_type):
    latents = videos.transpose(1, 2)  # (2, channels, frames, height, width)
    parts = []
    for start, stop in ((0, 2), (2, 3), (3, FRAMES)):
        form = latents[:, :, start:stop] if output_type == "latent" else in_form(videos[:, start:stop], output_type)
        parts.append(Chunk(form, start, 8))
    whole = joined(parts, output_type)
    expected = latents if output_type == "latent" else in_form(videos, output_type)
    if output_type == "pil":
        assert np.array_equal(np.stack([np.stack(v) for v in whole]), np.stack([np.stack(v) for v in expected]))
    else:
        assert np.array_equal(np.asarray(whole), np.asarray(expected))
        assert type(whole) is type(expected)


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_no_pieces_are_an_empty_list(output_type):
    assert joined([], output_type) == []


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_a_piece_knows_how_many_frames_it_has(videos, output_type):
    assert len(Chunk(in_form(videos[:, :3], output_type), 0, 8)) == 3


def test_an_unknown_form_is_named():
    for output_type in OUTPUT_TYPES:
        check_output_type(output_type)
    with pytest.raises(InputError, match="'gif' is unknown; choose pil, np, pt or latent"):
        check_output_type("gif")


# Saving


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_the_first_video_is_saved(videos, tmp_path, output_type):
    output = VideoOutput(in_form(videos, output_type), fps=8)
    path = output.save(str(tmp_path / "clip.mp4"), metadata={"prompt": "a ball"})
    assert path == tmp_path / "clip.mp4"
    facts = probe(path)
    assert (facts["frames"], facts["width"], facts["height"], facts["fps"]) == (FRAMES, WIDTH, HEIGHT, 8)
    assert read_metadata(path) == {"prompt": "a ball"}
    output.save(f"{tmp_path}/pictures/")
    assert np.array_equal(np.stack(list(iter_video(tmp_path / "pictures"))), as_bytes(videos)[0])


def test_sound_is_saved_with_it(videos, tmp_path):
    path = VideoOutput(videos, fps=8).save(tmp_path / "clip.mp4", sound=Sound(np.zeros(9000, np.float32), 16_000))
    assert probe(path)["sound_rate"] == 16_000


def test_it_is_an_output_as_diffusers_has_them(videos):
    output = VideoOutput(videos, fps=8)
    assert output[0] is videos
    assert output["frames"] is videos
    assert output.to_tuple()[1] == 8


@pytest.mark.parametrize("frames", [[], [[]]], ids=["no video", "no frame"])
def test_nothing_is_not_saved(tmp_path, frames):
    with pytest.raises(InputError, match="no frames to save: the run was interrupted"):
        VideoOutput(frames).save(tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("frames", [1, 3])
def test_latents_are_not_saved_whatever_their_length(tmp_path, frames):
    with pytest.raises(InputError, match="latents cannot be saved as a video"):
        VideoOutput(torch.randn(1, 4, frames, 8, 8)).save(tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())
