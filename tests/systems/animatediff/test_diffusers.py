"""AnimateDiff as diffusers' users call it: the same calls of both libraries in one run, and what they make."""

import json

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import animagic
from animagic.errors import CheckpointError, InputError
from animagic.weights.motion_module import motion_name

FRAMES, SIDE = 4, 32
PROMPT = {"prompt": "a red ball", "negative_prompt": "blue", "num_inference_steps": 2, "num_frames": FRAMES}


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(network, seed: int = 1):
    """A network that does something: nothing in it is zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """The folder of a motion adapter, as diffusers keeps it."""
    sizes = {"block_out_channels": (32, 32), "motion_layers_per_block": 1, "motion_norm_num_groups": 4}
    made = moved(diffusers.MotionAdapter(**sizes, motion_num_attention_heads=2, use_motion_mid_block=False))
    folder = tmp_path_factory.mktemp("adapters") / "motion"
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def control():
    """A 2-D ControlNet for the tiny model."""
    torch.manual_seed(2)
    return moved(
        diffusers.ControlNetModel(
            block_out_channels=(32, 32), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), layers_per_block=1,
            cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
            conditioning_embedding_out_channels=(4, 8, 8),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def sparse():
    """A SparseCtrl network in diffusers' layout."""
    torch.manual_seed(3)
    return moved(
        diffusers.SparseControlNetModel(
            block_out_channels=(32, 32), down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
            layers_per_block=1, cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
            conditioning_embedding_out_channels=(4, 8, 8), motion_num_attention_heads=2, conditioning_channels=3,
            use_simplified_condition_embedding=False,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(tiny_picture_model, adapter):
    """Makes the pipeline of a name in diffusers and in animagic, the latter with diffusers' norms."""

    def make(name="AnimateDiffPipeline", **parts):
        pipes = []
        for library in (diffusers, animagic):
            motion = library.MotionAdapter.from_pretrained(adapter)
            pipes.append(getattr(library, name).from_pretrained(tiny_picture_model, motion_adapter=motion, **parts))
            pipes[-1].set_progress_bar_config(disable=True)
        pipes[1].unet.use_diffusers_norms()
        if pipes[1].sparse_controlnet is not None:
            pipes[1].sparse_controlnet.use_diffusers_norms()
        return pipes

    return make


def results(pipes, **arguments):
    given = PROMPT | {"output_type": "latent"} | arguments
    return [np.asarray(pipe(**given, generator=seeded()).frames) for pipe in pipes]


def equal(pipes, **arguments) -> np.ndarray:
    theirs, ours = results(pipes, **arguments)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    return ours


def pictures(count: int = FRAMES, side: int = SIDE, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(count)]


# A text-to-image model and a motion adapter


def test_the_same_call_makes_the_same_video(both):
    pipes = both()
    latents = equal(pipes, guidance_scale=7.5)
    assert latents.shape == (1, 4, FRAMES, SIDE // 4, SIDE // 4)
    equal(pipes, guidance_scale=1.0)
    equal(pipes, prompt=["a ball", "a red square"], negative_prompt=["blue", "green"])
    equal(pipes, eta=0.5)
    equal(pipes, output_type="np", decode_chunk_size=2)
    for scheduler in (diffusers.LCMScheduler, diffusers.EulerDiscreteScheduler, diffusers.DPMSolverMultistepScheduler):
        for pipe in pipes:
            pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
        equal(pipes)


def test_without_the_switch_the_numbers_are_the_originals(both):
    theirs, ours = both()
    ours.unet.use_diffusers_norms(False)
    a, b = results((theirs, ours))
    assert np.abs(a - b).mean() > 1e-3


def test_a_picture_unet_without_motion_is_refused(tiny_picture_model):
    with pytest.raises(InputError, match="motion_adapter=MotionAdapter"):
        animagic.AnimateDiffPipeline.from_pretrained(tiny_picture_model)


def test_an_adapter_for_another_base_is_refused(tiny_picture_model):
    sizes = {"block_out_channels": (64, 64), "motion_layers_per_block": 1, "motion_num_attention_heads": 2}
    other = animagic.MotionAdapter(**sizes, use_motion_mid_block=False)
    with pytest.raises(CheckpointError, match="motion adapter"):
        animagic.AnimateDiffPipeline.from_pretrained(tiny_picture_model, motion_adapter=other)
    pia = animagic.MotionAdapter((32, 32), 1, motion_num_attention_heads=2, conv_in_channels=9)
    with pytest.raises(InputError, match="PIA"):
        animagic.AnimateDiffPipeline.from_pretrained(tiny_picture_model, motion_adapter=pia)


def test_their_folder_is_opened_here_and_ours_there(both, tmp_path):
    theirs, ours = both()
    wanted = results((theirs,))[0]
    theirs.save_pretrained(tmp_path / "theirs")
    opened = animagic.AnimateDiffPipeline.from_pretrained(tmp_path / "theirs")
    opened.unet.use_diffusers_norms()
    ours.unet.use_diffusers_norms(False)
    ours.save_pretrained(tmp_path / "ours")
    index = json.loads((tmp_path / "ours" / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["motion_adapter"] == ["diffusers", "MotionAdapter"]
    back = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")
    assert type(back) is diffusers.AnimateDiffPipeline
    again = animagic.load(tmp_path / "ours")
    again.unet.use_diffusers_norms()
    for pipe in (opened, back, again):
        pipe.set_progress_bar_config(disable=True)
        np.testing.assert_allclose(results((pipe,))[0], wanted, atol=1e-4)


def test_a_motion_adapter_is_read_from_its_published_file(adapter, tmp_path, both):
    tensors = animagic.MotionAdapter.from_pretrained(adapter).state_dict()
    tables = {n: t for n, t in tensors.items() if n.endswith("pos_embed.pe")}
    published = {motion_name(n): t.contiguous() for n, t in tensors.items() if n not in tables}
    table = "temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
    published[f"down_blocks.0.motion_modules.0.{table}"] = next(iter(tables.values())).contiguous()
    save_file(published, tmp_path / "mm_v3.safetensors")
    read = animagic.MotionAdapter.from_single_file(
        str(tmp_path / "mm_v3.safetensors"), motion_num_attention_heads=2, motion_norm_num_groups=4
    )
    assert isinstance(read, diffusers.MotionAdapter)
    assert all(torch.equal(tensor, read.state_dict()[name]) for name, tensor in tensors.items())


def test_the_weights_are_not_held_twice(tiny_picture_model, adapter):
    unet = animagic.UNet2DConditionModel.from_pretrained(tiny_picture_model, subfolder="unet")
    motion = animagic.MotionAdapter.from_pretrained(adapter)
    pipe = animagic.AnimateDiffPipeline(unet, motion_adapter=motion)
    assert pipe.unet.conv_in.weight.data_ptr() == unet.conv_in.weight.data_ptr()
    held = {tensor.data_ptr() for tensor in [*unet.parameters(), *motion.parameters()]}
    assert {tensor.data_ptr() for tensor in pipe.unet.parameters()} <= held


# What diffusers' pages switch on


def test_free_init(both):
    pipes = both()
    for pipe in pipes:
        pipe.enable_free_init(num_iters=2, method="butterworth", use_fast_sampling=True)
        assert pipe.free_init_enabled
    equal(pipes, num_inference_steps=4)
    for pipe in pipes:
        pipe.disable_free_init()
    equal(pipes)


def test_free_u(both):
    pipes = both()
    plain = equal(pipes)
    for pipe in pipes:
        pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    assert np.abs(equal(pipes) - plain).max() > 1e-4


def test_free_noise_and_prompts_by_frame(both):
    _, ours = both()
    ours.enable_free_noise(context_length=4, context_stride=2)
    ours.enable_free_noise_split_inference()
    seen = []
    ours.unet.register_forward_pre_hook(lambda unet, given: seen.append(given[0].shape[2]))
    prompt = {0: "a red ball", 5: "a blue ball", 9: "a green ball"}
    given = {"prompt": prompt, "num_frames": 10, "negative_prompt": {0: "green", 9: "red"}}
    (long,) = results((ours,), **given)
    assert long.shape[2] == 10
    assert set(seen) == {4}
    calls = []

    def blend(first, last, a, b):
        calls.append((first, last, a.shape, b.shape))
        return a.expand(last - first + 1, -1, -1)

    for scheme, noise in (("flat", "repeat_context"), ("delayed_reverse_sawtooth", "random")):
        ours.enable_free_noise(4, 2, scheme, noise, blend)
        (other,) = results((ours,), **given)
        assert np.isfinite(other).all()
        assert np.abs(other - long).mean() > 1e-3
    assert {(0, 5), (5, 9), (0, 9)} == {call[:2] for call in calls}
    ours.disable_free_noise()
    (short,) = results((ours,), prompt={0: "a red ball", 3: "blue"})
    assert short.shape[2] == FRAMES
    with pytest.raises(InputError, match="noise_type"):
        ours.enable_free_noise(noise_type="white")
    with pytest.raises(InputError, match="at most 32"):
        ours.enable_free_noise(context_length=64)


@pytest.fixture(scope="module")
def looks():
    """An image encoder, and the tensors of an IP-Adapter for the tiny model, also with a resampler (Plus)."""
    torch.manual_seed(4)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, projection_dim=8, image_size=32, patch_size=16))
    size = {"shortest_edge": 32}
    reader = CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32})
    project = {"proj.weight": torch.randn(4 * 16, 8), "proj.bias": torch.zeros(64)}
    project |= {"norm.weight": torch.ones(16), "norm.bias": torch.zeros(16)}
    layers = {f"{i}.to_{part}_ip.weight": 0.3 * torch.randn(32, 16) for i in (1, 3, 5, 7) for part in "kv"}
    return encoder.eval(), reader, {"image_proj": project, "ip_adapter": layers}


def test_ip_adapters(both, looks):
    encoder, reader, tensors = looks
    pipes = both(image_encoder=encoder, feature_extractor=reader)
    picture, other = pictures(2)
    plain = equal(pipes)
    for pipe in pipes:
        pipe.load_ip_adapter(tensors, subfolder="", weight_name="x.safetensors")
        pipe.set_ip_adapter_scale(0.8)
    looked = equal(pipes, ip_adapter_image=picture)
    assert np.abs(looked - plain).max() > 1e-3
    equal(pipes, ip_adapter_image=picture, guidance_scale=1.0)
    equal(pipes, ip_adapter_image=[[picture, other]])
    embeds = torch.cat([torch.zeros(1, 1, 8), torch.randn(1, 1, 8, generator=seeded())])
    equal(pipes, ip_adapter_image_embeds=[embeds])
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., : SIDE // 2] = 1
    masked = equal(pipes, ip_adapter_image=[[picture]], cross_attention_kwargs={"ip_adapter_masks": [mask]})
    assert np.abs(masked - looked).max() > 1e-3
    _, ours = pipes
    # A look that changes along the clip, which diffusers does not have.
    (travelled,) = results((ours,), ip_adapter_image={0: picture, FRAMES - 1: other})
    assert np.abs(travelled - looked).max() > 1e-3
    (same,) = results((ours,), ip_adapter_image={0: picture, FRAMES - 1: picture})
    np.testing.assert_allclose(same, looked, atol=1e-4)
    with pytest.raises(InputError, match="an IP-Adapter is loaded"):
        results((ours,))
    with pytest.raises(InputError, match="1 IP-Adapters but 2"):
        results((ours,), ip_adapter_image=[picture, picture])
    for pipe in pipes:
        pipe.unload_ip_adapter()
    np.testing.assert_allclose(equal(pipes), plain, atol=1e-5)
    with pytest.raises(InputError, match="load_ip_adapter"):
        results((ours,), ip_adapter_image=picture)


def test_two_ip_adapters_at_once(both, looks):
    encoder, reader, tensors = looks
    pipes = both(image_encoder=encoder, feature_extractor=reader)
    for pipe in pipes:
        pipe.load_ip_adapter([tensors, tensors], subfolder=["", ""], weight_name=["x.safetensors", "y.safetensors"])
        pipe.set_ip_adapter_scale([0.7, 0.3])
    equal(pipes, ip_adapter_image=pictures(2))


def test_control_nets(both, control):
    pipes = both("AnimateDiffControlNetPipeline", controlnet=control)
    clip = pictures()
    controlled = equal(pipes, conditioning_frames=clip)
    equal(pipes, conditioning_frames=clip, controlnet_conditioning_scale=0.5)
    late = equal(
        pipes, conditioning_frames=clip, control_guidance_start=0.4, control_guidance_end=0.9, num_inference_steps=3
    )
    assert np.abs(late - controlled).max() > 1e-3
    equal(pipes, conditioning_frames=clip, guess_mode=True, guidance_scale=1.0)
    _, ours = pipes
    (guessed,) = results((ours,), conditioning_frames=clip, guess_mode=True)
    assert np.isfinite(guessed).all()
    (windows,) = results((ours,), conditioning_frames=clip, context_frames=2, context_overlap=1)
    assert np.isfinite(windows).all()
    with pytest.raises(InputError, match="each of the 4 frames, not 3"):
        results((ours,), conditioning_frames=clip[:3])
    with pytest.raises(InputError, match="give the pipeline a controlnet"):
        results((both()[1],), conditioning_frames=clip)


def test_several_control_nets(both, control):
    pipes = both("AnimateDiffControlNetPipeline", controlnet=[control, control])
    clips = [pictures(), pictures(seed=1)]
    equal(pipes, conditioning_frames=clips, controlnet_conditioning_scale=[1.0, 0.3])


def test_sparse_control(both, sparse):
    pipes = both("AnimateDiffSparseControlNetPipeline", controlnet=sparse)
    named = {"conditioning_frames": pictures(2), "controlnet_frame_indices": [0, 3]}
    kept = equal(pipes, **named)
    assert np.abs(equal(pipes, **named, controlnet_conditioning_scale=0.2) - kept).max() > 1e-3


def test_their_sparse_control_folder_is_read(both, sparse, tmp_path):
    sparse.save_pretrained(tmp_path)
    read = animagic.SparseControlNetModel.from_pretrained(tmp_path)
    pipes = both("AnimateDiffSparseControlNetPipeline", controlnet=read)
    equal(pipes, conditioning_frames=pictures(1), controlnet_frame_indices=[0])


def test_video_to_video(both, control):
    pipes = both("AnimateDiffVideoToVideoPipeline")
    named = {"video": pictures(), "strength": 0.5, "num_inference_steps": 4}
    for pipe in pipes:  # diffusers draws latents of the clip, here they are the mode
        pipe.vae.quant_conv.weight.data[4:] = 0
        pipe.vae.quant_conv.bias.data[4:] = -30
    theirs, ours = (pipe(prompt="a ball", generator=seeded(), output_type="np", **named).frames for pipe in pipes)
    assert theirs.shape == ours.shape
    pipe = both("AnimateDiffVideoToVideoControlNetPipeline", controlnet=control)[1]
    frames = pipe(**named, prompt="a ball", conditioning_frames=pictures(), generator=seeded()).frames[0]
    assert len(frames) == FRAMES
    with pytest.raises(InputError, match="needs a video"):
        pipe(prompt="a ball")


# Callbacks


def test_callbacks_may_change_guidance_and_texts(both):
    pipes, notes = both(), {}

    def more(pipe, step, timestep, tensors):
        notes.setdefault(pipe, []).append((step, pipe.guidance_scale, pipe.num_timesteps))
        pipe._guidance_scale += 1.0
        return tensors

    _, ours = results(
        pipes, callback_on_step_end=more, callback_on_step_end_tensor_inputs=["latents"], guidance_scale=3.0
    )
    assert notes[pipes[0]] == notes[pipes[1]] == [(0, 3.0, 2), (1, 4.0, 2)]
    assert pipes[1].guidance_scale == 5.0
    assert np.abs(ours - results((pipes[1],), guidance_scale=3.0)[0]).max() > 1e-4
    seen = []
    pipes[1].unet.register_forward_pre_hook(lambda unet, given: seen.append(len(given[0])))
    results((pipes[1],), num_inference_steps=3, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5))
    assert seen == [2, 2, 1]

    def silent(pipe, step, timestep, tensors):
        assert tensors["prompt_embeds"].shape[0] == 2
        assert tensors["negative_prompt_embeds"].shape[0] == 1
        return {"prompt_embeds": torch.zeros_like(tensors["prompt_embeds"])}

    named = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    (zero,) = results((pipes[1],), callback_on_step_end=silent, callback_on_step_end_tensor_inputs=named)
    assert np.abs(zero - results((pipes[1],))[0]).max() > 1e-4

    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = step == 0
        return tensors

    done = []
    pipes[1](**PROMPT, callback_on_step_end=stop, on_progress=lambda p: done.append(p.step), output_type="latent")
    assert done == [1]


