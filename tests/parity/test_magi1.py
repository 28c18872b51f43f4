"""Our MAGI-1 computes what the original computes: schedules, plans, rotary tables, names and shapes of all published
transformers, and whole sampling trajectories on the original's weights."""

import json
from dataclasses import dataclass

import pytest
import torch
from goldens import golden_path, relative_error
from safetensors.torch import load_file

from animagic.layers.rotary import rotary_angles
from animagic.pipelines.text import TextEmbedding
from animagic.systems.magi1.denoiser import Magi1Denoiser, Magi1Sampling
from animagic.systems.magi1.prompts import ChunkPrompts, null_caption
from animagic.systems.magi1.transformer import LearnedRotary, Magi1Transformer3DModel
from animagic.timeline import FlowEuler, Sampler, Staircase, Timeline, flow_levels, shortcut_intervals

TOLERANCE = 1e-4  # we stand at 1e-5
TRAJECTORIES = (
    "t2v_base",
    "i2v_base",
    "v2v_base_one_chunk_prefix",
    "v2v_base_ragged_prefix",
    "t2v_distill_8",
    "t2v_distill_12_8_16_16",
    "t2v_24b_style",
)
PUBLISHED = ("4.5B_base", "4.5B_distill", "24B_base", "24B_distill")
NOT_OURS = ("model_name", "apply_layernorm_1p", "params_dtype")  # fields that say nothing about the network


def network_fields(config: dict) -> dict:
    return {k: v for k, v in config["model_config"].items() if k not in NOT_OURS}


def manifest() -> dict:
    return json.loads(golden_path("magi1", "manifest.json").read_text())


# Schedules and plans


@pytest.mark.parametrize("shortcut", ["8,16,16", "16,16,8"])
@pytest.mark.parametrize("num_steps", [8, 12, 16, 32, 64])
def test_time_points_and_intervals(num_steps, shortcut):
    goldens = load_file(golden_path("magi1", "schedules.safetensors"))
    name = f"{num_steps}_{shortcut.replace(',', '_')}"
    torch.testing.assert_close(flow_levels(num_steps, shortcut), goldens[f"t_{name}"], atol=1e-6, rtol=1e-6)
    assert torch.equal(shortcut_intervals(num_steps, shortcut), goldens[f"interval_{name}"])


def test_every_stored_schedule_is_tested():
    names = load_file(golden_path("magi1", "schedules.safetensors"))
    assert {tuple(name.split("_")[1:]) for name in names} == {
        (str(n), *mode) for n in (8, 12, 16, 32, 64) for mode in (("8", "16", "16"), ("16", "16", "8"))
    }


