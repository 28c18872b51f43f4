"""`animagic magi`: a published model's folders, tiny, made into videos by the original configuration file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import golden_path
from safetensors.torch import load_file, save_file

from animagic.media import VideoWriter, read_metadata, write_image

WORDS = ["a", "the", "red", "blue", "ball", "bounces", "rolls", "left", "right"]
CHANNELS = 32
PROMPT = "a red ball bounces"


def weights_of(*parts: str) -> dict[str, torch.Tensor]:
    stored = load_file(golden_path(*parts))
    return {name.removeprefix("weight."): t for name, t in stored.items() if name.startswith("weight.")}


def write_text_encoder(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "</s>", "<unk>", *WORDS]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"d_model": CHANNELS, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(vocab_size=len(words), **sizes)).save_pretrained(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """What someone has who followed the original's instructions, in small: configuration, weights, tokens."""
    root = tmp_path_factory.mktemp("MAGI-1")
    load = root / "downloads" / "4.5B_base" / "inference_weight"
    vae = root / "downloads" / "vae"
    for folder in (load, vae, root / "example" / "assets"):
        folder.mkdir(parents=True)
    weights = weights_of("magi1", "t2v_base.safetensors")
    shard = "model-00001-of-00001.safetensors"
    save_file(weights, load / shard)
    (load / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(weights, shard)}))
    manifest = json.loads(golden_path("magi1", "manifest.json").read_text())
    save_file(weights_of("magi1", "vae.safetensors"), vae / "diffusion_pytorch_model.safetensors")
    (vae / "config.json").write_text(json.dumps({"_class_name": "ViTVAE", "ddconfig": manifest["vae"]["ddconfig"]}))
    write_text_encoder(root / "downloads" / "t5_pretrained" / "t5-v1_1-xxl")
    rows = torch.randn(102, CHANNELS, generator=torch.Generator().manual_seed(4)).numpy()
    tokens = {"other_tokens": rows[:100], "caption_token": rows[100:101], "logo_token": rows[101:102]}
    np.savez(root / "example" / "assets" / "special_tokens.npz", **tokens)

    config = manifest["t2v_base"]["config"]
    paths = {"load": "4.5B_base", "t5_pretrained": "t5_pretrained", "vae_pretrained": "vae"}
    config["runtime_config"].update({name: f"./downloads/{path}" for name, path in paths.items()})
    config["runtime_config"].update(num_frames=24, video_size_h=32, video_size_w=48, num_steps=4)
    (root / "config.json").write_text(json.dumps(config))
    return root


@pytest.fixture
def given(tmp_path, make_moving_clip):
    """A picture and a clip, of another shape than the video."""
    write_image(tmp_path / "photo.png", make_moving_clip(1, 64, 64)[0])
    with VideoWriter(tmp_path / "clip.mp4", 24) as writer:
        writer.write(make_moving_clip(40, 64, 64))


@pytest.fixture
def magi(run, published):
    """Runs `animagic magi` with the tiny configuration and a prompt; pictures come out, which lose nothing."""

    def magi(*words, config: Path | str = published / "config.json", prompt: str = PROMPT, output: str = "out/"):
        return run("magi", "--config_file", config, "--prompt", prompt, "--output_path", output, "--json", *words)

    return magi


@pytest.fixture(scope="module")
def pipe(published):
    import animagic

    pipe = animagic.Magi1Pipeline.from_original(published / "config.json")
    pipe.enable_vae_tiling()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def made_by(pipe, **arguments) -> np.ndarray:
    frames = pipe(
        PROMPT,
        special_tokens=("hq", "duration"),
        generator=torch.Generator().manual_seed(1234),
        fit="stretch",
        output_type="np",
        **arguments,
    ).frames[0]
    return (frames * 255).round().astype(np.uint8)


# The three modes


def test_from_words(magi, pipe, frames_of, tmp_path):
    ran = magi("--mode", "t2v")
    assert ran.code == 0, ran
    told = json.loads(ran.out)
    assert (told["frames"], told["width"], told["height"], told["fps"], told["seed"]) == (24, 48, 32, 24, 1234)
    np.testing.assert_array_equal(frames_of("out"), made_by(pipe))


def test_from_a_picture_which_is_stretched(magi, pipe, frames_of, given):
    from animagic.media import read_image

    ran = magi("--mode", "i2v", "--image_path", "photo.png", "--set", "runtime_config.num_frames=30")
    assert ran.code == 0, ran
    frames = frames_of("out")
    assert frames.shape == (30, 32, 48, 3)
    np.testing.assert_array_equal(frames, made_by(pipe, image=read_image("photo.png"), num_frames=30))


