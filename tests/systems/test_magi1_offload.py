"""Offloading: whatever lies elsewhere, the numbers are those of a pipeline that is whole."""

import contextlib
import copy
import json

import pytest
import torch
from goldens import golden_path
from safetensors.torch import load_file

from animagic import AutoencoderKLMagi1, InputError, Magi1Pipeline, Magi1SpecialTokens, zoo
from animagic.checkpoints import from_original

CPU = torch.device("cpu")
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def make_pipe(tiny_text_encoder, tiny_transformer, tiny_model):
    """Makes pipelines of the same random weights, special tokens included."""

    def make(**settings) -> Magi1Pipeline:
        torch.manual_seed(3)
        vae = AutoencoderKLMagi1(
            embed_dim=256, depth=1, num_heads=4, mlp_ratio=1, video_length=8, video_size=32, z_chans=4
        ).eval()
        table = Magi1SpecialTokens(8, 20)
        torch.nn.init.normal_(table.other_tokens)
        encoder, tokenizer = tiny_text_encoder
        transformer, sampling = tiny_transformer(num_layers=3, **settings), zoo.settings(tiny_model)
        pipe = Magi1Pipeline(transformer, vae, copy.deepcopy(encoder), tokenizer, table, config=sampling)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


def run(pipe: Magi1Pipeline, **settings) -> torch.Tensor:
    settings = {"num_frames": 32, "output_type": "pt", "special_tokens": ["hq"], **settings}
    frames = pipe("a red ball bounces", generator=torch.Generator().manual_seed(1), **settings).frames
    return frames.cpu()


# Keys and values


def test_kv_offload_changes_no_number(make_pipe):
    pipe = make_pipe()
    whole = run(pipe)
    pipe.enable_kv_offload()
    assert torch.equal(run(pipe), whole)
    pipe.disable_kv_offload()
    assert not pipe.kv_offload


@pytest.mark.parametrize("name", ["t2v_base", "i2v_base"])
def test_kv_offload_changes_no_number_of_the_golden_runs(name):
    config = json.loads(golden_path("magi1", "manifest.json").read_text())[name]["config"]
    golden = load_file(golden_path("magi1", f"{name}.safetensors"))
    weights = {k.removeprefix("weight."): v for k, v in golden.items() if k.startswith("weight.")}
    pipe = Magi1Pipeline(from_original("magi1", "transformer", weights, config), config=config)
    pipe.set_progress_bar_config(disable=True)
    given = {
        "prompt_embeds": golden["caption"][:, 0],
        "prompt_embeds_mask": golden["caption_mask"],
        "latents": golden["noise"],
        "prefix_latents": golden.get("prefix"),
        "num_frames": 4 * (golden["noise"].shape[2] - golden.get("prefix", golden["noise"][:, :, :0]).shape[2]),
        "output_type": "latent",
    }
    whole = pipe(**given).frames
    pipe.enable_kv_offload()
    assert torch.equal(pipe(**given).frames, whole)


def test_a_run_with_kv_offload_goes_on_where_it_stopped(make_pipe, tmp_path):
    from animagic.timeline import RunFolder

    pipe = make_pipe()
    whole = run(pipe)
    pipe.enable_kv_offload()
    kept = RunFolder(tmp_path / "run", {"a": 1}, every=0)
    stop = lambda progress: setattr(pipe, "interrupt", progress.step == 5)  # noqa: E731
    assert run(pipe, resume=kept, on_progress=stop).shape[1] < 32
    assert torch.equal(run(pipe, resume=kept), whole)


# Weights: the hooks of diffusers and accelerate, with the processor as the device as well


def test_model_offload_changes_no_number(make_pipe):
    whole, pipe = run(make_pipe()), make_pipe()
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(run(pipe), whole)
    assert torch.equal(run(pipe), whole)  # the hooks are laid anew after each run


def test_sequential_offload_changes_no_number(make_pipe, monkeypatch):
    import accelerate.hooks

    # accelerate numbers the device, and PyTorch takes cpu:0 for another one than cpu.
    move = accelerate.hooks.set_module_tensor_to_device

    def moved(module, name, device, *arguments, tied_params_map=None, **named):
        return move(module, name, "meta" if str(device) == "meta" else "cpu", *arguments, **named)

    monkeypatch.setattr(accelerate.hooks, "set_module_tensor_to_device", moved)
    whole, pipe = run(make_pipe()), make_pipe()
    pipe.enable_sequential_cpu_offload(device="cpu")
    assert {p.device.type for p in pipe.transformer.parameters()} == {"meta"}
    assert torch.equal(run(pipe), whole)


KINDS = [("block_level", 1), ("block_level", 2), ("leaf_level", None)]


@pytest.mark.parametrize(("kind", "blocks"), KINDS)
def test_group_offload_changes_no_number(make_pipe, kind, blocks):
    whole, pipe = run(make_pipe()), make_pipe()
    pipe.enable_group_offload(CPU, CPU, offload_type=kind, num_blocks_per_group=blocks)
    assert torch.equal(run(pipe), whole)
    assert pipe._execution_device == CPU