# Texts


def test_encode_prompt_needs_no_more_than_text_encoders(both, tiny_picture_model):
    theirs, ours = both()
    reader = animagic.AnimateDiffPipeline.from_pretrained(tiny_picture_model, unet=None, vae=None)
    embeds, negative = reader.encode_prompt("a red ball", "cpu", 1, True, "blue")
    for a, b in zip(theirs.encode_prompt("a red ball", "cpu", 1, True, "blue"), (embeds, negative), strict=True):
        torch.testing.assert_close(a, b)
    assert reader.encode_prompt("a ball", "cpu", 1, False)[1] is None
    named = {"prompt": None, "negative_prompt": None}
    given = equal((theirs, ours), **named, prompt_embeds=embeds, negative_prompt_embeds=negative)
    np.testing.assert_allclose(given, results((ours,))[0], atol=1e-5)


@pytest.mark.parametrize("length", [9, 16, 40])
def test_embeds_of_any_length(both, length):
    _, ours = both()
    embeds = torch.randn(1, length, 16, generator=seeded())
    (made,) = results((ours,), prompt=None, prompt_embeds=embeds)
    assert np.isfinite(made).all()
    named = {"prompt": None, "negative_prompt": None, "prompt_embeds": embeds}
    with pytest.raises(InputError, match="equally long"):
        results((ours,), **named, negative_prompt_embeds=embeds[:, 1:])


