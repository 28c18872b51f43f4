"""What networks read: texts as embeddings with a mask, and cleaned captions."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline

from animagic.errors import InputError
from animagic.pipelines.text import TextEmbedding, TextMixin, clean_caption, encode_text

CHANNELS, LENGTH = 4, 10


def test_repeated_prompts_stay_beside_each_other():
    both = TextEmbedding(torch.arange(2.0).view(2, 1, 1), torch.ones(2, 1))
    assert both.repeated(3).embeds.flatten().tolist() == [0, 0, 0, 1, 1, 1]


# Encoding


class Tokenizer:
    """One token a word, its length."""

    def __init__(self):
        self.seen = []

    def __call__(self, texts, max_length, padding, truncation, return_tensors):
        assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
        self.seen += texts
        ids = torch.zeros(len(texts), max_length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, words in enumerate(text.split()[:max_length] for text in texts):
            ids[row, : len(words)] = torch.tensor([len(word) for word in words])
            mask[row, : len(words)] = 1
        return Tokens(ids, mask)


class Tokens(SimpleNamespace):
    def __init__(self, input_ids, attention_mask):
        super().__init__(input_ids=input_ids, attention_mask=attention_mask)

    def to(self, _):
        return self


class Encoder:
    device = torch.device("cpu")

    def __call__(self, input_ids, attention_mask):
        self.width = input_ids.shape[1]
        return SimpleNamespace(last_hidden_state=input_ids[..., None].expand(-1, -1, CHANNELS).half())


class T5Encoder(Encoder):
    pass


def test_texts_are_encoded_at_their_own_length_and_padded():
    encoder = Encoder()
    embedding = encode_text(encoder, Tokenizer(), ["A red ball", "  Rain "], LENGTH)
    assert encoder.width == 3
    assert embedding.embeds.shape == (2, LENGTH, CHANNELS)
    assert embedding.embeds.dtype == torch.float32
    assert embedding.embeds[:, :, 0].tolist() == [[1, 3, 4] + [0] * 7, [4] + [0] * 9]
    assert embedding.mask.tolist() == [[1] * 3 + [0] * 7, [1] + [0] * 9]


def test_captions_are_cleaned_for_t5_only():
    words = Tokenizer()
    encode_text(Encoder(), words, ["A *Red* Ball"], LENGTH)
    encode_text(T5Encoder(), words, ["A *Red* Ball"], LENGTH)
    assert words.seen == ["A *Red* Ball", "a red ball"]


@pytest.mark.parametrize("prompts", [[""], ["   "], ["a cat", "\n"]], ids=str)
def test_an_empty_prompt_is_refused(prompts):
    with pytest.raises(InputError, match="the prompt is empty"):
        encode_text(Encoder(), Tokenizer(), prompts, LENGTH)


# Cleaning

EVERYDAY = [
    "A cat, sitting on a mat.",
    '"A dog" runs',
    "An old man; he smiles - warm light.",
    "Camera pans left... then right!",
    "Rock'n'roll — a band’s show",
    "3,000 birds fly over the sea at 12:30",
    "A woman (aged 30) walks/runs [slowly]",
    "Ein Hund läuft über die Straße",
    "<b>Bold</b> claim by @someone",
    "猫 a cat 在",
    "this-is-my-cute-cat_video",
    "photo.jpg of a cat",
    "  spaces   here \n newline",
    "<person> on a hill",
    "see https://foo.com/x now",
]
# Where our cleaner and DeepFloyd's part.
UNUSUAL = [
    "Salt & pepper on a table",
    "AT&amp;T sign",
    "A ship leaves the harbour: free shipping",
    "a 1920x1080 picture of a ship",
    "a red ball.A blue ball",
    "100+ people",
    "50% off ~ §5",
    "a jpeg image of rain",
    "page 3 of a book",
    "download free cats",
]


def deepfloyd(caption: str) -> str:
    """The original cleaner, which diffusers carries."""
    pytest.importorskip("bs4")
    pytest.importorskip("ftfy")
    carrier = SimpleNamespace(bad_punct_regex=IFPipeline.bad_punct_regex)
    return IFPipeline._clean_caption(carrier, IFPipeline._clean_caption(carrier, caption))


@pytest.mark.parametrize("caption", EVERYDAY)
def test_everyday_captions_are_cleaned_like_deepfloyd_s(caption):
    assert clean_caption(clean_caption(caption)) == deepfloyd(caption)


@pytest.mark.parametrize("caption", UNUSUAL)
def test_unusual_captions_are_cleaned_like_deepfloyd_s(caption):
    assert clean_caption(clean_caption(caption)) == deepfloyd(caption)


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("A RED Ball", "a red ball"),
        ("see www.example.org now", "see now"),
        ("by @painter at 10.0.0.1", "by at"),
        ("a *** wild *** #tree", "a wild tree"),
        ("a – b — c", "a - b - c"),
        ("--- a ball ---", "a ball"),
        ("wait.... then go", "wait then go"),
        ("", ""),
    ],
)
def test_cleaning_by_example(given, cleaned):
    assert clean_caption(given) == cleaned


@pytest.mark.parametrize("caption", [*EVERYDAY, *UNUSUAL])
def test_a_clean_caption_is_lower_case_on_one_line_and_stays_so(caption):
    cleaned = clean_caption(clean_caption(caption))
    assert cleaned == cleaned.strip().lower()
    assert "  " not in cleaned
    assert "\n" not in cleaned
    assert clean_caption(cleaned) == cleaned


# Ahead of a call


class Reader(TextMixin):
    """A pipeline that is nothing but its text encoder."""

    text_length = LENGTH

    def __init__(self):
        self.text_encoder, self.tokenizer = Encoder(), Tokenizer()

    def register_modules(self, **parts):
        vars(self).update(parts)


def test_texts_that_were_encoded_ahead_need_no_text_encoder():
    reader = Reader()
    direct = reader.encode_texts(["a red ball", "rain"])
    reader.encode_ahead("rain", "a red ball")
    reader.drop_text_encoder()
    kept = reader.encode_texts(["a red ball", "rain"])
    assert torch.equal(kept.embeds, direct.embeds)
    assert torch.equal(kept.mask, direct.mask)
    with pytest.raises(InputError, match="encode_ahead with every prompt"):
        reader.encode_texts(["rain", "snow"])
