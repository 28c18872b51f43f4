"""MAGI-1's transformer beyond parity: the cache, training, files, errors."""

import pytest
import torch

from animagic.errors import InputError
from animagic.systems.magi1.objectives import initialise
from animagic.systems.magi1.transformer import KeyValueCache, Magi1Transformer3DModel

WIDTH = 2  # latent frames of a chunk


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(chunks: int = 3, batch: int = 1, channels: int = 4) -> dict[str, torch.Tensor]:
    """Chunks at falling times, each with a text of its own, some of it padding."""
    return {
        "hidden_states": randn(batch, channels, chunks * WIDTH, 4, 6, seed=1),
        "timestep": torch.linspace(0.9, 0.1, chunks).expand(batch, chunks),
        "encoder_hidden_states": randn(batch, chunks, 5, 8, seed=2),
        "encoder_attention_mask": torch.arange(5).expand(batch, chunks, 5) < 4,
    }


def chunk_of(arguments: dict, first: int, stop: int) -> dict:
    """The arguments for some of the chunks."""
    part = {k: v[:, first:stop] for k, v in arguments.items() if k != "hidden_states"}
    frames = slice(first * WIDTH, stop * WIDTH)
    return {"hidden_states": arguments["hidden_states"][:, :, frames], **part, "first_frame": first * WIDTH}


def committed(transformer, cache: KeyValueCache, commit: range, **arguments) -> torch.Tensor:
    """The velocity of a window, whose frames `commit`, at its front, enter the cache."""
    velocity = transformer(**arguments, cache=cache, commit=len(commit)).sample
    cache.commit(commit)
    return velocity


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


# Chunks and the cache


