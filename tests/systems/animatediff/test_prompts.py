"""What every frame is to show: CLIP's text, with layers left out, and prompts that turn into one another."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from animagic import InputError
from animagic.systems.animatediff.prompts import PromptEmbeds, TextEmbeds, encode_texts, travel
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


# Encoding


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


# Travel


def key(value: float) -> torch.Tensor:
    return torch.full((2, 3, 4), float(value))


def values(keys: dict[int, float], frames: int, **options) -> list[float]:
    made = travel({frame: key(value) for frame, value in keys.items()}, frames, **options)
    assert made.shape == (2, frames, 3, 4)
    return [round(float(x), 5) for x in made[1, :, 2, 3]]


@pytest.mark.parametrize(
    ("keys", "frames", "expected"),
    [
        ({0: 0, 4: 8}, 6, [0, 2, 4, 6, 8, 8]),
        ({4: 8, 0: 0}, 6, [0, 2, 4, 6, 8, 8]),
        ({0: 0, 2: 4, 5: 1}, 7, [0, 2, 4, 3, 2, 1, 1]),
        ({2: 4, 4: 0}, 6, [4, 4, 4, 2, 0, 0]),
        ({3: 5}, 5, [5] * 5),
        ({0: 1, 1: 9}, 3, [1, 9, 9]),
        ({0: 7}, 1, [7]),
    ],
)
def test_between_prompts_one_turns_into_the_next_evenly(keys, frames, expected):
    assert values(keys, frames) == expected


@pytest.mark.parametrize(
    ("keys", "frames", "expected"),
    [
        ({0: 0, 4: 8}, 8, [0, 2, 4, 6, 8, 6, 4, 2]),
        ({2: 0, 6: 8}, 8, [4, 2, 0, 2, 4, 6, 8, 6]),
        ({0: 0, 1: 6}, 4, [0, 6, 4, 2]),
        ({3: 5}, 5, [5] * 5),
    ],
)
def test_in_a_loop_the_last_prompt_turns_into_the_first(keys, frames, expected):
    assert values(keys, frames, closed_loop=True) == expected


def test_key_frames_are_exact():
    keys = {frame: torch.randn(1, 3, 4) for frame in (0, 3, 7)}
    for loop in (False, True):
        made = travel(keys, 9, loop)
        assert all(torch.equal(made[:, frame], text) for frame, text in keys.items())


@pytest.mark.parametrize("frame", [-1, 8])
def test_a_prompt_outside_the_clip_is_refused(frame):
    with pytest.raises(InputError, match=f"no prompt can begin at frame {frame}: the video has 8, counted from 0"):
        values({0: 1, frame: 2}, 8)


# What the UNet is given


def embeds(frames: int = 1, **more) -> PromptEmbeds:
    """Of two videos; every text is full of a number: video, then frame."""
    numbers = torch.arange(2.0)[:, None] * 10 + torch.arange(frames)
    return PromptEmbeds(
        prompted=numbers[:, :, None, None].expand(-1, -1, 3, 4),
        unprompted=-torch.ones(2, 1, 3, 4),
        motion=torch.full((2, 5, 4), 50.0),
        unmoved=torch.full((2, 5, 4), -50.0),
        **more,
    )


def said(inputs: dict, name: str = "encoder_hidden_states") -> list[float]:
    return inputs[name][:, 0, 0].tolist()


def test_one_prompt_a_video_has_one_row():
    assert said(embeds().inputs([3, 4], guided=False)) == [0, 10]
    guided = embeds().inputs([3, 4], guided=True)
    assert said(guided) == [-1, -1, 0, 10]
    assert said(guided, "motion_hidden_states") == [-50, -50, 50, 50]
    assert said(embeds().inputs([3], guided=False), "motion_hidden_states") == [50, 50]


def test_a_prompt_a_frame_has_a_row_for_each_frame_of_the_window():
    assert said(embeds(6).inputs([5, 0, 2], guided=False)) == [5, 0, 2, 15, 10, 12]
    assert said(embeds(6).inputs([1, 2], guided=True)) == [-1] * 4 + [1, 2, 11, 12]


def test_further_conditions_go_with_the_halves():
    more = {"added": {"text_embeds": torch.ones(2, 3)}, "not_added": {"text_embeds": torch.zeros(2, 3)}}
    assert "added_cond_kwargs" not in embeds().inputs([0], guided=True)
    guided = embeds(**more).inputs([0], guided=True)["added_cond_kwargs"]["text_embeds"]
    assert guided[:, 0].tolist() == [0, 0, 1, 1]
    assert embeds(**more).inputs([0], guided=False)["added_cond_kwargs"]["text_embeds"].min() == 1


def test_all_of_it_moves_to_a_type():
    more = {"added": {"text_embeds": torch.ones(2, 3)}, "not_added": {"text_embeds": torch.zeros(2, 3)}}
    moved = embeds(**more).to(torch.device("cpu"), torch.float64)
    assert moved.prompted.dtype == moved.motion.dtype == moved.added["text_embeds"].dtype == torch.float64
    assert embeds().to(torch.device("cpu"), torch.float64).added is None
