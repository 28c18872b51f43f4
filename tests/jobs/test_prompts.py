"""The prompt of a job that changes while its video is made."""

import pytest

from animagic.errors import InputError
from animagic.jobs.prompts import JobPrompt


@pytest.fixture
def prompt(tmp_path):
    """Makes the prompt of one and the same job, as after each crash."""
    return lambda: JobPrompt({0: "a ball", 4: "a square"}, tmp_path / "prompts.json")


def test_it_changes_from_the_next_chunk_on_and_survives(prompt):
    first = prompt()
    assert [first(chunk) for chunk in range(3)] == ["a ball", None, None]
    assert first.set(" a cat ") == 3
    again = prompt()
    assert [again(chunk) for chunk in range(2, 6)] == [None, "a cat", "a square", None]
    assert again.said == {0: "a ball", 3: "a cat", 4: "a square"}


def test_what_is_begun_stays_also_after_a_crash(prompt):
    first = prompt()
    first(0), first(1)
    for one in (first, prompt()):
        with pytest.raises(InputError, match="from chunk 2 on"):
            one.set("a cat", 1)
    assert prompt().set("a cat") == 2


def test_what_will_not_be_made_cannot_be_changed(prompt):
    one = prompt()
    one.chunks = 2
    assert one.set("a cat", 1) == 1
    with pytest.raises(InputError, match="has 2 chunks"):
        one.set("a cat", 2)
    with pytest.raises(InputError, match="is empty"):
        one.set("  ")