def test_what_is_not_known_is_refused_with_the_nearest_names(both):
    _, ours = both()
    for wrong, right in (("guidance_scales", "guidance_scale"), ("conditioning_frame", "conditioning_frames")):
        with pytest.raises(TypeError, match=rf"no argument '{wrong}'; did you mean .*{right}"):
            ours("a ball", **{wrong: 1})


# Parts


def test_from_pipe_keeps_every_part(both):
    _, ours = both()
    other = animagic.AnimateDiffVideoToVideoPipeline.from_pipe(ours)
    assert {n: p for n, p in other.components.items() if p is not None} == {
        n: p for n, p in ours.components.items() if p is not None
    }


def test_from_pipe_of_a_picture_pipeline(tiny_picture_model, adapter):
    pictures_of = diffusers.StableDiffusionPipeline.from_pretrained(tiny_picture_model)
    motion = animagic.MotionAdapter.from_pretrained(adapter)
    pipe = animagic.AnimateDiffPipeline.from_pipe(pictures_of, motion_adapter=motion)
    assert pipe.vae is pictures_of.vae
    assert pipe.unet.motion_state_dict()


def test_default_attention_can_be_asked_for(both):
    _, ours = both()
    (before,) = results((ours,))
    ours.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    ours.unet.set_default_attn_processor()
    np.testing.assert_array_equal(results((ours,))[0], before)


