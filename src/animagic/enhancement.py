"""Prompt enhancement: few words become a long description, as models were trained on. Off unless it is asked for."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from http.client import HTTPException, InvalidURL
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .errors import InputError
from .outside import answer_of, parsed

Enhancer = Callable[[str], str]
"""Takes a prompt, gives a better one."""

SYSTEM_PROMPT = (
    "You rewrite short descriptions of videos. Say in one paragraph of at most 120 words what is seen, how it moves, "
    "and how the camera, the light and the style are. Keep every subject, number, colour and action that is given, "
    "invent no story, and answer with the description alone, in English."
)

MAX_BYTES = 1 << 20
"""Largest answer of an endpoint that is read."""
MAX_CHARACTERS = 4000
"""Longest enhanced prompt: about the 800 tokens that the published text encoder reads."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the prompt and the key to a place that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


def openai_compatible(
    url: str, model: str, api_key: str | None = None, timeout: float = 60.0, system_prompt: str = SYSTEM_PROMPT
) -> Enhancer:
    """An enhancer that asks a chat endpoint (OpenAI's, vLLM, llama.cpp, Ollama, ...). Only the prompt is sent.

    Args:
        url: its base address, for example http://localhost:8000/v1; `/chat/completions` is added.
        model: the name of the language model there.
        api_key: sent as bearer token, if the endpoint wants one. It is in no message and in no file.
        timeout: seconds until the whole answer must be here.
        system_prompt: what the language model is told to do.
    Raises: InputError for an address that cannot be used; the enhancer raises InputError if there is no answer, or
        none that is a prompt.
    """
    address = _address(url)
    shown = address._replace(query="").geturl()  # a query may hold a key
    endpoint = address._replace(path=address.path.rstrip("/") + "/chat/completions").geturl()
    if not model.strip():
        raise InputError("the name of the enhancing model is empty; name one that the endpoint has.")
    if not timeout > 0:
        raise InputError(f"the timeout must be above 0 seconds, not {timeout:g}.")
    headers = {"Content-Type": "application/json"}
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):
            raise InputError("the key of the enhancing endpoint has characters that no key has; copy it again.")
        headers["Authorization"] = f"Bearer {api_key}"

    def enhance(prompt: str) -> str:
        messages = [{"role": "system", "content": system_prompt}, {"role": "user", "content": prompt}]
        body = json.dumps({"model": model, "messages": messages}).encode()
        request = urllib.request.Request(endpoint, body, headers, method="POST")
        try:
            opener = urllib.request.build_opener(_NoRedirects)
            answer = answer_of(partial(opener.open, request, timeout=timeout), timeout, MAX_BYTES)
        except urllib.error.HTTPError as error:
            said = getattr(error, "said", b"").decode("utf-8", "replace")
            if api_key:
                said = said.replace(api_key, "...")
            reason = " ".join(f"{error.reason}: {said}".split()).rstrip(":. ")
            raise InputError(f"{shown} refused to enhance the prompt with status {error.code} ({reason}).") from None
        except (OSError, HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                raise InputError(f"{shown} gave no answer within {timeout:g} s; ask again, or leave it out.") from None
            reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
            raise InputError(f"{shown} cannot be reached to enhance the prompt: {reason.rstrip('.')}.") from None
        if len(answer) > MAX_BYTES:
            raise InputError(f"the answer of {shown} is longer than {MAX_BYTES} bytes; that is no prompt.")
        return _read(answer, shown)

    return enhance


def _address(url: str) -> SplitResult:
    try:
        address = urlsplit(url.strip())
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except (ValueError, InvalidURL):
        usable = False
    if not usable:
        raise InputError("the address of the enhancing endpoint must begin with http:// or https:// and name a host.")
    if address.username is not None or address.password is not None:
        raise InputError("the address of the enhancing endpoint holds a password; give the key by itself instead.")
    return address._replace(fragment="")


def _read(answer: bytes, shown: str) -> str:
    """The prompt in a chat completion, on one line."""
    try:
        content = parsed(answer.decode("utf-8"), "answer", as_json=True)["choices"][0]["message"]["content"]
        if not isinstance(content, str):
            raise TypeError
    except (ValueError, LookupError, TypeError):
        raise InputError(f"the answer of {shown} is not a chat completion; check the address.") from None
    # Some language models think aloud first, and many put quotation marks around what they were asked for.
    words = content.rpartition("</think>")[2].split()
    text = "".join(character for character in " ".join(words) if character.isprintable())
    if len(text) > 1 and text[0] + text[-1] in ('""', "''", "“”"):
        text = text[1:-1].strip()
    if not text:
        raise InputError(f"{shown} answered without a word; ask again, or leave the enhancement out.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{shown} answered with {len(text)} characters; a prompt has at most {MAX_CHARACTERS}.")
    return text
