"""What is heard of a voice, whole or while it arrives."""

import threading
import time
import wave

import numpy as np
import pytest
import torch

from animagic.errors import InputError, MediaError
from animagic.pipelines.sound_source import LiveSound, WholeSound
from animagic.speech import WhisperEncoder, features, per_latent


class Around:
    """An encoder of two layers whose features depend on the samples before and after a frame."""

    layers, channels, before, after = 2, 1, 2, 3

    def encode(self, sound, first):
        frames = sound.view(-1, 320)
        sums = torch.nn.functional.pad(frames.sum(1), (2, 3)).unfold(0, 6, 1).sum(1)
        return torch.stack([sums, frames[:, 7]], 1)[..., None]


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(16_000 * seconds)).astype(np.float32)


def in_blocks(samples: np.ndarray, size: int):
    return (samples[start : start + size] for start in range(0, len(samples), size))


def write(path, samples: np.ndarray):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 2**15).astype(np.int16).tobytes())
    return path


# The whole sound


@pytest.mark.parametrize("fps", [12.5, 24, 25, 29.97])
def test_a_whole_sound_is_heard_as_networks_are_trained(fps):
    found = features(Around(), voice(4))
    latents = 1 + int((4 * fps - 1) // 4)
    expected = per_latent(found, fps, latents)
    heard = WholeSound(found, fps).speech(range(latents - 1))
    assert heard.shape == (latents - 1, 8, 2, 1)
    assert torch.equal(heard, expected[:-1])  # the last one hears what comes after its frames, which there is not
    assert torch.equal(WholeSound(found, fps).speech(range(3, 7)), expected[3:7])


def test_features_may_come_in_pieces():
    found = features(Around(), voice(2))
    for fps, size in ((25, 1), (24, 7), (29.97, 33), (60, 1)):
        pieces = WholeSound(found.split(size), fps)
        assert torch.allclose(pieces.speech(range(40)), WholeSound(found, fps).speech(range(40)))
        assert len(pieces) == len(WholeSound(found, fps))
        assert torch.equal(pieces.speech(range(200, 201))[0], found[-1:].expand(8, -1, -1))  # the last one goes on
    with pytest.raises(InputError, match="no features"):
        WholeSound([], 25)


def test_its_length_is_that_of_the_sound_in_video_frames():
    assert len(WholeSound(torch.zeros(100, 1, 1), 25)) == 50
    assert len(WholeSound(torch.zeros(101, 1, 1), 25)) == 51
    assert len(WholeSound.of(Around(), voice(2), 25)) == 50
    assert len(WholeSound.of(Around(), voice(0.001), 25)) == 1


def test_after_the_end_there_is_silence():
    heard = WholeSound.of(Around(), voice(1), 25).speech(range(40))
    assert heard[:6].abs().amax((1, 2, 3)).min() > 0
    assert heard[9:].abs().max() == 0


def test_a_sound_of_nothing_is_named():
    with pytest.raises(InputError, match="no samples"):
        WholeSound.of(Around(), voice(0), 25)
    with pytest.raises(InputError, match="samples are float64"):
        WholeSound.of(Around(), voice(1).astype(float), 25)


# Sound that arrives


@pytest.mark.parametrize("fps", [24, 25, 29.97])
@pytest.mark.parametrize(
    ("seconds", "size", "step"), [(4, 320, 10), (4.013, 777, 1), (2.5, 100_000, 7), (0.01, 50, 10)]
)
def test_live_sound_is_heard_as_the_whole_sound(fps, seconds, size, step):
    whole = WholeSound.of(Around(), voice(seconds), fps)
    live = LiveSound.from_blocks(Around(), fps, in_blocks(voice(seconds), size), step=step)
    for start in range(40):  # a window of 5 that moves on, to long after the end
        frames = range(max(0, start - 4), start + 1)
        assert torch.allclose(live.speech(frames), whole.speech(frames), atol=1e-6, rtol=1e-6)
    assert [live.ended_before(frame) for frame in (len(whole) - 1, len(whole))] == [False, True]


def test_live_speech_is_heard_as_the_whole_speech():
    """With the embedded encoder, on the same pieces to the bit."""
    encoder, sound = WhisperEncoder(), 0.3 * voice(1.5)
    whole = WholeSound.of(encoder, sound, 25, step=10)
    live = LiveSound.from_blocks(encoder, 25, in_blocks(sound, 1000), step=10)
    for start in range(16):
        assert (live.speech(range(start, start + 3)) - whole.speech(range(start, start + 3))).abs().max() < 1e-6


def test_reading_waits_until_enough_was_heard():
    live, got = LiveSound(Around(), 25, step=1), threading.Event()

    def read():
        live.speech(range(2))  # video frames 0 to 6: 14 features, and 3 frames more
        got.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    live.push(voice(17 * 0.02 - 0.001))
    assert not got.wait(0.1)
    live.push(voice(0.001))
    assert got.wait(5)
    reader.join(5)


def test_reading_goes_on_when_the_sound_ends():
    live = LiveSound(Around(), 25)
    threading.Timer(0.05, live.finish).start()
    assert live.speech(range(3)).abs().max() == 0
    with pytest.raises(InputError, match="the sound has ended"):
        live.push(voice(0.1))


def test_several_threads_may_read():
    """As where the windows of a step are spread over devices."""
    live, results = LiveSound(Around(), 25), {}

    def read(frames):
        results[frames] = live.speech(frames)

    threads = [threading.Thread(target=read, args=(range(stop),)) for stop in (2, 5, 9)]
    for thread in threads:
        thread.start()
    for block in in_blocks(voice(2), 500):
        live.push(block)
    live.finish()
    for thread in threads:
        thread.join(10)
    whole = WholeSound.of(Around(), voice(2), 25)
    assert all(torch.allclose(results[frames], whole.speech(frames), atol=1e-4) for frames in results)
    assert len(results) == 3


def test_an_hour_needs_no_more_memory_than_a_minute():
    block, longest = np.full(16_000 * 6, 0.1, np.float32), 0
    live = LiveSound.from_blocks(Around(), 25, (block for _ in range(650)))
    for start in range(0, 62 * 60 * 25 // 4 - 4, 3):
        live.speech(range(start, start + 4))
        longest = max(longest, len(live._found) + sum(map(len, live._blocks)) // 320)
    assert longest < 400  # those of a block, and those of four latent frames
    assert len(live._stream._sound) < 320 * 40
    report = live.latency([time.monotonic()])
    assert len(report.arrived) == pytest.approx(3600 * 50, abs=300)


def test_what_was_forgotten_cannot_be_heard_again():
    live = LiveSound.from_blocks(Around(), 25, in_blocks(voice(3), 320))
    live.speech(range(8, 12))
    live.speech(range(8, 9))
    with pytest.raises(InputError, match="heard in order"):
        live.speech(range(7, 12))


def test_arrival_is_remembered_and_where_somebody_speaks():
    clock = iter(range(10, 100)).__next__
    live = LiveSound(Around(), 25, clock=lambda: float(clock()))
    live.push(np.zeros(16_000, np.float32))  # at 10
    live.push(np.zeros(100, np.float32))  # not 20 ms: nothing is written down
    live.push(0.3 * np.ones(16_000, np.float32))  # at 11
    report = live.latency([20.0] * 50)
    assert report.arrived == [10.0] * 50 + [11.0] * 50
    assert np.flatnonzero(report.voiced).tolist() == list(range(48, 100))  # 40 ms early, as `voiced` has it
    assert report.speech_waits.tolist() == [20.0 - 10.0]


@pytest.mark.parametrize("samples", [np.zeros(9), np.zeros((9, 2), np.float32), np.full(9, np.nan, np.float32)])
def test_sound_of_another_kind_is_named_to_whoever_pushes_it(samples):
    with pytest.raises(InputError, match="samples"):
        LiveSound(Around(), 25).push(samples)


# Files


def test_a_file_is_played_in_real_time(tmp_path):
    path = write(tmp_path / "voice.wav", voice(0.5))
    live = LiveSound.from_file(Around(), 25, path, step=1)
    time.sleep(0.2)
    began = time.monotonic()  # it begins when it is first read
    heard = live.speech(range(3))
    assert time.monotonic() - began >= 0.44 - 0.01  # 11 video frames
    whole = WholeSound.of(Around(), (voice(0.5) * 2**15).astype(np.int16).astype(np.float32) / 2**15, 25)
    assert torch.allclose(heard, whole.speech(range(3)), atol=1e-4)
    live.speech(range(3, 6))
    assert live.ended_before(13)
    arrived = np.array(live.latency([0.0]).arrived) - began
    assert len(arrived) == 25
    assert (arrived >= 0.02 * np.arange(1, 26) - 0.002).all()


def test_a_file_may_arrive_at_once_and_may_be_stopped(tmp_path):
    path, began = write(tmp_path / "voice.wav", voice(30)), time.monotonic()
    LiveSound.from_file(Around(), 25, path, real_time=False).speech(range(150))
    playing = LiveSound.from_file(Around(), 25, path)
    threading.Timer(0.1, playing.close).start()
    assert playing.speech(range(150)).shape[0] == 150
    assert playing.ended_before(20)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("real_time", [True, False])
def test_a_file_that_is_no_sound_is_named_to_whoever_listens(tmp_path, real_time):
    path = tmp_path / "voice.wav"
    path.write_text("nothing")
    live = LiveSound.from_file(Around(), 25, path, real_time)
    with pytest.raises(MediaError, match=r"voice\.wav"):
        live.speech(range(2))