@pytest.mark.parametrize("how", ["sequential", "block", "leaf"])
def test_offloading_changes_nothing(both, how, tmp_path):
    """The CPU stands for the device: as there, weights come from where they wait and go back, or are missed."""
    _, ours = both()
    (before,) = results((ours,))
    cpu = torch.device("cpu")
    if how == "sequential":
        for part in (ours.unet, ours.text_encoder, ours.vae):
            accelerate.cpu_offload(part, cpu)
    else:
        blocks = {"num_blocks_per_group": 1} if how == "block" else {}
        ours.enable_group_offload(cpu, cpu, f"{how}_level", offload_to_disk_path=str(tmp_path), **blocks)
    (after,) = results((ours,))
    np.testing.assert_allclose(after, before, atol=1e-5)


# Pictures in any form


@pytest.mark.parametrize("form", ["list", "float", "tensor", "bytes"])
def test_pictures_in_any_form(both, form):
    _, ours = both()
    picture = np.asarray(pictures(1)[0])
    floats = picture.astype(np.float32) / 255
    given = {
        "list": [Image.fromarray(picture)],
        "float": floats,
        "tensor": torch.from_numpy(floats).permute(2, 0, 1),
        "bytes": torch.from_numpy(picture.copy()).permute(2, 0, 1),
    }[form]
    wanted = ours(**PROMPT, image=Image.fromarray(picture), generator=seeded(), output_type="np").frames
    made = ours(**PROMPT, image=given, generator=seeded(), output_type="np").frames
    np.testing.assert_array_equal(made, wanted)


