"""Every command and every Python block of the documentation is run, page by page, as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
from pages import PAGES, ROOT, Block, blocks

ALLOWED_REASONS = re.compile(r"GPU|published weights|network|no end")
MOST_LEFT_OUT = 12
MOST = {"--steps": 4, "--prior-preservation": 2}
"""Of what a command may ask for, how much is made here: each takes its time, and proves nothing more."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with(slow: bool) -> list:
    """The pages that have something to run; of those with slow blocks, only if they are asked for."""
    chosen = []
    for page in PAGES:
        found = [block for block in blocks(page.read_text("utf-8")) if block.runs]
        if any(block.slow for block in found) if slow else any(not block.slow for block in found):
            chosen.append(pytest.param(page, id=name(page)))
    return chosen


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> Path:
    """The files that the documentation takes as given: a picture and a clip of a drawn scene, and of two people; a
    portrait, a voice, a film of somebody who speaks, and a picture of two with a mask for each."""
    pytest.importorskip("skia", reason="drawing needs skia-python: pip install -e '.[train]'")
    from PIL import Image

    from animagic.media import VideoWriter
    from animagic.synthetic import Background, Motion, Scene, Thing, render
    from animagic.synthetic.people import render_person, sample_motion, sample_person, sample_view

    folder = tmp_path_factory.mktemp("samples")
    ball = Thing("ball", "red", 16, Motion("rolls right", x=4, y=54, rate=1.0))
    frames = render(Scene(Background("floor", "green"), (ball,)), 32, height=64, width=96)
    Image.fromarray(frames[0]).save(folder / "photo.png")
    Image.fromarray(frames[0]).save(folder / "photo.jpg", quality=95)
    with VideoWriter(folder / "clip.mp4", fps=24) as writer:
        writer.write(frames)
    view = sample_view(3, "full")
    for name, seed in (("person", 5), ("dance", 1)):
        clip = render_person(sample_person(seed), sample_motion(1), view, 6, 256, 256, 12).frames
        if name == "person":
            Image.fromarray(clip[0]).save(folder / "person.png")
        else:
            with VideoWriter(folder / "dance.mp4", fps=12) as writer:
                writer.write(clip)
    save_talk(folder)
    return folder


