"""Sound in pieces is heard as in one piece: with the embedded encoder, and with one whose numbers can be told."""

import numpy as np
import pytest
import torch

from animagic.errors import InputError
from animagic.speech import FeatureStream, WhisperEncoder, features, iter_features, normalised

CLOSE = 1e-4


class Sums:
    """Of each frame the sum of the samples in it and in those around it."""

    layers, channels, before, after = 1, 1, 2, 3

    def __init__(self) -> None:
        self.longest = 0

    def encode(self, sound, first):
        self.longest = max(self.longest, len(sound))
        sums = torch.nn.functional.pad(sound.view(-1, 320).sum(1), (2, 3))
        return sums.unfold(0, 6, 1).sum(1)[:, None, None]


@pytest.fixture(scope="module")
def encoder():
    return WhisperEncoder()


@pytest.fixture(scope="module")
def sound(syllables):
    return normalised(syllables(9.5), 16_000)


@pytest.fixture(scope="module")
def whole(encoder, sound):
    return encoder.encode(torch.from_numpy(sound), 0)


@pytest.mark.parametrize("step", [500, 100, 37])
def test_pieces_join_without_a_seam(encoder, sound, whole, step):
    assert (features(encoder, sound, step) - whole).abs().max() < CLOSE


def test_a_stream_gives_what_the_whole_sound_gives(encoder, sound, whole):
    stream, draw, parts, start = FeatureStream(encoder), np.random.default_rng(0), [], 0
    while start < len(sound):
        parts.append(stream.push(sound[start : (start := start + int(draw.integers(1, 9000)))]))
    joined = torch.cat([*parts, stream.finish()])
    assert joined.shape == whole.shape
    assert (joined - whole).abs().max() < CLOSE


def test_features_come_after_the_lookahead_that_is_stated(encoder, sound):
    stream = FeatureStream(encoder, step=1)
    assert stream.lookahead_ms == 240
    needed = 320 + 16 * stream.lookahead_ms
    assert len(stream.push(sound[: needed - 1])) == 0
    assert len(stream.push(sound[needed - 1 : needed])) == 1


def test_what_comes_after_the_lookahead_changes_nothing(encoder, sound):
    changed = sound.copy()
    changed[320 * 100 + 16 * 240 :] *= -0.3
    one, other = (features(encoder, samples) for samples in (sound, changed))
    assert (one[:100] - other[:100]).abs().max() < CLOSE
    assert (one[100:110] - other[100:110]).abs().max() > 0.01


def test_the_last_frame_is_filled_up(encoder):
    assert features(encoder, np.zeros(321, np.float32)).shape == (2, 3, 384)
    assert features(encoder, np.zeros(1, np.float32)).shape == (1, 3, 384)


def test_every_frame_sees_its_surroundings_once():
    sound = np.arange(320 * 57, dtype=np.float32) / 1e5
    one, pieces = features(Sums(), sound, 1000), features(Sums(), sound, 7)
    assert torch.allclose(one, pieces)


def test_an_hour_needs_no_more_memory_than_a_minute():
    encoder, block = Sums(), np.zeros(16_000 * 60, np.float32)
    count = sum(len(found) for found in iter_features(encoder, (block for _ in range(60)), step=500))
    assert count == 3600 * 50
    assert encoder.longest <= 320 * 505


@pytest.mark.parametrize(
    "samples",
    [np.zeros(9), np.zeros((9, 2), np.float32), np.full(9, np.nan, np.float32), [0.0], np.zeros(0, np.float32)],
)
def test_sound_of_another_kind_is_named(samples):
    with pytest.raises(InputError, match="samples"):
        features(Sums(), samples)


def test_a_stream_that_ended_takes_no_more():
    stream = FeatureStream(Sums())
    stream.finish()
    with pytest.raises(InputError, match="ended"):
        stream.push(np.zeros(1, np.float32))


def test_a_step_of_nothing_is_named():
    with pytest.raises(InputError, match="step"):
        FeatureStream(Sums(), 0)
