"""A MAGI-1 video that is continued from the latents of another one."""

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.pipelines.continuing import KeptLatents
from animagic.requests import build_request, generate


@pytest.fixture
def make(tiny_model, tiny_pipe, tmp_path):
    """Makes a video and keeps its latents: its frames, and the latents."""

    def make(name: str, **options):
        options = {"prompt": "a red ball", "model": str(tiny_model), "seed": 5, "steps": 4} | options
        pixels, folder = [], tmp_path / f"{name}-latents"
        generate(
            build_request(**options),
            tmp_path / f"{name}.mp4",
            pipe=tiny_pipe,
            latents=folder,
            on_frames=lambda new, start: pixels.append(new),
        )
        return np.concatenate(pixels), folder

    return make


@pytest.mark.parametrize("given", ["text", "image", "clip"])
def test_its_first_frames_are_those_of_the_other_video(make, make_moving_clip, tmp_path, given):
    from animagic.media import VideoWriter, write_image

    options = {}
    if given == "image":
        write_image(tmp_path / "ball.png", make_moving_clip()[0])
        options = {"image": str(tmp_path / "ball.png")}
    if given == "clip":
        with VideoWriter(tmp_path / "clip.mp4", 24) as writer:
            writer.write(make_moving_clip(12))
        options = {"video": str(tmp_path / "clip.mp4")}
    first, latents = make("first", frames=18, **options)
    kept = {"video": options.get("video")}
    longer, longer_latents = make("longer", frames=27, latents=str(latents), latent_frames=5, **kept)
    assert len(longer) == 27
    assert np.array_equal(longer[:18], first)
    assert torch.equal(KeptLatents(longer_latents).timeline(5), KeptLatents(latents).timeline(5))
    longest, longest_latents = make("longest", frames=38, latents=str(longer_latents), latent_frames=7, **kept)
    assert np.array_equal(longest[:27], longer)
    assert torch.equal(KeptLatents(longest_latents).timeline(7), KeptLatents(longer_latents).timeline(7))


def test_it_goes_on_from_the_very_latents(make, tiny_pipe):
    _first, latents = make("first", frames=18)
    longer, _ = make("longer", frames=34, latents=str(latents), latent_frames=5, prompt="a blue cat")
    by_hand = tiny_pipe(
        "a blue cat",
        num_frames=14,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(5),
        prefix_latents=KeptLatents(latents).timeline(5),
        output_type="np",
    ).frames[0]
    assert np.array_equal(longer[20:], (by_hand * 255).round().astype(np.uint8))


def test_one_latent_frame_is_continued_as_an_image(make):
    _, latents = make("first", frames=3)
    longer, _ = make("longer", frames=12, latents=str(latents), latent_frames=1)
    assert len(longer) == 12


def test_what_cannot_be_continued_is_refused(make, tmp_path):
    _, latents = make("first", frames=18)
    with pytest.raises(InputError, match="ask for more than that"):
        make("longer", frames=20, latents=str(latents), latent_frames=5)
    with pytest.raises(InputError, match="in the same size"):
        make("longer", frames=30, latents=str(latents), latent_frames=5, height=48, width=48)
    with pytest.raises(InputError, match="are gone"):
        make("longer", frames=30, latents=str(tmp_path / "nowhere"), latent_frames=5)
