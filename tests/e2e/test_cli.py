"""The command line from end to end: every command, on a small random model where quality does not matter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animagic import __version__
from animagic.media import VideoWriter, probe, read_image, read_metadata, read_video, resize, write_image

KINDS = ["ball.mp4", "ball.webm", "ball.gif", "pictures/", "ball-%04d.png"]
WIDTH, HEIGHT, FRAMES = 48, 32, 16  # of the random model
PATIENCE = 180  # seconds: the machine may be busy


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def nearly_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Up to rounding: networks that are called with other shapes may differ in the last bit."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def picture(tmp_path, make_moving_clip) -> str:
    write_image(tmp_path / "photo.png", make_moving_clip(1)[0])
    return "photo.png"


@pytest.fixture
def clip(tmp_path, make_moving_clip) -> str:
    with VideoWriter(tmp_path / "clip.mp4", 24) as writer:
        writer.write(make_moving_clip(40))
    return "clip.mp4"


# generate: what it writes


@pytest.mark.parametrize("output", KINDS)
def test_words_become_a_video(generate, frames_of, output):
    ran = generate("-o", output)
    assert (ran.code, ran.out) == (0, f"{output}\n")
    assert "seed 7" in ran.err
    frames = frames_of(output)
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 5, "nothing moves"
    facts = probe(output)
    assert (facts["width"], facts["height"], facts["frames"]) == (WIDTH, HEIGHT, FRAMES)
    assert facts["fps"] == pytest.approx(24, abs=0.1)


def test_an_mp4_plays_everywhere_and_from_the_start(generate):
    assert generate("-o", "ball.mp4").code == 0
    data = Path("ball.mp4").read_bytes()
    assert data[4:8] == b"ftyp"
    assert data.index(b"moov") < data.index(b"mdat")
    assert probe("ball.mp4")["codec"] == "h264"


def test_only_the_output_is_left_in_the_folder(generate, tmp_path):
    assert generate("-o", "ball.mp4", "--preview", "--contact-sheet", "sheet.png", "--resume").code == 0
    assert listing(tmp_path) == {"ball.mp4", "sheet.png"}


def test_an_existing_file_is_replaced(generate, tmp_path):
    (tmp_path / "ball.mp4").write_text("old")
    assert generate("-o", "ball.mp4").code == 0
    assert probe("ball.mp4")["frames"] == FRAMES


def test_without_an_output_the_prompt_names_the_file(generate, tmp_path):
    assert generate(prompt="A red ball, bounces!").out == "a-red-ball-bounces.mp4\n"
    assert generate(prompt="A red ball, bounces!").out == "a-red-ball-bounces-2.mp4\n"
    assert listing(tmp_path) == {"a-red-ball-bounces.mp4", "a-red-ball-bounces-2.mp4"}


@pytest.mark.parametrize("frames", [1, 7, 24, 25, 48])
def test_as_many_frames_as_were_asked_for(generate, frames_of, frames):
    ran = generate("-o", "ball.mp4", "--frames", frames, "--json")
    assert json.loads(ran.out)["frames"] == probe("ball.mp4")["frames"] == len(frames_of("ball.mp4")) == frames


@pytest.mark.parametrize(("size", "width", "height"), [("64x32", 64, 32), ("16X16", 16, 16), ("32x80", 32, 80)])
def test_the_size_is_width_times_height(generate, frames_of, size, width, height):
    assert generate("-o", "ball.mp4", "--size", size, "--frames", 8).code == 0
    assert frames_of("ball.mp4").shape == (8, height, width, 3)


def test_fps_changes_only_how_fast_it_is_played(generate, frames_of):
    generate("-o", "usual/")
    ran = generate("-o", "slow/", "--fps", 12, "--json")
    assert json.loads(ran.out)["fps"] == probe("slow/")["fps"] == 12
    assert np.array_equal(frames_of("usual/"), frames_of("slow/"))
    generate("-o", "slow.mp4", "--fps", 12.5)
    assert probe("slow.mp4")["fps"] == 12.5


# generate: what it says


def test_json_is_one_line_with_what_came_out(generate):
    ran = generate("-o", "ball.mp4", "--json", "--contact-sheet", "sheet.png")
    assert ran.code == 0
    assert ran.out.count("\n") == 1
    line = json.loads(ran.out)
    assert line.pop("seconds") > 0
    assert line == {
        "output": "ball.mp4", "frames": FRAMES, "height": HEIGHT, "width": WIDTH, "fps": 24, "seed": 7,
        "contact_sheet": "sheet.png",
    }  # fmt: skip


def test_quiet_says_nothing(generate):
    ran = generate("-o", "ball.mp4", "--quiet", "--preview")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert probe("ball.mp4")["frames"] == FRAMES


def test_a_contact_sheet_shows_frames_side_by_side(generate):
    ran = generate("-o", "ball.mp4", "--frames", 48, "--contact-sheet", "sheet.png")
    assert ran.out == "ball.mp4\nsheet.png\n"
    sheet = read_image("sheet.png")
    assert sheet.shape[0] > HEIGHT
    assert sheet.shape[1] > 5 * WIDTH
    assert sheet.std() > 10


def test_a_preview_is_renewed_while_the_video_is_made_and_then_removed(generate, monkeypatch):
    import animagic.media

    write, drawn = animagic.media.write_image, []

    def record(path, array, *rest):
        write(path, array, *rest)
        drawn.append((str(path), read_image(path).shape))

    monkeypatch.setattr(animagic.media, "write_image", record)
    ran = generate("-o", "ball.mp4", "--preview", "--frames", 64)
    assert ran.code == 0
    assert "preview: ball.mp4.preview.png\n" in ran.err
    assert drawn, "no preview was drawn"
    assert {path for path, _ in drawn} == {"ball.mp4.preview.png"}
    assert min(shape[1] for _, shape in drawn) > WIDTH
    assert not Path("ball.mp4.preview.png").exists()


# generate: what decides the frames


def test_the_same_seed_makes_the_same_file(generate):
    generate("-o", "one.mp4")
    generate("-o", "two.mp4")
    assert Path("one.mp4").read_bytes() == Path("two.mp4").read_bytes()


def test_another_seed_makes_other_frames(generate, frames_of):
    generate("-o", "one/")
    generate("-o", "two/", seed=8)
    assert psnr(frames_of("one/"), frames_of("two/")) < 25


def test_without_a_seed_every_video_is_another_and_its_seed_is_told(generate, frames_of):
    first, second = (json.loads(generate("-o", f"{name}/", "--json", seed=None).out) for name in ("one", "two"))
    assert first["seed"] != second["seed"]
    assert not np.array_equal(frames_of("one/"), frames_of("two/"))
    generate("-o", "again/", seed=first["seed"])
    assert np.array_equal(frames_of("one/"), frames_of("again/"))


def test_a_longer_video_begins_like_a_shorter_one(generate, frames_of):
    generate("-o", "short/", "--frames", 24)
    generate("-o", "long/", "--frames", 48)
    assert nearly_equal(frames_of("long/")[:24], frames_of("short/"))


def test_a_later_prompt_changes_only_later_chunks(generate, frames_of):
    generate("-o", "one/", "--frames", 32)
    ran = generate("-o", "two/", "--frames", 32, "--prompt-at", "2:the blue cat rolls", "--prompt-at", "3:it falls")
    assert ran.code == 0
    one, two = frames_of("one/"), frames_of("two/")
    assert nearly_equal(one[:16], two[:16])
    assert not nearly_equal(one[16:24], two[16:24])
    assert read_metadata("two/")["request"]["prompts_at"] == {"2": "the blue cat rolls", "3": "it falls"}


@pytest.mark.parametrize(
    "option",
    [("--negative-prompt", "the blue cat"), ("--guidance", 1), ("--steps", 8), ("--size", "64x32")],
    ids=lambda option: option[0],
)
def test_each_option_changes_the_frames(generate, frames_of, option):
    generate("-o", "plain/")
    assert generate("-o", "other/", *option).code == 0
    plain, other = frames_of("plain/"), frames_of("other/")
    assert plain.shape != other.shape or not nearly_equal(plain, other)


def test_another_prompt_changes_the_frames(generate, frames_of):
    generate("-o", "one/")
    generate("-o", "two/", prompt="the green square falls")
    assert not nearly_equal(frames_of("one/"), frames_of("two/"))


# generate: from a picture


def odd_pictures(picture: np.ndarray) -> dict[str, Image.Image]:
    whole = Image.fromarray(picture)
    seen = Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1)))
    portrait = whole.resize((40, 90))
    return {
        "plain.png": whole,
        "plain.jpg": whole,
        "grey.png": whole.convert("L"),
        "transparent.png": Image.merge("RGBA", (*whole.split(), seen)),
        "palette.gif": whole,
        "portrait.png": portrait,
        "odd.png": whole.resize((63, 65)),
        "one-pixel.png": whole.resize((1, 1)),
    }


@pytest.mark.parametrize("name", list(odd_pictures(np.zeros((HEIGHT, WIDTH, 3), np.uint8))))
def test_any_picture_begins_to_move(generate, frames_of, make_moving_clip, tmp_path, name):
    odd_pictures(make_moving_clip(1)[0])[name].save(tmp_path / name)
    ran = generate("--image", name, "-o", "moves/", "--json")
    assert json.loads(ran.out)["frames"] == FRAMES
    frames, given = frames_of("moves/"), resize(read_image(name), HEIGHT, WIDTH)
    assert psnr(frames[0], given) > 20, "the picture is not the first frame"
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 3, "nothing moves"


def test_fit_says_how_a_picture_is_brought_to_size(generate, frames_of, make_moving_clip):
    write_image("tall.png", resize(make_moving_clip(1)[0], 90, 40, "stretch"))
    first = {}
    for fit in ("crop", "pad", "stretch"):
        assert generate("--image", "tall.png", "-o", f"{fit}/", "--fit", fit, "--frames", 8).code == 0
        first[fit] = frames_of(f"{fit}/")[0]
    for fit, frame in first.items():
        likeness = {other: psnr(frame, resize(read_image("tall.png"), HEIGHT, WIDTH, other)) for other in first}
        assert max(likeness, key=likeness.__getitem__) == fit, likeness


# generate: from a clip


@pytest.mark.parametrize("fps", [24, 12, 30])
@pytest.mark.parametrize("name", ["given.mp4", "given.gif", "given/"])
def test_a_clip_goes_on(generate, frames_of, make_moving_clip, name, fps):
    with VideoWriter(name, fps) as writer:
        writer.write(make_moving_clip(20))
    ran = generate("--video", name, "-o", "longer/", "--json")
    given = read_video(name, fps=24, max_frames=32, last=True).frames
    kept = given[len(given) % 4 :]  # whole latent frames of them, the last ones
    frames = frames_of("longer/")
    assert json.loads(ran.out)["frames"] == len(frames) == FRAMES + len(given)
    assert np.array_equal(frames[: len(kept)], kept)
    assert np.abs(frames[-1].astype(int) - frames[len(kept)]).mean() > 3, "nothing moves"


def test_of_a_long_clip_the_last_frames_are_kept(generate, frames_of, clip):
    assert generate("--video", clip, "-o", "longer/", "--frames", 41).code == 0
    frames = frames_of("longer/")
    assert len(frames) == 41
    assert np.array_equal(frames[:32], frames_of(clip)[-32:])


def test_a_clip_of_another_size_is_cropped(generate, frames_of, make_moving_clip):
    with VideoWriter("odd.mp4", 24) as writer:
        writer.write(make_moving_clip(8, 65, 63))
    assert generate("--video", "odd.mp4", "-o", "longer/").code == 0
    assert np.array_equal(frames_of("longer/")[:8], resize(frames_of("odd.mp4"), HEIGHT, WIDTH))


# info and reproduce


@pytest.mark.parametrize("output", KINDS)
def test_a_file_tells_what_it_was_made_from(generate, run, output):
    generate("-o", output, "--frames", 16, "--prompt-at", "1:it falls", "--guidance", 2.5)
    ran = run("info", output, "--json")
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    facts = json.loads(ran.out)
    assert (facts["width"], facts["height"], facts["frames"]) == (WIDTH, HEIGHT, 16)
    request = facts["metadata"]["request"]
    assert (request["prompt"], request["seed"], request["guidance"]) == ("a red ball bounces", 7, 2.5)
    assert request["prompts_at"] == {"1": "it falls"}
    assert facts["metadata"]["versions"]["animagic"] == __version__
    assert facts["metadata"]["plan"]["kind"] == "Staircase"


def test_info_for_people(generate, run):
    generate("-o", "ball.mp4")
    ran = run("info", "ball.mp4")
    assert (ran.code, ran.err) == (0, "")
    for text in ("48", "h264", "a red ball bounces", "seed", __version__, "Staircase"):
        assert text in ran.out


def test_info_on_a_foreign_file(run, clip, picture):
    ran = run("info", clip)
    assert ran.code == 0
    assert "not made by animagic" in ran.out
    assert json.loads(run("info", picture, "--json").out)["metadata"] == {}


@pytest.mark.parametrize("output", KINDS)
def test_reproduce_makes_the_same_frames(generate, run, tmp_path, output):
    generate("-o", output, "--frames", 12, "--fps", 10, seed=None)
    before = listing(tmp_path)
    ran = run("reproduce", output, "--json")
    assert ran.code == 0, ran
    answer = json.loads(ran.out)
    assert (answer["equal_frames"], answer["frames"]) == (12, 12)
    assert probe(answer["output"])["frames"] == 12
    assert "again" in answer["output"]
    assert before < listing(tmp_path)


def test_reproduce_for_people_and_under_a_given_name(generate, run):
    generate("-o", "ball.mp4")
    ran = run("reproduce", "ball.mp4", "-o", "other.mp4")
    assert (ran.code, ran.out) == (0, "other.mp4\n")
    assert f"{FRAMES} of {FRAMES} frames are equal" in ran.err
    assert Path("other.mp4").read_bytes() == Path("ball.mp4").read_bytes()


@pytest.mark.parametrize("kind", ["image", "video"])
def test_reproduce_needs_the_same_input(generate, run, picture, clip, make_moving_clip, kind):
    given = {"image": picture, "video": clip}[kind]
    generate(f"--{kind}", given, "-o", "moves.mp4")
    assert json.loads(run("reproduce", "moves.mp4", "--json").out)["equal_frames"] == probe("moves.mp4")["frames"]
    Path("moves-again.mp4").unlink()

    Path(given).write_bytes(Path(given).read_bytes() + b"x")
    run("reproduce", "moves.mp4").refused(kind, given, "changed")
    Path(given).unlink()
    run("reproduce", "moves.mp4").refused(kind, given, "missing")
    assert not Path("moves-again.mp4").exists()


# models, plan, doctor


def test_models_lists_the_embedded_ones(run):
    ran = run("models")
    assert (ran.code, ran.err) == (0, "")
    assert "magi1-tiny" in ran.out
    entry = json.loads(run("models", "--json").out)["magi1-tiny"]
    assert entry["system"] == "magi1"
    assert entry["bytes"] > 2**20


@pytest.mark.parametrize("kind", ["staircase", "whole"])
def test_plan_draws_and_counts(run, tiny_model, kind):
    from animagic import Staircase, WholeClip

    # 40 frames are 10 latent frames, 5 chunks.
    ran = run("plan", "--model", tiny_model, "--frames", 40, "--steps", 8, "--kind", kind, "--json")
    assert (ran.code, ran.err) == (0, "")
    counts = json.loads(ran.out)
    expected = Staircase(5, 8, chunk_width=2) if kind == "staircase" else WholeClip(10, 8)
    summary = expected.describe()
    assert counts == {
        "output": "plan.png",
        **{name: getattr(summary, name) for name in summary.__dataclass_fields__},
    }
    drawn = read_image("plan.png")
    assert min(drawn.shape[:2]) > 50
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 8, "levels are colours"


def test_plan_for_people(run, tiny_model):
    ran = run("plan", "-o", "stairs.png")
    assert ran.code == 0
    for text in ("network calls", "calls to first frame", "peak latent frames", "stairs.png"):
        assert text in ran.out
    assert read_image("stairs.png").std() > 10


def test_a_staircase_holds_fewer_frames_than_the_whole_clip(run):
    stairs, whole = (
        json.loads(run("plan", "--frames", 480, "--kind", k, "--json").out) for k in ("staircase", "whole")
    )
    assert stairs["frames"] == whole["frames"] == 120
    assert stairs["peak_frames"] * 4 <= whole["peak_frames"]


def test_doctor_examines_the_machine(run):
    ran = run("doctor")
    assert (ran.code, ran.err) == (0, "")
    report = json.loads(run("doctor", "--json").out)
    assert set(report) == {"machine", "devices", "attention kernels", "models"}
    assert report["machine"]["animagic"] == __version__
    assert report["models"]["magi1-tiny"].startswith("yes")
    assert any("MAGI-1" in name for name in report["models"])
    for section, values in report.items():
        assert section in ran.out
        assert all(name in ran.out for name in values)


# The shell around it


def test_version_and_help(run):
    ran = run("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"{__version__}\n", "")
    ran = run("--help")
    assert ran.code == 0
    commands = ("generate", "models", "plan", "info", "reproduce", "doctor", "train")
    assert all(command in ran.out for command in commands)
    for command in commands:
        ran = run(command, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert command in ran.out


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["train", "--help"], ["--version"]])
def test_help_is_quick(words):
    """It imports nothing heavy."""
    heavy = ("torch", "diffusers", "transformers", "accelerate", "av", "numpy")
    code = f"import sys, animagic.cli\nassert animagic.cli.main({words!r}) == 0\n"
    code += f"print(*[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "\n")


def test_alone_it_prints_its_help_on_stderr(run):
    ran = run()
    assert (ran.code, ran.out) == (2, "")
    assert "generate" in ran.err
    assert ran.err.count("\n") > 10


def test_only_the_result_goes_to_stdout(start, tiny_model, tmp_path):
    process = start("generate", "a red ball", "--model", tiny_model, "-o", "ball.mp4", "--json", "--preview")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out)["output"] == "ball.mp4"
    assert err.splitlines() == ["preview: ball.mp4.preview.png"]
    assert listing(tmp_path) == {"ball.mp4"}


def test_wrong_input_is_one_line_on_stderr(run, tiny_model, tmp_path):
    ran = run("generate", "a red ball", "--model", tiny_model, "--steps", 3, "-o", "ball.mp4", "--preview")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "animagic: the number of steps must be at least 4, not 3.\n"
    assert listing(tmp_path) == set()


# Ctrl-C


def test_interrupted_it_leaves_nothing(start, tiny_model, tmp_path):
    (tmp_path / "ball.mp4").write_text("an older file")
    arguments = ("--model", tiny_model, "--frames", 100_000, "-o", "ball.mp4", "--preview")
    process = start("generate", "a red ball", *arguments)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "ball.mp4.preview.png").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("animagic: interrupted")
    assert listing(tmp_path) == {"ball.mp4"}
    assert (tmp_path / "ball.mp4").read_text() == "an older file"


def test_interrupted_and_resumed_it_writes_the_same_bytes(interrupt, generate, tiny_model, tmp_path):
    arguments = ("--frames", 480, "-o", "ball.mp4")
    generate("--frames", 480, "-o", "whole.mp4")
    whole = Path("whole.mp4").read_bytes()
    Path("whole.mp4").unlink()

    kept = tmp_path / "ball.mp4.resume"
    words = ("generate", "a red ball bounces", "--model", tiny_model, *arguments, "--seed", 7, "--resume")
    ran = interrupt((kept / "clean-00000010.safetensors").exists, *words)
    assert (ran.code, ran.out) == (130, ""), ran
    assert not (tmp_path / "ball.mp4").exists()
    assert {path.split("/")[0] for path in listing(tmp_path)} == {"ball.mp4.resume"}
    done = len(list(kept.glob("clean-*")))
    assert 5 < done < 60, "it was over before it was interrupted"

    generate(*arguments, "--resume", prompt="the blue cat", seed=None).refused("ball.mp4.resume", "other settings")
    generate(*arguments, "--resume", "--steps", 8, seed=None).refused("ball.mp4.resume", "other settings")
    assert len(list(kept.glob("clean-*"))) == done

    ran = generate(*arguments, "--resume", "--json", seed=None)  # the seed is that of the kept run
    assert ran.code == 0, ran
    assert json.loads(ran.out)["seed"] == 7
    assert Path("ball.mp4").read_bytes() == whole
    assert listing(tmp_path) == {"ball.mp4"}


# Training


RECIPE = """
system: magi1
text_encoder: {base}
vae:
  model: {{embed_dim: 256, depth: 1, encoder_depth: 0, num_heads: 4, mlp_ratio: 1, video_length: 8, video_size: 32,
           z_chans: 4, linear_path: true, scaling_factor: 1.0}}
  pca_batches: 1
  objective: {{motion: 4.0}}
  data: &data {{chunks_per_batch: 1, chunk_frames: 8, height: 32, width: 32}}
  training: &training {{steps: 2, log_every: 1, save_every: 2, workers: 0}}
