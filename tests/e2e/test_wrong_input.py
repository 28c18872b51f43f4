"""Wrong input: exit code 2, one sentence on stderr, nothing on stdout, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from animagic.media import VideoWriter, probe, write_image

MODEL = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def untouched(tmp_path, make_moving_clip):
    """A folder with inputs and an older output; after the test it must be as it was."""
    write_image(tmp_path / "photo.png", make_moving_clip(1)[0])
    for name, frames in {"clip.mp4": 40, "short.mp4": 3}.items():
        with VideoWriter(tmp_path / name, 24) as writer:
            writer.write(make_moving_clip(frames))
    whole = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "header.mp4").write_bytes(whole[:100])
    (tmp_path / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.txt").write_text("no video")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "ball.mp4").write_text("an older video")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("something")
    before = contents(tmp_path)
    yield tmp_path
    assert contents(tmp_path) == before, "the folder has changed"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def cases(*rows) -> list:
    """Rows of (words of the command, words of the sentence), named by the command."""
    return [pytest.param(words, said, id=" ".join(words) or "nothing") for words, *said in rows]


# generate


@pytest.mark.parametrize(
    ("words", "said"),
    cases(
        (["--frames", "0"], "--frames is 0; it must lie between"),
        (["--frames", "-3"], "--frames is -3; it must lie between"),
        (["--frames", "many"], "--frames", "integer"),
        (["--frames", "1.5"], "--frames", "integer"),
        (["--size", "0x0"], "is 0; it must lie between"),
        (["--size", "-8x8"], "--size is -8; it must lie between"),
        (["--size", "63x64"], "63x64 is not possible", "multiples of 16", "64x64"),
        (["--size", "64x63"], "64x63 is not possible", "64x64"),
        (["--size", "8x8"], "8x8 is not possible", "16x16"),
        *[
            (["--size", size], "WIDTHxHEIGHT")
            for size in ("abc", "64", "64x", "x", "", "--8x8", "²x8", "6x6x6", "1e2x64")
        ],
        (["--steps", "0"], "--steps is 0; it must lie between"),
        (["--steps", "3"], "at least 4, not 3"),
        (["--steps", "-4"], "--steps is -4; it must lie between"),
        *[(["--guidance", scale], "it must lie between 0 and 100") for scale in ("-1", "nan", "inf", "101")],
        *[(["--fps", fps], "it must lie between 0.1 and 240") for fps in ("0", "-24", "nan", "inf", "1000")],
        *[
            (["--seed", seed], "it must lie between 0 and 18446744073709551615")
            for seed in ("-1", str(2**64), "9" * 40)
        ],
        (["--seed", "seven"], "--seed", "integer"),
        *[
            (["--prompt-at", text], "--prompt-at N:TEXT")
            for text in ("words", "1", "1:", "1: ", ":words", "one:words", "-1:words", "²:words", "")
        ],
        (["--fit", "squash"], "--fit is squash; it can be 'crop', 'pad' or 'stretch'"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--device", "abacus"], "the device abacus cannot be used here"),
    ),
)
def test_values(generate, untouched, words, said):
    generate("-o", "ball.mp4", *words).refused(*said)


@pytest.mark.parametrize("prompt", ["", " ", "\t\n"])
def test_an_empty_prompt(generate, untouched, prompt):
    generate("-o", "ball.mp4", prompt=prompt).refused("the prompt is empty")


@pytest.mark.parametrize(
    ("words", "said"),
    cases(
        (["--image", "no.png"], "no.png does not exist"),
        (["--image", "no/photo.png"], "no/photo.png does not exist"),
        (["--image", "text.png"], "text.png is damaged or of an unknown kind"),
        (["--image", "empty.png"], "empty.png is empty"),
        (["--image", "cut.png"], "cut.png is damaged"),
        (["--image", "full"], "full is a folder"),
        (["--image", ""], "the name of the image is empty"),
        (["--video", "no.mp4"], "no.mp4 does not exist"),
        (["--video", "text.txt"], "text.txt is damaged or of an unknown kind"),
        (["--video", "cut.mp4"], "cut.mp4 is cut off"),
        (["--video", "header.mp4"], "header.mp4 holds no picture"),
        (["--video", "full"], "full is a folder without pictures"),
        (["--video", "short.mp4"], "has 3 frames; at least 4 are needed"),
        (["--video", "photo.png"], "has 1 frames; at least 4 are needed"),
        (["--video", "clip.mp4", "--frames", "32"], "already has 32 of the 32 frames"),
        (["--video", ""], "the name of the video is empty"),
        (["--image", "photo.png", "--video", "clip.mp4"], "an image or a video, not both"),
    ),
)
@pytest.mark.parametrize("resume", [False, True], ids=["plain", "resume"])
def test_given_files(generate, untouched, words, said, resume):
    generate("-o", "ball.mp4", *words, *(["--resume"] if resume else [])).refused(*said)


@pytest.mark.parametrize(
    ("words", "said"),
    cases(
        (["-o", "folder.mp4"], "folder.mp4 is a folder"),
        (["-o", "full/"], "full exists already and is not an empty folder"),
        (["-o", "no/ball.mp4"], "no is not a folder"),
        (["-o", "text.txt/ball.mp4"], "text.txt is not a folder"),
        (["-o", "ball.avi"], "ball.avi does not say which kind of video", ".mp4, .webm or .gif"),
        (["-o", "ball"], "ball does not say which kind of video"),
        (["-o", "ball.png"], "ball.png does not say which kind of video"),
        (["-o", ""], "not an empty folder"),
        (["-o", "b" * 300 + ".mp4"], "File name too long"),
        (["-o", "fast.gif", "--fps", "60"], "fast.gif", "at most 50 frames per second"),
        (["-o", "ball.mp4", "--contact-sheet", "sheet.txt"], "sheet.txt ends in '.txt'", ".png"),
        (["-o", "ball.mp4", "--contact-sheet", "no/sheet.png"], "no is not a folder"),
        (["-o", "ball.mp4", "--contact-sheet", "folder.mp4"], "folder.mp4"),
        (["-o", "no/ball.mp4", "--preview"], "no is not a folder"),
        (["-o", "no/ball.mp4", "--resume"], "no is not a folder"),
        (["--resume"], "--resume needs --output"),
    ),
)
def test_outputs(generate, untouched, words, said):
    generate(*words, seed=None).refused(*said)


@pytest.mark.parametrize(
    ("words", "said"),
    cases(
        (["nonsense"], "No such command 'nonsense'"),
        (["generate"], "Missing argument"),
        (["generate", "a ball", "two"], "unexpected extra argument"),
        (["generate", "a ball", "--colour", "red"], "No such option: --colour"),
        (["generate", "a ball", "--frames"], "--frames", "argument"),
        (["--nonsense"], "No such option: --nonsense"),
        (["info"], "Missing argument"),
        (["reproduce"], "Missing argument"),
        (["train"], "give a recipe file, or a queue"),
        (["models", "more"], "unexpected extra argument"),
        (["doctor", "--fast"], "No such option: --fast"),
    ),
)
def test_words_that_no_command_knows(run, untouched, words, said):
    run(*words).refused(*said)


# Places that cannot be written


def locked(folder: Path, mount) -> Path:
    """A folder in which nobody may write."""
    if os.geteuid() == 0:  # to whom permissions mean nothing
        return mount(folder, "size=64k,ro")
    folder.mkdir(mode=0o555)
    return folder


def test_an_unwritable_folder(generate, run, tmp_path, mount):
    folder = locked(tmp_path / "locked", mount)
    for words in (["-o", folder / "ball.mp4"], ["-o", folder / "ball.mp4", "--resume"], ["-o", f"{folder}/pictures/"]):
        generate(*words).refused("locked", "cannot be written")
    generate("-o", "ball.mp4", "--contact-sheet", folder / "sheet.png").refused("sheet.png", "cannot be written")
    run("plan", "-o", folder / "plan.png").refused("plan.png", "cannot be written")
    assert contents(tmp_path) == {str(folder): b""}


@pytest.mark.parametrize("more", [[], ["--resume"], ["--preview"]], ids=["plain", "resume", "preview"])
@pytest.mark.parametrize("output", ["ball.mp4", "ball.webm", "ball.gif", "pictures/", "ball-%04d.png"])
def test_a_full_disk(generate, tmp_path, mount, output, more):
    disk = mount(tmp_path / "disk", "size=8k")
    ran = generate("-o", f"{disk}/{output}", "--frames", 48, "--size", "96x96", *more)
    ran.refused("disk", "full")
    assert contents(disk).keys() <= {str(disk / "ball.mp4.resume")}, "something half-written was left"
    assert not any(path.name.startswith(".") for path in disk.rglob("*"))


def test_a_disk_that_fills_up_between_two_chunks(generate, tmp_path, mount):
    """The run is kept, so that it can go on when there is room again."""
    disk = mount(tmp_path / "disk", "size=96k")
    words = ("-o", disk / "ball.mp4", "--frames", 480, "--size", "96x96", "--resume")
    generate(*words).refused("disk", "full")
    assert not (disk / "ball.mp4").exists()
    assert [path.name for path in disk.iterdir()] == ["ball.mp4.resume"]
    assert (disk / "ball.mp4.resume" / "state.safetensors").exists()

    (tmp_path / "room").mkdir()
    moved = shutil.copytree(disk / "ball.mp4.resume", tmp_path / "room" / "ball.mp4.resume")
    assert generate("-o", tmp_path / "room" / "ball.mp4", *words[2:]).code == 0
    assert not moved.exists()
    generate("-o", tmp_path / "whole.mp4", *words[2:-1])
    assert (tmp_path / "room" / "ball.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_limit_on_the_size_of_files(generate, tmp_path):
    """As under `ulimit -f` or a quota; and the disk of those who may not mount one."""
    resource = pytest.importorskip("resource", reason="needs Unix")
    (tmp_path / "ball.mp4").write_text("an older video")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        ran = generate("-o", "ball.mp4", "--frames", 48, "--size", "96x96")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    ran.refused("ball.mp4 cannot be written")
    assert contents(tmp_path) == {str(tmp_path / "ball.mp4"): b"an older video"}


# Models


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("magi1-tni", ["there is no model 'magi1-tni'", "did you mean magi1-tiny"]),
        ("MAGI1", ["did you mean magi1-tiny"]),
        ("nothing", ["there is no model 'nothing'", "magi1-tiny"]),
        ("", ["the name of the model is empty"]),
        ("./nothing", ["there is no model folder ./nothing"]),
        ("a/b/c", ["there is no model folder a/b/c"]),
        ("full", ["full is not a model folder", "model_index.json"]),
        ("text.txt", ["text.txt"]),
        ("nobody/nothing", ["the model nobody/nothing cannot be"]),
    ],
)
@pytest.mark.parametrize("command", ["generate", "plan"])
def test_unknown_models(run, untouched, command, model, said):
    words = ["generate", "a ball", "-o", "ball.mp4"] if command == "generate" else ["plan"]
    run(*words, "--model", model).refused(*said)


def truncate(name: str, size: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def rewrite(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def change(name: str, **fields):
    def change(folder: Path) -> None:
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, **fields}))

    return change


DAMAGE = {
    "cut-transformer": (truncate(MODEL, 1000), "transformer"),
    "cut-vae": (truncate("vae/diffusion_pytorch_model.safetensors", 5000), "vae"),
    "cut-text-encoder": (truncate("text_encoder/model.safetensors", 1000), "cannot be loaded"),
    "empty-weights": (truncate(MODEL, 0), "transformer"),
    "no-weights": (lambda folder: (folder / MODEL).unlink(), "transformer"),
    "no-part": (lambda folder: shutil.rmtree(folder / "transformer"), "cannot be loaded"),
    "no-config": (lambda folder: (folder / "transformer/config.json").unlink(), "config.json"),
    "no-encoder-config": (lambda folder: (folder / "text_encoder/config.json").unlink(), "cannot be loaded"),
    "no-tokenizer": (lambda folder: (folder / "tokenizer/tokenizer.json").unlink(), "cannot be loaded"),
    "no-json": (rewrite("transformer/config.json", "{no"), "transformer/config.json"),
    "no-json-index": (rewrite("model_index.json", "{no"), "cannot be"),
    "list-index": (rewrite("model_index.json", "[1]"), "cannot be"),
    "empty-index": (rewrite("model_index.json", "{}"), "cannot be"),
    "more-layers": (change("transformer/config.json", num_layers=3), "lacks the tensor"),
    "wider": (change("transformer/config.json", hidden_size=64), "shape"),
    "word-as-number": (change("transformer/config.json", num_layers="two"), "cannot be loaded"),
    "foreign-part": (change("model_index.json", transformer=["nowhere", "Nothing"]), "nowhere"),
    "sampling-list": (change("model_index.json", config=[1]), "model cannot be"),
    "sampling-word": (change("model_index.json", config={"runtime_config": {"num_steps": "many"}}), "num_steps"),
    "sampling-lengths": (change("model_index.json", config={"runtime_config": {"cfg_t_range": [0.0]}}), "cfg_t_range"),
    "sampling-window": (change("model_index.json", config={"runtime_config": {"window_size": 99}}), "at least 99"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_models(run, tiny_model, tmp_path, name):
    damage, said = DAMAGE[name]
    damage(shutil.copytree(tiny_model, tmp_path / "model"))
    before = contents(tmp_path)
    run("generate", "a ball", "--model", "./model", "-o", "ball.mp4").refused(said)
    if any(word in name for word in ("index", "sampling")):
        run("plan", "--model", "./model").refused(said)
    assert contents(tmp_path) == before


# plan, info, reproduce


@pytest.mark.parametrize(
    ("words", "said"),
    cases(
        (["--frames", "0"], "--frames is 0; it must lie between"),
        (["--frames", "-1"], "--frames is -1; it must lie between"),
        (["--steps", "3"], "at least 4, not 3"),
        (["--steps", "0"], "--steps is 0; it must lie between"),
        (["--kind", "spiral"], "'spiral' is unknown", "staircase or whole"),
        (["-o", "plan.txt"], ".txt", ".png"),
        (["-o", "no/plan.png"], "no is not a folder"),
        (["-o", "folder.mp4"], "folder.mp4"),
    ),
)
def test_plans(run, untouched, words, said):
    run("plan", *words).refused(*said)


@pytest.mark.parametrize("command", ["info", "reproduce"])
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("no.mp4", "no.mp4 does not exist"),
        ("text.txt", "text.txt is damaged or of an unknown kind"),
        ("header.mp4", "header.mp4 holds no picture"),
        ("empty.png", "empty.png is empty"),
        ("full", "full is a folder without pictures"),
    ],
)
def test_files_that_tell_nothing(run, untouched, command, file, said):
    run(command, file).refused(said)


@pytest.mark.parametrize("file", ["clip.mp4", "photo.png"])
def test_reproducing_a_foreign_file(run, untouched, file):
    run("reproduce", file).refused(file, "was not made by animagic")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "no request inside"),
        ({"seed": 1}, "no request inside"),
        ({"prompt": " ", "seed": 1}, "prompt is empty"),
        ({"prompt": 5}, "cannot be understood"),
        ({"prompt": "a ball", "frames": "many"}, "cannot be understood"),
        ({"prompt": "a ball", "prompts_at": ["x"]}, "cannot be understood"),
        ({"prompt": "a ball", "model": "nothing"}, "there is no model 'nothing'"),
        ("words", "no request inside"),
    ],
)
def test_reproducing_what_cannot_be_understood(run, tmp_path, make_moving_clip, request_, said):
    with VideoWriter(tmp_path / "clip.mp4", 24, metadata={"request": request_}) as writer:
        writer.write(make_moving_clip(4))
    run("reproduce", "clip.mp4").refused(said)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_damaged_note_of_a_kept_run(generate, tmp_path):
    (tmp_path / "ball.mp4.resume").mkdir()
    (tmp_path / "ball.mp4.resume" / "request.json").write_text("{no")
    (tmp_path / "ball.mp4.resume" / "state.safetensors").touch()  # else nothing was made: it would begin anew
    generate("-o", "ball.mp4", "--resume", seed=None).refused("ball.mp4.resume", "delete")


def test_a_damaged_state_of_a_kept_run(generate, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "write", stop)
    assert generate("-o", "ball.mp4", "--resume", seed=None).code == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ball.mp4.resume" / "state.safetensors").write_bytes(b"short")
    generate("-o", "ball.mp4", "--resume", seed=None).refused("ball.mp4.resume", "start again")
    assert not (tmp_path / "ball.mp4").exists()


# train


def recipe(tiny_model, **changes) -> dict:
    part = {
        "objective": {},
        "data": {"chunks_per_batch": 1, "chunk_frames": 8, "height": 32, "width": 32},
        "training": {"steps": 2, "workers": 0},
    }
    vae = {"embed_dim": 256, "depth": 1, "num_heads": 4, "video_length": 8, "video_size": 32, "z_chans": 4}
    sections = {
        "system": "magi1",
        "text_encoder": str(tiny_model),
        "vae": {"model": vae, **part},
        "transformer": {"model": {"num_layers": 1, "hidden_size": 32}, **part},
        "sampling": {},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = sections = json.loads(json.dumps(sections))
        for name in parents:
            section = section[name]
        if value is None:
            del section[last]
        else:
            section[last] = value
    return sections


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"system": "magi2"}, "must name its system; known are magi1, animatediff"),
        ({"system": None}, "must name its system"),
        ({"vae": None}, "lacks vae"),
        ({"transformer": None}, "lacks transformer.model"),
        ({"transformer__training": None}, "lacks transformer.training"),
        ({"sampling": None}, "lacks sampling"),
        ({"text_encoder": None}, "lacks text_encoder"),
        ({"text_encoder": "nowhere"}, "nowhere has no text encoder"),
        ({"vae": "small"}, "small has no autoencoder"),
        ({"vae__model": ["small"]}, "must have fields under vae.model"),
        ({"vae__model__size": 3}, "unknown field vae.model.size"),
        ({"transformer__model__layers": 3}, "unknown field transformer.model.layers"),
        ({"transformer__objective__loss": 3}, "unknown field transformer.objective.loss"),
        ({"transformer__data__clips": 3}, "unknown field transformer.data.clips"),
        ({"transformer__training__epochs": 3}, "unknown field transformer.training.epochs"),
        ({"vae__model__num_heads": 3}, "num_heads"),
        ({"vae__model__depth": "two"}, "does not fit"),
        ({"vae__training__steps": 0}, "steps"),
        ({"vae__training__steps": None}, "steps"),
        ({"vae__training__precision": "fp4"}, "precision 'fp4' is unknown"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_recipes(run, tiny_model, tmp_path, changes, said):
    pytest.importorskip("skia", reason="drawing needs skia-python: pip install -e '.[train]'")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe(tiny_model, **changes)))
    run("train", "small.yaml").refused(said)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".yaml"}


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("no.yaml", "no.yaml cannot be read"),
        ("full", "full cannot be read"),
        ("clip.mp4", "clip.mp4 cannot be read"),
        ("text.txt", "must name its system"),
        ("empty.png", "must name its system"),
    ],
)
def test_files_that_are_no_recipe(run, untouched, file, said):
    run("train", file).refused(said)


def test_a_recipe_that_is_no_yaml(run, tmp_path):
    (tmp_path / "small.yaml").write_text("a: [1\nb: }")
    run("train", "small.yaml").refused("small.yaml is not valid YAML")


@pytest.mark.parametrize(
    ("words", "said"),
    cases(
        (["--part", "sound"], "'sound' is unknown", "vae"), (["--threads", "0"], "threads"), (["--steps", "0"], "steps")
    ),
)
def test_options_of_train(run, tiny_model, tmp_path, words, said):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe(tiny_model)))
    run("train", "small.yaml", *words).refused(*said)


# Faults of ours


def test_a_fault_of_ours_is_said_plainly(generate, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("animagic.zoo.load", fail)
    ran = generate("-o", "ball.mp4")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("animagic: a fault of ours: ZeroDivisionError: by zero")
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

    monkeypatch.setenv("ANIMAGIC_DEBUG", "1")
    assert "Traceback" in generate("-o", "ball.mp4").err


def test_what_was_right_all_along(generate, untouched):
    """The inputs of these tests are good where they are meant to be."""
    for words in (["--image", "photo.png"], ["--video", "clip.mp4"]):
        assert generate("-o", "good.mp4", *words).code == 0
        assert probe("good.mp4")["frames"] >= 16
        Path("good.mp4").unlink()
    assert np.any(Path("clip.mp4").read_bytes())
