"""No command destroys a file of the user: not what it reads, and not what only has a name of ours."""

import numpy as np
import pytest

from animagic.media import VideoWriter, read_metadata, write_image


@pytest.fixture
def files(tmp_path, make_moving_clip):
    """A clip and a picture; after the test they must be as they were."""
    with VideoWriter(tmp_path / "clip.mp4", 24) as writer:
        writer.write(make_moving_clip(8))
    write_image(tmp_path / "photo.png", make_moving_clip(1)[0])
    before = {name: (tmp_path / name).read_bytes() for name in ("clip.mp4", "photo.png")}
    yield tmp_path
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--video", "clip.mp4", "-o", "clip.mp4"], "is the video clip.mp4"),
        (["--video", "clip.mp4", "-o", "./clip.mp4"], "is the video clip.mp4"),
        (["--image", "photo.png", "-o", "new.mp4", "--contact-sheet", "photo.png"], "is the image photo.png"),
        (["-o", "new.mp4", "--contact-sheet", "new.mp4.preview.png", "--preview"], "is also the contact sheet"),
    ],
)
def test_what_is_read_is_not_written(files, generate, words, said):
    generate(*words, "--frames", "8").refused(said, "choose another name" if "also" not in said else "of its own")


def test_a_picture_that_is_called_as_the_preview(files, generate):
    mine = files / "new.mp4.preview.png"
    mine.write_bytes((files / "photo.png").read_bytes())
    generate("-o", "new.mp4", "--preview", "--frames", "8").refused(mine.name, "is not of an earlier run")
    assert mine.read_bytes() == (files / "photo.png").read_bytes()


def test_a_preview_that_a_killed_run_left_is_renewed(files, generate):
    write_image(files / "new.mp4.preview.png", np.zeros((8, 8, 3), np.uint8), {"preview of": "new.mp4"})
    assert generate("-o", "new.mp4", "--preview", "--frames", "8").code == 0
    assert not (files / "new.mp4.preview.png").exists()


def test_a_folder_that_is_called_as_that_of_a_kept_run(files, generate):
    folder = files / "new.mp4.resume"
    folder.mkdir()
    (folder / "mine.txt").write_text("of the user")
    generate("-o", "new.mp4", "--resume", "--frames", "8").refused(folder.name, "holds files that no run")
    assert (folder / "mine.txt").read_text() == "of the user"


def test_a_file_in_the_folder_of_a_kept_run_stays(files, generate, interrupt, tiny_model):
    folder = files / "new.mp4.resume"
    words = ["-o", "new.mp4", "--resume", "--frames", "16"]
    asked = ["generate", "a red ball bounces", "--model", tiny_model, "--seed", "7", *words]
    interrupt(lambda: (folder / "state.safetensors").exists(), *asked)
    folder.mkdir(exist_ok=True)
    (folder / "mine.txt").write_text("of the user")
    (folder / ".animagic").touch()
    assert generate(*words).code == 0
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_reproduce_does_not_replace_its_source(files, run, generate):
    assert generate("-o", "made.mp4", "--frames", "8").code == 0
    made = (files / "made.mp4").read_bytes()
    run("reproduce", "made.mp4", "-o", "made.mp4").refused("is the video made.mp4")
    assert (files / "made.mp4").read_bytes() == made
    assert read_metadata(files / "made.mp4")["request"]["seed"] == 7


def test_poses_do_not_replace_the_video(files, run):
    run("pose", "clip.mp4", "-o", "clip.mp4").refused("is the source clip.mp4")


@pytest.mark.parametrize("place", ["", ".", "/"])
def test_a_place_without_a_name_is_not_made_again(run, place):
    run("reproduce", place).refused("is a folder without pictures")
