"""Requests: what they refuse, how they are kept in files, how a run is carried out, interrupted and resumed."""

import functools
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

import animagic
from animagic import InputError, requests
from animagic.media import VideoWriter, iter_video, read_metadata, write_image
from animagic.pipelines.options import VideoOptions
from animagic.requests import Report, build_request, from_metadata
from animagic.requests.generation import Sampled


@pytest.fixture
def request_(tiny_model):
    """Makes requests for the random model."""

    def make(**settings) -> VideoOptions:
        return build_request(
            **{"prompt": "a red ball bounces", "model": str(tiny_model), "seed": 7, "frames": 40, **settings}
        )

    return make


# What a request is


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompts_at": {1: ""}}, "a later prompt is empty"),
        ({"image": "a.png", "video": "b.mp4"}, "not both"),
        ({"image": ""}, "the name of the image is empty"),
        ({"frames": 0}, "--frames is 0; it must lie between"),
        ({"height": 0}, "height is 0; it must lie between"),
        ({"width": -8}, "--size is -8; it must lie between"),
        ({"steps": 0}, "--steps is 0; it must lie between"),
        ({"fps": 0}, "fps is 0; it must lie between 0.1 and 240"),
        ({"fps": float("nan")}, "fps is NaN; it must lie between 0.1 and 240"),
        ({"seed": -1}, "seed is -1; it must lie between 0 and 18446744073709551615"),
        ({"seed": 2**64}, "must lie between 0 and 18446744073709551615"),
        ({"fit": "squash"}, "it can be 'crop', 'pad' or 'stretch'"),
    ],
)
def test_values_that_no_model_could_use(settings, said):
    with pytest.raises(InputError, match=re.escape(said)):
        build_request(**{"prompt": "a ball", **settings})


def test_every_request_has_a_seed_of_its_own():
    assert len({build_request("a ball").seed for _ in range(10)}) == 10
    assert all(0 <= build_request("a ball").seed < 2**32 for _ in range(10))


def test_a_request_comes_back_from_its_metadata(request_):
    import json

    request = request_(prompts_at={2: "it falls"}, guidance=2.5, height=32, negative_prompt="fog", fit="pad")
    stored = json.loads(json.dumps({"request": request.stored()}))
    assert from_metadata(stored) == request
    stored["request"]["of a later version"] = 1
    assert from_metadata(stored) == request


def test_names_from_prompts(tmp_path):
    assert requests.slug("A red ball, bounces!") == "a-red-ball-bounces"
    assert requests.slug("...") == "video"
    assert requests.slug("ein grüner Würfel") == "ein-grüner-würfel"
    assert len(requests.slug("word " * 100)) <= 60
    assert requests.slug("../../etc/passwd") == "etc-passwd"
    names = []
    for _ in range(3):
        names.append(requests.free_name(tmp_path, "a ball"))
        names[-1].touch()
    assert [name.name for name in names] == ["a-ball.mp4", "a-ball-2.mp4", "a-ball-3.mp4"]


def test_equal_frames_are_counted(tmp_path, make_moving_clip):
    clip = make_moving_clip(8)
    other = clip.copy()
    other[2] = 0
    for name, frames in {"a": clip, "b": other, "c": clip[:5]}.items():
        with VideoWriter(tmp_path / f"{name}.gif/", 24) as writer:
            writer.write(frames)
    count = functools.partial(requests.count_equal_frames, tmp_path / "a.gif")
    assert count(tmp_path / "a.gif") == (8, 8)
    assert count(tmp_path / "b.gif") == (7, 8)
    assert count(tmp_path / "c.gif") == (5, 8)


@pytest.mark.parametrize("count", [1, 5, 12, 24, 25, 100, 1000])
def test_sampled_frames_are_evenly_spaced_and_few(count):
    sampled = Sampled(12)
    for start in range(0, count, 7):
        sampled.add(np.arange(start, min(start + 7, count)))
    assert len(sampled.frames) <= 24
    assert len(sampled.frames) >= min(count, 12)
    assert sampled.frames[0] == 0
    assert len(set(np.diff(sampled.frames))) <= 1


# Carrying it out


def test_a_given_pipeline_is_used(request_, tiny_pipe, tmp_path, monkeypatch):
    monkeypatch.setattr("animagic.zoo.load", None)
    result = requests.generate(request_(), tmp_path / "ball.mp4", pipe=tiny_pipe)
    assert (result.frames, result.height, result.width, result.fps, result.seed) == (40, 32, 48, 24, 7)
    assert result.seconds > 0
    stored = read_metadata(tmp_path / "ball.mp4")
    assert from_metadata(stored) == request_()
    assert stored["plan"]["num_chunks"] == 5
    assert set(stored["versions"]) == {"animagic", "torch", "diffusers"}
    assert stored["inputs"] == {}


