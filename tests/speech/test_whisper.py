"""The embedded encoder: the published network, its picture of sound, and the positions that go round."""

import numpy as np
import pytest
import torch

from animagic.speech import whisper


@pytest.fixture(scope="module")
def published():
    """transformers' encoder of tiny.en's size, two layers, with the embedded weights."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=384, encoder_layers=2, encoder_attention_heads=6, encoder_ffn_dim=1536, attn_implementation="eager"
    )
    encoder = WhisperEncoder(config).eval()
    encoder.load_state_dict({name: x.float() for name, x in whisper.load_file(whisper.WEIGHTS).items()})
    return encoder


@torch.no_grad()
def test_it_is_the_published_network_where_all_is_heard_and_positions_go_on(published):
    mel = torch.randn(80, 3000, generator=torch.Generator().manual_seed(0))
    theirs = published.layer_norm
    found = whisper.whisper_network()(mel, torch.arange(1500)[None])[0]
    golden = published(mel[None]).last_hidden_state[0]
    assert (theirs(found[:, -1]) - golden).abs().max() < 1e-4


def test_its_picture_of_sound_is_whispers():
    from transformers import WhisperFeatureExtractor

    sound = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    golden = WhisperFeatureExtractor()(sound[160:], sampling_rate=16_000, return_tensors="pt").input_features[0]
    loudest = 4 * golden.max().item() - 4
    found = whisper.log_mel(torch.from_numpy(sound), loudest)
    assert found.shape == (80, 100)
    assert (found - golden[:, :100])[:, 2:96].abs().max() < 1e-4


def test_the_two_walks_count_one_together_and_nothing_where_they_jump():
    positions, share = whisper.walks(0, 2000)
    assert torch.allclose(share.sum(0), torch.ones(2000))
    assert positions.max() < whisper.CIRCLE
    unclean = (positions < 2 * whisper.BEHIND) | (positions >= whisper.CIRCLE - 2 * whisper.AHEAD)

    assert share[unclean].max() == 0


def test_a_walk_goes_on_where_it_was():
    long, part = whisper.walks(0, 500), whisper.walks(123, 100)
    assert all(torch.equal(x[:, 123:223], y) for x, y in zip(long, part, strict=True))


def test_speech_is_heard_alike_wherever_it_stands(speech):
    """Two seconds of it, said at the beginning and 7.32 s later."""
    from animagic.speech import WhisperEncoder, features, normalised

    sound = normalised(speech("speech_real_librivox_austen_0920.wav"), 16_000)[:32_000]
    late = np.concatenate([np.zeros(320 * 366, np.float32), sound])
    here, there = features(WhisperEncoder(), sound)[10:, 2], features(WhisperEncoder(), late)[376:, 2]
    centred = [x - x.mean(0) for x in (here, there)]
    assert torch.cosine_similarity(*centred, dim=1).mean() > 0.7
