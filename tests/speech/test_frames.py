"""Features stand at the video frames that are shown when they are heard."""

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.speech import WhisperEncoder, at_frames, features, per_frame, per_latent


def impulse(at: int, count: int = 200) -> torch.Tensor:
    x = torch.zeros(count, 1, 1)
    x[at] = 1
    return x


@pytest.mark.parametrize("fps", [8, 12.5, 24, 25, 29.97, 30, 50, 60])
@pytest.mark.parametrize("at", [0, 57, 123])
def test_a_click_is_heard_when_it_is(fps, at):
    heard = at_frames(impulse(at), fps, int(4 * fps))[:, 0, 0].double().numpy()
    centre = (np.arange(len(heard)) + 0.5) / fps
    assert heard.sum() / fps == pytest.approx(0.02, rel=1e-4)  # all of it, once
    assert abs((heard * centre).sum() / heard.sum() - (at + 0.5) / 50) < 0.5 / fps
    shown = np.flatnonzero(heard)
    assert shown[0] == int(at / 50 * fps + 1e-9)
    assert len(shown) <= fps / 50 + 2


@pytest.mark.parametrize("second", [0.5, 1.3])
def test_a_click_in_the_sound_is_heard_at_its_frame(second):
    """By the encoder's first layer, which sees 65 ms."""
    sound = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 1e-4
    quiet = features(WhisperEncoder(), sound)
    sound[int(second * 16_000)] += 0.9
    change = (features(WhisperEncoder(), sound) - quiet)[:, :1].norm(dim=-1, keepdim=True)
    heard = at_frames(change, 25, 50)[:, 0, 0]
    assert abs(int(heard.argmax()) - int(second * 25)) <= 1
    centre = (heard * (torch.arange(50) + 0.5) / 25).sum() / heard.sum()
    assert abs(centre - second) < 0.02


def test_at_25_frames_a_second_each_has_the_mean_of_two():
    x = torch.arange(8.0).view(8, 1, 1)
    assert at_frames(x, 25, 4).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


def test_each_frame_has_two_more_on_each_side():
    x = torch.arange(10.0).view(10, 1, 1)
    found = per_frame(x, 50, 10)
    assert found.shape == (10, 5, 1, 1)
    assert found[0].flatten().tolist() == [0, 0, 0, 1, 2]
    assert found[5].flatten().tolist() == [3, 4, 5, 6, 7]
    assert found[9].flatten().tolist() == [7, 8, 9, 9, 9]


def test_each_latent_frame_has_its_four_and_two_more_on_each_side():
    x = torch.arange(9.0).view(9, 1, 1)
    found = per_latent(x, 50, 3)
    assert found.shape == (3, 8, 1, 1)
    assert found[0].flatten().tolist() == [0, 0, 0, 0, 0, 0, 1, 2]
    assert found[1].flatten().tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
    assert found[2].flatten().tolist() == [3, 4, 5, 6, 7, 8, 8, 8]


def test_sound_that_ends_too_early_is_named():
    with pytest.raises(InputError, match=r"lasts 1.00 s, 26 frames"):
        at_frames(torch.zeros(50, 1, 1), 25, 26)


def test_frames_that_cannot_be_are_named():
    with pytest.raises(InputError, match="fps"):
        at_frames(torch.zeros(50, 1, 1), 0, 1)