@pytest.mark.parametrize(("length", "read"), [(40, 32), (30, 28)])  # latent frames are of four
def test_from_a_clip_of_which_the_first_frames_count_and_only_new_ones_are_written(
    magi, pipe, frames_of, make_moving_clip, length, read
):
    from animagic.media import read_video

    with VideoWriter("clip.mp4", 24) as writer:
        writer.write(make_moving_clip(length, 64, 64))
    ran = magi("--mode", "v2v", "--prefix_video_path", "clip.mp4")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["frames"] == 24
    clip = read_video("clip.mp4", fps=24, max_frames=32).frames
    whole = made_by(pipe, video=clip, num_frames=read + 24)
    np.testing.assert_array_equal(frames_of("out"), whole[read:])


def test_the_file_says_what_it_was_made_from_and_is_made_again(magi, run, published):
    assert magi(output="a.mp4").code == 0
    request = read_metadata("a.mp4")["request"]
    assert request["prompt"] == PROMPT
    assert request["model"] == str(published / "config.json")
    assert (request["quality"], request["duration_token"]) == ("hq", True)
    assert request["special_token_file"] == str(published / "example" / "assets" / "special_tokens.npz")
    ran = run("reproduce", "a.mp4", "--json")
    assert json.loads(ran.out) == {"output": "a-again.mp4", "equal_frames": 24, "frames": 24}


def test_a_configuration_that_has_changed_is_noticed(magi, run, published, tmp_path):
    config = tmp_path / "mine.json"
    config.write_text((published / "config.json").read_text())
    folders = [
        word
        for name, folder in {"load": "4.5B_base", "t5_pretrained": "t5_pretrained", "vae_pretrained": "vae"}.items()
        for word in ("--set", f"runtime_config.{name}={published / 'downloads' / folder}")
    ]
    ran = magi(*folders, config=config, output="a.mp4")
    assert ran.code == 0, ran
    assert run("reproduce", "a.mp4", "-q").code == 0
    config.write_text(config.read_text() + "\n")
    run("reproduce", "a.mp4").refused("the model", "has changed since")


# Special tokens


@pytest.fixture
def texts_read(monkeypatch):
    """The ChunkPrompts of every run."""
    from animagic import Magi1Pipeline

    seen, encode = [], Magi1Pipeline.embed_prompts

    def embed_prompts(self, *words, **named):
        seen.append(encode(self, *words, **named))
        return seen[-1]

    monkeypatch.setattr(Magi1Pipeline, "embed_prompts", embed_prompts)
    return seen


ROWS = {"transition": 0, "hq": 1, "static": 2, "dynamic": 3, "borderness": 4, "duration": 7, "3d": 15, "anime": 16}