transformer:
  model: {{num_layers: 1, hidden_size: 32, ffn_hidden_size: 48, num_attention_heads: 4, num_query_groups: 2,
           kv_channels: 8, in_channels: 4, out_channels: 4, caption_channels: 8, caption_max_length: 12,
           chunk_width: 2}}
  objective: {{drop_text: 0.1, prefix: 0.2, text_length: 12}}
  data: *data
  training: *training
sampling:
  runtime_config: {{num_frames: 8, video_size_h: 32, video_size_w: 32, num_steps: 4, scale_factor: 1.0,
                   chunk_width: 2, cfg_t_range: [0.0], prev_chunk_scales: [1.0], text_scales: [3.0]}}
"""


def test_a_model_is_trained_and_used(run, tiny_model, frames_of):
    pytest.importorskip("skia", reason="drawing needs skia-python: pip install -e '.[train]'")
    Path("small.yaml").write_text(RECIPE.format(base=tiny_model))
    ran = run("train", "small.yaml", "--folder", "trained", "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out) == {"output": "trained/model"}
    for part in ("vae", "transformer"):
        assert f"{part}  step 2" in ran.err
        log = [json.loads(line) for line in Path("trained", part, "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in log] == [1, 2]

    ran = run("generate", "a red ball", "--model", "trained/model", "-o", "ball.mp4", "--json")
    assert ran.code == 0, ran
    assert frames_of("ball.mp4").shape == (8, 32, 32, 3)
    assert read_metadata("ball.mp4")["request"]["model"] == "trained/model"

    more = run("train", "small.yaml", "--folder", "trained", "--part", "transformer", "--steps", 3)
    assert (more.code, more.out) == (0, "trained/model\n"), more
    assert "transformer  step 3" in more.err
    assert "step 2" not in more.err, "it did not go on where it stopped"


# The embedded model


def test_the_embedded_model_needs_nothing_but_words(run, frames_of):
    ran = run("generate", "a red ball bounces on a green floor", "-o", "ball.mp4", "--seed", 1, "--json",
              "--frames", 24, "--steps", 8)  # fmt: skip
    assert ran.code == 0, ran
    frames = frames_of("ball.mp4")
    assert frames.shape == (24, 64, 64, 3)
    assert frames.std() > 10
    assert read_metadata("ball.mp4")["request"]["model"] == "magi1-tiny"
