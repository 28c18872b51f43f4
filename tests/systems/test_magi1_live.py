"""Prompts that change while the video is made, and how one hands over to the next."""

import itertools

import numpy as np
import pytest
import torch

import animagic
from animagic import LivePrompt
from animagic.errors import InputError
from animagic.pipelines.text import TextEmbedding
from animagic.systems.magi1.prompts import ChunkPrompts
from animagic.timeline import RunFolder

CHUNK = 8  # frames of the random model's chunk


def seeded():
    return torch.Generator().manual_seed(7)


@pytest.fixture
def make(tiny_pipe):
    def make(prompt, frames: int = 4 * CHUNK, **arguments) -> np.ndarray:
        return tiny_pipe(prompt, num_frames=frames, generator=seeded(), output_type="np", **arguments).frames[0]

    return make


def test_a_function_is_asked_once_for_each_chunk_in_order(make):
    asked = []

    def source(chunk: int) -> str | None:
        asked.append(chunk)
        return {0: "a red ball bounces", 2: "a blue cat falls"}.get(chunk)

    frames = make(source)
    assert asked == [0, 1, 2, 3]
    np.testing.assert_array_equal(frames, make("a red ball bounces", prompts_at={2: "a blue cat falls"}))
    assert np.abs(frames - make("a red ball bounces"))[2 * CHUNK :].max() > 1e-3


def test_a_prompt_set_while_it_runs_is_read_by_the_chunks_that_begin_then(tiny_pipe, make):
    live = LivePrompt("a red ball bounces")
    frames = []
    for chunk in tiny_pipe.stream(live, num_frames=6 * CHUNK, generator=seeded(), output_type="np"):
        frames.append(chunk.frames[0])
        if chunk.start == 0:
            live.set("a blue cat falls")
    # When the first chunk is final, four have begun.
    assert live.said == {0: "a red ball bounces", 4: "a blue cat falls"}
    same = make("a red ball bounces", 6 * CHUNK, prompts_at={4: "a blue cat falls"})
    np.testing.assert_array_equal(np.concatenate(frames), same)


def test_a_live_prompt_serves_several_runs(make):
    live = LivePrompt("a red ball bounces")
    np.testing.assert_array_equal(make(live, 8), make(live, 8))


def test_every_later_prompt_is_enhanced_too(make):
    told = []

    def enhancer(text: str) -> str:
        told.append(text)
        return f"the {text}"

    def source(chunk: int) -> str | None:
        return {0: "red ball", 1: "blue cat"}.get(chunk)

    frames = make(source, 2 * CHUNK, prompt_enhancer=enhancer)
    assert told == ["red ball", "blue cat"]
    np.testing.assert_array_equal(frames, make("the red ball", 2 * CHUNK, prompts_at={1: "the blue cat"}))


def test_what_was_said_survives_an_interruption(tiny_pipe, tmp_path):
    texts = {0: "a red ball bounces", 1: "a blue cat falls", 4: "a green ball rolls"}

    def run(source, folder, stop_after=None):
        kept = RunFolder(folder, {}, every=0)
        chunks = tiny_pipe.stream(source, num_frames=6 * CHUNK, generator=seeded(), output_type="np", resume=kept)
        return [chunk.frames[0] for chunk in itertools.islice(chunks, stop_after)]

    whole = run(texts.get, tmp_path / "whole")
    run(texts.get, tmp_path / "parts", stop_after=2)
    # The one who typed is gone: what was said before comes from the folder.
    rest = run(lambda chunk: texts.get(chunk) if chunk in (0, 4) else None, tmp_path / "parts")
    np.testing.assert_array_equal(np.concatenate(whole), np.concatenate(rest))


@pytest.mark.parametrize(
    ("prompt", "arguments", "said"),
    [
        (lambda chunk: None, {}, "nothing for the first chunk"),
        (lambda chunk: "a ball", {"prompts_at": {1: "a cat"}}, "not by both"),
        ("a ball", {"hand_over": -1}, "cannot take -1 chunks"),
    ],
)
def test_what_cannot_be_is_refused(make, prompt, arguments, said):
    with pytest.raises(InputError, match=said):
        make(prompt, **arguments)


def test_an_empty_live_prompt_is_refused():
    live = LivePrompt("a ball")
    with pytest.raises(InputError, match="empty"):
        live.set("  ")
    assert live(0) == "a ball"
    assert "LivePrompt" in animagic.__all__


# Handing over


def text(value: float, used: int) -> TextEmbedding:
    mask = (torch.arange(used + 1) < used).long()[None]
    return TextEmbedding(torch.full((1, used + 1, 2), value), mask)


def test_a_prompt_takes_over_step_by_step():
    prompts = ChunkPrompts(((0, text(0.0, 3)), (2, text(4.0, 3))), null=text(9.0, 3), hand_over=3)
    values = [float(prompts.at(chunk).embeds[0, 0, 0]) for chunk in range(7)]
    assert values == [0, 0, 1, 2, 3, 4, 4]


def test_what_only_one_of_two_texts_has_stays_as_it_is():
    mixed = text(0.0, 1).mixed(text(4.0, 3), 0.25)
    assert mixed.embeds[0, :, 0].tolist()[:3] == [1, 4, 4]
    assert mixed.mask[0].tolist() == [1, 1, 1, 0]
    mixed = text(4.0, 3).mixed(text(0.0, 1), 0.25)
    assert mixed.embeds[0, :, 0].tolist()[:3] == [3, 4, 4]


def test_the_hand_over_changes_the_chunks_after_the_prompt_only(make):
    at_once = make("a red ball bounces", prompts_at={2: "a blue cat falls"})
    smooth = make("a red ball bounces", prompts_at={2: "a blue cat falls"}, hand_over=1)
    np.testing.assert_array_equal(at_once[: 2 * CHUNK], smooth[: 2 * CHUNK])
    assert np.abs(at_once - smooth)[2 * CHUNK :].max() > 1e-3
