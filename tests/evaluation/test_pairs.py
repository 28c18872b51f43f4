"""Videos compared with the true ones of the same names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from animagic.cli import main
from animagic.errors import InputError
from animagic.evaluation import compare_videos, pairs_sheet, pairs_table
from animagic.evaluation.pairs import COLUMNS, matched
from animagic.media import VideoWriter, write_image


def clip(frames: int, seed: int = 0, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """A square that moves over a pattern."""
    rng = np.random.default_rng(seed)
    video = np.repeat(rng.integers(0, 200, (1, *size, 3), np.uint8), frames, 0)
    for number, frame in enumerate(video):
        frame[8:20, number % 30 : number % 30 + 12] = (250, 40, 40)
    return video


def write_pictures(folder, video):
    folder.mkdir(parents=True)
    for number, frame in enumerate(video):
        write_image(folder / f"{number:04d}.png", frame)


def write_film(file, video):
    file.parent.mkdir(exist_ok=True)
    with VideoWriter(file, fps=8) as writer:
        writer.write(video)


@pytest.fixture
def sets(tmp_path):
    """Two videos each, as pictures: "same" is the true one, in "darker" every pixel is 10 darker."""
    for name, frames in (("same", 4), ("darker", 12)):
        video = clip(frames).clip(10, 255)
        write_pictures(tmp_path / "true" / name, video)
        write_pictures(tmp_path / "made" / name, video if name == "same" else video - 10)
    return tmp_path / "made", tmp_path / "true"


def test_means_are_taken_over_all_frames(sets):
    report = compare_videos(*sets).report
    assert (report["cases"], report["frames"]) == (2, 16)
    assert [row["name"] for row in report["rows"]] == ["darker", "same"]
    assert [row["values"]["L1"] for row in report["rows"]] == pytest.approx([10 / 255, 0], abs=1e-6)
    assert report["summary"]["L1"] == pytest.approx(10 / 255 * 12 / 16, abs=1e-6)
    assert report["summary"]["AlexNet-FD"] > 0


def test_a_set_that_is_compared_with_itself_is_perfect(sets):
    summary = compare_videos(sets[1], sets[1]).report["summary"]
    assert {name: summary[name] for name in ("L1", "PSNR", "SSIM")} == {"L1": 0, "PSNR": 99, "SSIM": 1}
    assert [summary[name] for name in ("LPIPS", "AlexNet-FD", "AlexNet-FD of changes")] == pytest.approx(
        [0] * 3, abs=1e-4
    )


def test_a_frozen_video_differs_in_its_changes(tmp_path):
    write_film(tmp_path / "true.mp4", clip(12))
    write_film(tmp_path / "shuffled.mp4", clip(12)[np.random.default_rng(0).permutation(12)])
    summary = compare_videos(tmp_path / "shuffled.mp4", tmp_path / "true.mp4").report["summary"]
    assert summary["AlexNet-FD of changes"] > summary["AlexNet-FD"]


def test_one_film_may_be_compared_with_one_of_another_name(tmp_path):
    write_film(tmp_path / "a.mp4", clip(4))
    write_film(tmp_path / "b.mp4", clip(4))
    assert matched(tmp_path / "a.mp4", tmp_path / "b.mp4") == {"a": (tmp_path / "a.mp4", tmp_path / "b.mp4")}


def test_a_folder_of_pictures_is_one_video_and_notes_are_none(sets, tmp_path):
    made, true = (one / "same" for one in sets)
    (made / "notes.txt").write_text("nothing to see")
    assert compare_videos(made, true).report["frames"] == 4
    assert matched(made, true) == {"same": (made, true)}


class Corners(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3, 4))


def test_backbones_get_whole_clips(tmp_path):
    torch.jit.script(Corners()).save(str(tmp_path / "net.pt"))
    for side, seeds in (("made", (0, 1)), ("true", (2, 3))):
        for seed in seeds:
            write_pictures(tmp_path / side / f"video {seed % 2}", clip(20, seed))
    report = compare_videos(tmp_path / "made", tmp_path / "true", backbones={"FVD": tmp_path / "net.pt"}).report
    assert report["summary"]["FVD"] > 0
    assert report["backbones"] == {"FVD": str(tmp_path / "net.pt")}


def test_a_video_is_too_short_for_a_backbone(sets, tmp_path):
    torch.jit.script(Corners()).save(str(tmp_path / "net.pt"))
    with pytest.raises(InputError, match="darker has 12 frames: a backbone needs at least 16"):
        compare_videos(*sets, backbones={"FVD": tmp_path / "net.pt"})


def test_the_table_has_what_was_published_beside_it(sets):
    cells = [line.strip("|").split("|") for line in pairs_table(compare_videos(*sets).report).splitlines()[:9]]
    rows = {one.strip(): dict(zip(COLUMNS, map(str.strip, others), strict=True)) for one, *others in cells}
    assert [rows["here: 2 videos"][name] for name in ("L1", "FVD")] == ["0.0294", ""]
    assert [rows["MagicAnimate"][name] for name in ("SSIM", "FVD", "PSNR")] == ["0.714", "179.07", ""]


def test_the_sheet_shows_both_sides(sets):
    assert pairs_sheet(compare_videos(*sets)).ndim == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made, true: write_pictures(made / "more", clip(2)), "made has a video more that .*true lacks"),
        (lambda made, true: write_pictures(true / "more", clip(2)), "true has a video more that .*made lacks"),
        (lambda made, true: write_image(made / "same" / "9.png", clip(1)[0]), "4 frames in truth, and more as made"),
        (lambda made, true: (made / "same" / "0003.png").unlink(), "3 frames as made, and more in truth"),
        (lambda made, true: write_film(made / "same.mp4", clip(2)), "two videos of the name same"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_one_sentence(change, message, sets):
    change(*sets)
    with pytest.raises(InputError, match=message):
        compare_videos(*sets)


def test_another_size_is_one_sentence(tmp_path):
    write_film(tmp_path / "a.mp4", clip(2))
    write_film(tmp_path / "b.mp4", clip(2, size=(64, 48)))
    with pytest.raises(InputError, match="a and the true one have the sizes 48x32 and 48x64"):
        compare_videos(tmp_path / "a.mp4", tmp_path / "b.mp4")


def test_an_empty_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="has no video in it"):
        compare_videos(tmp_path, tmp_path)


def test_the_command_compares(sets, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--pairs", "made", "true", "--sheet", "sheet.png", "--json", "-q"]) == 0
    line = json.loads(capsys.readouterr().out)
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert line["summary"] == report["summary"]
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "made", "nowhere"], "there is no nowhere"),
        (["text", "--pairs", "made", "true"], "give either --pairs or a suite"),
        (["--fvd-backbone", "net.pt"], "give it together with --pairs"),
        (["--pairs", "made", "true", "--steps", "4"], "--pairs makes no videos: leave out --steps"),
        (["--pairs", "made", "true", "--resume"], "leave out --resume"),
        (["--pairs", "made", "true", "--fvd-backbone", "net.pt"], "there is no backbone net.pt"),
    ],
)
def test_wrong_words_are_one_sentence(words, message, sets, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
