"""MAGI-1 as diffusers' users call it: forms of input, texts as tensors, callbacks, names in folders."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import animagic
from animagic import Magi1Pipeline
from animagic.errors import InputError


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def make(tiny_pipe):
    """Runs the random model; latents of 8 frames unless asked otherwise."""

    def make(prompt="a red ball", pipe=tiny_pipe, **arguments):
        named = {"num_frames": 8, "generator": seeded(), "output_type": "latent"} | arguments
        return pipe(prompt, **named).frames

    return make


def different(a, b) -> bool:
    return float(np.abs(np.asarray(a) - np.asarray(b)).mean()) > 1e-4


def test_a_negative_prompt_for_each_video(make):
    both = make(["a red ball", "a blue cat"], negative_prompt=["blue", "red"], generator=[seeded(1), seeded(2)])
    one = make("a blue cat", negative_prompt="red", generator=seeded(2))
    np.testing.assert_allclose(both[1], one[0], atol=1e-4)
    with pytest.raises(InputError, match="1 prompts but 2 negative ones"):
        make(negative_prompt=["blue", "red"])


def test_texts_as_tensors_go_back_in(tiny_pipe, tiny_model, make):
    reader = Magi1Pipeline(None, text_encoder=tiny_pipe.text_encoder, tokenizer=tiny_pipe.tokenizer)
    embeds, mask, negative, negative_mask = reader.encode_prompt("a red ball", "blue")
    given = {"prompt_embeds": embeds, "prompt_embeds_mask": mask}
    given |= {"negative_prompt_embeds": negative, "negative_prompt_embeds_mask": negative_mask}
    np.testing.assert_array_equal(make(None, **given), make("a red ball", negative_prompt="blue"))
    assert tiny_pipe.encode_prompt("a ball")[2:] == (None, None)
    with pytest.raises(InputError, match="negative_prompt_embeds_mask"):
        make(negative_prompt_embeds=negative)


@pytest.mark.parametrize("form", ["list", "float", "tensor"])
def test_pictures_and_clips_in_any_form(make, form, make_moving_clip):
    clip = make_moving_clip(8)
    floats = clip.astype(np.float32) / 255
    forms = {
        "list": (clip[0], list(clip)),
        "float": (floats[0], floats),
        "tensor": (torch.tensor(floats[0]).permute(2, 0, 1), torch.tensor(floats).permute(0, 3, 1, 2)),
    }
    image, video = forms[form]
    image = [Image.fromarray(image)] if form == "list" else image
    np.testing.assert_array_equal(make(image=image), make(image=Image.fromarray(clip[0])))
    np.testing.assert_array_equal(make(video=video, num_frames=16), make(video=clip, num_frames=16))


def test_what_cannot_be_is_said_in_one_sentence(make):
    assert make(num_frames=8.0).shape == make().shape
    noise = torch.randn(1, 4, 3, 4, 6)
    for arguments, words in (
        ({"prompt": []}, "give a prompt"),
        ({"num_frames": 8.5}, "whole number"),
        ({"latents": noise}, "no whole chunks"),
        ({"latents": noise[:, :, :2], "prompt": ["a ball", "a cat"]}, "latents of 1 videos, but 2"),
        ({"latents": noise[:, :, :2], "height": 64}, "leave out height"),
        ({"prompt": ["a ball"] * 3, "generator": [seeded(), seeded()]}, "2 generators, but 3"),
        ({"image": np.full((8, 8, 3), 7.0)}, "from 0 to 1"),
        ({"image": np.zeros((8, 8), np.uint8)}, "a picture is"),
        ({"image": ["x"]}, "a picture is"),
    ):
        with pytest.raises(InputError, match=words):
            make(**arguments)
    with pytest.raises(TypeError, match="did you mean negative_prompt"):
        make(negative_promt="blue")


def test_callbacks_know_and_change_the_guidance(make, tiny_pipe):
    seen = []

    def more(pipe, step, timestep, tensors):
        seen.append((pipe.guidance_scale, pipe.num_timesteps, pipe.do_classifier_free_guidance))
        pipe._guidance_scale = 2.0
        return tensors

    changed = make(callback_on_step_end=more, guidance_scale=5.0)
    assert seen[0][0] == 5.0
    assert {scale for scale, _, _ in seen[1:]} == {2.0}
    assert {(steps, guided) for _, steps, guided in seen} == {(len(seen), True)}
    assert different(changed, make(guidance_scale=5.0))


def test_a_transformer_alone_says_how_long_chunks_are(tiny_transformer):
    pipe = Magi1Pipeline(tiny_transformer())
    assert pipe.sampling.chunk_width == tiny_transformer().config.chunk_width == 2


def test_folders_name_the_library_and_not_its_files(tiny_pipe, tmp_path):
    tiny_pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["transformer"] == ["animagic", "Magi1Transformer3DModel"]
    assert index["vae"] == ["animagic", "AutoencoderKLMagi1"]


def test_attention_backends_by_their_names(tiny_transformer):
    network = tiny_transformer()
    network.set_attention_backend("native")
    assert network.attention_backend == "sdpa"
    network.reset_attention_backend()
    assert network.attention_backend == "auto"
    with pytest.raises(InputError, match="choose native"):
        network.set_attention_backend("sage")


def test_tiles_lose_no_frames(tiny_pipe):
    vae, video = tiny_pipe.vae, torch.rand(1, 3, 16, 32, 32) * 2 - 1
    with torch.no_grad():
        vae.enable_tiling()
        tiled = vae(video).sample
        vae.disable_tiling()
    assert tiled.shape == video.shape


def test_the_names_of_the_page_of_diffusers():
    from animagic.models import AutoencoderKLMagi1

    assert AutoencoderKLMagi1 is animagic.AutoencoderKLMagi1
