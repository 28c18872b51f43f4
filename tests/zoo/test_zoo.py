"""The register of models, and what the embedded one is made of."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from talking_models import talking_pipeline

import animagic
from animagic import CheckpointError, InputError, requests, zoo

LARGEST_PART = 16 * 2**20  # bytes
PLAIN = {".json", ".safetensors", ".md", ".png", ".jpg", ".txt", ""}  # "" is LICENSE; a pickle could run code


def test_names():
    assert zoo.DEFAULT in zoo.names()
    assert "magi1-tiny" in zoo.names()
    for name in zoo.names():
        entry = zoo.entry(name)
        assert entry.name == name
        assert entry.folder.is_dir()
        assert entry.system in zoo.SYSTEMS
        assert entry.system == zoo.system_of(name)
        assert 2**20 < entry.bytes < 2**26


@pytest.mark.parametrize(
    ("name", "near"), [("magi1-tni", "magi1-tiny"), ("Magi1", "magi1-tiny"), ("xyz", "magi1-tiny")]
)
def test_the_nearest_name_is_suggested(name, near):
    for ask in (zoo.entry, zoo.resolve, zoo.load, zoo.settings):
        with pytest.raises(InputError, match=f"there is no model '{name}': did you mean {near}"):
            ask(name)


def test_what_a_model_can_be(tiny_model, tmp_path, monkeypatch):
    assert zoo.resolve("magi1-tiny") == str(zoo.entry("magi1-tiny").folder)
    assert zoo.resolve(tiny_model) == str(tiny_model)
    assert zoo.resolve("owner/name") == "owner/name"  # a hub id
    monkeypatch.chdir(tiny_model.parent)
    assert zoo.resolve("tiny") == "tiny"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "magi1-tiny").mkdir()  # a name of the zoo goes before a folder
    assert zoo.resolve("magi1-tiny") == str(zoo.entry("magi1-tiny").folder)
    for wrong in ("", " ", "./none", "/none", "~/none", "a/b/c", tmp_path):
        with pytest.raises(InputError):
            zoo.resolve(wrong)


def test_settings_are_read_without_the_weights(tiny_model, tmp_path):
    assert zoo.settings()["runtime_config"]["num_steps"] % 4 == 0
    assert zoo.settings(tiny_model)["runtime_config"]["num_frames"] == 16
    shutil.copy(tiny_model / "model_index.json", tmp_path)
    assert zoo.settings(tmp_path) == zoo.settings(tiny_model)


def test_each_task_has_its_pipeline(tiny_model):
    for task, name in {
        "text": "Magi1Pipeline",
        "image": "Magi1ImageToVideoPipeline",
        "video": "Magi1VideoToVideoPipeline",
    }.items():
        assert type(zoo.load(tiny_model, task)).__name__ == name
    with pytest.raises(InputError, match="task 'sound' is unknown; choose from text, image, video"):
        zoo.load(tiny_model, "sound")


def test_weights_are_float32_unless_another_type_is_asked_for(tiny_model):
    assert zoo.load is animagic.load
    assert {p.dtype for p in animagic.load(tiny_model).transformer.parameters()} == {torch.float32}
    half = animagic.load(tiny_model, dtype=torch.bfloat16)
    assert torch.bfloat16 in {p.dtype for p in half.transformer.parameters()}
    assert torch.bfloat16 in {p.dtype for p in half.vae.parameters()}


def test_the_system_is_what_the_pipeline_is(tiny_model, animatediff_model, tmp_path):
    assert zoo.system_of(tiny_model) == "magi1"
    assert zoo.system_of(animatediff_model) == "animatediff"
    for name, system in {"StableDiffusionXLPipeline": "animatediff", "AnimateDiffSDXLPipeline": "animatediff"}.items():
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        assert zoo.system_of(tmp_path) == system
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    for ask in (zoo.system_of, zoo.load):
        with pytest.raises(InputError, match="is a WanPipeline; known are models of MAGI-1, AnimateDiff"):
            ask(tmp_path)


def test_an_animatediff_model_is_loaded_whole(animatediff_model, animatediff_parts, tmp_path, monkeypatch):
    for task in ("text", "image", "video"):
        pipe = zoo.load(animatediff_model, task)
        assert type(pipe).__name__ == "AnimateDiffPipeline"
    for name, tensor in animatediff_parts()["unet"].state_dict().items():
        assert torch.equal(tensor, pipe.unet.state_dict()[name])
    assert pipe.sampling.num_frames == 8
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert zoo.dtype_on(animatediff_model, "cuda") == torch.float32
    half = shutil.copytree(animatediff_model, tmp_path / "half")
    pipe.unet.to(torch.bfloat16).save_pretrained(half / "unet")
    assert zoo.dtype_on(half, "cuda") == torch.bfloat16


def test_loras_that_came_with_a_model_are_found_by_name(animatediff_model, tmp_path):
    folder = shutil.copytree(animatediff_model, tmp_path / "model")
    assert zoo.loras(folder) == {}
    for file in ("loras/ink.safetensors", "motion_loras/zoom.safetensors", "motion_loras/notes.txt"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    assert zoo.loras(folder) == {"ink": folder / "loras" / "ink.safetensors"}
    assert zoo.loras(folder, "motion_loras") == {"zoom": folder / "motion_loras" / "zoom.safetensors"}


def test_a_missing_tensor_is_named(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    settings = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**settings, "num_layers": 3}))
    with pytest.raises(CheckpointError, match=r"lacks the tensor transformer\.videodit_blocks\.layers\.2\."):
        zoo.load(folder)


# The embedded models


@pytest.mark.parametrize("name", zoo.names())
def test_embedded_files_are_small_and_plain(name):
    files = [path for path in zoo.entry(name).folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= PLAIN
    parts: dict[str, int] = {}
    for path in files:
        part = path.relative_to(zoo.entry(name).folder).parts[0]
        parts[part] = parts.get(part, 0) + path.stat().st_size
    system = zoo.entry(name).system
    network = {"animatediff": "unet", "magicanimate": "unet"}.get(system, "transformer")
    shared = {"vae", "text_encoder", "tokenizer"} if zoo.entry(name).base is None else set()
    shared = {"vae", "appearance_encoder", "controlnet"} if system == "magicanimate" else shared
    shared = {"vae", "vocabulary.json"} if name == "magicinfinite-tiny" else shared  # its base is of another system
    assert {network, "model_index.json", "README.md", "LICENSE"} | shared <= set(parts)
    assert {part: size for part, size in parts.items() if size > LARGEST_PART} == {}


@pytest.mark.parametrize("name", zoo.names())
def test_embedded_weights_are_half_precision_and_finite(name):
    for path in zoo.entry(name).folder.rglob("*.safetensors"):
        tensors = load_file(path)
        assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}, path
        assert all(tensor.isfinite().all() for tensor in tensors.values()), path


def test_the_embedded_model_loads_whole(embedded_pipe):
    for part in (embedded_pipe.transformer, embedded_pipe.vae, embedded_pipe.text_encoder):
        assert not any(p.is_meta for p in part.parameters())
        assert not part.training
    out = embedded_pipe("a red ball", num_frames=8, num_inference_steps=4, output_type="np").frames
    assert out.shape == (1, 8, 64, 64, 3)


def test_the_embedded_text_encoder_understands_free_wording(embedded_pipe):
    """The same thing in other words is nearer than another thing in the same words."""

    def meaning(text: str) -> torch.Tensor:
        prompts = embedded_pipe.embed_prompts(text).at(0)
        words = prompts.embeds[0][prompts.mask[0].bool()].mean(0)
        return words / words.norm()

    def likeness(a: str, b: str) -> float:
        return float(meaning(a) @ meaning(b))

    assert likeness("crimson", "red") > likeness("crimson", "green")
    assert likeness("a ball that leaps", "a ball that jumps") > likeness("a ball that leaps", "a ball that rolls")


def test_half_precision_is_used_where_it_is_stored_and_there(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert zoo.dtype_on(tiny_model, "cuda") == torch.float32
    assert zoo.dtype_on(tiny_model, "cpu") == torch.float32
    half = shutil.copytree(tiny_model, tmp_path / "half")
    zoo.load(tiny_model).transformer.to(torch.bfloat16).save_pretrained(half / "transformer")
    assert zoo.dtype_on(half, "cuda:0") == torch.bfloat16
    assert zoo.dtype_on(half, "cpu") == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert zoo.dtype_on(half, "cuda") == torch.float32
    (half / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with pytest.raises(CheckpointError, match="cannot be read"):
        zoo.dtype_on(half, "cuda")


def test_a_distilled_model_shares_all_but_the_transformer(embedded_pipe, tmp_path):
    pipe = zoo.load("magi1-tiny-distilled", "image")
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe).__name__ == "Magi1ImageToVideoPipeline"
    assert (pipe.sampling.num_steps, pipe.sampling.cfg_number, pipe.sampling.distill) == (8, 1, True)
    for name, ours in pipe.vae.state_dict().items():
        assert torch.equal(ours, embedded_pipe.vae.state_dict()[name])
    differs = [
        name
        for name, ours in pipe.transformer.state_dict().items()
        if not torch.equal(ours, embedded_pipe.transformer.state_dict()[name])
    ]
    assert differs
    pipe.save_pretrained(tmp_path / "whole")  # elsewhere it stands on its own
    assert zoo.load(tmp_path / "whole").vae is not None


def test_a_base_of_another_system_lends_what_there_is_a_place_for(
    tiny_model, tiny_text_encoder, tmp_path, monkeypatch, caplog
):
    own = tmp_path / "talker"
    talking_pipeline(tiny_text_encoder).save_pretrained(own)
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(own / part)
    monkeypatch.setattr(zoo, "_MODELS", {})
    zoo.register("base", tiny_model, "")  # of MAGI-1, whose pipeline has special tokens as well
    zoo.register("talker", own, "", base="base")
    with caplog.at_level("WARNING", "diffusers"):
        pipe = zoo.load("talker")
    assert type(pipe).__name__ == "MagicInfinitePipeline"
    assert "special_tokens" not in caplog.text
    for name, tensor in tiny_text_encoder[0].state_dict().items():
        assert torch.equal(pipe.text_encoder.state_dict()[name], tensor)
    assert type(pipe.vae).__name__ == "ConvAutoencoder"  # its own


@pytest.mark.parametrize(
    ("part", "safe", "pickled"),
    [
        ("transformer", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("text_encoder", "model.safetensors", "pytorch_model.bin"),
    ],
)
def test_pickles_in_a_folder_are_read_only_if_they_are_allowed(tiny_model, tmp_path, part, safe, pickled):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    torch.save(load_file(folder / part / safe), folder / part / pickled)
    (folder / part / safe).unlink()
    with pytest.raises(InputError, match=f"{pickled} is a pickle.*--allow-pickle"):
        zoo.load(folder)
    with pytest.raises(OSError, match=f"no file named {safe}"):
        animagic.AutoModel.from_pretrained(folder, subfolder=part)
    with pytest.raises(InputError, match="--allow-pickle"):
        requests.pipeline_for(requests.build_request("a ball", str(folder)), "cpu")
    pipe = requests.pipeline_for(requests.build_request("a ball", str(folder)), "cpu", allow_pickle=True)
    ours, same = getattr(pipe, part).state_dict(), getattr(zoo.load(tiny_model), part).state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in same.items())
