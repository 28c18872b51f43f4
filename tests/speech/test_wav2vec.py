"""A published wav2vec 2.0 folder, made here, tiny and random."""

import json

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from animagic.errors import CheckpointError
from animagic.speech import FeatureStream, Wav2VecEncoder, features


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    path = tmp_path_factory.mktemp("wav2vec")
    Wav2Vec2Model(config).save_pretrained(path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sound():
    return np.random.default_rng(0).standard_normal(320 * 60).astype(np.float32) * 0.1


def test_every_hidden_state_is_the_published_one(folder, sound):
    encoder = Wav2VecEncoder.from_pretrained(folder)
    model, extractor = Wav2Vec2Model.from_pretrained(folder).eval(), Wav2Vec2FeatureExtractor.from_pretrained(folder)
    values = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        golden = model(torch.nn.functional.pad(values, (40, 40)), output_hidden_states=True).hidden_states
    assert features(encoder, sound).shape == (60, 3, 16)
    assert (features(encoder, sound) - torch.stack(golden, 2)[0]).abs().max() < 1e-4


def test_a_stream_gives_what_the_same_pieces_give(folder, sound):
    encoder = Wav2VecEncoder.from_pretrained(folder, before=20, after=5)
    stream = FeatureStream(encoder, step=10)
    parts = [stream.push(sound[start : start + 777]) for start in range(0, len(sound), 777)]
    joined = torch.cat([*parts, stream.finish()])
    assert (joined - features(encoder, sound, step=10)).abs().max() < 1e-4


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no folder of a wav2vec"):
        Wav2VecEncoder.from_pretrained(tmp_path)


def test_a_model_for_another_rate_is_named(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "sampling_rate": 8000}))
    with pytest.raises(CheckpointError, match="8000 Hz"):
        Wav2VecEncoder.from_pretrained(tmp_path)


def test_the_dtype_of_the_model_is_its_own_affair(folder, sound):
    encoder = Wav2VecEncoder.from_pretrained(folder)
    expected = features(encoder, sound)
    encoder.model.double()
    heard = features(encoder, sound)
    assert heard.dtype == torch.float32
    torch.testing.assert_close(heard, expected, rtol=1e-3, atol=1e-4)
