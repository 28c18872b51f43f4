"""What MAGI-1 reads: special tokens, and prompts that change on the way."""

import pytest
import torch

from animagic.errors import InputError
from animagic.pipelines.text import TextEmbedding
from animagic.systems.magi1.prompts import (
    NEGATIVE_TOKENS,
    ChunkPrompts,
    Magi1SpecialTokens,
    negative_caption,
    null_caption,
)

CHANNELS, LENGTH = 4, 10


def text(value: float, used: int = 5, batch: int = 1) -> TextEmbedding:
    """A text whose rows are value + 0.01, value + 0.02, ..., behind them padding."""
    rows = value + 0.01 * torch.arange(1, LENGTH + 1)
    mask = (torch.arange(LENGTH) < used).long()
    return TextEmbedding(rows[None, :, None].repeat(batch, 1, CHANNELS) * mask[:, None], mask.repeat(batch, 1))


@pytest.fixture(scope="module")
def table() -> Magi1SpecialTokens:
    """Row i of the table is full of -i; the caption's token is -100, the logo's -200."""
    table = Magi1SpecialTokens(CHANNELS, rows=20)
    with torch.no_grad():
        table.other_tokens.copy_(-torch.arange(20.0)[:, None].expand(20, CHANNELS))
        table.caption_token.fill_(-100)
        table.logo_token.fill_(-200)
    return table


def rows(embedding: TextEmbedding) -> list[float]:
    return [round(x, 2) for x in embedding.embeds[0, :, 0].tolist()]


NULL = TextEmbedding(torch.full((1, LENGTH, CHANNELS), 9.0), torch.ones(1, LENGTH).long())


# Special tokens


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("transition", 0),
        ("hq", 1),
        ("static", 2),
        ("dynamic", 3),
        ("borderness", 4),
        ("3d", 15),
        ("anime", 16),
        ("caption", 100),
        ("logo", 200),
    ],
)
def test_rows_of_the_table(table, name, row):
    assert table.row(name).tolist() == [-row] * CHANNELS


@pytest.mark.parametrize(("chunks_left", "row"), [(1, 7), (2, 8), (7, 13), (8, 14), (9, 14), (100, 14)])
def test_durations_are_counted_in_chunks_left_up_to_eight(table, chunks_left, row):
    assert table.row("duration", chunks_left)[0] == -row


def test_an_unknown_token_is_refused(table):
    with pytest.raises(InputError, match="choose from static"):
        table.row("4k")
    with pytest.raises(InputError, match="'4k' is unknown"):
        ChunkPrompts(((0, text(1)),), NULL, ("hq", "4k"), table)
    with pytest.raises(InputError, match="has no special tokens; leave out hq"):
        ChunkPrompts(((0, text(1)),), NULL, ("hq",))


def test_tokens_stand_in_the_published_order_whatever_the_given_one(table):
    names = ("hq", "duration", "anime", "static", "3d", "dynamic", "borderness")
    embedding = ChunkPrompts(((0, text(1, used=2)),), NULL, names, table, num_chunks=3).at(0)
    # Each is put in front of those before it: static first, so it stands last; duration (3 left: row 9) in front.
    assert rows(embedding)[:9] == [-9, -16, -15, -1, -4, -3, -2, 1.01, 1.02]
    assert embedding.mask[0].tolist() == [1] * 9 + [0]


def test_what_no_longer_fits_is_cut_off(table):
    full = text(1, used=LENGTH)
    embedding = ChunkPrompts(((0, full),), NULL, ("hq", "duration"), table, num_chunks=1).at(0)
    assert embedding.embeds.shape == full.embeds.shape
    assert rows(embedding) == [-7, -1, *rows(full)[:-2]]
    assert embedding.mask.tolist() == [[1] * LENGTH]


def test_prepending_keeps_batch_and_mask():
    embedding = text(1, used=3, batch=2).prepend(torch.full((CHANNELS,), 7.0))
    assert embedding.embeds.shape == (2, LENGTH, CHANNELS)
    assert embedding.mask.tolist() == [[1] * 4 + [0] * 6] * 2
    assert (embedding.embeds[:, 0] == 7).all()