@torch.no_grad()
def test_chunks_see_no_later_chunk(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    before = transformer(**arguments).sample
    arguments["hidden_states"] = arguments["hidden_states"].clone()
    arguments["hidden_states"][:, :, 2 * WIDTH :] += 1
    after = transformer(**arguments).sample
    close(after[:, :, : 2 * WIDTH], before[:, :, : 2 * WIDTH])
    assert not torch.allclose(after[:, :, 2 * WIDTH :], before[:, :, 2 * WIDTH :])


@torch.no_grad()
def test_each_chunk_reads_only_its_own_unmasked_text(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    before = transformer(**arguments).sample
    text = arguments["encoder_hidden_states"]
    hidden = text.clone()
    hidden[:, :, 4:] = 99  # where the mask is off
    close(transformer(**{**arguments, "encoder_hidden_states": hidden}).sample, before)
    last = text.clone()
    last[:, 2] += 1
    after = transformer(**{**arguments, "encoder_hidden_states": last}).sample
    close(after[:, :, : 2 * WIDTH], before[:, :, : 2 * WIDTH])
    assert not torch.allclose(after[:, :, 2 * WIDTH :], before[:, :, 2 * WIDTH :])


@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_with_the_cache_chunk_by_chunk_gives_the_same_velocity(tiny_transformer, batch):
    transformer, arguments = tiny_transformer(), inputs(4, batch)
    whole = transformer(**arguments).sample
    cache, parts = KeyValueCache(), []
    for first, stop in ((0, 1), (1, 2), (2, 4)):  # the last two together
        frames = range(first * WIDTH, stop * WIDTH)
        parts.append(committed(transformer, cache, frames, **chunk_of(arguments, first, stop)))
    close(torch.cat(parts, dim=2), whole)
    assert (cache.start, cache.stop) == (0, 8)
    assert len(cache.layers) == 2
    assert cache.layers[0][0].shape == (batch, 2, 8 * 2 * 3, 8)


@torch.no_grad()
def test_what_is_not_committed_leaves_no_trace(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    cache = KeyValueCache()
    committed(transformer, cache, range(WIDTH), **chunk_of(arguments, 0, 1))
    keys = cache.layers[0][0].clone()
    first = transformer(**chunk_of(arguments, 1, 3), cache=cache).sample
    second = transformer(**chunk_of(arguments, 1, 3), cache=cache).sample
    assert torch.equal(first, second)
    assert torch.equal(cache.layers[0][0], keys)
    assert (cache.start, cache.stop) == (0, WIDTH)


def ends(*frames: range) -> torch.Tensor:
    """The frames that each chunk sees, as the transformer takes them."""
    return torch.tensor([[seen.start, seen.stop] for seen in frames])


@torch.no_grad()
def test_the_front_of_a_window_can_be_committed_alone(tiny_transformer):
    """As the sampler does when a clean chunk goes along: its keys are those it had in the window."""
    transformer, arguments = tiny_transformer(), inputs()
    whole = transformer(**arguments).sample
    cache = KeyValueCache()
    committed(transformer, cache, range(WIDTH), **chunk_of(arguments, 0, 2))
    assert cache.stop == WIDTH
    close(transformer(**chunk_of(arguments, 1, 3), cache=cache).sample, whole[:, :, WIDTH:])


@torch.no_grad()
def test_forgotten_frames_are_those_that_no_key_range_names(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs(4)
    look_back = [range(2), range(4), range(2, 6), range(4, 8)]
    whole = transformer(**arguments, key_frames=ends(*look_back)).sample
    cache, parts = KeyValueCache(), []
    for chunk in range(4):
        frames = range(chunk * WIDTH, (chunk + 1) * WIDTH)
        cache.forget(look_back[chunk].start)
        seen = range(look_back[chunk].start - cache.start, look_back[chunk].stop - cache.start)
        part = committed(transformer, cache, frames, **chunk_of(arguments, chunk, chunk + 1), key_frames=ends(seen))
        parts.append(part)
        assert cache.layers[0][0].shape[2] == (cache.stop - cache.start) * 6
    close(torch.cat(parts, dim=2), whole)
    assert (cache.start, cache.stop) == (4, 8)


@torch.no_grad()
def test_places_may_be_given_as_tensors(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs(3)
    cache = KeyValueCache()
    committed(transformer, cache, range(WIDTH), **chunk_of(arguments, 0, 1))
    later = chunk_of(arguments, 1, 3)
    plain = transformer(**later, cache=cache).sample
    later["first_frame"] = torch.tensor(float(WIDTH))
    tensors = transformer(**later, cache=cache, key_frames=ends(range(2 * WIDTH), range(3 * WIDTH))).sample
    assert torch.equal(tensors, plain)


@torch.no_grad()
def test_a_cache_that_begins_later_serves_a_window_that_begins_later(tiny_transformer):
    """Only distances in time matter: a clip moved along the timeline keeps its velocity."""
    transformer, arguments = tiny_transformer(), inputs()
    whole = transformer(**arguments).sample
    cache = KeyValueCache(20)
    shifted = {**chunk_of(arguments, 0, 1), "first_frame": 20}
    committed(transformer, cache, range(20, 20 + WIDTH), **shifted)
    later = {**chunk_of(arguments, 1, 3), "first_frame": 20 + WIDTH}
    torch.testing.assert_close(transformer(**later, cache=cache).sample, whole[:, :, WIDTH:], atol=1e-4, rtol=1e-3)


def test_the_cache_refuses_a_gap():
    cache = KeyValueCache()
    cache.append(range(2), [(randn(1, 1, 4, 2), randn(1, 1, 4, 2))])
    with pytest.raises(ValueError, match="do not follow"):
        cache.append(range(3, 4), [(randn(1, 1, 2, 2), randn(1, 1, 2, 2))])


def test_the_cache_forgets_from_the_front_and_frees_the_memory():
    cache = KeyValueCache()
    keys, values = randn(1, 2, 12, 3), randn(1, 2, 12, 3, seed=1)
    cache.append(range(4), [(keys, values)])
    cache.forget(0)
    assert cache.start == 0
    cache.forget(3)
    assert (cache.start, cache.stop) == (3, 4)
    assert torch.equal(cache.layers[0][0], keys[:, :, 9:])
    assert torch.equal(cache.layers[0][1], values[:, :, 9:])
    assert cache.layers[0][0].untyped_storage().nbytes() == 1 * 2 * 3 * 3 * 4
    cache.forget(99)  # all of it, and no more
    assert (cache.start, cache.stop) == (4, 4)
    cache.append(range(4, 6), [(keys[:, :, :6], values[:, :, :6])])
    cache.forget(5)
    assert torch.equal(cache.layers[0][0], keys[:, :, 3:6])


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs(2, batch=3)
    together = transformer(**arguments).sample
    for i in range(3):
        alone = transformer(**{k: v[i : i + 1] for k, v in arguments.items()}).sample
        close(together[i : i + 1], alone)


@torch.no_grad()
def test_one_text_for_all_chunks_may_be_given_once(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    one = {k: arguments[k][:, :1] for k in ("encoder_hidden_states", "encoder_attention_mask")}
    repeated = {k: v.expand(-1, 3, *v.shape[2:]) for k, v in one.items()}
    close(transformer(**{**arguments, **one}).sample, transformer(**{**arguments, **repeated}).sample)


@pytest.mark.parametrize("read_by", ["all samples", "all samples and chunks"])
def test_a_text_that_is_given_once_learns_from_all_its_readers(tiny_transformer, read_by):
    transformer, arguments = tiny_transformer(), inputs(batch=2)
    chunks = slice(None) if read_by == "all samples" else slice(1)
    one = {k: arguments[k][:1, chunks] for k in ("encoder_hidden_states", "encoder_attention_mask")}
    repeated = {k: v.expand(2, 3, *v.shape[2:]) for k, v in one.items()}
    weights = list(transformer.parameters())
    results = []
    for text in (one, repeated):
        sample = transformer(**{**arguments, **text}).sample
        results.append((sample, *torch.autograd.grad(sample.square().sum(), weights, allow_unused=True)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_dropped_captions_and_shortcuts_change_the_condition(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    plain = transformer(**arguments).sample
    close(transformer(**arguments, caption_dropped=torch.zeros(1, 3, dtype=torch.bool)).sample, plain)
    dropped = transformer(**arguments, caption_dropped=torch.tensor([[False, True, False]])).sample
    close(dropped[:, :, :WIDTH], plain[:, :, :WIDTH])
    assert not torch.allclose(dropped[:, :, WIDTH:], plain[:, :, WIDTH:])
    assert not torch.allclose(transformer(**arguments, shortcut=torch.full((1, 3), 4.0)).sample, plain)


@torch.no_grad()
def test_flex_attention_gives_the_same(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    plain = transformer(**arguments).sample
    transformer.attention_backend = "flex"
    close(transformer(**arguments).sample, plain)


def test_the_answer_is_a_tuple_if_asked_for(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    (sample,) = transformer(**arguments, return_dict=False)
    assert torch.equal(sample, transformer(**arguments).sample)
    assert sample.shape == arguments["hidden_states"].shape


# Training


def test_gradient_checkpointing_changes_nothing(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()

    def gradients():
        transformer.zero_grad()
        loss = transformer(**arguments).sample.square().mean()
        loss.backward()
        return loss.detach(), {name: p.grad.clone() for name, p in transformer.named_parameters()}

    loss, plain = gradients()
    transformer.train()
    transformer.enable_gradient_checkpointing()
    again, checkpointed = gradients()
    assert torch.equal(loss, again)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_every_parameter_learns(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    transformer(**arguments).sample.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in transformer.parameters())


@torch.no_grad()
def test_preconditioning_is_the_formula(tiny_transformer):
    std = [0.5, 1.0, 2.0, 0.1]
    plain, ours = tiny_transformer(), tiny_transformer(data_std=std)
    ours.load_state_dict(plain.state_dict())
    arguments = inputs()
    x, s = arguments["hidden_states"], torch.tensor(std)[:, None, None, None]
    t = arguments["timestep"].repeat_interleave(WIDTH, dim=1)[:, None, :, None, None]
    d = (1 - t) ** 2 + (t * s) ** 2
    network = plain(**{**arguments, "hidden_states": x / d.sqrt()}).sample
    close(ours(**arguments).sample, (t * s**2 - (1 - t)) / d * x + s / d.sqrt() * network)


@torch.no_grad()
def test_an_initialised_network_says_the_best_linear_guess(tiny_transformer):
    """Of data with that standard deviation: the regression of (data - noise) on (1 - t) noise + t data."""
    std, t = [0.5, 1.0, 2.0, 0.1], 0.6
    transformer = tiny_transformer(data_std=std)
    initialise(transformer)
    noise, data = randn(4, 20_000, seed=3), randn(4, 20_000, seed=4) * torch.tensor(std)[:, None]
    seen = (1 - t) * noise + t * data
    slope = (seen * (data - noise)).mean(1) / seen.square().mean(1)
    x = inputs(1)["hidden_states"]
    guess = transformer(x, torch.tensor([[t]]), randn(1, 1, 5, 8)).sample / x
    torch.testing.assert_close(guess.mean(dim=(0, 2, 3, 4)), slope, atol=0.05, rtol=0.05)


# Files and sizes


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(tiny_transformer, tmp_path):
    settings = {"gated_linear_unit": True, "data_std": [0.5, 1.0, 2.0, 0.1], "x_rescale_factor": 0.1}
    transformer = tiny_transformer(**settings)
    transformer.save_pretrained(tmp_path)
    loaded = Magi1Transformer3DModel.from_pretrained(tmp_path)
    assert {k: loaded.config[k] for k in settings} == settings
    assert loaded.state_dict().keys() == transformer.state_dict().keys()
    assert torch.equal(loaded(**inputs()).sample, transformer(**inputs()).sample)


@torch.no_grad()
def test_loaded_in_half_precision_the_embedders_stay_float32(tiny_transformer, tmp_path):
    transformer = tiny_transformer()
    transformer.save_pretrained(tmp_path)
    loaded = Magi1Transformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.float16)
    kept = {name for name, p in loaded.named_parameters() if p.dtype == torch.float32}
    assert kept == {name for name in loaded.state_dict() if not name.startswith("videodit_blocks")}
    full, half = transformer(**inputs()).sample, loaded(**inputs()).sample
    assert half.dtype == torch.float32
    assert 0 < ((half - full).norm() / full.norm()).item() < 5e-3


@torch.no_grad()
def test_cast_to_half_precision_it_runs(tiny_transformer):
    """As after `pipe.to(torch.float16)`."""
    transformer, arguments = tiny_transformer(), inputs()
    full = transformer(**arguments).sample
    half = transformer.half()(**arguments).sample
    assert ((half - full).norm() / full.norm()).item() < 1e-2


def test_channels_last_can_be_asked_for(tiny_transformer):
    """As on diffusers' page, where a module with weights of five dimensions would fail."""
    transformer, arguments = tiny_transformer(), inputs()
    with torch.no_grad():
        before = transformer(**arguments).sample
        close(transformer.to(memory_format=torch.channels_last)(**arguments).sample, before)
    assert transformer.x_embedder.weight.is_contiguous(memory_format=torch.channels_last_3d)


@torch.no_grad()
def test_the_large_model_takes_every_channel_twice(tiny_transformer):
    transformer = tiny_transformer(in_channels=8, out_channels=8, half_channel_vae=True, x_rescale_factor=0.1)
    assert transformer.latent_channels == 4
    assert transformer.x_embedder.weight.shape[1] == 8
    assert transformer.final_linear.linear.weight.shape[0] == 2 * 2 * 8
    arguments = inputs()
    velocity = transformer(**arguments).sample
    assert velocity.shape == arguments["hidden_states"].shape
    # Both halves of the input are the latents: their weights may as well be added.
    merged = tiny_transformer(in_channels=4, out_channels=8, x_rescale_factor=0.1)
    state = transformer.state_dict()
    weight = state["x_embedder.weight"]
    merged.load_state_dict({**state, "x_embedder.weight": weight[:, :4] + weight[:, 4:]})
    close(velocity, merged(**arguments).sample)  # of the 8 channels out, the first 4 count


def test_it_compiles_into_one_graph(tiny_transformer):
    transformer, arguments = tiny_transformer(), inputs()
    with torch.no_grad():
        compiled = torch.compile(transformer, fullgraph=True, backend="eager")
        close(compiled(**arguments).sample, transformer(**arguments).sample)


# Errors


@pytest.mark.parametrize("shape", [(1, 4, 5, 4, 6), (1, 4, 6, 3, 6), (1, 4, 6, 4, 5)])
def test_latents_that_cannot_be_cut_are_refused(tiny_transformer, shape):
    with pytest.raises(InputError, match="chunks of 2 frames and patches of 2 x 2"):
        tiny_transformer()(**{**inputs(), "hidden_states": randn(*shape)})


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_states": randn(1, 3, 6, 4, 6)},
        {"timestep": torch.zeros(1, 2)},
        {"encoder_hidden_states": randn(1, 2, 5, 8)},
        {"encoder_hidden_states": randn(1, 3, 5, 7)},
        {"encoder_attention_mask": torch.ones(1, 3, 4)},
        {"key_frames": torch.tensor([[0, 2]])},
    ],
    ids=["channels", "timesteps", "texts", "text channels", "mask", "key ranges"],
)
def test_arguments_that_do_not_fit_together_are_refused(tiny_transformer, wrong):
    with pytest.raises(InputError):
        tiny_transformer()(**{**inputs(), **wrong})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kv_channels": 12}, "multiple of 8"),
        ({"num_query_groups": 3}, "cannot share 3"),
        ({"cond_gating_ratio": 0.5}, r"must be 1\.0"),
        ({"xattn_cond_hidden_ratio": 0.5}, r"must be 1\.0"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(tiny_transformer, settings, message):
    with pytest.raises(InputError, match=message):
        tiny_transformer(**settings)
