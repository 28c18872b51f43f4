"""The motion module on its own: what it sees, what it leaves alone, what it refuses."""

import math

import pytest
import torch

from animagic import InputError
from animagic.layers.motion import MotionModule, position_table

FRAMES, PIXELS = 5, (3, 2)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def module(*kinds: str, **settings) -> MotionModule:
    torch.manual_seed(1)
    settings = {"num_attention_heads": 4, "max_length": 8, "zero_initialize": False, **settings}
    return MotionModule(32, attention_block_types=kinds or ("Temporal_Self", "Temporal_Self"), **settings).eval()


@pytest.fixture
def maps() -> torch.Tensor:
    """Feature maps of two videos: (2 * frames, 32, height, width)."""
    return randn(2 * FRAMES, 32, *PIXELS)


def changed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Which pixels of which frames differ: (2, frames, height, width)."""
    return ((a - b).abs().amax(1) > 1e-6).unflatten(0, (2, -1))


def test_positions_are_sines_and_cosines_of_geometric_frequencies():
    table = position_table(24, 8)
    assert table.shape == (24, 8)
    for frame in (0, 1, 23):
        for i in range(4):
            angle = frame / 10000 ** (2 * i / 8)
            assert table[frame, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[frame, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_a_new_one_does_nothing(maps):
    fresh = MotionModule(32, num_attention_heads=4)
    assert torch.equal(fresh(maps, FRAMES), maps)


def test_the_frames_of_a_pixel_see_each_other_and_nothing_else(maps):
    moved = maps.clone()
    moved[1, :, 2, 1] += 3 * randn(32, seed=5)  # one pixel of the second frame of the first video
    # The first norm takes the whole map of a frame; without it nothing passes from pixel to pixel.
    motion = module()
    motion.temporal_transformer.norm = torch.nn.Identity()
    seen = changed(motion(moved, FRAMES), motion(maps, FRAMES))
    assert seen[0, :, 2, 1].all()
    seen[0, :, 2, 1] = False
    assert not seen.any()


def test_it_tells_the_frames_apart_by_their_positions_only(maps):
    backwards = maps.unflatten(0, (2, -1)).flip(1).flatten(0, 1)
    for max_length, same in ((8, False), (0, True)):
        motion = module(max_length=max_length)
        there, back = motion(maps, FRAMES), motion(backwards, FRAMES).unflatten(0, (2, -1)).flip(1).flatten(0, 1)
        assert torch.allclose(there, back, atol=1e-5) is same


def test_more_frames_begin_with_the_same_positions(maps):
    short, long = module(max_length=8), module(max_length=24)
    torch.testing.assert_close(short(maps, FRAMES), long(maps, FRAMES))


def test_each_video_reads_its_own_text(maps):
    motion = module("Temporal_Self", "Temporal_Cross", cross_attention_dim=12)
    text = randn(2, 7, 12, seed=1)
    other = torch.stack([text[0], randn(7, 12, seed=2)])
    seen = changed(motion(maps, FRAMES, text), motion(maps, FRAMES, other))
    assert not seen[0].any()
    assert seen[1].all()


def test_attention_to_a_text_is_not_attention_over_frames(maps):
    """Every frame asks on its own, wherever the text is read."""
    motion = module("Temporal_Cross", cross_attention_dim=12, max_length=0)
    text = randn(2, 7, 12, seed=1)
    alone = torch.cat([motion(maps[i : i + 1], 1, text[i // FRAMES][None]) for i in range(2 * FRAMES)])
    torch.testing.assert_close(motion(maps, FRAMES, text), alone, atol=1e-5, rtol=1e-5)


def test_a_module_of_self_attention_reads_no_text(maps):
    motion = module()
    assert torch.equal(motion(maps, FRAMES, randn(2, 7, 12)), motion(maps, FRAMES))


def test_its_transformer_may_be_narrower_and_deeper(maps):
    motion = module(attention_dim_div=2, num_transformer_blocks=3)
    transformer = motion.temporal_transformer
    assert transformer.proj_in.weight.shape == (16, 32)
    assert len(transformer.transformer_blocks) == 3
    assert motion(maps, FRAMES).shape == maps.shape


def test_names_are_the_published_ones():
    names = set(module("Temporal_Self", "Temporal_Cross", cross_attention_dim=12).state_dict())
    block = "temporal_transformer.transformer_blocks.0"
    attention = [f"attention_blocks.{i}.{name}.weight" for i in (0, 1) for name in ("to_q", "to_k", "to_v", "to_out.0")]
    attention += ["attention_blocks.0.to_out.0.bias", "attention_blocks.1.to_out.0.bias"]
    norms = [f"{name}.{kind}" for name in ("norms.0", "norms.1", "ff_norm") for kind in ("weight", "bias")]
    gated = [f"ff.net.{i}.{kind}" for i in ("0.proj", "2") for kind in ("weight", "bias")]
    ends = [f"temporal_transformer.{n}.{kind}" for n in ("norm", "proj_in", "proj_out") for kind in ("weight", "bias")]
    assert names == {f"{block}.{name}" for name in attention + norms + gated} | set(ends)


def test_more_frames_than_positions_are_refused(maps):
    with pytest.raises(InputError, match="at most 4 frames together, not 5; use windows of at most 4 frames"):
        module(max_length=4)(maps, FRAMES)
    assert module(max_length=5)(maps, FRAMES).shape == maps.shape


def test_an_unknown_kind_of_attention_is_named():
    with pytest.raises(InputError, match="'Spatial_Self' is unknown; choose Temporal_Self or Temporal_Cross"):
        module("Temporal_Self", "Spatial_Self")


def test_its_gradient_on_input_in_another_layout():
    """PyTorch's group norm dies there, with all of the process, where the input needs no gradient."""
    module = MotionModule(64, num_attention_heads=4, zero_initialize=False)
    frames = torch.randn(4, 64, 8, 8).to(memory_format=torch.channels_last)
    module(frames, 4).square().mean().backward()
    assert module.temporal_transformer.norm.weight.grad.abs().sum() > 0
