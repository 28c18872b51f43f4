"""Text for the terminal, files of text, and answers of the network stay within limits."""

import io
import json
import os
import time
from contextlib import contextmanager

import pytest

from animagic.errors import InputError
from animagic.outside import MOST_DEPTH, answer_of, parsed, printable, printable_json, read_text


def test_what_steers_a_terminal_is_shown():
    assert printable("a\x1b[2J\x07b\x9b\u202e\ud800\x7f") == r"a\x1b[2J\x07b\x9b\u202e\ud800\x7f"
    assert printable("zwei\tWörter\n日本 👩‍🚀") == "zwei\tWörter\n日本 👩‍🚀"
    assert printable("a\nb\tc", lines=True) == r"a\nb\tc"
    text = printable_json({"a": "\x1b\x9b\u202e\udc80é"})
    assert text == r'{"a": "\u001b\u009b\u202e\udc80é"}'
    assert json.loads(text) == {"a": "\x1b\x9b\u202e\udc80é"}


def test_files_of_text(tmp_path):
    (tmp_path / "good").write_text("é", "utf-8")
    assert read_text(tmp_path / "good", "recipe") == "é"
    (tmp_path / "bad").write_bytes(b"\xff")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**24 + 1)
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "bad": "not text in UTF-8",
        "large": "the most that it can have",
        "pipe": "it is no file",
        "none": "No such file",
        "good/x": "Not a directory",
        "x" * 300: "name too long",
        "a\0b": "cannot be read",
    }.items():
        with pytest.raises(InputError, match=said):
            read_text(tmp_path / name, "recipe")
    for device in ("/dev/zero", "/dev/null", "/"):
        with pytest.raises(InputError, match="it is no file"):
            read_text(device, "recipe")


BOMB = "a: &a [x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "as_json", "said"),
    [
        ("[" * 100_000, True, "nested too deeply"),
        ("[" * 100_000, False, "nested too deeply"),
        ("[" * (MOST_DEPTH + 2) + "]" * (MOST_DEPTH + 2), True, "nested too deeply"),
        ("a: " + "9" * 5000, False, "not valid YAML"),
        ('{"a": ' + "9" * 5000 + "}", True, "not valid JSON"),
        ('{"a": ' + "9" * 100 + "}", True, "too large"),
        ("a: 2020-01-01", False, "of the kind date"),
        ("a: !!set {x, y}", False, "of the kind set"),
        ("a: !!binary aGk=", False, "of the kind bytes"),
        ("a: !!python/object/apply:os.system [id]", False, "not valid YAML"),
        ("? [a, b]\n: c", False, "YAML|name"),
        ("2020-01-01: x", False, "no text"),
        ("a: 2020-99-99", False, "not valid YAML"),
        (BOMB, False, "too many values"),
        ("{", True, "not valid JSON"),
        ("\0", False, "not valid YAML"),
    ],
)
def test_values_that_no_recipe_has(text, as_json, said):
    with pytest.raises(InputError, match=said):
        parsed(text, "recipe", as_json)


def test_an_answer_has_an_end():
    @contextmanager
    def drip():
        class Slow:
            def read1(self, most):
                time.sleep(0.02)
                return b"."

        yield Slow()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        answer_of(drip, 0.2, 1000)
    assert time.monotonic() - began < 5
    assert len(answer_of(drip, 60, 5)) == 6

    @contextmanager
    def whole():
        yield io.BytesIO(b"answer")

    assert answer_of(whole, 60, 1000) == b"answer"