@pytest.mark.parametrize(
    ("flags", "in_front"),
    [
        ([], ["duration", "hq"]),  # as the published script
        (["--quality", "none", "--no-duration-token"], []),
        (["--quality", "hq", "--no-duration-token"], ["hq"]),
        (["--duration-token", "--quality", "none"], ["duration"]),
        (["--style", "3d", "--first-frames", "static"], ["duration", "3d", "hq", "static"]),
        (
            ["--style", "anime", "--first-frames", "dynamic", "--borderness"],
            ["duration", "anime", "hq", "borderness", "dynamic"],
        ),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_flags_put_rows_of_the_table_in_front_of_the_prompt(magi, texts_read, published, flags, in_front):
    ran = magi(*flags)
    assert ran.code == 0, ran
    table = torch.from_numpy(np.load(published / "example" / "assets" / "special_tokens.npz")["other_tokens"])
    (texts,) = texts_read
    text = texts.at(0)
    torch.testing.assert_close(text.embeds[0, : len(in_front)], table[[ROWS[name] for name in in_front]])
    words = len(PROMPT.split()) + 1  # and the end of the text
    assert int(text.mask.sum()) == words + len(in_front)


def test_the_negative_set_stands_in_front_of_the_null_caption(magi, texts_read, published):
    assert magi("--negative-tokens").code == 0
    (texts,) = texts_read
    file = np.load(published / "example" / "assets" / "special_tokens.npz")
    others, caption, logo = (
        torch.from_numpy(file[f"{n}_token{s}"]) for n, s in (("other", "s"), ("caption", ""), ("logo", ""))
    )
    expected = torch.stack([others[4], others[0], logo[0], caption[0]])
    torch.testing.assert_close(texts.null.embeds[0, :4], expected)
    assert int(texts.null.mask.sum()) == 54


def test_duration_counts_the_chunks_that_remain(magi, texts_read, published):
    assert magi("--quality", "none", "--set", "runtime_config.num_frames=72").code == 0
    (texts,) = texts_read
    table = torch.from_numpy(np.load(published / "example" / "assets" / "special_tokens.npz")["other_tokens"])
    for chunk, row in enumerate((9, 8, 7)):
        torch.testing.assert_close(texts.at(chunk).embeds[0, 0], table[row])


@pytest.fixture
def without_tokens(published, tmp_path) -> Path:
    """The same files, but no table of special tokens."""
    shutil.copytree(published / "downloads", tmp_path / "downloads")
    shutil.copy(published / "config.json", tmp_path / "config.json")
    return tmp_path / "config.json"


@pytest.mark.parametrize("flags", [[], ["-q"]], ids=["", "quietly"])
def test_without_a_table_the_usual_tokens_are_left_out_and_it_is_said(magi, without_tokens, texts_read, flags):
    ran = magi(*flags, config=without_tokens)
    assert ran.code == 0
    assert "no special_tokens.npz was found" in ran.err
    assert "hq, duration" in ran.err
    assert int(texts_read[0].at(0).mask.sum()) == len(PROMPT.split()) + 1


@pytest.mark.parametrize("flags", [["--quality", "hq"], ["--duration-token"], ["--negative-tokens"]], ids=" ".join)
def test_without_a_table_tokens_that_are_asked_for_are_refused(magi, without_tokens, flags):
    magi(*flags, config=without_tokens).refused("this model has no special tokens")


def test_the_table_can_be_given(magi, generate, without_tokens, published, texts_read, tmp_path):
    table = published / "example" / "assets" / "special_tokens.npz"
    ran = magi("--special-tokens", table, config=without_tokens)
    assert (ran.code, ran.err.count("no special_tokens")) == (0, 0)
    assert int(texts_read[0].at(0).mask.sum()) == len(PROMPT.split()) + 3
    # The embedded kind of model reads texts of another width.
    generate("--special-tokens", table, "--quality", "hq", "-o", "b.mp4").refused("special_tokens.npz", "8")
    generate("--quality", "hq", "-o", "b.mp4").refused("has no special tokens")
    np.savez(
        tmp_path / "own.npz",
        other_tokens=np.ones((17, 8), "f"),
        caption_token=np.ones(8, "f"),
        logo_token=np.ones(8, "f"),
    )
    assert generate("--special-tokens", "own.npz", "--quality", "hq", "--negative-tokens", "-o", "b.mp4").code == 0
    assert (texts_read[-1].at(0).embeds[0, 0] == 1).all()


# Wrong input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "t3v"], ["'t3v'", "t2v, i2v or v2v"]),
        (["--mode", "i2v"], ["--mode i2v needs --image_path"]),
        (["--mode", "v2v"], ["--mode v2v needs --prefix_video_path"]),
        (["--mode", "t2v", "--image_path", "photo.png"], ["--image_path is for --mode i2v, not t2v"]),
        (["--mode", "i2v", "--image_path", "a.png", "--prefix_video_path", "b.mp4"], ["is for --mode v2v, not i2v"]),
        (["--mode", "i2v", "--image_path", "none.png"], ["none.png"]),
        (["--mode", "v2v", "--prefix_video_path", "none.mp4"], ["none.mp4"]),
        (["--quality", "4k"], ["--quality is 4k", "'hq' or 'none'"]),
        (["--style", "noir"], ["--style is noir", "'3d', 'anime' or 'none'"]),
        (["--first-frames", "slow"], ["--first-frames is slow", "'static', 'dynamic' or 'none'"]),
        (["--special-tokens", "none.npz"], ["none.npz"]),
        (["--set", "engine_config.cp_size=8"], ["engine_config.cp_size is 8", "--set engine_config.cp_size=1"]),
        (["--set", "engine_config.enable_cuda_graph=true"], ["engine_config.enable_cuda_graph is true"]),
        (["--set", "runtime_config.load=nowhere"], ["runtime_config.load is nowhere", "no folder"]),
        (["--set", "runtime_config.t5_pretrained="], ["runtime_config.t5_pretrained is empty"]),
        (["--set", "runtime_config.t5_device=cuda", "--device", "cpu"], ["runtime_config.t5_device is cuda"]),
        (["--set", "runtime_config.video_size_w=50"], ["50x32 is not possible", "48x32"]),
        (["--set", "engine_config.fp8_quant=true"], ["fp8_quant"]),
        (["--set", "engine_config.distill=true"], ["distill"]),
        (["--set", "model_config.num_layers=4"], ["videodit_blocks.layers.3"]),
        (["--fit", "squeeze"], ["squeeze"]),
        (["--enhance", "http://127.0.0.1:9/v1"], ["--enhance-model"]),
        (["--enhance-model", "small"], ["--enhance URL"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(magi, given, tmp_path, words, said):
    before = sorted(tmp_path.rglob("*"))
    magi(*words).refused(*said)
    assert sorted(tmp_path.rglob("*")) == before


def test_configurations_that_cannot_be_read(magi, tmp_path):
    magi(config="none.json").refused("none.json", "cannot be read")
    (tmp_path / "other.yaml").write_text("- motion_module: a.ckpt")
    magi(config="other.yaml").refused("other.yaml must hold the sections model_config")
    (tmp_path / "cut.json").write_text('{"model_config": ')
    magi(config="cut.json").refused("cut.json is not valid JSON")
