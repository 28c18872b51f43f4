"""The picture model's training: data, objectives, tokenizer, and a whole recipe of tiny networks."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from animagic import CheckpointError, InputError
from animagic.training import stages
from animagic.training import text_to_image as images
from animagic.training.data import to_unit
from animagic.training.objectives import tokenize
from animagic.training.text_to_image import AutoencoderObjective, ImageObjective, SceneImages


@pytest.fixture
def recipe():
    """A recipe of tiny networks that are trained for two steps."""
    data = {"batch_size": 2, "height": 16, "width": 16}
    training = {"steps": 2, "workers": 0, "log_every": 1, "warmup": 0, "decay": 1, "save_every": 2}
    return {
        "tokenizer": {"vocab_size": 600, "model_max_length": 12, "captions": 40},
        "vae": {
            "model": {
                "block_out_channels": [4, 8],
                "down_block_types": ["DownEncoderBlock2D"] * 2,
                "up_block_types": ["UpDecoderBlock2D"] * 2,
                "layers_per_block": 1,
                "norm_num_groups": 4,
                "mid_block_add_attention": False,
                "sample_size": 16,
            },
            "objective": {},
            "data": data,
            "training": training,
        },
        "text_encoder": {
            "model": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "projection_dim": 16,
            }
        },
        "unet": {
            "model": {
                "sample_size": 8,
                "block_out_channels": [8, 16],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
                "layers_per_block": 1,
                "attention_head_dim": 2,
                "norm_num_groups": 4,
            },
            "objective": {},
            "data": data,
            "training": training,
        },
        "looks": {"blueprint": {"rank": 2, "data": {**data, "looks": {"blueprint": 1.0}}, "training": training}},
    }


def train(recipe, folder, on_log=None):
    course = stages.Course(images.STAGES, lambda recipe, root: root / "base")
    return stages.train(recipe, [course], folder, on_log=on_log)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    section = {"vocab_size": 1000, "model_max_length": 12, "captions": 400}
    return images.start_tokenizer(section, tmp_path_factory.mktemp("base") / "tokenizer")


@pytest.fixture
def vae(recipe):
    return images.start_autoencoder(recipe["vae"])


class TestTokenizer:
    def test_any_text_can_be_written(self, tokenizer):
        text = "a red ball, zürich 漢 😀"
        ids = tokenizer(text, truncation=False).input_ids
        assert len(tokenizer) <= 1000
        assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<|startoftext|>", "<|endoftext|>"]
        assert ids.count(tokenizer.unk_token_id) == 1  # the end alone: nothing is unknown
        assert tokenizer.tokenize("A red ball") == ["a</w>", "red</w>", "ball</w>"]

    def test_texts_are_padded_and_cut(self, tokenizer):
        ids = tokenize(tokenizer, ["", "a red ball " * 10])
        assert ids.shape == (2, 12)
        assert ids[0].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * 11
        assert ids[1, -1] == tokenizer.eos_token_id

    def test_the_encoder_pools_at_the_first_end(self, recipe, tokenizer):
        encoder = images.start_model(recipe, tokenizer).text_encoder.eval()
        ids = tokenize(tokenizer, ["a red ball"])
        output = encoder(ids)
        torch.testing.assert_close(output.pooler_output, output.last_hidden_state[:, 4])  # begin, a, red, ball


def test_latents_are_standardised_without_changing_what_is_decoded(vae):
    pictures = to_unit(SceneImages(seed=0, steps=1, batch_size=8, height=16, width=16)[0]["video"][:, :, 0])
    with torch.no_grad():
        vae.quant_conv.weight.mul_(3)
        before = vae.encode(pictures).latent_dist
        expected = vae.decode(before.mean).sample
        images.standardise_latents(vae, pictures)
        after = vae.encode(pictures).latent_dist
    latents = after.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(vae.decode(after.mean).sample, expected, atol=1e-4, rtol=1e-4)
    # The encoder's own doubt is scaled with the latents.
    was, now = (p.std / p.mean.std((0, 2, 3), keepdim=True) for p in (before, after))
    torch.testing.assert_close(now, was, rtol=1e-3, atol=1e-5)


def test_autoencoder_objective_falls(vae):
    batch = SceneImages(seed=0, steps=1, batch_size=4, height=16, width=16)[0]
    objective, optimiser, psnr = AutoencoderObjective(), torch.optim.Adam(vae.parameters(), 1e-2), []
    for _ in range(15):
        loss, figures = objective(vae, batch, torch.Generator().manual_seed(0))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        psnr.append(figures["psnr"])
    assert psnr[-1] > psnr[0] + 3


class TestImageObjective:
    @pytest.fixture
    def model(self, recipe, tokenizer):
        return images.start_model(recipe, tokenizer)

    @pytest.fixture
    def batch(self):
        return SceneImages(seed=0, steps=1, batch_size=4, height=16, width=16)[0]

    def test_both_networks_learn_and_the_autoencoder_does_not(self, model, batch, vae, tokenizer):
        vae.requires_grad_(False)
        loss, figures = ImageObjective(vae, tokenizer)(model, batch, torch.Generator().manual_seed(0))
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.unet.parameters())
        assert model.text_encoder.get_input_embeddings().weight.grad.abs().sum() > 0
        assert 0.5 < figures["error"] < 2

    def test_a_perfect_prediction_costs_nothing(self, batch, vae, tokenizer, model, monkeypatch):
        objective, seen = ImageObjective(vae, tokenizer, noises=3), {}
        add_noise = objective.error.scheduler.add_noise

        def remember(latents, noise, timesteps):
            seen.update(noise=noise, timesteps=timesteps)
            return add_noise(latents, noise, timesteps)

        class Oracle(torch.nn.Module):
            def forward(self, sample, timesteps, embeds):
                assert sample.shape[0] == embeds.shape[0] == 12
                return type("Output", (), {"sample": seen["noise"].squeeze(2)})

        monkeypatch.setattr(objective.error.scheduler, "add_noise", remember)
        model.unet = Oracle()
        loss, _ = objective(model, batch, torch.Generator().manual_seed(0))
        assert loss == 0
        # Every twelfth of the schedule once.
        assert sorted((seen["timesteps"] * 12 // 1000).tolist()) == list(range(12))

    def test_dropped_captions_do_not_matter(self, batch, vae, tokenizer, model):
        other = {**batch, "captions": ["something else"] * 4}

        def loss(batch, drop):
            objective = ImageObjective(vae, tokenizer, drop_text=drop)
            return objective(model, batch, torch.Generator().manual_seed(0))[0]

        assert torch.equal(loss(batch, 1.0), loss(other, 1.0))
        assert not torch.equal(loss(batch, 0.0), loss(other, 0.0))


@pytest.mark.integration
def test_a_recipe_is_trained_resumed_and_exported(recipe, tmp_path):
    lines = []
    base = train(recipe, tmp_path / "run", lambda name, line: lines.append((name, line["step"])))
    assert lines == [(name, step) for name in ("vae", "unet", "blueprint") for step in (1, 2)]
    assert json.loads((base / "scheduler" / "scheduler_config.json").read_text())["beta_end"] == 0.012

    pipe = StableDiffusionPipeline.from_pretrained(base)
    pipe.set_progress_bar_config(disable=True)

    def picture():
        generator = torch.Generator().manual_seed(0)
        return pipe("a red ball", height=16, width=16, num_inference_steps=2, generator=generator, output_type="np")

    plain = picture().images
    assert plain.shape == (1, 16, 16, 3)
    weights = load_file(base / "loras" / "blueprint.safetensors")
    assert all(name.startswith("unet.") and "lora" in name for name in weights)
    pipe.load_lora_weights(base / "loras", weight_name="blueprint.safetensors")
    assert (picture().images != plain).any()

    # All is there already, so the same folder is written again, bit for bit.
    before = {path: path.read_bytes() for path in base.rglob("*.safetensors")}
    train(recipe, tmp_path / "run")
    assert {path: path.read_bytes() for path in base.rglob("*.safetensors")} == before


def test_words_of_a_tokenizer_that_is_not_there(recipe, tmp_path):
    recipe["tokenizer"]["words_of"] = str(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"tokenizer\.words_of is .*nowhere; give the folder"):
        train(recipe, tmp_path)


def test_export_before_training(recipe, tmp_path):
    with pytest.raises(CheckpointError, match="train this part first"):
        images.export_model(recipe, tmp_path)


def test_weights_are_read_from_a_model_folder(animatediff_model):
    """Of an animated model, too: without the motion modules, which are read by themselves."""
    from animagic import AnimateDiffUNet
    from animagic.systems.animatediff.training import STAGES

    known = {stage.name: stage for course in STAGES for stage in course.stages}
    pipe = images.load_text_to_image(animatediff_model)
    model = images.TextToImage(pipe.unet, pipe.text_encoder).state_dict()
    shipped = known["unet"].shipped(animatediff_model)
    assert shipped.keys() == model.keys()
    assert all(torch.equal(shipped[name], tensor) for name, tensor in model.items())
    motion = AnimateDiffUNet.from_pretrained(animatediff_model / "unet").motion_state_dict()
    shipped = known["motion"].shipped(animatediff_model)
    assert shipped.keys() == motion.keys()
    assert all(torch.equal(shipped[name], tensor) for name, tensor in motion.items())