def test_reports_count_up_to_everything(request_, tiny_pipe, tmp_path):
    reports: list[Report] = []
    requests.generate(request_(frames=36), tmp_path / "ball.mp4", pipe=tiny_pipe, on_report=reports.append)
    assert [r.step for r in reports] == list(range(1, reports[-1].total_steps + 1))
    assert [r.frames for r in reports] == sorted(r.frames for r in reports)
    assert reports[0].frames == 0
    assert reports[-1].frames == reports[-1].total_frames == 36
    assert reports[-1].seconds_left == 0
    assert all(r.frames_per_second >= 0 for r in reports)


def test_pieces_are_written_while_the_rest_is_made(request_, tiny_pipe, tmp_path, monkeypatch):
    events = []
    write = VideoWriter.write
    monkeypatch.setattr(VideoWriter, "write", lambda self, x: (events.append(len(x)), write(self, x))[-1])
    reports = lambda report: events.append("step")  # noqa: E731
    requests.generate(request_(), tmp_path / "ball.mp4", pipe=tiny_pipe, on_report=reports)
    assert [event for event in events if event != "step"] == [8] * 5
    assert events.index(8) < len(events) / 2 + 1
    assert events[-1] == 8


def test_what_was_given_is_remembered(request_, tiny_pipe, tmp_path, make_moving_clip):
    picture = tmp_path / "photo.png"
    write_image(picture, make_moving_clip(1)[0])
    request = request_(image=str(picture), frames=8)
    requests.generate(request, tmp_path / "ball.mp4", pipe=tiny_pipe)
    stored = read_metadata(tmp_path / "ball.mp4")
    requests.check_inputs(request, stored)
    write_image(picture, make_moving_clip(2)[1])
    with pytest.raises(InputError, match=r"the image .*photo\.png is missing or has changed"):
        requests.check_inputs(request, stored)


@pytest.mark.parametrize("name", ["ball.mp4", "ball.gif", "ball-%02d.png"])
def test_a_prompt_that_was_typed_meanwhile_is_in_the_file_whatever_its_format(request_, tiny_pipe, tmp_path, name):
    live = animagic.LivePrompt("a red ball bounces")

    def on_report(report):
        if report.step == 1:
            live.set("a blue cat")

    result = requests.generate(request_(), tmp_path / name, pipe=tiny_pipe, live=live, on_report=on_report)
    stored = from_metadata(read_metadata(tmp_path / name))
    assert (stored.prompt, list(stored.prompts_at.values())) == ("a red ball bounces", ["a blue cat"])
    assert result.frames == 40
    again = tmp_path / f"again-{name}"
    requests.generate(stored, again, pipe=tiny_pipe)
    assert requests.count_equal_frames(tmp_path / name, again) == (40, 40)


def test_an_input_is_hashed_once_and_piece_by_piece(request_, tiny_pipe, tmp_path, make_moving_clip, monkeypatch):
    picture = tmp_path / "photo.png"
    write_image(picture, make_moving_clip(1)[0])
    asked = request_(image=str(picture), frames=8)
    fingerprint = hashlib.sha256(picture.read_bytes() + bytes(5 << 20)).hexdigest()
    reads: list[int] = []

    class Counted(io.FileIO):
        def read(self, size=-1):
            reads.append(size)
            return super().read(size)

    with picture.open("ab") as file:
        file.write(bytes(5 << 20))  # readers of pictures do not mind
    plain = Path.open
    counted = lambda path, *a, **k: Counted(str(path), "r") if path == picture else plain(path, *a, **k)  # noqa: E731
    monkeypatch.setattr(Path, "open", counted)
    requests.generate(asked, tmp_path / "ball.mp4", pipe=tiny_pipe)
    monkeypatch.undo()
    assert read_metadata(tmp_path / "ball.mp4")["inputs"] == {"image": fingerprint}
    pieces = [size for size in reads if size > 0]
    assert max(pieces) <= 1 << 20
    assert 5 <= len(pieces) <= 8, "read more than once"


# Interrupted and resumed


def run(request, output, pipe, stop_at: int | None = None, **options) -> int:
    """Carry out a request; interrupted after a step, if asked. Returns the steps made."""
    steps = 0

    def on_report(report):
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise KeyboardInterrupt

    try:
        requests.generate(request, output, pipe=pipe, on_report=on_report, **options)
    except KeyboardInterrupt:
        assert steps == stop_at
    return steps


@pytest.fixture
def save_always(monkeypatch):
    """The state is kept after every step, not only when a chunk is clean and every 30 seconds."""
    import animagic.timeline

    monkeypatch.setattr(animagic.timeline, "RunFolder", functools.partial(animagic.timeline.RunFolder, every=0))


