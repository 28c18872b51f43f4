"""MAGI-1 under torch.compile: no break in the graph, few graphs for a long video, the same numbers."""

import pytest
import torch
from torch._dynamo.utils import counters

from animagic import InputError, Magi1Pipeline

pytestmark = pytest.mark.integration

CHUNKS = 10


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def make_pipe(tiny_transformer, tiny_sampling):
    def make_pipe(**settings) -> Magi1Pipeline:
        pipe = Magi1Pipeline(tiny_transformer(num_layers=1, **settings), config=tiny_sampling)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make_pipe


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def video(pipe, prefix: int = 0, chunks: int = CHUNKS, size: tuple[int, int] = (4, 6), **arguments) -> torch.Tensor:
    """Latents of a video that goes on from so many given latent frames."""
    return pipe(
        prompt_embeds=randn(1, 12, 8, seed=1),
        prompt_embeds_mask=torch.arange(12)[None] < 7,
        latents=randn(1, 4, 2 * chunks, *size, seed=2),
        prefix_latents=randn(1, 4, prefix, *size, seed=3) if prefix else None,
        output_type="latent",
        **arguments,
    ).frames


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def test_a_long_video_needs_few_graphs(make_pipe):
    """Of words, then from a picture, then from a clip: nothing is compiled twice, and the limit of the compiler, which
    would be an error under fullgraph=True, is not met."""
    pipe = make_pipe()
    expected = [video(pipe), video(pipe, prefix=1), video(pipe, prefix=5)]
    limit = torch._dynamo.config.cache_size_limit
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager")

    made = []
    for prefix, new in ((0, 8), (1, 0), (5, 4)):
        before = graphs()
        made.append(video(pipe, prefix))
        assert graphs() - before <= new, prefix
    assert graphs() > limit
    assert torch._dynamo.config.cache_size_limit == limit
    for ours, plain in zip(made, expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)

    before = graphs()
    video(pipe, chunks=2 * CHUNKS)  # windows far along the timeline
    assert graphs() == before


def test_blocks_can_be_compiled_instead(make_pipe):
    """diffusers' regional compilation: the time of compiling does not grow with the number of layers, and the cache may
    be offloaded."""
    pipe = make_pipe()
    expected = video(pipe, chunks=3)
    pipe.enable_kv_offload()
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(video(pipe, chunks=3), expected, atol=1e-5, rtol=1e-5)
    assert 0 < graphs() <= 8


def test_a_compiled_transformer_is_still_one(make_pipe, tmp_path):
    pipe = make_pipe()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    assert pipe.transformer.config.chunk_width == 2
    assert pipe.transformer.latent_channels == 4
    assert pipe.plan().chunk_width == 2
    pipe.check_size(32, 48)
    pipe.save_pretrained(tmp_path)
    loaded = Magi1Pipeline.from_pretrained(tmp_path)
    torch.testing.assert_close(video(loaded, chunks=1), video(make_pipe(), chunks=1), atol=1e-5, rtol=1e-5)


def test_a_distilled_model_compiles(make_pipe, tiny_sampling):
    """It is told its step size, and sees a nearly clean chunk twice."""
    tiny_sampling["runtime_config"] |= {"cfg_number": 1, "num_steps": 8}
    tiny_sampling["engine_config"] = {"distill": True}
    pipe = make_pipe()
    expected = video(pipe, chunks=1)
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend="eager")
    torch.testing.assert_close(video(pipe, chunks=1), expected, atol=1e-5, rtol=1e-5)


def test_a_whole_graph_and_an_offloaded_cache_are_refused(make_pipe):
    pipe = make_pipe()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    pipe.enable_kv_offload()
    with pytest.raises(InputError, match="compile its blocks instead"):
        video(pipe)


@pytest.mark.slow
def test_inductor_gives_the_same(make_pipe):
    pipe = make_pipe()
    expected = video(pipe)
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True)
    torch.testing.assert_close(video(pipe), expected, atol=1e-4, rtol=1e-4)
