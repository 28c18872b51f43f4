"""Text embeddings for every chunk of MAGI-1, with the special tokens in front."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ...errors import InputError
from .options import NEGATIVE_TOKENS

_SPECIAL_ROWS = {"transition": 0, "hq": 1, "static": 2, "dynamic": 3, "borderness": 4, "3d": 15, "anime": 16}
_DURATION_ROW, _DURATION_COUNT = 7, 8
# Each token is put in front of those before it, so the last of an order comes first.
_SPECIAL_ORDER = ("static", "dynamic", "borderness", "hq", "3d", "anime", "duration")


@dataclass(frozen=True)
class TextEmbedding:
    """embeds (batch, length, channels), mask (batch, length): 1 where there is text."""

    embeds: torch.Tensor
    mask: torch.Tensor

    def prepend(self, row: torch.Tensor) -> TextEmbedding:
        """One more token in front; the length stays."""
        batch, length = self.mask.shape
        row = row.to(self.embeds).expand(batch, 1, -1)
        mask = torch.cat([torch.ones_like(self.mask[:, :1]), self.mask], dim=1)
        return TextEmbedding(torch.cat([row, self.embeds], dim=1)[:, :length], mask[:, :length])

    def repeated(self, count: int) -> TextEmbedding:
        """Each prompt `count` times, for several videos a prompt."""
        return TextEmbedding(self.embeds.repeat_interleave(count, 0), self.mask.repeat_interleave(count, 0))

    def mixed(self, other: TextEmbedding, share: float) -> TextEmbedding:
        """Interpolated with another text; tokens that only one has stay as they are."""
        length = max(self.mask.shape[1], other.mask.shape[1])

        def padded(x: torch.Tensor) -> torch.Tensor:
            return nn.functional.pad(x, (*(0, 0) * (x.ndim - 2), 0, length - x.shape[1]))

        a, b, mask, other_mask = map(padded, (self.embeds, other.embeds, self.mask, other.mask))
        both = ((mask != 0) & (other_mask != 0))[..., None]
        embeds = torch.where(both, torch.lerp(a, b, share), torch.where(mask[..., None] != 0, a, b))
        return TextEmbedding(embeds, torch.maximum(mask, other_mask))

    def to(self, device: torch.device) -> TextEmbedding:
        return TextEmbedding(self.embeds.to(device), self.mask.to(device))

    def trimmed(self, spare: int = 0) -> TextEmbedding:
        """Without the padding that no sample of the batch uses, except `spare` tokens."""
        used = (self.mask != 0).any(0).nonzero()
        length = min((int(used[-1]) + 1 if len(used) else 1) + spare, self.mask.shape[1])
        return TextEmbedding(self.embeds[:, :length], self.mask[:, :length])


class Magi1SpecialTokens(ModelMixin, ConfigMixin):
    """The table of `special_tokens.npz`: learned rows that ask for quality, style, kind of motion and duration."""

    @register_to_config
    def __init__(self, channels: int = 4096, rows: int = 100):
        super().__init__()
        self.caption_token = nn.Parameter(torch.zeros(1, channels))
        self.logo_token = nn.Parameter(torch.zeros(1, channels))
        self.other_tokens = nn.Parameter(torch.zeros(rows, channels))

    def row(self, name: str, chunks_left: int = 1) -> torch.Tensor:
        """The row of a token; chunks_left: that of "duration". Raises InputError."""
        if name == "duration":
            return self.other_tokens[_DURATION_ROW + min(chunks_left, _DURATION_COUNT) - 1]
        if name in ("caption", "logo"):
            return getattr(self, f"{name}_token")[0]
        if name not in _SPECIAL_ROWS:
            known = ", ".join([*_SPECIAL_ORDER, "transition", "caption", "logo"])
            raise InputError(f"special token {name!r} is unknown; choose from {known}.")
        return self.other_tokens[_SPECIAL_ROWS[name]]


def _check_tokens(kind: str, names: Sequence[str], known: Sequence[str], table: Magi1SpecialTokens | None) -> None:
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{kind} token {unknown[0]!r} is unknown; choose from {', '.join(known)}.")
    if names and table is None:
        which = "" if kind == "special" else f"the {kind} "
        raise InputError(f"this model has no special tokens; leave out {which}{', '.join(names)}.")


@dataclass(frozen=True)
class ChunkPrompts:
    """The text of every chunk.

    Args:
        prompts: (first chunk, text) in increasing order from chunk 0; a prompt without text is none.
        null: the text of a chunk without a prompt.
        special: names of special tokens in front of each prompt, with their `table`.
        num_chunks: chunks of the video, for the duration token; None: endless.
        hand_over: chunks over which one prompt turns into the next; 0: at once.
    """

    prompts: tuple[tuple[int, TextEmbedding], ...]
    null: TextEmbedding
    special: tuple[str, ...] = ()
    table: Magi1SpecialTokens | None = None
    num_chunks: int | None = None
    hand_over: int = 0

    def __post_init__(self):
        if self.hand_over < 0:
            raise InputError(f"a hand-over cannot take {self.hand_over} chunks; give 0 or more.")
        _check_tokens("special", self.special, _SPECIAL_ORDER, self.table)
        starts = [first for first, _ in self.prompts]
        if not starts or starts[0] != 0 or any(a >= b for a, b in itertools.pairwise(starts)):
            raise InputError(f"prompts must begin at chunk 0 and at increasing chunks after it, not at {starts}.")
        prompts = tuple((first, text if text.mask.any() else self.null) for first, text in self.prompts)
        object.__setattr__(self, "prompts", prompts)

    def at(self, chunk: int) -> TextEmbedding:
        (begin, text), *earlier = [(first, text) for first, text in self.prompts if first <= chunk][::-1]
        if earlier and chunk < begin + self.hand_over and text is not self.null:
            text = earlier[0][1].mixed(text, (chunk - begin + 1) / (self.hand_over + 1))
        left = _DURATION_COUNT if self.num_chunks is None else self.num_chunks - chunk
        for name in _SPECIAL_ORDER:
            if name in self.special and self.table is not None and text is not self.null:
                text = text.prepend(self.table.row(name, left))
        return text

    def to(self, device: torch.device) -> ChunkPrompts:
        """On a device, without the padding that special tokens do not need."""
        null, spare = self.null.to(device).trimmed(), len(self.special)
        moved = ((c, null if text is self.null else text.to(device).trimmed(spare)) for c, text in self.prompts)
        return replace(self, prompts=tuple(moved), null=null)


def negative_caption(null: TextEmbedding, names: Sequence[str], table: Magi1SpecialTokens | None) -> TextEmbedding:
    """The null caption with tokens of NEGATIVE_TOKENS in front: guidance leads away from them. Raises InputError."""
    _check_tokens("negative", names, NEGATIVE_TOKENS, table)
    for name in NEGATIVE_TOKENS:
        if name in names and table is not None:
            null = null.prepend(table.row(name))
    return null


def null_caption(embedding: torch.Tensor, batch: int, length: int = 50) -> TextEmbedding:
    """The learned null caption (max_length, channels), of which the first 50 positions are text."""
    mask = (torch.arange(len(embedding), device=embedding.device) < length).long()
    return TextEmbedding(embedding.detach()[None].expand(batch, -1, -1), mask[None].expand(batch, -1))


def clean_caption(text: str) -> str:
    """A caption as in the training of the published T5, by diffusers' cleaner of DeepFloyd IF."""
    from diffusers.pipelines.deepfloyd_if.pipeline_if import IFPipeline

    return IFPipeline._clean_caption(IFPipeline, text)


