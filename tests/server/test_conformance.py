"""The tables about the server speak of tests and calls that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / name for name in ("server-conformance.md", "threat-model.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_is_named_is_there(page):
    text = page.read_text("utf-8")
    known = set()
    for folder in ("server", "jobs"):
        for file in (ROOT / "tests" / folder).glob("test_*.py"):
            known |= set(re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert not named - known
    files = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert named or files
    assert all((ROOT / file).is_file() for file in files)


def test_every_call_is_in_the_table(app):
    text = PAGES[0].read_text("utf-8")
    for path in app.openapi()["paths"]:
        start = path.replace("/v1/videos/characters/{id}", "/v1/videos/characters")
        start = re.sub(r"^/v1/(files|models)/\{id\}$", r"/v1/\1", start).replace("/v1/videos/{id}/preview", "/preview")
        assert start in text, path


def test_every_code_of_an_error_is_in_the_table():
    text, source = PAGES[0].read_text("utf-8"), ROOT / "src" / "animagic" / "server"
    # Of the socket, and a field's name.
    others = {"start_timeout", "invalid_message", "message_too_large", "invalid_sound", "interaction_failed",
              "event_id_conflict", "event_id"}  # fmt: skip
    codes = set()
    for file in source.glob("*.py"):
        calls = re.findall(r"ApiError\((.*?)\)(?: from|\n)", file.read_text("utf-8"), re.DOTALL)
        codes |= {code for call in calls for code in re.findall(r'"([a-z]+_[a-z_]+)"', call)}
    assert len(codes) > 15
    assert not {code for code in codes - others if f"`{code}`" not in text}
