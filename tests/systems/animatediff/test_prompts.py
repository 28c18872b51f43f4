"""Prompts that turn into one another, and what the UNet is given of them."""

import pytest
import torch

from animagic import InputError
from animagic.systems.animatediff.prompts import PromptEmbeds, travel

# Travel


def key(value: float) -> torch.Tensor:
    return torch.full((2, 3, 4), float(value))


def values(keys: dict[int, float], frames: int, **options) -> list[float]:
    made = travel({frame: key(value) for frame, value in keys.items()}, frames, **options)
    assert made.shape == (2, frames, 3, 4)
    return [round(float(x), 5) for x in made[1, :, 2, 3]]


@pytest.mark.parametrize(
    ("keys", "frames", "expected"),
    [
        ({0: 0, 4: 8}, 6, [0, 2, 4, 6, 8, 8]),
        ({4: 8, 0: 0}, 6, [0, 2, 4, 6, 8, 8]),
        ({0: 0, 2: 4, 5: 1}, 7, [0, 2, 4, 3, 2, 1, 1]),
        ({2: 4, 4: 0}, 6, [4, 4, 4, 2, 0, 0]),
        ({3: 5}, 5, [5] * 5),
        ({0: 1, 1: 9}, 3, [1, 9, 9]),
        ({0: 7}, 1, [7]),
    ],
)
def test_between_prompts_one_turns_into_the_next_evenly(keys, frames, expected):
    assert values(keys, frames) == expected


@pytest.mark.parametrize(
    ("keys", "frames", "expected"),
    [
        ({0: 0, 4: 8}, 8, [0, 2, 4, 6, 8, 6, 4, 2]),
        ({2: 0, 6: 8}, 8, [4, 2, 0, 2, 4, 6, 8, 6]),
        ({0: 0, 1: 6}, 4, [0, 6, 4, 2]),
        ({3: 5}, 5, [5] * 5),
    ],
)
def test_in_a_loop_the_last_prompt_turns_into_the_first(keys, frames, expected):
    assert values(keys, frames, closed_loop=True) == expected


def test_key_frames_are_exact():
    keys = {frame: torch.randn(1, 3, 4) for frame in (0, 3, 7)}
    for loop in (False, True):
        made = travel(keys, 9, loop)
        assert all(torch.equal(made[:, frame], text) for frame, text in keys.items())


@pytest.mark.parametrize("frame", [-1, 8])
def test_a_prompt_outside_the_clip_is_refused(frame):
    with pytest.raises(InputError, match=f"no prompt can begin at frame {frame}: the video has 8, counted from 0"):
        values({0: 1, frame: 2}, 8)


# What the UNet is given


def embeds(frames: int = 1, **more) -> PromptEmbeds:
    """Of two videos; every text is full of a number: video, then frame."""
    numbers = torch.arange(2.0)[:, None] * 10 + torch.arange(frames)
    return PromptEmbeds(
        prompted=numbers[:, :, None, None].expand(-1, -1, 3, 4),
        unprompted=-torch.ones(2, 1, 3, 4),
        motion=torch.full((2, 5, 4), 50.0),
        unmoved=torch.full((2, 5, 4), -50.0),
        **more,
    )


def said(inputs: dict, name: str = "encoder_hidden_states") -> list[float]:
    return inputs[name][:, 0, 0].tolist()


def test_one_prompt_a_video_has_one_row():
    assert said(embeds().inputs([3, 4], guided=False)) == [0, 10]
    guided = embeds().inputs([3, 4], guided=True)
    assert said(guided) == [-1, -1, 0, 10]
    assert said(guided, "motion_hidden_states") == [-50, -50, 50, 50]
    assert said(embeds().inputs([3], guided=False), "motion_hidden_states") == [50, 50]


def test_a_prompt_a_frame_has_a_row_for_each_frame_of_the_window():
    assert said(embeds(6).inputs([5, 0, 2], guided=False)) == [5, 0, 2, 15, 10, 12]
    assert said(embeds(6).inputs([1, 2], guided=True)) == [-1] * 4 + [1, 2, 11, 12]


def test_further_conditions_go_with_the_halves():
    more = {"added": {"text_embeds": torch.ones(2, 3)}, "not_added": {"text_embeds": torch.zeros(2, 3)}}
    assert "added_cond_kwargs" not in embeds().inputs([0], guided=True)
    guided = embeds(**more).inputs([0], guided=True)["added_cond_kwargs"]["text_embeds"]
    assert guided[:, 0].tolist() == [0, 0, 1, 1]
    assert embeds(**more).inputs([0], guided=False)["added_cond_kwargs"]["text_embeds"].min() == 1


def test_all_of_it_moves_to_a_type():
    more = {"added": {"text_embeds": torch.ones(2, 3)}, "not_added": {"text_embeds": torch.zeros(2, 3)}}
    moved = embeds(**more).to(torch.device("cpu"), torch.float64)
    assert moved.prompted.dtype == moved.motion.dtype == moved.added["text_embeds"].dtype == torch.float64
    assert embeds().to(torch.device("cpu"), torch.float64).added is None