@pytest.mark.parametrize(("kind", "blocks"), KINDS)
def test_weights_on_disk_are_there_when_they_are_needed(make_pipe, tmp_path, kind, blocks):
    whole, pipe = run(make_pipe()), make_pipe()
    for name in ("transformer", "vae"):
        part = getattr(pipe, name)
        weights = [p.detach().clone() for p in part.parameters()]
        part.enable_group_offload(
            CPU, CPU, offload_type=kind, num_blocks_per_group=blocks, offload_to_disk_path=str(tmp_path / name)
        )
        # What is left in memory is room without the numbers, so a weight that is not brought in would show.
        for parameter, weight in zip(part.parameters(), weights, strict=True):
            assert parameter.data_ptr() != weight.data_ptr()
            parameter.data.fill_(float("nan"))
    # Read from files, weights lie at other addresses, where sums may be made in another order.
    torch.testing.assert_close(run(pipe), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_with_a_stream_every_block_is_fetched_by_the_one_before(make_pipe, monkeypatch, kind, caplog):
    """Without a GPU: a stream that does everything at once. What can go wrong here is the order that diffusers finds
    out in the first forward; a block outside of it would be used before it has come."""
    from diffusers.hooks import group_offloading

    class Stream:
        def synchronize(self):
            pass

    class Backend:
        def __init__(self, device):
            pass

        def stream(self, stream):
            return contextlib.nullcontext()

        def current_stream(self):
            return Stream()

    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", Backend)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    whole, pipe = run(make_pipe()), make_pipe()
    config = group_offloading.GroupOffloadingConfig(
        onload_device=CPU,
        offload_device=CPU,
        offload_type=group_offloading.GroupOffloadingType(kind),
        num_blocks_per_group=1,
        non_blocking=False,
        record_stream=False,
        low_cpu_mem_usage=False,
        stream=Stream(),
        block_modules=pipe.transformer._group_offload_block_modules,
    )
    group_offloading._apply_group_offloading(pipe.transformer, config)
    for _ in range(2):
        assert torch.equal(run(pipe), whole)
    assert not [record for record in caplog.records if "not executed" in record.message]


# The text encoder


def test_what_was_encoded_ahead_needs_no_text_encoder(make_pipe):
    settings = {"prompts_at": {1: "a blue cat"}, "negative_prompt": "crimson"}
    pipe = make_pipe()
    whole = run(pipe, **settings)
    pipe.encode_ahead("a red ball bounces", "a blue cat", "crimson")
    pipe.drop_text_encoder()
    assert pipe.text_encoder is pipe.tokenizer is None
    assert torch.equal(run(pipe, **settings), whole)
    with pytest.raises(InputError, match="encode_ahead with every prompt"):
        pipe("something else", num_frames=8)


def test_two_videos_of_prompts_that_were_encoded_ahead(make_pipe):
    pipe = make_pipe()
    prompts = ["a red ball", "a cat falls slowly then"]
    generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
    whole = pipe(prompts, num_frames=8, generator=generators, output_type="pt").frames
    pipe.encode_ahead(*prompts)
    pipe.drop_text_encoder()
    generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
    again = pipe(prompts, num_frames=8, generator=generators, output_type="pt").frames
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=0)


def test_tiling_through_the_pipeline(make_pipe):
    pipe = make_pipe()
    whole = run(pipe)
    pipe.enable_vae_tiling(tile_height=16, tile_width=16, tile_frames=8)
    assert not torch.equal(run(pipe), whole)
    pipe.disable_vae_tiling()
    assert torch.equal(run(pipe), whole)
    with pytest.raises(InputError, match="multiple of"):
        pipe.enable_vae_tiling(tile_height=15)
    with pytest.raises(InputError, match="no autoencoder"):
        Magi1Pipeline(pipe.transformer).enable_vae_tiling()


# On a GPU


@cuda
@pytest.mark.parametrize("technique", ["kv", "model", "sequential", "block", "leaf", "text on the processor"])
def test_on_a_gpu_offloading_changes_no_number(make_pipe, technique):
    whole, pipe = run(make_pipe().to("cuda")), make_pipe()
    device = torch.device("cuda")
    if technique in ("kv", "text on the processor"):
        pipe.to(device)
        pipe.enable_kv_offload()
    if technique == "text on the processor":
        pipe.text_encoder.to("cpu")
    if technique == "model":
        pipe.enable_model_cpu_offload()
    if technique == "sequential":
        pipe.enable_sequential_cpu_offload()
    if technique in ("block", "leaf"):
        pipe.enable_kv_offload()
        pipe.enable_group_offload(device, offload_type=f"{technique}_level", num_blocks_per_group=1, use_stream=True)
    for _ in range(2):
        torch.testing.assert_close(run(pipe), whole, atol=1e-5, rtol=0)
