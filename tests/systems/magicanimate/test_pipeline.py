"""MagicAnimate's pipeline as others call it, and its command in several processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from models import given, tiny_model, tiny_pipeline
from PIL import Image

from animagic import InputError, MagicAnimatePipeline
from animagic.media import iter_video
from animagic.poses import Poses, to_json
from animagic.timeline import RunFolder


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def make(pipe, frames: int = 8, seed: int = 1, **settings):
    return pipe(
        **{"generator": torch.Generator().manual_seed(seed), "output_type": "latent", **given(frames), **settings}
    ).frames


def test_pixels_come_in_pieces(pipe):
    arguments = {"generator": torch.Generator().manual_seed(1), "output_type": "np", "num_inference_steps": 1}
    chunks = list(pipe.stream(**given(40), **arguments))
    assert [(chunk.start, len(chunk)) for chunk in chunks] == [(0, 16), (16, 16), (32, 8)]
    assert chunks[0].frames.shape == (1, 16, 32, 32, 3)


def test_saved_and_loaded_it_makes_the_same_frames(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = MagicAnimatePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert json.loads((tmp_path / "model_index.json").read_text())["unet"] == ["animagic", "MagicAnimateUNet"]
    assert loaded.sampling == pipe.sampling
    torch.testing.assert_close(make(loaded), make(pipe), atol=1e-4, rtol=1e-4)  # weights at other addresses


def test_two_videos_are_two_single_ones(pipe):
    noises = torch.randn(2, 4, 12, 4, 4, generator=torch.Generator().manual_seed(3))
    both = make(pipe, 12, latents=noises, num_videos_per_prompt=2)
    for noise, video in zip(noises, both, strict=True):
        torch.testing.assert_close(make(pipe, 12, latents=noise[None])[0], video, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_without_guidance_one_half_runs(pipe):
    rows = []
    hook = pipe.unet.up_blocks[0].register_forward_hook(lambda block, given, made: rows.append(len(made)))
    try:
        unguided, guided = make(pipe, guidance_scale=1.0), make(pipe, guidance_scale=3.0)
    finally:
        hook.remove()
    assert rows == [8, 8, 16, 16]
    assert not torch.allclose(unguided, guided, atol=1e-3)


def test_texts_that_differ_are_both_read(pipe):
    text, other = torch.randn(2, 1, 2, 8, generator=torch.Generator().manual_seed(4))
    same = make(pipe, prompt_embeds=text, negative_prompt_embeds=text.clone())
    torch.testing.assert_close(make(pipe, prompt_embeds=text), same)
    assert not torch.allclose(make(pipe, prompt_embeds=text, negative_prompt_embeds=other), same, atol=1e-3)


def test_a_video_that_was_kept_goes_on(pipe, tmp_path):
    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 1:
            raise Stop

    whole = make(pipe, 12)
    with pytest.raises(Stop):
        make(pipe, 12, resume=RunFolder(tmp_path, {}, every=0), on_progress=stop)
    steps = []
    again = make(
        pipe, 12, resume=RunFolder(tmp_path, {}, every=0), on_progress=lambda progress: steps.append(progress.step)
    )
    assert steps == [2]
    assert torch.equal(again, whole)


def test_a_picture_is_read_as_its_latents(pipe):
    picture = np.full((40, 40, 3), 90, np.uint8)
    picture[:, 10:] = 200
    latents = pipe.encode_frames(np.asarray(Image.fromarray(picture).resize((32, 32), Image.LANCZOS))[None])[:, :, 0]
    poses = given(8)["pose_frames"]
    read, known = (
        make(pipe, image=image, reference_latents=reference, pose_frames=poses)
        for image, reference in ((Image.fromarray(picture), None), (None, latents))
    )
    torch.testing.assert_close(read, known, atol=0.1, rtol=0.1)


PICTURE = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pose_frames": None}, "give the poses: either as a video or as pose_frames"),
        ({"video": np.stack([PICTURE] * 3)}, "give the poses: either as a video or as pose_frames"),
        ({"image": PICTURE}, "either as image or as reference_latents"),
        ({"reference_latents": None}, "either as image or as reference_latents"),
        ({"num_frames": 9}, "there are poses for 8 frames; 9 cannot be made of them"),
        ({"pose_frames": given(20)["pose_frames"], "context_frames": 20}, "sees at most 16 frames together, not 20"),
        ({"latents": torch.zeros(1, 3, 8, 4, 4)}, r"must have the shape \(videos, 4, frames, height, width\), not"),
        ({"latents": torch.zeros(1, 4, 9, 4, 4)}, "there are poses for 8 frames; 9 cannot"),
        ({"latents": torch.zeros(2, 4, 8, 4, 4)}, "latents of 2 videos, but 1 are asked for"),
        ({"height": 33}, "must be multiples of 8; the nearest size is 32x32"),
        ({"windows": "uniform"}, "windows is 'uniform'; choose published or moving"),
        ({"context_overlap": 8}, "the overlap must be less than the window's 8 frames"),
        ({"prompt": "a man"}, "this model reads no prompt"),
        ({"prompt_embeds": torch.zeros(2, 1, 8)}, r"prompt_embeds must have the shape \(1, length, channels\)"),
    ],
)
def test_wrong_input_is_refused(pipe, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        make(pipe, **settings)


@pytest.mark.integration
def test_two_processes_make_the_frames_of_one(tmp_path):
    model = tiny_model(tmp_path / "model")
    frames = 14
    points = np.random.default_rng(0).uniform(4, 28, (frames, 1, 33, 3)).astype(np.float32)
    poses = Poses(points, np.ones((frames, 1, 33), np.float32), 32, 32, 8.0)
    (tmp_path / "moves.json").write_text(to_json(poses))
    Image.fromarray(np.random.default_rng(1).integers(256, size=(32, 32, 3), dtype=np.uint8)).save(tmp_path / "i.png")
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "animagic"]
    printed = {}
    for name, module in (("one", ["animagic"]), ("two", launch)):
        words = ["i.png", "moves.json", "--model", model, "-o", f"{name}/", "--no-retarget", "--seed", "1"]
        done = subprocess.run(
            [sys.executable, "-m", *module, "animate", *map(str, words)],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed[name] = done.stdout.split()
    assert printed == {"one": ["one/"], "two": ["two/"]}  # one process says so
    one, two = (np.stack(list(iter_video(str(tmp_path / name)))).astype(int) for name in ("one", "two"))
    assert one.shape == (frames, 32, 32, 3)
    assert np.abs(one - two).max() <= 1


@pytest.mark.integration
def test_windows_shared_by_two_processes_give_the_latents_of_one(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for before in ([], launch):
        subprocess.run(
            [sys.executable, *before, str(script), os.path.dirname(__file__), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=240,
        )  # fmt: skip
    one, first, second = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, one, atol=1e-5, rtol=1e-5)


SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from models import given, tiny_pipeline
from animagic.parallel.processes import joined

pipe = tiny_pipeline()
with joined() as group:
    pipe.parallel_map = group.map
    generator = torch.Generator().manual_seed(1)
    latents = pipe(generator=generator, output_type="latent", windows="published", **given(20)).frames
    torch.save(latents, f"{sys.argv[2]}/{group.size}-{group.rank}.pt")
"""