def test_every_chunk_is_told_how_many_remain(table):
    prompts = ChunkPrompts(((0, text(1)),), NULL, ("duration",), table, num_chunks=10)
    # min(n - i - 1, 7) of eight rows that begin at 7.
    assert [-rows(prompts.at(chunk))[0] for chunk in range(10)] == [14, 14, 14, 13, 12, 11, 10, 9, 8, 7]


def test_an_endless_video_is_told_the_longest_duration(table):
    prompts = ChunkPrompts(((0, text(1)),), NULL, ("duration",), table)
    assert [rows(prompts.at(chunk))[0] for chunk in (0, 5, 500)] == [-14] * 3


def test_special_tokens_cost_no_word_of_the_prompt(table):
    """Where there is padding, the tokens push out padding, also on the device."""
    prompts = ChunkPrompts(((0, text(1, used=5)),), NULL, ("hq", "duration"), table, num_chunks=1)
    expected = [-7, -1, 1.01, 1.02, 1.03, 1.04, 1.05]
    assert rows(prompts.at(0))[:7] == expected
    moved = prompts.to(torch.device("cpu")).at(0)
    assert rows(moved)[:7] == expected
    assert moved.mask[0, :7].tolist() == [1] * 7


# The negative set


def test_the_negative_set_stands_in_front_of_the_null_caption(table):
    """Applied in the order caption, logo, transition, borderness, so the last is first."""
    null = text(5, used=3)
    for names in (NEGATIVE_TOKENS, reversed(NEGATIVE_TOKENS)):
        whole = negative_caption(null, tuple(names), table)
        assert rows(whole)[:7] == [-4, 0, -200, -100, 5.01, 5.02, 5.03]
        assert whole.mask.tolist() == [[1] * 7 + [0] * 3]
    assert rows(negative_caption(null, ("logo",), table))[:2] == [-200, 5.01]
    assert negative_caption(null, (), None) is null


def test_negative_tokens_need_a_table_and_known_names(table):
    with pytest.raises(InputError, match="negative token 'hq' is unknown; choose from caption, logo"):
        negative_caption(NULL, ("logo", "hq"), table)
    with pytest.raises(InputError, match="has no special tokens; leave out the negative caption, logo"):
        negative_caption(NULL, ("caption", "logo"), None)


# Prompts of chunks


def test_each_prompt_holds_until_the_next():
    first, second, third = text(1), text(2), text(3)
    prompts = ChunkPrompts(((0, first), (2, second), (5, third)), NULL)
    assert [prompts.at(chunk) for chunk in range(7)] == [first, first, second, second, second, third, third]


def test_a_prompt_without_text_is_the_null_caption_without_special_tokens(table):
    silent = TextEmbedding(torch.randn(1, LENGTH, CHANNELS), torch.zeros(1, LENGTH).long())
    prompts = ChunkPrompts(((0, silent), (1, text(1))), NULL, ("hq",), table)
    assert prompts.at(0) is NULL
    assert rows(prompts.at(1))[0] == -1
    moved = prompts.to(torch.device("cpu"))
    assert moved.at(0) is moved.null


def test_on_the_device_padding_is_left_out():
    prompts = ChunkPrompts(((0, text(1, used=5)), (2, text(2, used=3))), NULL).to(torch.device("cpu"))
    assert prompts.at(0).embeds.shape == (1, 5, CHANNELS)
    assert prompts.at(2).embeds.shape == (1, 3, CHANNELS)
    assert prompts.null.embeds.shape == (1, LENGTH, CHANNELS)
    both = TextEmbedding(
        torch.cat([text(1, 5).embeds, text(2, 7).embeds]), torch.cat([text(1, 5).mask, text(2, 7).mask])
    )
    assert both.trimmed().mask.tolist() == [[1] * 5 + [0] * 2, [1] * 7]


def test_fifty_rows_of_the_null_caption_are_text():
    embedding = torch.nn.Parameter(torch.randn(64, CHANNELS))
    null = null_caption(embedding, 3)
    assert null.embeds.shape == (3, 64, CHANNELS)
    assert null.mask.tolist() == [[1] * 50 + [0] * 14] * 3
    assert torch.equal(null.embeds[2], embedding)
    assert not null.embeds.requires_grad
    assert null_caption(embedding, 1, length=10).mask.sum() == 10
