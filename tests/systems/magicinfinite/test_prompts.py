"""Texts as the transformer reads them: HunyuanVideo's encoders, as diffusers' pipelines use them, and small ones."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoImageToVideoPipeline, HunyuanVideoPipeline
from encoders import IMAGE_TOKENS, LENGTH, SEEING, TEXT, encoders
from safetensors.torch import load_file, save_file

from animagic import CheckpointError, InputError
from animagic.systems.magicinfinite.prompts import (
    HunyuanPrompts,
    SmallPrompts,
    components_of,
    encoder_of,
    text_encoder_of,
)

TEXTS = ["a man smiles", "", "she nods and speaks"]


@pytest.fixture(scope="module")
def parts():
    return encoders()


@pytest.fixture(scope="module")
def portrait():
    return np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def prompts(parts):
    return HunyuanPrompts(**parts, text_template=TEXT, portrait_template=SEEING)


def test_it_reads_what_diffusers_reads_with_a_portrait(prompts, parts, portrait):
    pipe = HunyuanVideoImageToVideoPipeline(transformer=None, vae=None, scheduler=None, **parts)
    for text, prompt in zip(TEXTS, prompts.encode(TEXTS, portrait), strict=True):
        with torch.no_grad():
            embeds, pooled, mask = pipe.encode_prompt(portrait, text, prompt_template=SEEING)
        used = int(mask.sum())
        assert prompt.embeds.shape == (1, used, 16)
        assert prompt.mask.all()
        assert mask[0, :used].all()
        torch.testing.assert_close(prompt.embeds, embeds[:, :used])
        torch.testing.assert_close(prompt.pooled, pooled)
        # The portrait's tokens, and as many as the text has words, and its end.
        assert used == IMAGE_TOKENS // 2 + len(text.split()) + 1


def test_it_reads_what_diffusers_reads_without_one(prompts, parts):
    words = {name: part for name, part in parts.items() if name != "image_processor"}
    pipe = HunyuanVideoPipeline(transformer=None, vae=None, scheduler=None, **words)
    blind = HunyuanPrompts(**words, text_template=TEXT)
    for text, prompt, other in zip(TEXTS, prompts.encode(TEXTS, None), blind.encode(TEXTS, None), strict=True):
        with torch.no_grad():
            embeds, pooled, _ = pipe.encode_prompt(text, prompt_template=TEXT)
        torch.testing.assert_close(prompt.embeds, embeds[:, : prompt.mask.shape[1]])
        torch.testing.assert_close(prompt.pooled, pooled)
        assert torch.equal(prompt.embeds, other.embeds)
        assert prompt.mask.shape[1] == len(text.split()) + 1


def test_the_portrait_is_seen(prompts, portrait):
    one, other = (prompts.encode(["a man smiles"], picture)[0] for picture in (portrait, 255 - portrait))
    kept = slice(IMAGE_TOKENS // 2)
    assert (one.embeds[:, kept] - other.embeds[:, kept]).abs().max() > 1e-3
    assert (one.embeds[:, kept.stop :] - other.embeds[:, kept.stop :]).abs().max() > 1e-6  # words are read after it
    assert torch.equal(one.pooled, other.pooled)


def test_a_long_text_is_cut_off_and_changes_no_other(prompts, portrait):
    long = " ".join(["smiles"] * (LENGTH + 9))
    alone, beside = prompts.encode(["a man"], portrait)[0], prompts.encode([long, "a man"], portrait)[1]
    assert torch.equal(alone.embeds, beside.embeds)
    assert prompts.encode([long], None)[0].mask.shape[1] == LENGTH


def test_a_small_encoder_gives_the_mean_of_its_tokens():
    parts = components_of("src/animagic/zoo/magi1-tiny")
    read, null = SmallPrompts(**parts).encode(["a red circle", ""], None)
    assert read.embeds.shape[:2] == read.mask.shape
    torch.testing.assert_close(read.pooled, read.embeds.mean(1))
    assert null.mask.all()
    assert not torch.allclose(null.pooled, read.pooled, atol=1e-3)


def test_encoders_come_from_their_folder(tmp_path, parts, portrait):
    for name, part in parts.items():
        part.save_pretrained(tmp_path / name)
    again = text_encoder_of(tmp_path)
    assert isinstance(again, HunyuanPrompts)
    assert type(again.text_encoder) is type(parts["text_encoder"])
    again.text_template, again.portrait_template = TEXT, SEEING
    expected = HunyuanPrompts(**parts, text_template=TEXT, portrait_template=SEEING).encode(TEXTS, portrait)
    for one, other in zip(again.encode(TEXTS, portrait), expected, strict=True):
        torch.testing.assert_close(one.embeds, other.embeds)
    (tmp_path / "text_encoder" / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="text_encoder cannot be read"):
        text_encoder_of(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        components_of(tmp_path / "nowhere")


def test_a_tensor_that_is_missing_is_named(tmp_path, parts):
    for name, part in parts.items():
        part.save_pretrained(tmp_path / name)
    file = tmp_path / "text_encoder_2" / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if name.endswith("final_layer_norm.weight"))
    save_file({name: t for name, t in tensors.items() if name != gone}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"text_encoder_2: the tensor .*final_layer_norm\.weight is missing"):
        components_of(tmp_path)


def test_a_pipeline_says_which_it_needs(parts):
    one = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_processor"))
    pipe = SimpleNamespace(**one, _execution_device=torch.device("cpu"))
    with pytest.raises(InputError, match="has no text encoder"):
        encoder_of(pipe)
    assert isinstance(encoder_of(SimpleNamespace(**vars(pipe) | parts)), HunyuanPrompts)
    small = SimpleNamespace(**vars(pipe) | {"text_encoder": 1, "tokenizer": 2})
    assert isinstance(encoder_of(small), SmallPrompts)
