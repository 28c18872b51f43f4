"""New words from files of textual inversion, whatever tool wrote them."""

import pytest
import torch
from diffusers import DiffusionPipeline
from published_files import TEXT, picture_model, save, write_tokenizer
from transformers import CLIPTokenizer

from animagic.errors import CheckpointError, InputError
from animagic.weights.textual_inversion import TextualInversionMixin


class Words(DiffusionPipeline, TextualInversionMixin):
    """What of a pipeline reads words."""

    def __init__(self, tokenizer, text_encoder, tokenizer_2=None, text_encoder_2=None):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, tokenizer_2=tokenizer_2, text_encoder_2=text_encoder_2
        )


def words(folder, xl: bool = False) -> Words:
    encoders = {name: part for name, part in picture_model(xl=xl).items() if name.startswith("text_encoder")}
    tokenizers = {}
    for name in encoders:
        write_tokenizer(folder / name)
        tokenizers[name.replace("text_encoder", "tokenizer")] = CLIPTokenizer.from_pretrained(folder / name)
    return Words(**encoders, **tokenizers)


@pytest.fixture
def pipe(tmp_path) -> Words:
    return words(tmp_path / "words")


def embedding(width=TEXT["hidden_size"], count=2):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["a1111.pt", "a1111.safetensors", "diffusers.bin", "diffusers.safetensors", "bare.pt"])
def test_embeddings(pipe, tmp_path, kind):
    vectors, file = embedding(), tmp_path / f"look-{kind}"
    save(
        {
            "a1111.pt": {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "look", "step": 9},
            "a1111.safetensors": {"emb_params": vectors},
            "bare.pt": vectors,
        }.get(kind, {"look": vectors}),
        file,
    )
    if file.suffix != ".safetensors":
        with pytest.raises(InputError, match=r"is a pickle"):
            pipe.load_textual_inversion(file)
    word = pipe.load_textual_inversion(file, allow_pickle=True)
    assert word == ("look" if kind in ("a1111.pt", "diffusers.bin", "diffusers.safetensors") else file.stem)
    ids = pipe.tokenizer.convert_tokens_to_ids([word, f"{word}_1"])
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], vectors)
    with pytest.raises(InputError, match="known to the text encoder already"):
        pipe.load_textual_inversion(file, allow_pickle=True)


def test_a_folder_and_a_word_of_ones_own(pipe, tmp_path):
    save({"look": embedding()}, tmp_path / "learned_embeds.safetensors")
    assert pipe.load_textual_inversion(tmp_path, "<mine>") == "<mine>"
    assert {"<mine>", "<mine>_1"} <= pipe.tokenizer.get_vocab().keys()


def test_two_text_encoders(tmp_path):
    pipe = words(tmp_path / "words", xl=True)
    file = save({"clip_l": embedding(16, 1), "clip_g": embedding(24, 1)}, tmp_path / "look.safetensors")
    assert pipe.load_textual_inversion(file) == "look"
    for tokenizer, encoder, width in (
        (pipe.tokenizer, pipe.text_encoder, 16),
        (pipe.tokenizer_2, pipe.text_encoder_2, 24),
    ):
        row = encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("look")]
        assert torch.equal(row, embedding(width, 1)[0])


def test_embeddings_that_do_not_fit(pipe, tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no pickle")
    for tensors, message in (
        ({"x": embedding(24)}, r"a\.safetensors is 24 numbers wide; this model's text_encoder reads 16"),
        (
            {"clip_l": embedding(), "clip_g": embedding(24)},
            "is for text_encoder_2, which this pipeline does not have",
        ),
        ({"a": embedding(), "b": embedding()}, "is no embedding of textual inversion"),
    ):
        with pytest.raises(CheckpointError, match=message):
            pipe.load_textual_inversion(save(tensors, tmp_path / "a.safetensors"))
    with pytest.raises(CheckpointError, match="there is no embedding"):
        pipe.load_textual_inversion(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match=r"broken\.pt cannot be read as tensors"):
        pipe.load_textual_inversion(tmp_path / "broken.pt", allow_pickle=True)