def encode_text(text_encoder, tokenizer, prompts: Sequence[str], max_length: int) -> TextEmbedding:
    """Embed prompts with any transformers encoder, in float32, padded to `max_length`. Raises InputError."""
    prompts = [prompt.strip() for prompt in prompts]
    if not all(prompts):
        raise InputError("the prompt is empty; say what the video should show.")
    if "t5" in type(text_encoder).__name__.lower():
        prompts = [clean_caption(clean_caption(prompt)) for prompt in prompts]
    tokens = tokenizer(list(prompts), max_length=max_length, padding="max_length", truncation=True, return_tensors="pt")
    # Run on the used length only: the padding would be masked out anyway.
    used = max(int(tokens.attention_mask.sum(1).max()), 1)
    if text_encoder.device.type != "meta":  # else its weights are brought in by hooks, which move the tokens as well
        tokens = tokens.to(text_encoder.device)
    with torch.no_grad():
        states = text_encoder(tokens.input_ids[:, :used], attention_mask=tokens.attention_mask[:, :used])
    embeds = states.last_hidden_state.float()
    embeds = torch.nn.functional.pad(embeds, (0, 0, 0, max_length - used))
    return TextEmbedding(embeds, tokens.attention_mask)


def enhanced(prompt: Any, prompts_at: dict[int, str] | None, enhancer: Callable[[str], str]) -> tuple[Any, Any]:
    """The prompt (or prompts) and later prompts, rewritten by an enhancer. Raises InputError."""

    def one(text: str) -> str:
        better = enhancer(text)
        if not isinstance(better, str):
            raise InputError(f"prompt_enhancer must return a text, not {type(better).__name__}.")
        return better

    if prompt is None:
        raise InputError("prompt_enhancer needs a prompt; with prompt_embeds, enhance the text before encoding it.")
    prompt = one(prompt) if isinstance(prompt, str) else [one(text) for text in prompt]
    return prompt, {chunk: one(text) for chunk, text in (prompts_at or {}).items()}
