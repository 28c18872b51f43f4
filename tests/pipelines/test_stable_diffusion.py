"""CLIP's text, with layers left out, from one encoder or two."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from animagic import InputError
from animagic.pipelines.stable_diffusion import TextEmbeds, encode_texts
from animagic.training.text_to_image import build_tokenizer

LENGTH, DIM, LAYERS = 12, 8, 3


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["a red ball", "the blue cat"], 540, LENGTH)


@pytest.fixture(scope="module")
def make_encoder(tokenizer):
    def make(cls=CLIPTextModel, **settings):
        torch.manual_seed(1)
        return cls(
            CLIPTextConfig(
                vocab_size=len(tokenizer), max_position_embeddings=LENGTH, hidden_size=DIM, intermediate_size=16,
                num_hidden_layers=LAYERS, num_attention_heads=2, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id, **settings,
            )
        ).eval()  # fmt: skip

    return make


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def ids(tokenizer, texts):
    padded = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return padded.input_ids


def test_a_text_is_what_clip_says_of_it(tokenizer, make_encoder):
    encoder, texts = make_encoder(), ["a red ball", "the blue cat"]
    made = encode_texts(texts, [(tokenizer, encoder)])
    assert made.pooled is None
    assert torch.equal(made.sequence, encoder(ids(tokenizer, texts)).last_hidden_state)


def test_layers_are_left_out_at_the_end_and_normed_as_the_last(tokenizer, make_encoder):
    encoder, texts = make_encoder(), ["a red ball"]
    states = encoder(ids(tokenizer, texts), output_hidden_states=True).hidden_states
    norm = encoder.text_model.final_layer_norm if hasattr(encoder, "text_model") else encoder.final_layer_norm
    plain = encode_texts(texts, [(tokenizer, encoder)])
    assert torch.equal(encode_texts(texts, [(tokenizer, encoder)], clip_skip=0).sequence, plain.sequence)
    for skip in (1, 2):
        made = encode_texts(texts, [(tokenizer, encoder)], clip_skip=skip)
        assert torch.equal(made.sequence, norm(states[LAYERS - skip]))
    for skip in (-1, LAYERS):
        with pytest.raises(InputError, match=f"clip_skip must lie between 0 and {LAYERS - 1} .* not {skip}"):
            encode_texts(texts, [(tokenizer, encoder)], clip_skip=skip)


def test_two_encoders_stand_side_by_side_and_the_second_gives_the_pooled_text(tokenizer, make_encoder):
    first, second = make_encoder(), make_encoder(CLIPTextModelWithProjection, projection_dim=6)
    pairs, texts = [(tokenizer, first), (tokenizer, second)], ["a red ball", "the blue cat"]
    states = [e(ids(tokenizer, texts), output_hidden_states=True) for e in (first, second)]
    for skip in (None, 0, 1):
        made = encode_texts(texts, pairs, clip_skip=skip)
        last = LAYERS - 1 - (skip or 0)  # SDXL leaves out the last layer anyway
        assert torch.equal(made.sequence, torch.cat([state.hidden_states[last] for state in states], dim=-1))
        assert torch.equal(made.pooled, states[1].text_embeds)
    with pytest.raises(InputError, match="clip_skip"):
        encode_texts(texts, pairs, clip_skip=LAYERS)


def test_a_long_text_is_cut_off(tokenizer, make_encoder):
    encoder = make_encoder()
    long, longer = (" ".join(["ball"] * count) for count in (40, 60))
    pairs = [(tokenizer, encoder)]
    assert torch.equal(encode_texts([long], pairs).sequence, encode_texts([longer], pairs).sequence)


def test_tokens_may_stand_for_several(tokenizer, make_encoder):
    pairs = [(tokenizer, make_encoder())]
    said = encode_texts(["<x> ball"], pairs, convert=lambda texts, _: [text.replace("<x>", "a red") for text in texts])
    assert torch.equal(said.sequence, encode_texts(["a red ball"], pairs).sequence)


def test_texts_are_repeated_one_after_another():
    text = TextEmbeds(torch.arange(2.0)[:, None, None], torch.arange(2.0)[:, None])
    assert text.repeated(3).sequence.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert text.repeated(3).pooled.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert not text.repeated(2).zeros().sequence.any()
    assert TextEmbeds(text.sequence).repeated(2).pooled is None