def save_talk(folder: Path) -> None:
    from animagic.media import Sound, VideoWriter, write_image
    from animagic.speech import mouth_shapes
    from animagic.synthetic.portraits import render_photo, render_portrait, sample_performance, sample_portrait

    shutil.copy(ROOT / "docs" / "assets" / "portrait.png", folder)
    hum = (np.sin(np.arange(9600) * 0.1) / 4).astype(np.float32)
    with wave.open(str(folder / "voice.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((hum * 32767).astype("<i2").tobytes())
    portraits = [sample_portrait(seed, kind="drawn") for seed in (18, 22)]
    still = sample_performance(1, mouth_shapes([], 25, 24), 25, motion="still")
    with VideoWriter(folder / "film.mp4", 25, sound=Sound(hum, 16_000)) as writer:
        writer.write(render_portrait(portraits[0], still, 256, 256).frames)
    two = render_photo(portraits, 5, 256, 384)
    write_image(folder / "two.png", two.frames[0])
    for name, mask in zip(("left", "right"), two.face[0], strict=True):
        write_image(folder / f"{name}.png", np.repeat(mask[..., None], 3, -1))


@pytest.fixture
def reader(samples, quick_models, tmp_path, monkeypatch):
    """A folder with the samples, in which the reader of a page works; what it has set or registered comes back."""
    import torch

    from animagic.systems import SYSTEMS

    for file in samples.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(os, "nice", lambda by: by)  # of a queue: this process is to keep its priority
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks as small as these are slower on several threads of a busy machine
    systems = dict(SYSTEMS)
    yield tmp_path
    torch.set_num_threads(threads)
    SYSTEMS.clear()
    SYSTEMS.update(systems)


def run_command(words: list[str]) -> int:
    """The command line in this process: a fresh one would spend most of its time on importing PyTorch."""
    from animagic.cli import main

    try:
        return int(main(words) or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


class Served:
    """The server that a page starts: it listens on a port that is free, in place of the one that the page says."""

    def __init__(self):
        self.process: subprocess.Popen | None = None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = str(listener.getsockname()[1])

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def text(self, text: str) -> str:
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")

    def start(self, words: list[str]) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "animagic", *words, "--port", self.port])
        for _ in range(3000):
            assert self.process.poll() is None, f"animagic {' '.join(words)} has ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=10)
                return
            except urllib.error.HTTPError:
                raise
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def ask(self, words: list[str]) -> None:
        if shutil.which("curl"):
            subprocess.run([self.text(word) for word in [words[0], "--fail-with-body", *words[1:]]], check=True)


def shortened(words: list[str]) -> list[str]:
    """A command that takes no more steps than are needed to see that it works."""
    befores = [None, *words]
    return [
        str(min(int(word), MOST[before])) if before in MOST else word
        for before, word in zip(befores, words, strict=False)
    ]


def run_block(block: Block, names: dict, where: str, page: Path, served: Served) -> None:
    if block.title:
        Path(block.title).write_text(block.text, "utf-8")
    for words in block.commands():
        if "--say" in words and not (shutil.which("espeak-ng") or shutil.which("flite")):
            continue  # nothing here can read a text
        if words[0] in ("serve", "app") and words[1:2] != ["keys"]:
            served.start(words)
            continue
        code = run_command(shortened(words))
        assert code == 0, f"{where}: animagic {' '.join(words)} ended with exit code {code}"
    for words in block.requests():
        served.ask(words)
    if block.language == "python":
        # Padded, so that a traceback shows the line of the page.
        code_object = compile("\n" * block.line + served.text(block.text), str(page), "exec", dont_inherit=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(code_object, names)


def run_page(page: Path, with_slow: bool) -> None:
    names: dict = {"__name__": "documentation"}  # blocks of a page build on each other
    with Served() as served:
        for block in blocks(page.read_text("utf-8")):
            if block.runs and (with_slow or not block.slow):
                run_block(block, names, f"{name(page)}:{block.line}", page, served)


@pytest.mark.parametrize("page", pages_with(slow=False))
def test_page(page, reader):
    run_page(page, with_slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(slow=True))
def test_page_with_its_slow_blocks(page, reader):
    run_page(page, with_slow=True)


def test_little_is_left_out_and_only_for_a_reason():
    left_out = [
        (f"{name(page)}:{block.line}", block.reason)
        for page in PAGES
        for block in blocks(page.read_text("utf-8"))
        if block.reason is not None
    ]
    for where, reason in left_out:
        assert ALLOWED_REASONS.search(reason), f"{where} is not run, without a reason that counts: {reason!r}"
    assert len(left_out) <= MOST_LEFT_OUT, left_out


def test_the_documentation_has_commands_and_python():
    found = [block for page in PAGES for block in blocks(page.read_text("utf-8"))]
    assert sum(len(block.commands()) for block in found) >= 15
    assert sum(block.language == "python" for block in found) >= 8


def test_no_block_gets_lost():
    """As many blocks are read as there are fences, so that none is silently not run; and no mark hangs in the air."""
    for page in PAGES:
        text = page.read_text("utf-8")
        found = blocks(text)
        assert 2 * len(found) == len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)), name(page)
        marks = len(re.findall(r"<!--\s*(?:slow|no-run)", text))
        assert marks == sum(block.slow or block.reason is not None for block in found), name(page)


def test_every_command_has_a_section_with_its_options():
    from typer.main import get_command

    from animagic.cli import command_line

    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    sections = re.findall(r"^## animagic (\w+)$", page, re.MULTILINE)
    assert sections == re.findall(r"^<!-- options: (\w+) -->$", page, re.MULTILINE)
    assert set(sections) == set(get_command(command_line()).commands)


def test_commands_are_found():
    page = "\n".join(
        [
            "words",
            "<!-- slow -->",
            "```bash",
            'animagic generate "a b" \\',
            "    -o x.mp4  # a remark",
            "pip install x",
            "```",
            "<!-- no-run: needs a GPU -->",
            "```console",
            "$ animagic info x.mp4",
            "animagic said this",
            "```",
            "    ```python",
            "    if 1:",
            "        pass",
            "    ```",
            '```yaml title="a.yaml"',
            "a: 1",
            "```",
        ]
    )
    shell, console, python, file = blocks(page)
    assert shell.slow
    assert shell.commands() == [["generate", "a b", "-o", "x.mp4"]]
    assert console.commands() == [["info", "x.mp4"]]
    assert console.reason == "needs a GPU"
    assert not console.runs
    assert (python.line, python.text) == (13, "if 1:\n    pass\n")
    assert (file.title, file.runs) == ("a.yaml", True)


def test_a_command_is_shortened():
    assert shortened(["generate", "--steps", "400", "--frames", "48"]) == ["generate", "--steps", "4", "--frames", "48"]
    assert shortened(["generate", "--steps", "2"]) == ["generate", "--steps", "2"]


@pytest.mark.parametrize("line", ["animagic info x | head", "animagic models > list.txt", ".venv/bin/animagic models"])
def test_a_command_that_no_test_could_run_is_refused(line):
    with pytest.raises(ValueError, match="command"):
        Block(1, "bash", line).commands()


def test_samples_are_where_the_reader_works(reader):
    assert {"photo.png", "photo.jpg", "clip.mp4"} <= set(os.listdir(reader))
