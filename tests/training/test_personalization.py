"""A model learns from a few pictures: only what is to learn changes, and diffusers' own loaders take the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from animagic.errors import CheckpointError, InputError, MediaError
from animagic.media import read_image, write_image
from animagic.systems.animatediff.unet import AnimateDiffUNet
from animagic.training import personalization as room
from animagic.training.concepts import ConceptObjective, Encoded, start_learning
from animagic.training.personalization import (
    Personalization,
    personalize,
    read_pictures,
    sheet_file,
    work_folder,
)
from animagic.training.text_to_image import load_text_to_image

pytestmark = pytest.mark.integration

PROMPT = "a picture of red ball"
METHODS = {
    "lora": {"prompt": PROMPT, "learning_rate": 1e-2, "rank": 4},
    "dreambooth": {"prompt": PROMPT, "learning_rate": 1e-3},
    "textual-inversion": {"token": "<look>", "vectors": 2, "initial_word": "red", "learning_rate": 0.1},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setitem(room._SAMPLING, "num_inference_steps", 2)
    monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Three pictures, a little larger than the model's; the last with a caption of its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, name in enumerate(("a.png", "b.jpg", "c.webp")):
        pixels = np.full((36, 44, 3), 40, np.uint8)
        pixels[8:24, 10 : 24 + 3 * i, i] = 240
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def learn(pictures, tiny_picture_model, tmp_path, monkeypatch):
    """Trains briefly; gives the output, the networks as they were saved, and the figures that were reported."""

    def learn(
        method="lora", *, output=None, source=tiny_picture_model, on_step=lambda step: None, resume=False, **more
    ):
        output = tmp_path / (output or ("out" if method == "dreambooth" else "out.safetensors"))
        kept, figures, save = {}, [], room.save

        def keep(pipe, settings, path):
            kept["pipe"] = pipe
            save(pipe, settings, path)

        def on_progress(stage, done, total, line):
            assert 0 <= done <= total
            if stage == "training":
                on_step(done)
                figures.append(line)

        monkeypatch.setattr(room, "save", keep)
        settings = {"steps": 30, "batch_size": 2, "save_every": 10, **METHODS[method], **more}
        made = personalize(
            Personalization(pictures, method, **settings), source, output, resume=resume, on_progress=on_progress
        )
        monkeypatch.setattr(room, "save", save)
        return SimpleNamespace(output=made, pipe=kept["pipe"], figures=figures)

    return learn


def tensors(pipe) -> dict[str, torch.Tensor]:
    """Every tensor of a pipeline by part and name, as they were called before peft or new words came between."""
    parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
    named = {f"{part}.{name}": t for part, module in parts.items() for name, t in module.state_dict().items()}
    return {name.replace(".base_layer", "").replace("embedding.table", "embedding"): t for name, t in named.items()}


def changed(before, after) -> set[str]:
    """The tensors of one pipeline that are other ones in another."""
    now = tensors(after)
    return {name for name, tensor in tensors(before).items() if not torch.equal(tensor, now[name])}


def error(pipe, pictures: Path, prompt: str) -> float:
    """The loss on the pictures, always with the same noise."""
    pixels = [picture.fitted(32) for picture in read_pictures(Personalization(pictures, prompt=prompt))]
    objective = ConceptObjective(pipe, Encoded(pipe, pixels, [prompt] * 3))
    with torch.no_grad():
        batch = {"pictures": torch.arange(3).repeat(8), "class": torch.empty(0)}
        return float(objective(None, batch, torch.Generator().manual_seed(5))[0])


def diffusers_pipe(folder) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


# What learns


def test_a_lora_changes_nothing_of_the_base(learn, pictures, tiny_picture_model):
    done = learn("lora")
    assert changed(load_text_to_image(tiny_picture_model), done.pipe) == set()
    assert error(done.pipe, pictures, PROMPT) < 0.99 * error(load_text_to_image(tiny_picture_model), pictures, PROMPT)
    saved = load_file(done.output)
    assert all(name.startswith("unet.") and "attn" in name for name in saved)
    layers = {name.split(".lora_")[0].rsplit(".attn", 1)[1][2:] for name in saved}
    assert layers == {"to_q", "to_k", "to_v", "to_out.0"}
    assert {min(tensor.shape) for tensor in saved.values()} == {4}


def test_dreambooth_changes_the_unet_alone(learn, pictures, tiny_picture_model):
    done, base = learn("dreambooth"), load_text_to_image(tiny_picture_model)
    assert changed(base, done.pipe) == {f"unet.{name}" for name in base.unet.state_dict()}
    assert error(done.pipe, pictures, PROMPT) < 0.9 * error(base, pictures, PROMPT)


def test_dreambooth_changes_the_text_encoder_if_told(learn, tiny_picture_model):
    done, base = learn("dreambooth", train_text_encoder=True, steps=5), load_text_to_image(tiny_picture_model)
    different = changed(base, done.pipe)
    assert {name.split(".")[0] for name in different} == {"unet", "text_encoder"}
    assert {f"unet.{name}" for name in base.unet.state_dict()} < different


def test_textual_inversion_changes_nothing_but_new_words(learn, pictures, tiny_picture_model):
    done, base = learn("textual-inversion"), load_text_to_image(tiny_picture_model)
    assert changed(base, done.pipe) == set()
    (name, vectors), = load_file(done.output).items()  # fmt: skip
    assert (name, tuple(vectors.shape)) == ("<look>", (2, 16))
    begun = base.text_encoder.get_input_embeddings().weight[base.tokenizer("red", add_special_tokens=False).input_ids]
    assert (vectors - begun).abs().min() > 1e-3
    assert error(done.pipe, pictures, "a picture of <look>") < error(base, pictures, "a picture of red red")


def test_the_vectors_begin_with_the_mean_word_if_none_is_said(tiny_picture_model):
    pipe = load_text_to_image(tiny_picture_model)
    mean = pipe.text_encoder.get_input_embeddings().weight.mean(0)
    (vectors,) = start_learning(pipe, Personalization("x", "textual-inversion", token="<look>")).values()
    torch.testing.assert_close(vectors[0], mean)


def test_prior_preservation_learns_from_pictures_of_the_model_itself(learn, tiny_picture_model):
    done = learn("dreambooth", prior_preservation=3, class_prompt="a ball", steps=10)
    line = done.figures[-1]
    assert line["loss"] == pytest.approx(line["picture_loss"] + line["class_loss"], abs=1e-5)
    # What they count matters, and so do they.
    alone = learn("dreambooth", output="alone", steps=10)
    more = learn("dreambooth", output="more", prior_preservation=3, class_prompt="a ball", prior_weight=2.0, steps=10)
    assert changed(done.pipe, alone.pipe)
    assert changed(done.pipe, more.pipe)


# An animated model


@pytest.fixture(scope="module")
def animated(tiny_picture_model, tmp_path_factory) -> Path:
    """The same model with random motion modules."""
    folder = tmp_path_factory.mktemp("animated") / "model"
    shutil.copytree(tiny_picture_model, folder)
    torch.manual_seed(4)
    unet = AnimateDiffUNet.from_unet2d(load_text_to_image(tiny_picture_model).unet)
    with torch.no_grad():
        for tensor in unet.motion_state_dict().values():
            tensor.normal_()
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    return folder


def test_of_an_animated_model_the_picture_model_is_taken(animated, tiny_picture_model):
    unet, full = load_text_to_image(animated).unet, AnimateDiffUNet.from_pretrained(animated, subfolder="unet")
    assert changed(load_text_to_image(tiny_picture_model), load_text_to_image(animated)) == set()
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    with torch.no_grad():
        still = full(latents[:, :, None], 500, text, use_motion=False).sample[:, :, 0]
        torch.testing.assert_close(unet(latents, 500, text).sample, still, atol=1e-5, rtol=1e-5)


def test_a_result_drops_into_the_animated_model_whose_motion_stays(learn, animated):
    done = learn("dreambooth", source=animated, steps=5)
    full = AnimateDiffUNet.from_pretrained(animated, subfolder="unet")
    motion = {name: tensor.clone() for name, tensor in full.motion_state_dict().items()}
    full.load_base_state_dict(diffusers_pipe(done.output).unet.state_dict())
    assert all(torch.equal(tensor, motion[name]) for name, tensor in full.motion_state_dict().items())
    latents, text = torch.randn(1, 4, 1, 8, 8), torch.randn(1, 5, 16)
    with torch.no_grad():
        still = full(latents, 500, text, use_motion=False).sample[:, :, 0]
        torch.testing.assert_close(still, done.pipe.unet(latents[:, :, 0], 500, text).sample, atol=1e-5, rtol=1e-5)


# What is written


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_diffusers_loads_the_lora_as_it_was_trained(learn, tiny_picture_model, alpha):
    done, theirs = learn("lora", alpha=alpha, steps=10), diffusers_pipe(tiny_picture_model)
    theirs.load_lora_weights(done.output)
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    with torch.no_grad():
        ours = done.pipe.unet(latents, 500, text).sample
        torch.testing.assert_close(theirs.unet(latents, 500, text).sample, ours, atol=1e-5, rtol=1e-5)
        base = load_text_to_image(tiny_picture_model).unet(latents, 500, text).sample
    assert (ours - base).abs().max() > 1e-3


def test_diffusers_loads_the_new_word_as_it_was_trained(learn, tiny_picture_model):
    done, theirs = learn("textual-inversion", steps=10), diffusers_pipe(tiny_picture_model)
    theirs.load_textual_inversion(done.output)
    for prompt in ("a picture of <look>", "<look> ball"):
        ours = done.pipe.encode_prompt(prompt, "cpu", 1, False)[0]
        torch.testing.assert_close(theirs.encode_prompt(prompt, "cpu", 1, False)[0], ours)


@pytest.mark.parametrize("half", [False, True])
def test_diffusers_loads_the_dreambooth_folder(learn, half):
    done = learn("dreambooth", steps=3, half=half)
    theirs = diffusers_pipe(done.output)
    assert all(torch.equal(tensor, tensors(done.pipe)[name].float()) for name, tensor in tensors(theirs).items())
    for file in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        stored = {tensor.dtype for tensor in load_file(done.output / f"{file}.safetensors").values()}
        assert stored == {torch.float16 if half else torch.float32}
    assert theirs.scheduler.config.beta_schedule == "linear"


def test_files_can_be_stored_in_float16_and_say_what_they_are(learn):
    done = learn("lora", steps=2, half=True)
    assert {tensor.dtype for tensor in load_file(done.output).values()} == {torch.float16}
    with safe_open(done.output, "pt") as file:
        assert json.loads(file.metadata()["animagic"]) == {"method": "lora", "prompt": PROMPT, "steps": 2}


def test_a_sheet_shows_the_pictures_before_and_after_and_nothing_else_is_left(learn, tmp_path):
    done = learn("dreambooth", steps=20)
    sheet = read_image(sheet_file(done.output))
    assert sheet.shape[0] / sheet.shape[1] == pytest.approx(3 / 4, abs=0.01)
    rows = [sheet[i * 130 : i * 130 + 128, :128].astype(int) for i in range(3)]
    assert np.abs(rows[1] - rows[2]).mean() > 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "out", "out-samples.png"}


# Going on


class Stop:
    """Interrupts a run at a step."""

    def __init__(self, step: int):
        self.step = step

    def __call__(self, step: int):
        if step >= self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_ends_with_the_same_bits(learn, tmp_path, method):
    whole, output = learn(method, output="whole.safetensors"), tmp_path / "part.safetensors"
    with pytest.raises(KeyboardInterrupt):
        learn(method, output="part.safetensors", on_step=Stop(20))
    assert not output.exists()
    assert work_folder(output).is_dir()
    steps = []
    part = learn(method, output="part.safetensors", resume=True, on_step=steps.append)
    assert steps[0] == 10  # the last checkpoint
    assert changed(whole.pipe, part.pipe) == set()
    if method != "dreambooth":
        assert part.output.read_bytes() == whole.output.read_bytes()
    assert not work_folder(output).exists()


def test_a_run_can_be_resumed_before_it_has_begun(learn):
    assert learn("lora", resume=True, steps=2).output.exists()


def test_class_pictures_are_made_once(learn, tmp_path, monkeypatch):
    settings = {"prior_preservation": 2, "class_prompt": "a ball", "steps": 20}
    with pytest.raises(KeyboardInterrupt):
        learn("lora", on_step=Stop(10), **settings)
    assert len(list((work_folder(tmp_path / "out.safetensors") / "class").iterdir())) == 2
    made = []
    call = StableDiffusionPipeline.__call__
    monkeypatch.setattr(StableDiffusionPipeline, "__call__", lambda *a, **k: made.append(a[1]) or call(*a, **k))
    learn("lora", resume=True, **settings)
    assert made == [PROMPT] * 4  # the samples of the end alone


def test_another_run_is_not_taken_for_the_one_that_was_interrupted(learn, pictures):
    with pytest.raises(KeyboardInterrupt):
        learn("lora", on_step=Stop(10))
    with pytest.raises(InputError, match=r"out\.safetensors\.unfinished holds an unfinished run: resume it, or remove"):
        learn("lora")
    with pytest.raises(InputError, match=r"has other settings \(learning rate\)"):
        learn("lora", resume=True, learning_rate=1e-3)
    write_image(pictures / "d.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(InputError, match=r"has other settings \(contents of the pictures\)"):
        learn("lora", resume=True)


# The objective


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_what_is_predicted_is_what_the_schedule_says(prediction):
    seen = {}

    def unet(noisy, times, text):
        seen.update(noisy=noisy, times=times)
        return SimpleNamespace(sample=torch.zeros_like(noisy))

    latents = torch.randn(6, 4, 8, 8)
    pictures = SimpleNamespace(draw=lambda which, generator: (latents, ["x"] * 6))
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, prediction_type=prediction)
    pipe = SimpleNamespace(unet=unet, scheduler=scheduler, encode_prompt=lambda *a, **k: (None, None))
    loss, _ = ConceptObjective(pipe, pictures)(None, {"pictures": None}, torch.Generator().manual_seed(0))
    alpha = scheduler.alphas_cumprod[seen["times"]].sqrt()[:, None, None, None]
    sigma = (1 - alpha**2).sqrt()
    noise = (seen["noisy"] - alpha * latents) / sigma
    target = noise if prediction == "epsilon" else alpha * noise - sigma * latents
    assert float(loss) == pytest.approx(float(target.square().mean()), rel=1e-3)
    assert 0.8 < float(noise.std()) < 1.2


# What cannot be used


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "magic"}, "method 'magic' is unknown; choose from dreambooth, lora, textual-inversion"),
        ({"prior_preservation": 4}, "prior preservation and a class prompt go together"),
        ({"class_prompt": "a ball"}, "prior preservation and a class prompt go together"),
        ({"prior_preservation": -1}, "at least 0, not -1"),
        ({"token": "<x>"}, "token goes with the method textual-inversion, not with lora"),
        ({"train_text_encoder": True}, "train-text-encoder goes with the method dreambooth"),
        ({"method": "dreambooth", "rank": 4}, "rank goes with the method lora"),
        ({"method": "textual-inversion", "token": "<x>", "prior_preservation": 4}, "prior-preservation goes with"),
        ({"method": "textual-inversion"}, "needs a token"),
        ({"method": "textual-inversion", "token": "two words"}, "without spaces"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"rank": 0}, "rank must be at least 1, not 0"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"learning_rate": 0.0}, "learning rate must be greater than 0"),
        ({"learning_rate": float("nan")}, "learning rate must be greater than 0"),
        ({"alpha": -1.0}, "alpha must be greater than 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**32}, "seed must be less than"),
        ({"prompt": " "}, "prompt is empty"),
    ],
    ids=str,
)
def test_wrong_settings(settings, said):
    with pytest.raises(InputError, match=said):
        Personalization("pictures", **settings)


def test_wrong_pictures(pictures, tmp_path, tiny_picture_model):
    with pytest.raises(InputError, match=r"a\.png has no caption; give a prompt for all pictures, or write a\.txt"):
        read_pictures(Personalization(pictures))
    (pictures / "c.txt").write_text("a green ball\n")
    found = read_pictures(Personalization(pictures, prompt=PROMPT))
    assert [(p.path.name, p.prompt) for p in found] == [
        ("a.png", PROMPT),
        ("b.jpg", PROMPT),
        ("c.webp", "a green ball"),
    ]
    with pytest.raises(InputError, match=r"c\.webp, 'a green ball', lack the token <look>"):
        read_pictures(Personalization(pictures, "textual-inversion", token="<look>"))
    (pictures / "b.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:200])
    with pytest.raises(MediaError, match=r"b\.jpg"):
        read_pictures(Personalization(pictures, prompt=PROMPT))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no pictures"):
        read_pictures(Personalization(tmp_path / "empty", prompt=PROMPT))
    with pytest.raises(InputError, match="absent is not a folder"):
        read_pictures(Personalization(tmp_path / "absent", prompt=PROMPT))


def test_what_only_the_model_can_tell(learn, pictures, tmp_path):
    with pytest.raises(InputError, match="the tokenizer knows ball already"):
        learn("textual-inversion", token="ball")
    with pytest.raises(InputError, match="'purple' is 6 tokens"):
        learn("textual-inversion", initial_word="purple")
    with pytest.raises(InputError, match="are 17 tokens, but the model reads 16"):
        learn("lora", prompt="a ball " * 7 + "a")
    write_image(pictures / "small.png", np.zeros((31, 50, 3), np.uint8))
    with pytest.raises(InputError, match=r"small\.png has 50x31 pixels, but the model makes 32x32"):
        learn("lora")
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_wrong_outputs(learn, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        learn("lora", output="look")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("something")
    with pytest.raises(MediaError, match="not an empty folder"):
        learn("dreambooth", output="full")


def test_wrong_models(tiny_picture_model, tmp_path):
    def variant(part: str, file: str, **fields) -> Path:
        folder = tmp_path / "-".join(fields)
        shutil.copytree(tiny_picture_model, folder)
        path = folder / part / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        return folder

    with pytest.raises(InputError, match="predicts the sample"):
        load_text_to_image(variant("scheduler", "scheduler_config.json", prediction_type="sample"))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_text_to_image(variant("unet", "config.json", block_out_channels=[16, 48]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty cannot be loaded"):
        load_text_to_image(tmp_path / "empty")
