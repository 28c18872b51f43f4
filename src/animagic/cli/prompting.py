"""Options about prompts that several commands share: special tokens and enhancement."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import say
from .options import MAGI1

KEY_VARIABLE = "ANIMAGIC_ENHANCE_KEY"


def _of_magi1(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=MAGI1)


Quality = Annotated[str | None, _of_magi1("The quality token in front of the prompt: hq or none.")]
Style = Annotated[str | None, _of_magi1("A style token: 3d, anime or none.")]
FirstFrames = Annotated[str | None, _of_magi1("A token for how it begins: static, dynamic or none.")]
DurationToken = Annotated[
    bool | None, _of_magi1("Tell each chunk how many remain.", "--duration-token/--no-duration-token")
]
Borderness = Annotated[bool, _of_magi1("The token of clips with borders.", "--borderness")]
NegativeTokens = Annotated[
    bool, _of_magi1("Steer away from captions, logos, transitions and borders.", "--negative-tokens")
]
SpecialTokens = Annotated[
    str | None, _of_magi1("The file special_tokens.npz, for models that have no table of their own.")
]
Enhance = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help=f"Let a chat endpoint rewrite the prompt first; its key is read from ${KEY_VARIABLE}."
    ),
]
EnhanceModel = Annotated[str | None, typer.Option(help="The language model that the endpoint is to use.")]


def token_names(
    quality: str | None, style: str | None, first_frames: str | None, duration_token: bool | None, borderness: bool
) -> tuple[str, ...]:
    """The names of the special tokens that were asked for; raises InputError for words that are not known."""
    names: list[str] = []
    for option, value, allowed in (
        ("--quality", quality, ("hq",)),
        ("--style", style, ("3d", "anime")),
        ("--first-frames", first_frames, ("static", "dynamic")),
    ):
        if value is not None and value in allowed:
            names.append(value)
        elif value not in (None, "none"):
            raise InputError(f"{option} {value} is unknown; choose {', '.join(allowed)} or none.")
    return (*names, *(["duration"] if duration_token else []), *(["borderness"] if borderness else []))


def negative_names(negative_tokens: bool) -> tuple[str, ...]:
    """The negative set, if it was asked for."""
    if not negative_tokens:
        return ()
    from ..systems.magi1.prompts import NEGATIVE_TOKENS

    return NEGATIVE_TOKENS


def enhanced(request: Any, url: str | None, model: str | None, output: str | None = None) -> Any:
    """The request as the endpoint at `url` has rewritten it; as it is, where there is none.

    output: whose unfinished run is to go on, with the prompt that it had.
    """
    if url is None and model is None:
        return request
    if url is None:
        raise InputError("--enhance-model needs --enhance URL: the address of the endpoint.")
    if model is None:
        raise InputError("--enhance needs --enhance-model NAME: a language model that the endpoint has.")
    from .. import requests
    from ..enhancement import openai_compatible

    better = requests.enhance(request, openai_compatible(url, model, os.environ.get(KEY_VARIABLE)), output)
    say(f"prompt: {better.prompt}")
    for chunk, text in better.prompts_at.items():
        say(f"prompt at {chunk}: {text}")
    return better
