"""Sound in: of every kind of file, and in time with its pictures."""

import tracemalloc
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from animagic.errors import InputError, MediaError
from animagic.media import iter_sound, read_sound, sound, sound_facts


def tone(seconds: float = 2.0, rate: int = 48_000, click: float = 0.5) -> np.ndarray:
    """float32 (n,): a low tone with a click at an instant."""
    samples = 0.1 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 200 / rate)
    samples[round(click * rate) :][: rate // 500] = 0.9
    return samples.astype(np.float32)


def clicks_at(samples: np.ndarray, rate: int = 16_000) -> float:
    return float((np.abs(samples) > 0.4).argmax()) / rate


KINDS = [
    ("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.mp4", "aac"),
    ("a.ogg", "libopus"), ("a.webm", "libopus"), ("a.mkv", "aac"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_every_kind_of_file(tmp_path, name, codec, sound_file):
    read = read_sound(sound_file(tmp_path / name, tone(), codec))
    assert (read.rate, read.samples.dtype, read.samples.ndim) == (16_000, np.float32, 1)
    assert read.seconds == pytest.approx(2, abs=0.025)  # Matroska tells no end: a codec fills its last packet up
    assert clicks_at(read.samples) == pytest.approx(0.5, abs=0.002)
    assert np.sqrt(np.mean(read.samples[16_000:30_000] ** 2)) == pytest.approx(0.1 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_rates(tmp_path, rate, sound_file):
    path = sound_file(tmp_path / "a.wav", tone(rate=rate), "pcm_s16le", rate)
    assert sound_facts(path) == {"rate": rate, "channels": 1, "seconds": 2.0, "codec": "pcm_s16le"}
    for wanted in (8_000, 16_000, 44_100):
        samples = read_sound(path, wanted).samples
        assert len(samples) == 2 * wanted
        assert clicks_at(samples, wanted) == pytest.approx(0.5, abs=0.0005)
        assert np.abs(samples[wanted:] - tone(rate=wanted)[wanted:])[:-100].max() < 0.01


def test_channels(tmp_path, sound_file):
    path = sound_file(tmp_path / "a.wav", np.stack([tone(), 0 * tone()]), "pcm_s16le")
    both = read_sound(path, mono=False)
    assert (both.samples.shape, both.channels, both.seconds) == ((32_000, 2), 2, 2)
    assert np.abs(both.samples[:, 1]).max() < 1e-4
    assert np.allclose(read_sound(path).samples, both.samples[:, 0] / 2, atol=1e-4)
    assert read_sound(sound_file(tmp_path / "m.wav", tone(), "pcm_s16le"), mono=False).samples.shape == (32_000, 1)
    surround = sound_file(tmp_path / "s.wav", np.stack([tone()] * 6), "pcm_s16le")
    assert read_sound(surround, mono=False).channels == 6
    assert clicks_at(read_sound(surround).samples) == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("sound_at", "film_at"), [(0, 0), (0.5, 0), (0, 0.5), (0.75, 0.25), (0.25, 0.75)])
def test_time_begins_with_the_first_picture(tmp_path, suffix, sound_at, film_at, sound_file):
    samples = read_sound(
        sound_file(tmp_path / f"a.{suffix}", tone(click=0.8), "aac", 48_000, sound_at, film_at)
    ).samples
    assert clicks_at(samples) == pytest.approx(0.8 + sound_at - film_at, abs=0.002)
    assert len(samples) / 16_000 == pytest.approx(2 + sound_at - film_at, abs=0.025)
    silent = round((sound_at - film_at - 0.03) * 16_000)  # less the codec's delay
    assert not samples[: max(0, silent)].any()


def test_an_edit_list_may_cut_the_beginning(tmp_path, sound_file):
    samples = read_sound(sound_file(tmp_path / "a.mp4", tone(click=0.8), "aac", 48_000, -0.3, 0)).samples
    assert clicks_at(samples) == pytest.approx(0.5, abs=0.002)
    assert len(samples) == round(1.7 * 16_000)


def test_a_gap_is_silence(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000)
        stream.layout = "mono"
        for at in (0, 96_000):  # one second of each two
            frame = av.AudioFrame.from_ndarray(tone(1)[None], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
    samples = read_sound(path).samples
    assert len(samples) == pytest.approx(48_000, abs=20)
    assert not samples[16_100:31_900].any()
    assert clicks_at(samples[32_000:]) == pytest.approx(0.5, abs=0.003)


def test_a_part(tmp_path, sound_file):
    path = sound_file(tmp_path / "a.wav", tone(), "pcm_s16le")
    whole = read_sound(path).samples
    for start, seconds in [(0, 0.5), (0.25, 1), (0.7, None), (1.5, 9), (0, 1e-6)]:
        part = read_sound(path, start=start, seconds=seconds).samples
        end = None if seconds is None else max(1, round(seconds * 16_000))
        assert np.array_equal(part, whole[round(start * 16_000) :][:end])
    assert np.array_equal(np.concatenate(list(iter_sound(path))), whole)


def test_the_sound_of_a_film(samples):
    film, source = samples / "talking_anny_256_25fps.mp4", samples / "speech_synth_flite_slt.wav"
    a, b = read_sound(film).samples, read_sound(source).samples
    length = min(len(a), len(b))
    assert np.corrcoef(a[:length], b[:length])[0, 1] > 0.98


def test_a_cover_is_no_film(tmp_path, sound_file):
    plain = sound_file(tmp_path / "a.mp3", tone(), "libmp3lame", 44_100)
    path = tmp_path / "covered.mp3"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        track = target.add_stream_from_template(source.streams.audio[0])
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        target.mux([*cover.encode(picture), *cover.encode(None)])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = track
                target.mux(packet)
    assert np.array_equal(read_sound(path).samples, read_sound(plain).samples)


def test_memory_is_bounded(tmp_path, sound_file):
    path = sound_file(tmp_path / "a.flac", np.tile(tone(), 30), "flac")
    tracemalloc.start()
    assert sum(len(block) for block in iter_sound(path)) == 60 * 16_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


# What cannot be read


def test_too_long(tmp_path, monkeypatch, sound_file):
    path = sound_file(tmp_path / "a.wav", np.stack([tone(12)] * 2), "pcm_s16le")
    monkeypatch.setattr(sound, "MOST_SAMPLES", 160_000)
    with pytest.raises(MediaError, match="longer than 0 minutes: read a part"):
        read_sound(path)
    assert read_sound(path, seconds=10).seconds == 10
    with pytest.raises(MediaError, match="read a part"):
        read_sound(path, seconds=10, mono=False)


def test_no_sound(tmp_path, write, samples):
    with pytest.raises(MediaError, match=r"a\.mp4 holds no sound"):
        read_sound(write("a.mp4"))
    for name in ("none.wav", "text.wav", "empty.wav", "folder"):
        path = tmp_path / name
        if name == "folder":
            path.mkdir()
        elif name != "none.wav":
            path.write_text("not a sound\n" * 99 * (name == "text.wav"))
        with pytest.raises(MediaError, match=name):
            read_sound(path)
    with pytest.raises(MediaError, match="portrait"):
        read_sound(samples / "portrait_astronaut_256.png")


def test_zero_length(tmp_path, sound_file):
    path = tmp_path / "zero.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    with pytest.raises(MediaError, match=r"zero\.wav holds no samples"):
        read_sound(path)
    with pytest.raises(MediaError, match="ends before 3"):
        read_sound(sound_file(tmp_path / "a.wav", tone(), "pcm_s16le"), start=3)


@pytest.mark.parametrize(("name", "codec"), [*KINDS[:2], *KINDS[4:5], *KINDS[7:]])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.8])
def test_cut_off(tmp_path, name, codec, share, sound_file):
    data = sound_file(tmp_path / name, tone(), codec).read_bytes()
    (tmp_path / f"cut-{name}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError, match="cut-") as caught:
        read_sound(tmp_path / f"cut-{name}")
    assert str(caught.value).endswith(".")


def test_damaged(tmp_path, sound_file):
    data = bytearray(sound_file(tmp_path / "a.flac", tone(), "flac").read_bytes())
    data[2000:] = bytes(len(data) - 2000)
    (tmp_path / "bad.flac").write_bytes(data)
    with pytest.raises(MediaError, match="bad"):
        read_sound(tmp_path / "bad.flac")


@pytest.mark.parametrize(
    "options",
    [{"rate": 0}, {"rate": 16_000.5}, {"rate": 10**6}, {"start": -1}, {"start": np.nan}, {"seconds": 0}],
)
def test_wrong_options(tmp_path, options, sound_file):
    with pytest.raises(InputError):
        read_sound(sound_file(tmp_path / "a.wav", tone(), "pcm_s16le"), **options)
