"""The prompts of MAGI-1: a text for every chunk, with the special tokens in front."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ...errors import InputError
from ...pipelines.text import LivePrompt, PromptSource, TextEmbedding, TextMixin
from .options import NEGATIVE_TOKENS
from .schema import ModelConfig

_SPECIAL_ROWS = {"transition": 0, "hq": 1, "static": 2, "dynamic": 3, "borderness": 4, "3d": 15, "anime": 16}
_DURATION_ROW, _DURATION_COUNT = 7, 8
# Each token is put in front of those before it, so the last of an order comes first.
_SPECIAL_ORDER = ("static", "dynamic", "borderness", "hq", "3d", "anime", "duration")


class Magi1SpecialTokens(ModelMixin, ConfigMixin):
    """The table of `special_tokens.npz`: learned rows that ask for quality, style, kind of motion and duration."""

    __module__ = "animagic"  # where a model folder says it is; files of ours may move

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
        _check_tokens("special", [name], [*_SPECIAL_ORDER, "transition", "caption", "logo"], self)
        return self.other_tokens[_SPECIAL_ROWS[name]]


def _check_tokens(kind: str, names: Sequence[str], known: Sequence[str], table: Magi1SpecialTokens | None) -> None:
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{kind} token {unknown[0]!r} is unknown; choose from {', '.join(known)}.")
    if names and table is None:
        which = "" if kind == "special" else f"the {kind} "
        raise InputError(f"this model has no special tokens; leave out {which}{', '.join(names)}.")


@dataclass
class ChunkPrompts:
    """The text of every chunk.

    Args:
        prompts: (first chunk, text) in increasing order from chunk 0; a prompt without text is none.
        null: the text of a chunk without a prompt.
        special: names of special tokens in front of each prompt, with their `table`.
        num_chunks: chunks of the video, for the duration token; None: endless.
        hand_over: chunks over which one prompt turns into the next; 0: at once.
        source, encode: of later prompts, and what turns such a text into its embedding.
        said: what it said, chunk -> text, from the first one up to the chunk that was `asked` for last.
    """

    prompts: tuple[tuple[int, TextEmbedding], ...]
    null: TextEmbedding
    special: tuple[str, ...] = ()
    table: Magi1SpecialTokens | None = None
    num_chunks: int | None = None
    hand_over: int = 0
    source: PromptSource | None = None
    encode: Any = None
    said: dict[int, str] = field(default_factory=dict)
    asked: int = 0

    def __post_init__(self):
        if self.hand_over < 0:
            raise InputError(f"a hand-over cannot take {self.hand_over} chunks; give 0 or more.")
        _check_tokens("special", self.special, _SPECIAL_ORDER, self.table)
        self.prompts = tuple((first, text if text.mask.any() else self.null) for first, text in self.prompts)

    def at(self, chunk: int) -> TextEmbedding:
        while self.source is not None and self.asked < chunk:
            self.asked += 1
            said = self.source(self.asked)
            if said is not None and said.strip():
                self._change(self.asked, said)
        (begin, text), *earlier = [(first, text) for first, text in self.prompts if first <= chunk][::-1]
        if earlier and chunk < begin + self.hand_over and text is not self.null:
            text = earlier[0][1].mixed(text, (chunk - begin + 1) / (self.hand_over + 1))
        left = _DURATION_COUNT if self.num_chunks is None else self.num_chunks - chunk
        names = () if text is self.null else self.special
        return _with_tokens(text, names, _SPECIAL_ORDER, self.table, left)

    def _change(self, chunk: int, said: str) -> None:
        text = self.encode(said).to(self.null.embeds.device).trimmed(len(self.special))
        self.said[chunk] = said
        self.prompts = (*self.prompts, (chunk, text))

    def to(self, device: torch.device) -> ChunkPrompts:
        """On a device, without the padding that special tokens do not need."""
        null, spare = self.null.to(device).trimmed(), len(self.special)
        moved = ((c, null if text is self.null else text.to(device).trimmed(spare)) for c, text in self.prompts)
        return replace(self, prompts=tuple(moved), null=null)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What was said; nothing where there is no source."""
        text = json.dumps({"asked": self.asked, "said": self.said})
        return {"live": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)} if self.source else {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        if self.source is not None:
            kept = json.loads(bytes(state["live"].tolist()))
            if "0" in kept["said"]:  # perhaps typed before the first chunk, so not what this command began with
                self.prompts = ()
            for chunk, text in kept["said"].items():
                self._change(int(chunk), text)
            self.asked = kept["asked"]
            if isinstance(self.source, LivePrompt):
                self.source.remember(self.said)


def _with_tokens(text: TextEmbedding, names, order: Sequence[str], table, left: int = 1) -> TextEmbedding:
    """A text with tokens in front, which stand in the given order from its beginning on."""
    for name in order:
        if name in names:
            text = text.prepend(table.row(name, left))
    return text


def negative_caption(null: TextEmbedding, names: Sequence[str], table: Magi1SpecialTokens | None) -> TextEmbedding:
    """The null caption with tokens of NEGATIVE_TOKENS in front: guidance leads away from them. Raises InputError."""
    _check_tokens("negative", names, NEGATIVE_TOKENS, table)
    return _with_tokens(null, names, NEGATIVE_TOKENS, table)


def null_caption(embedding: torch.Tensor, batch: int, length: int = 50) -> TextEmbedding:
    """The learned null caption (max_length, channels), of which the first 50 positions are text."""
    mask = (torch.arange(len(embedding), device=embedding.device) < length).long()
    return TextEmbedding(embedding.detach()[None].expand(batch, -1, -1), mask[None].expand(batch, -1))


class Magi1PromptMixin(TextMixin):
    """The prompts of Magi1Pipeline: encoded at once, ahead of its calls, or while it makes the video."""

    transformer: Any
    special_tokens: Any
    _execution_device: torch.device

    @property
    def text_length(self) -> int:
        if self.transformer is None:  # only texts are read: as the published transformers have it
            return ModelConfig.model_fields["caption_max_length"].default
        return self.transformer.config.caption_max_length

    def encode_prompt(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        num_videos_per_prompt: int = 1,
        device: torch.device | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Tensors that a call takes back as prompt_embeds, prompt_embeds_mask, negative_prompt_embeds and
        negative_prompt_embeds_mask; None for the last two without a negative prompt: the model has its own. It needs no
        part but the text encoder. Raises InputError."""
        first = self.encode_texts([prompt] if isinstance(prompt, str) else prompt)
        texts = [first, None if negative_prompt is None else self._negative(negative_prompt, len(first.mask))]
        made: Any = []
        for text in texts:
            text = None if text is None else text.repeated(num_videos_per_prompt).to(device or self._execution_device)
            made += [None, None] if text is None else [text.embeds, text.mask]
        return tuple(made)

    def _negative(self, texts: str | Sequence[str], count: int) -> TextEmbedding:
        texts = [texts] * count if isinstance(texts, str) else texts
        if len(texts) != count:
            raise InputError(f"there are {count} prompts but {len(texts)} negative ones; give one, or one each.")
        return self.encode_texts(texts)

    def embed_prompts(
        self,
        prompt: str | Sequence[str] | PromptSource | None,
        num_chunks: int | None = None,
        *,
        prompts_at: dict[int, str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_mask: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds_mask: torch.Tensor | None = None,
        num_videos_per_prompt: int = 1,
        special_tokens: Sequence[str] = (),
        negative_special_tokens: Sequence[str] = (),
        hand_over: int = 0,
        prompt_enhancer: Callable[[str], str] | None = None,
    ) -> ChunkPrompts:
        """The text of every chunk. Raises InputError.

        Args:
            prompt: one text, or one a video of the batch; or a `LivePrompt`, or any `PromptSource`.
            num_chunks: of the video; None: endless.
            prompts_at: chunk -> text that holds from there on, for every video of the batch.
            negative_prompt: one text, or one a video of the batch, in place of the learned null caption.
            prompt_embeds, prompt_embeds_mask: (batch, length, channels), (batch, length) in place of `prompt`;
                negative_prompt_embeds and _mask likewise.
            special_tokens, negative_special_tokens: names of tokens in front of every prompt, and of the null caption.
            hand_over: chunks over which one prompt turns into the next; 0: at once.
            prompt_enhancer: rewrites every prompt, for example animagic.enhancement's.
        """
        source = prompt if callable(prompt) else None
        if source is not None:
            if prompts_at:
                raise InputError("give later prompts by prompts_at or by a live prompt, not by both.")
            if (prompt := source(0)) is None:
                raise InputError("the live prompt has nothing for the first chunk; say what the video should show.")
        for chunk in prompts_at or ():
            if chunk < 0 or (num_chunks is not None and chunk >= num_chunks):
                count = "no end" if num_chunks is None else num_chunks
                raise InputError(f"no prompt can begin at chunk {chunk}: the video has {count}, counted from 0.")

        def enhanced(text: str) -> str:
            better = text if prompt_enhancer is None else prompt_enhancer(text)
            if not isinstance(better, str):
                raise InputError(f"prompt_enhancer must return a text, not {type(better).__name__}.")
            return better

        if prompt is not None and prompt_embeds is not None:
            raise InputError("give either prompt or prompt_embeds, not both.")
        texts: Any = [prompt] if isinstance(prompt, str) else prompt
        if texts is not None and len(texts):
            first = self.encode_texts([enhanced(text) for text in texts])
        elif prompt_embeds is not None:
            if prompt_enhancer is not None:
                raise InputError(
                    "prompt_enhancer needs a prompt; with prompt_embeds, enhance the text before encoding it."
                )
            if prompt_embeds_mask is None:
                raise InputError("prompt_embeds needs its prompt_embeds_mask.")
            first = TextEmbedding(prompt_embeds, prompt_embeds_mask)
        else:
            raise InputError("give a prompt: say what the video should show.")
        batch = len(first.mask)

        def later(text: str) -> TextEmbedding:
            return self.encode_texts([enhanced(text)] * batch).repeated(num_videos_per_prompt)

        prompts = {0: first.repeated(num_videos_per_prompt)}
        prompts |= {chunk: later(text) for chunk, text in sorted((prompts_at or {}).items())}
        if negative_prompt_embeds is not None:
            if negative_prompt is not None:
                raise InputError("give either negative_prompt or negative_prompt_embeds, not both.")
            if negative_prompt_embeds_mask is None or len(negative_prompt_embeds) not in (1, batch):
                raise InputError(
                    f"negative_prompt_embeds need their mask, negative_prompt_embeds_mask, and 1 or {batch} rows."
                )
            embeds, mask = negative_prompt_embeds, negative_prompt_embeds_mask
            null = TextEmbedding(embeds.expand(batch, -1, -1), mask.expand(batch, -1))
        elif negative_prompt and (not isinstance(negative_prompt, str) or negative_prompt.strip()):
            null = self._negative(negative_prompt, batch)
        else:
            null = null_caption(self.transformer.y_embedder(), batch)
        null = negative_caption(null, negative_special_tokens, self.special_tokens)
        return ChunkPrompts(
            prompts=tuple(prompts.items()),
            null=null.repeated(num_videos_per_prompt),
            special=tuple(special_tokens),
            table=self.special_tokens,
            num_chunks=num_chunks,
            hand_over=hand_over,
            source=source,
            encode=later,
            said={} if source is None else {0: str(prompt)},
        ).to(self._execution_device)