@pytest.mark.parametrize("given", ["words", "image", "video"])
@pytest.mark.parametrize("every_step", [False, True], ids=["at chunks", "at every step"])
@pytest.mark.integration
def test_interrupted_anywhere_the_bytes_are_the_same(
    request_, tiny_pipe, tmp_path, make_moving_clip, given, every_step, request
):
    if every_step:
        request.getfixturevalue("save_always")
    write_image(tmp_path / "photo.png", make_moving_clip(1)[0])
    with VideoWriter(tmp_path / "clip.mp4", 24) as writer:
        writer.write(make_moving_clip(10))
    inputs = {"image": {"image": "photo.png"}, "video": {"video": "clip.mp4"}, "words": {}}[given]
    asked = request_(steps=8, **{name: str(tmp_path / file) for name, file in inputs.items()})

    total = run(asked, tmp_path / "whole.mp4", tiny_pipe)
    whole = (tmp_path / "whole.mp4").read_bytes()
    for stop_at in range(1, total + 1, 3):  # a stage has two steps: both are met
        output = tmp_path / f"{stop_at}.mp4"
        run(asked, output, tiny_pipe, stop_at, resume=True)
        assert not output.exists()
        assert requests.resume_folder(output).is_dir()
        assert requests.kept_seed(output) == 7
        left = run(asked, output, tiny_pipe, resume=True)
        if every_step:
            assert left <= total - stop_at + 1
        assert output.read_bytes() == whole, f"interrupted after step {stop_at}"
        assert not requests.resume_folder(output).exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_interrupted_again_and_again(request_, tiny_pipe, tmp_path, save_always):
    total = run(request_(), tmp_path / "whole.mp4", tiny_pipe)
    output, made = tmp_path / "ball.mp4", 0
    while not output.exists():
        made += run(request_(), output, tiny_pipe, 2, resume=True)
        assert made < 3 * total
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "the blue cat"},
        {"seed": 8},
        {"frames": 41},
        {"steps": 8},
        {"guidance": 2.0},
        {"prompts_at": {1: "it falls"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_request_does_not_go_on_with_a_kept_run(request_, tiny_pipe, tmp_path, change):
    output = tmp_path / "ball.mp4"
    run(request_(), output, tiny_pipe, 6, resume=True)
    before = sorted(requests.resume_folder(output).iterdir())
    with pytest.raises(InputError, match=r"ball\.mp4\.resume keeps a run with other settings; repeat those, or delete"):
        requests.generate(request_(**change), output, pipe=tiny_pipe, resume=True)
    assert sorted(requests.resume_folder(output).iterdir()) == before
    assert not output.exists()


def test_another_picture_of_the_same_name_does_not_go_on_with_a_kept_run(
    request_, tiny_pipe, tmp_path, make_moving_clip
):
    picture, output = tmp_path / "photo.png", tmp_path / "ball.mp4"
    write_image(picture, make_moving_clip(1)[0])
    run(request_(image=str(picture)), output, tiny_pipe, 6, resume=True)
    write_image(picture, make_moving_clip(2)[1])
    with pytest.raises(InputError, match="other settings"):
        requests.generate(request_(image=str(picture)), output, pipe=tiny_pipe, resume=True)


def test_a_refused_request_leaves_no_kept_run_behind(request_, tiny_pipe, tmp_path, make_moving_clip):
    with VideoWriter(tmp_path / "clip.mp4", 24) as writer:
        writer.write(make_moving_clip(40))
    output = tmp_path / "ball.mp4"
    with pytest.raises(InputError, match="ask for more frames"):
        requests.generate(request_(video=str(tmp_path / "clip.mp4"), frames=20), output, pipe=tiny_pipe, resume=True)
    assert not requests.resume_folder(output).exists()
    assert requests.generate(request_(), output, pipe=tiny_pipe, resume=True).frames == 40


def test_without_resume_an_interruption_leaves_nothing(request_, tiny_pipe, tmp_path):
    for stop_at in (1, 4, 7):
        run(request_(), tmp_path / "ball.mp4", tiny_pipe, stop_at, preview=tmp_path / "look.png")
        assert list(tmp_path.iterdir()) == []


# Plans


def test_a_plan_is_drawn_without_the_weights(tiny_model, tmp_path):
    import shutil

    shutil.copy(tiny_model / "model_index.json", tmp_path)
    counts = requests.draw_plan(build_request("any", str(tmp_path)), "staircase", tmp_path / "plan.png")
    assert counts == {"steps": 5, "network_calls": 5, "calls_to_first_frame": 4, "peak_frames": 4, "frames": 4}
    assert len(next(iter_video(tmp_path / "plan.png"))) > 50
    assert Path(tmp_path / "plan.png").exists()
