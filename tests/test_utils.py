"""The names of diffusers' utils: pictures and videos in and out."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from animagic import InputError, MediaError, utils
from animagic.media import probe, read_video
from animagic.utils import export_to_gif, export_to_video, load_image, load_video


@pytest.fixture
def clip(make_moving_clip) -> np.ndarray:
    return make_moving_clip(6)


@pytest.fixture
def site(tmp_path):
    """Serves a folder at an address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def forms(clip: np.ndarray) -> dict:
    return {
        "pil": [Image.fromarray(frame) for frame in clip],
        "floats": list(clip.astype(np.float32) / 255),
        "bytes": list(clip),
        "one array": clip / 255,
    }


def test_every_form_of_frames_gives_the_same_file(clip, tmp_path):
    files = {}
    for name, frames in forms(clip).items():
        path = export_to_video(frames, str(tmp_path / f"{name}.mp4"), fps=8)
        assert path == str(tmp_path / f"{name}.mp4")
        files[name] = (tmp_path / f"{name}.mp4").read_bytes()
    assert len(set(files.values())) == 1
    assert probe(path)["fps"] == pytest.approx(8)
    assert distance(read_video(path).frames, clip) < 4


def test_without_a_path_a_file_is_made(clip):
    path = export_to_video(list(clip))
    assert path.endswith(".mp4")
    assert probe(path)["frames"] == 6
    assert probe(path)["fps"] == pytest.approx(10)


def test_arguments_of_diffusers_are_taken(clip, tmp_path):
    path = str(tmp_path / "a.mp4")
    assert export_to_video(list(clip), path, fps=8, quality=9, macro_block_size=1) == path
    with pytest.raises(InputError, match="bitrate"):
        export_to_video(list(clip), path, bitrate=1000)


def test_a_path_that_cannot_be_written_is_refused(clip, tmp_path):
    with pytest.raises(MediaError):
        export_to_video(list(clip), str(tmp_path / "none" / "a.mp4"))


def test_videos_are_loaded(clip, tmp_path):
    path = export_to_video(list(clip), str(tmp_path / "a.mp4"), fps=8)
    images = load_video(path)
    assert [image.size for image in images] == [(48, 32)] * 6
    assert distance(np.stack([np.asarray(image) for image in images]), clip) < 4
    assert len(load_video(path, num_frames=4)) == 4
    assert len(load_video(path, num_frames=99)) == 6
    assert len(load_video(path, convert_method=lambda images: images[::2])) == 3
    images, fps = load_video(path, return_fps=True)
    assert (len(images), fps) == (6, pytest.approx(8))
    with pytest.raises(MediaError, match="does not exist"):
        load_video(str(tmp_path / "none.mp4"))


def test_gifs_and_pictures(clip, tmp_path):
    path = export_to_gif(forms(clip)["pil"], str(tmp_path / "a.gif"), fps=10)
    assert len(load_video(path)) == 6
    Image.fromarray(clip[0]).convert("RGBA").save(tmp_path / "a.png")
    assert load_image(str(tmp_path / "a.png")).mode == "RGB"


def test_an_address_is_fetched(clip, tmp_path, site):
    export_to_video(list(clip), str(tmp_path / "a clip.mp4"))
    assert len(load_video(f"{site}/a%20clip.mp4?size=full", num_frames=5)) == 5


def test_an_address_that_cannot_be_read_is_refused(site):
    for wrong in (f"{site}/none.mp4", "http://127.0.0.1:1/a.mp4", "http://[/a.mp4", "https:///"):
        with pytest.raises(InputError, match=r"cannot be read .*check the address"):
            load_video(wrong)


def test_what_is_too_large_is_refused(clip, tmp_path, site, monkeypatch):
    """Whether the server says so or not."""
    path = export_to_video(list(clip), str(tmp_path / "a.mp4"))
    size = len((tmp_path / "a.mp4").read_bytes())
    monkeypatch.setattr(utils, "MOST_BYTES", size)
    assert len(load_video(f"{site}/a.mp4")) == 6
    monkeypatch.setattr(utils, "MOST_BYTES", size - 1)
    with pytest.raises(InputError, match="holds more than"):
        load_video(f"{site}/a.mp4")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "send_header", lambda *_: None)
    with pytest.raises(InputError, match="holds more than"):
        load_video(f"{site}/a.mp4")
    assert len(load_video(path)) == 6
