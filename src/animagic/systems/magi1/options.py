"""The options of MAGI-1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import Field

from ...pipelines.options import MOST_FRAMES, MemoryOptions, Option

NEGATIVE_TOKENS = ("caption", "logo", "transition", "borderness")
"""The negative set: what was seen in training and is not wanted, in front of the null caption."""


class Magi1Options(MemoryOptions):
    """A request for a video of MAGI-1."""

    hand_over: Annotated[
        int, Ge(0), Le(MOST_FRAMES), Option("Chunks over which a later prompt takes over; 0: at once.")
    ] = 0
    live: Annotated[bool, Option("Each line typed meanwhile is the prompt from the next chunk on.", argument=None)] = (
        Field(default=False, exclude=True)
    )
    quality: Annotated[
        Literal["hq", "none"] | None,
        Option("The quality token in front of the prompt: hq or none.", argument=None),
    ] = None
    style: Annotated[
        Literal["3d", "anime", "none"] | None, Option("A style token: 3d, anime or none.", argument=None)
    ] = None
    first_frames: Annotated[
        Literal["static", "dynamic", "none"] | None,
        Option("A token for how it begins: static, dynamic or none.", argument=None),
    ] = None
    duration_token: Annotated[bool | None, Option("Tell each chunk how many remain.", argument=None)] = None
    borderness: Annotated[bool, Option("The token of clips with borders.", argument=None)] = False
    negative_tokens: Annotated[
        bool, Option("Steer away from captions, logos, transitions and borders.", argument=None)
    ] = False
    special_token_file: Annotated[
        str | None,
        Option(
            "The file special_tokens.npz, for models that have no table of their own.",
            flag="--special-tokens",
            argument=None,
            file="special_token_file",
            weights=True,
        ),
    ] = None
    video_part: Literal["first", "last"] | None = None
    """Of a clip: "first": its first frames are continued, and not shown again, as the published code does; else its
    last ones are, and stay in front."""
    latents: str | None = None
    """A folder with the latents of an earlier video (`animagic.pipelines.continuing`), of which the first
    `latent_frames` are continued: its frames stay in front, and are counted in `frames`."""
    latent_frames: Annotated[int, Ge(0), Le(MOST_FRAMES)] = 0

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The special tokens in front of every prompt, by their names."""
        named = tuple(n for n in (self.quality, self.style, self.first_frames) if n not in (None, "none"))
        return (*named, *(["duration"] if self.duration_token else []), *(["borderness"] if self.borderness else []))

    @property
    def negative_special_tokens(self) -> tuple[str, ...]:
        return NEGATIVE_TOKENS if self.negative_tokens else ()

    @classmethod
    def upgraded(cls, stored: dict[str, Any]) -> dict[str, Any]:
        """Before the options had a field each, the names of the tokens were stored."""
        named = set(stored.get("special_tokens") or ())
        fields = {"hq": "quality", "3d": "style", "anime": "style", "static": "first_frames", "dynamic": "first_frames"}
        tokens: dict[str, Any] = {field: name for name, field in fields.items() if name in named}
        flags = {"duration": "duration_token", "borderness": "borderness"}
        tokens |= {field: True for name, field in flags.items() if name in named}
        if stored.get("negative_special_tokens"):
            tokens["negative_tokens"] = True
        return super().upgraded(stored) | tokens
