"""What comes from outside: text for the terminal, files of text, and answers of the network, each within limits."""

from __future__ import annotations

import json
import queue
import re
import stat
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from .errors import InputError

MOST_TEXT = 2**24
"""Bytes of a file of text that are read: no configuration or recipe is so long."""
MOST_DEPTH = 32
"""How deep its values may lie in each other."""

# Characters that steer a terminal, or turn the direction of text, and halves of characters.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str, lines: bool = False) -> str:
    r"""Text as a terminal may get it: characters that would steer it as escapes, such as \x1b.

    lines: as one line, with line breaks and tabs as escapes, too.
    """
    shown = _STEERING.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)
    return shown.replace("\n", r"\n").replace("\t", r"\t") if lines else shown


def printable_json(value: Any) -> str:
    """A value as one line of JSON that a terminal may get, too."""
    text = json.dumps(value, ensure_ascii=False)
    return _STEERING.sub(lambda found: rf"\u{ord(found[0]):04x}", text)


def read_text(path: str | Path, what: str) -> str:
    """The text of a file. what: is read there, for the sentence. Raises InputError: what is no file of text, or one of
    more than MOST_TEXT bytes."""
    try:
        facts = Path(path).stat()
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"the {what} {path} cannot be read: it is no file.")
        if facts.st_size > MOST_TEXT:
            raise InputError(f"the {what} {path} has {facts.st_size} bytes; {MOST_TEXT} is the most that it can have.")
        return Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the {what} {path} cannot be read: it is not text in UTF-8.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise InputError(f"the {what} {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def parsed(text: str, what: str, as_json: bool = False) -> Any:
    """The values of JSON or YAML: dicts with texts as keys, lists, texts, numbers, true, false and null.

    what: the text is, for the sentence. Raises InputError for another syntax, other kinds of values, such as dates,
    and values that lie too deep.
    """
    try:
        if as_json:
            value = json.loads(text)
        else:
            import yaml

            value = yaml.safe_load(text)
    except RecursionError as error:
        raise InputError(f"the {what} is nested too deeply: {MOST_DEPTH} levels are the most.") from error
    except Exception as error:  # yaml's readers raise almost anything for what they take for dates and numbers
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"the {what} is not valid {'JSON' if as_json else 'YAML'}: {reason}.") from error
    _check_plain(value, what, 0, [0])
    return value


_MOST_VALUES = 1_000_000  # a few lines of YAML can refer to each other until they mean billions


def _check_plain(value: Any, what: str, depth: int, count: list[int]) -> None:
    count[0] += 1
    if depth > MOST_DEPTH:
        raise InputError(f"the {what} is nested too deeply: {MOST_DEPTH} levels are the most.")
    if count[0] > _MOST_VALUES:
        raise InputError(f"the {what} has too many values: {_MOST_VALUES} are the most.")
    if isinstance(value, dict):
        for name, inside in value.items():
            if not isinstance(name, (str, int, float, bool)):
                raise InputError(f"the {what} has a name {str(name)[:60]!r} that is no text.")
            _check_plain(inside, what, depth + 1, count)
    elif isinstance(value, list):
        for inside in value:
            _check_plain(inside, what, depth + 1, count)
    elif isinstance(value, int) and abs(value) >= 2**128:
        raise InputError(f"the {what} has a whole number of {value.bit_length() * 3 // 10} digits, which is too large.")
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise InputError(f"the {what} has a value of the kind {type(value).__name__}; put it in quotation marks.")


def answer_of(opened: Callable[[], AbstractContextManager[Any]], seconds: float, most: int) -> bytes:
    """What an endpoint answers, at most `most` + 1 bytes.

    Args:
        opened: opens the answer, such as `urlopen` with its arguments.
        seconds: until the whole answer must be here, however slowly it comes.
    Raises: TimeoutError; what `opened` raises; of an HTTPError, the attribute `said` has the beginning of its text.
    """
    answers: queue.Queue[bytes | Exception] = queue.Queue()
    end = time.monotonic() + seconds

    def read() -> None:
        data = bytearray()
        try:
            with opened() as answer:
                while len(data) <= most and time.monotonic() < end and (piece := answer.read1(most + 1 - len(data))):
                    data += piece
            answers.put(bytes(data))
        except HTTPError as error:
            with error:
                error.said = error.read(300)  # type: ignore[attr-defined]
            answers.put(error)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=read, daemon=True).start()  # its sockets wait for every byte anew, and know no end
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(found, Exception):
        raise found
    if time.monotonic() >= end:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return found
