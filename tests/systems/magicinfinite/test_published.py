"""A pipeline from HunyuanVideo's and wav2vec's published folders, made here, tiny: in Python, and converted."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from encoders import SEEING, TEXT, encoders
from hunyuan_files import SHAPE, as_original, hunyuan
from safetensors.torch import save_file
from talking_models import mask, picture, sound
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
from typer.testing import CliRunner

from animagic import CheckpointError, InputError, MagicInfinitePipeline
from animagic.cli.weights import app
from animagic.systems.magicinfinite import conversion, prompts

QUICK = {"num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 1, "output_type": "np"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """HunyuanVideo from an image, in diffusers' layout."""
    path = tmp_path_factory.mktemp("published") / "HunyuanVideo-I2V"
    hunyuan().save_pretrained(path / "transformer", max_shard_size="20KB")
    torch.manual_seed(1)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    vae.save_pretrained(path / "vae")
    for name, part in encoders().items():
        part.save_pretrained(path / name)
    (path / "model_index.json").write_text(json.dumps({"_class_name": "HunyuanVideoImageToVideoPipeline"}))
    return path


@pytest.fixture(scope="module")
def wav2vec(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "wav2vec"
    torch.manual_seed(2)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    Wav2Vec2Model(Wav2Vec2Config(**sizes, **positions, conv_dim=[8] * 7)).save_pretrained(path)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(path)
    return path


def make(pipe, **changed):
    pipe.set_progress_bar_config(disable=True)
    given = {"image": picture(), "voices": [sound(0.2)], "masks": [mask()], **QUICK}
    return pipe("a man smiles", generator=torch.Generator().manual_seed(0), **given | changed).frames


@pytest.fixture
def short_templates(monkeypatch):
    """The published instructions are longer than what the tiny encoders can read."""
    defaults = (*prompts.HunyuanPrompts.__init__.__defaults__[:2], TEXT, SEEING)
    monkeypatch.setattr(prompts.HunyuanPrompts.__init__, "__defaults__", defaults)


def test_a_video_is_made_before_any_training(folder, wav2vec, short_templates):
    pipe = MagicInfinitePipeline.from_published(folder, wav2vec, audio_tokens=4, num_audio_layers=1)
    config = pipe.transformer.config
    assert (config.audio_layers, config.audio_channels, config.audio_tokens) == (3, 16, 4)
    assert not pipe.speech_encoder.levelled
    made = make(pipe)
    assert made.shape == (1, 5, 32, 32, 3)
    # A voice is not heard yet.
    np.testing.assert_allclose(make(pipe, voices=[sound(0.2, seed=7)]), made, atol=1e-5)


def test_the_embedded_speech_encoder_is_the_other_choice(folder):
    pipe = MagicInfinitePipeline.from_published(folder, vae=None, text_encoder=None, torch_dtype=torch.float16)
    assert pipe.audio_encoder is pipe.vae is pipe.text_encoder is None
    assert (pipe.transformer.config.audio_layers, pipe.transformer.config.audio_channels) == (3, 384)
    assert pipe.transformer.dtype == torch.float16
    assert pipe.speech_encoder.layers == 3


def test_a_converted_folder_is_the_same_model(folder, wav2vec, tmp_path, short_templates):
    expected = make(MagicInfinitePipeline.from_published(folder, wav2vec))
    result = CliRunner().invoke(app, ["convert", str(folder), "--wav2vec", str(wav2vec), "-o", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    pipe = MagicInfinitePipeline.from_pretrained(tmp_path / "model")
    assert not pipe.speech_encoder.levelled
    np.testing.assert_allclose(make(pipe), expected, atol=1e-5)


def test_the_original_file_takes_the_place_of_the_transformer(folder, tmp_path):
    tensors = as_original(hunyuan(seed=3))
    save_file(tensors, tmp_path / "model.safetensors")
    config = tmp_path / "sizes.json"
    config.write_text(json.dumps({name: value for name, value in SHAPE.items() if name != "in_channels"}))
    assert conversion.takes(tmp_path / "model.safetensors")
    conversion.convert(
        tmp_path / "model.safetensors", tmp_path / "made", base=folder, config=config, vae=None, shard_bytes=20_000
    )
    made = MagicInfinitePipeline.from_pretrained(tmp_path / "made").transformer
    assert torch.equal(made.proj_out.weight, tensors["final_layer.linear.weight"])
    assert len(list((tmp_path / "made" / "transformer").glob("*.safetensors"))) > 2
    with pytest.raises(InputError, match="give a folder of the other parts as --base"):
        conversion.convert(tmp_path / "model.safetensors", tmp_path / "other", config=config)


def test_what_is_meant_is_recognised(folder, tmp_path):
    assert conversion.takes(folder)
    assert conversion.takes(tmp_path / "mp_rank_00_model_states.pt")
    assert not conversion.takes(folder / "transformer")
    assert not conversion.takes(folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert not conversion.takes(tmp_path / "mm_sd_v15.ckpt")


def test_parts_that_do_not_fit_are_named(folder, tmp_path):
    hunyuan(text_embed_dim=12).save_pretrained(tmp_path / "transformer")
    with pytest.raises(CheckpointError, match="has a text encoder of 16 channels; the transformer reads 12"):
        MagicInfinitePipeline.from_published(folder, transformer=tmp_path)
    with pytest.raises(CheckpointError, match="no folder of a wav2vec"):
        MagicInfinitePipeline.from_published(folder, tmp_path)
    with pytest.raises(CheckpointError, match=r"vae.config\.json cannot be read"):
        MagicInfinitePipeline.from_published(tmp_path)