# More than diffusers has: how strongly frames move, and where


def test_motion_by_frame_and_by_place(both):
    _, ours = both()

    def make(**arguments):
        return torch.tensor(results((ours,), **arguments)[0])

    trained, still = make(), make(use_motion=False)
    torch.testing.assert_close(make(motion_scale=0.0), still, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(make(motion_scale=[1.0] * FRAMES), trained)
    assert (make(motion_scale=0.5) - trained).abs().max() > 1e-4
    ramp = make(motion_scale={0: 0.0, FRAMES - 1: 1.5})
    torch.testing.assert_close(ramp, make(motion_scale=[0.0, 0.5, 1.0, 1.5]))
    black, white = (Image.new("L", (SIDE, SIDE), value) for value in (0, 255))
    torch.testing.assert_close(make(motion_mask=white), trained, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(make(motion_mask=[black] * FRAMES), still, atol=1e-5, rtol=1e-4)
    windows = {"context_frames": 2, "context_overlap": 1}
    assert torch.isfinite(make(motion_scale={0: 0.0, 3: 1.0}, **windows)).all()
    with pytest.raises(InputError, match="3 values for 4 frames"):
        make(motion_scale=[1.0] * 3)
    with pytest.raises(InputError, match="one picture, or one for each"):
        make(motion_mask=[white] * 2)
