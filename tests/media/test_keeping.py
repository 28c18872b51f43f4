"""A run does not write over what it reads, and removes only what it has made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from animagic.errors import InputError, MediaError
from animagic.media import atomic_path
from animagic.media.files import dead_parts, replace_folder, temporary_name
from animagic.media.keeping import RunPlace, check_apart


def refusal(inputs: dict, outputs: dict) -> str:
    with pytest.raises(InputError) as caught:
        check_apart(inputs, outputs)
    return str(caught.value)


def test_an_output_is_no_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").touch()
    Path("link.mp4").symlink_to("clip.mp4")
    Path("hard.mp4").hardlink_to("clip.mp4")
    for name in ("clip.mp4", "./clip.mp4", str(tmp_path / "clip.mp4"), "link.mp4", "hard.mp4", "x/../clip.mp4"):
        said = refusal({"video": "clip.mp4"}, {"output": name})
        assert said == f"the output {name} is the video clip.mp4; choose another name for the output."
    check_apart({"video": "clip.mp4"}, {"output": "other.mp4", "contact sheet": None})


def test_what_lies_in_a_folder_that_is_read_stays(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").touch()
    assert "lies in the video" in refusal({"video": tmp_path / "frames"}, {"sheet": tmp_path / "frames" / "1.png"})
    check_apart({"video": tmp_path / "frames"}, {"sheet": tmp_path / "frames" / "new.png"})


def test_every_output_has_a_name_of_its_own(tmp_path):
    assert "is also the output" in refusal({}, {"output": tmp_path / "a.png", "sheet": tmp_path / "b" / ".." / "a.png"})


def test_a_run_removes_only_its_own_files(tmp_path):
    place = RunPlace(tmp_path / "a.resume", ["state-*"], "note.json")
    place.write("note.json", lambda new: new.write_text("{}"))
    place.write("state-1", lambda new: new.write_text("1"))
    (tmp_path / "a.resume" / "mine.txt").write_text("of the user")
    place.remove()
    assert [path.name for path in (tmp_path / "a.resume").iterdir()] == ["mine.txt"]
    (tmp_path / "a.resume" / "mine.txt").unlink()
    RunPlace(tmp_path / "a.resume", ["state-*"], "note.json").remove()
    assert not (tmp_path / "a.resume").exists()


def test_a_folder_of_the_user_is_refused(tmp_path):
    (tmp_path / "a.resume").mkdir()
    (tmp_path / "a.resume" / "mine.txt").touch()
    with pytest.raises(InputError, match="holds files that no run has left there"):
        RunPlace(tmp_path / "a.resume", ["*"], "note.json")
    with pytest.raises(InputError, match="is a file"):
        RunPlace(tmp_path / "a.resume" / "mine.txt", ["*"], "note.json")


def test_one_run_at_a_time(tmp_path):
    first, second = (RunPlace(tmp_path / "run", ["*"], "note") for _ in range(2))
    with first.held(), pytest.raises(InputError, match="in use by another run"), second.held():
        pass
    with second.held():
        pass


def test_what_a_killed_process_left_is_removed(tmp_path):
    program = f"""
import os
from animagic.media import atomic_path
with atomic_path({str(tmp_path / "clip.mp4")!r}) as new:
    new.write_bytes(b"half")
    print(new, flush=True)
    os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert dead_parts(tmp_path) == [left]
    with atomic_path(tmp_path / "clip.mp4") as new:
        assert not left.exists()
        assert dead_parts(tmp_path) == []  # this one is alive
        with atomic_path(tmp_path / "clip.mp4") as other:
            assert new.exists()  # two at once do not touch each other
            other.write_bytes(b"other")
        new.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch):
    old, new = tmp_path / "model", temporary_name(tmp_path / "model")
    for folder in (old, new):
        folder.mkdir()
        (folder / folder.name).touch()
    with monkeypatch.context() as patch:
        rename = Path.rename
        patch.setattr(Path, "rename", lambda a, b: interrupt() if a == new else rename(a, b))
        with pytest.raises(KeyboardInterrupt):
            replace_folder(new, old)
    assert (old / "model").exists()
    replace_folder(new, old)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", new.name]


def interrupt():
    raise KeyboardInterrupt


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(MediaError, match="is no file"), atomic_path(tmp_path / "pipe.png"):
        pass
    assert (tmp_path / "pipe.png").is_fifo()