def test_the_staircase_visits_chunks_and_stages_in_the_original_order():
    cases = json.loads(golden_path("magi1", "staircase.json").read_text())
    assert len(cases) == 54
    width = 6
    for name, golden in cases.items():
        chunks, window_size, offset = (int(part.split("=")[1]) for part in name.split(","))
        # One step a stage: then a level is a stage.
        plan = Staircase(chunks, window_size, window_size, width, prefix_frames=offset * width)
        ours = []
        for step in list(plan.steps())[offset:]:
            (window,) = step.windows
            levels, first = list(window.levels[::width]), window.frames.start // width
            if levels[0] == window_size:  # the clean chunk that goes along once more
                first, levels = first + 1, levels[1:]
            ours.append([first, window.frames.stop // width, min(levels), max(levels) + 1])
        assert [list(row) for row in zip(*ours, strict=True)] == golden, name


# Rotary tables: rows are tokens in (time, height, width) order, columns [sin, cos] of the angles of the three axes.


@pytest.mark.parametrize("grid", [(6, 4, 6), (12, 8, 8), (18, 45, 45)])
def test_rotary_tables(grid):
    goldens = load_file(golden_path("magi1", "rope.safetensors"))
    table = goldens["rope_{}x{}x{}".format(*grid)]
    frames, height, width = grid
    bands = LearnedRotary(16).bands.detach()  # as initialised: 10000^(-i/2)
    assert torch.equal(bands, torch.tensor([1.0, 0.01]))
    angles = rotary_angles(bands, range(frames), height, width)
    ours = torch.cat([angles.sin(), angles.cos()], dim=-1)
    assert ours.shape == (frames * height * width, table.shape[1])
    assert len(table) == min(512, len(ours))
    torch.testing.assert_close(ours[: len(table)], table, atol=1e-6, rtol=0)


# Published checkpoints


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_shapes_and_sizes_of_the_published_transformers(name):
    config = json.loads(golden_path("magi1", "configs", f"{name}_config.json").read_text())
    golden = json.loads(golden_path("magi1", "keys_dit.json").read_text())[name]
    with torch.device("meta"):
        transformer = Magi1Transformer3DModel(**network_fields(config))

    ours = {key: list(tensor.shape) for key, tensor in transformer.state_dict().items()}
    assert ours == {key: shape for key, (shape, _) in golden["tensors"].items()}
    assert sum(p.numel() for p in transformer.parameters()) == golden["parameters"]

    # What is stored in float32 is what stays in float32 when the rest is loaded as bfloat16.
    kept = set(transformer._keep_in_fp32_modules)
    assert {key for key in ours if key.split(".")[0] in kept} == {
        key for key, (_, dtype) in golden["tensors"].items() if dtype == "float32"
    }


def test_all_published_settings_can_be_read():
    for name in PUBLISHED:
        config = json.loads(golden_path("magi1", "configs", f"{name}_config.json").read_text())
        sampling = Magi1Sampling.from_config(config)
        runtime, engine = config["runtime_config"], config["engine_config"]
        assert (sampling.num_steps, sampling.video_size_h, sampling.video_size_w) == (
            runtime["num_steps"],
            runtime["video_size_h"],
            runtime["video_size_w"],
        )
        assert (sampling.cfg_number, sampling.distill) == (runtime["cfg_number"], engine["distill"])
        assert sampling.plan(4).look_back == tuple(runtime["noise2clean_kvrange"])
        assert len(sampling.times()) == sampling.num_steps + 1


# Trajectories


@dataclass
class Trajectory:
    name: str
    golden: dict
    ours: dict
    plan: Staircase
    sampling: Magi1Sampling


@pytest.fixture(scope="module", params=TRAJECTORIES)
def trajectory(request) -> Trajectory:
    """A whole sampling run on the stored weights, noise, caption and prefix; our results under the goldens' names."""
    settings = manifest()[request.param]
    golden = load_file(golden_path("magi1", f"{request.param}.safetensors"))
    sampling = Magi1Sampling.from_config(settings["config"])
    transformer = Magi1Transformer3DModel(**network_fields(settings["config"]), chunk_width=sampling.chunk_width).eval()
    prefix = "weight."
    transformer.load_state_dict({k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)})

    noise, given = golden["noise"], golden.get("prefix")
    assert settings["prefix_latent_frames"] == (0 if given is None else given.shape[2])
    chunks = noise.shape[2] // sampling.chunk_width
    plan = sampling.plan(chunks, settings["prefix_latent_frames"])
    offset = plan.whole_prefix_chunks
    assert plan.total_steps - offset == settings["total_forward_steps"]

    caption = TextEmbedding(golden["caption"][:, 0], golden["caption_mask"])
    null = null_caption(transformer.y_embedder.null_caption_embedding, 1)
    prompts = ChunkPrompts(((0, caption),), null, num_chunks=chunks).to(torch.device("cpu"))
    guided = sampling.guide(Magi1Denoiser(transformer, prompts, plan, sampling))
    timeline = Timeline(lambda frames: noise[:, :, frames.start : frames.stop].clone(), given)
    ours, final = {}, torch.full_like(noise, float("nan"))

    def denoise(latents, window):
        velocity = guided(latents, window)
        ours[f"velocity_{len(ours) - offset}"] = velocity
        return velocity

    def keep_state(progress):
        # When a chunk becomes clean. (It goes along once more after that, and its given frames are then given again.)
        if len(progress.plan_step.clean):
            stop = progress.plan_step.clean.stop
            final[:, :, stop - plan.chunk_width : stop] = timeline.state(range(stop - plan.chunk_width, stop))

    outputs = list(Sampler(plan, denoise, FlowEuler(sampling.times()), timeline, on_step=keep_state).run())
    ours |= {f"chunk_{i}": clean.latents for i, clean in enumerate(outputs)}
    ours["final_timeline"] = final
    return Trajectory(request.param, golden, ours, plan, sampling)


def test_every_stored_trajectory_is_tested():
    assert {*TRAJECTORIES, "vae"} == set(manifest())


def test_trajectory_schedule(trajectory):
    times = trajectory.sampling.times()
    torch.testing.assert_close(times, trajectory.golden["timesteps"], atol=1e-6, rtol=1e-6)
    intervals = shortcut_intervals(trajectory.sampling.num_steps, trajectory.sampling.shortcut_mode)
    assert torch.equal(intervals, trajectory.golden["intervals"])


def test_trajectory_velocities(trajectory):
    """Every chunk of every stored forward, the clean chunk in front included."""
    names = [name for name in trajectory.golden if name.startswith("velocity_")]
    assert len(names) >= 5
    width = trajectory.plan.chunk_width
    for name in names:
        golden, ours = trajectory.golden[name], trajectory.ours[name]
        assert ours.shape == golden.shape, name
        for start in range(0, golden.shape[2], width):
            rows = slice(start, start + width)
            error = relative_error(ours[:, :, rows], golden[:, :, rows])
            assert error < TOLERANCE, f"{name}, frames {start} on: {error:.1e}"


def test_trajectory_chunks(trajectory):
    names = {name for name in trajectory.golden if name.startswith("chunk_")}
    assert names == {name for name in trajectory.ours if name.startswith("chunk_")}
    for name in names:
        error = relative_error(trajectory.ours[name], trajectory.golden[name])
        assert error < TOLERANCE, f"{name}: {error:.1e}"


def test_trajectory_final_timeline(trajectory):
    # Beneath whole given chunks lies what nobody reads: the original leaves its noise there.
    made = slice(trajectory.plan.whole_prefix_chunks * trajectory.plan.chunk_width, None)
    golden, ours = trajectory.golden["final_timeline"], trajectory.ours["final_timeline"]
    assert relative_error(ours[:, :, made], golden[:, :, made]) < TOLERANCE


@pytest.mark.parametrize("trajectory", ["i2v_base"], indirect=True)
def test_a_given_picture_is_yielded_as_one_step_from_it(trajectory):
    """Image to video yields frame 0, and the original does not lay the picture over it: what comes out is the picture
    plus the last Euler step, for the network reads the picture itself at every step before."""
    golden, ours = trajectory.golden, trajectory.ours
    assert ours["chunk_0"].shape[2] == 6
    assert relative_error(ours["chunk_0"][:, :, 0], golden["chunk_0"][:, :, 0]) < TOLERANCE

    times = golden["timesteps"]
    picture, velocity = golden["prefix"][:, :, 0], ours["velocity_7"][:, :, 0]
    stepped = picture + velocity * (times[8] - times[7])
    assert relative_error(stepped, golden["chunk_0"][:, :, 0]) < TOLERANCE
    assert relative_error(picture, golden["chunk_0"][:, :, 0]) > 0.1
