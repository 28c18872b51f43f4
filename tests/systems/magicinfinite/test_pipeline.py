"""MagicInfinite's pipeline as others call it."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from talking_models import mask, picture, sound, talking_pipeline

from animagic import InputError, MagicInfinitePipeline
from animagic.media.sound import Sound
from animagic.pipelines.sound_source import LiveSound, WholeSound
from animagic.timeline import MovingFront, RunFolder, ShiftingWindow, WholeClip


@pytest.fixture(scope="module")
def pipe(tiny_text_encoder):
    return talking_pipeline(tiny_text_encoder)


def make(pipe, prompt="a red ball", seed=1, **settings):
    given = {"image": picture(), "voices": [sound(0.5)], "masks": [mask()], "output_type": "latent"}
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **given | settings).frames


def test_the_video_lasts_as_long_as_its_voice(pipe):
    made = make(pipe, voices=[sound(1.0), sound(0.4)], masks=[mask(), mask(16)], output_type="np")
    assert made.shape == (1, 25, 32, 32, 3)
    assert make(pipe, num_frames=6, output_type="np").shape[1] == 6
    assert make(pipe, voices=[], masks=[], output_type="np").shape[1] == 13


def test_plans(pipe):
    assert isinstance(pipe.plan(13), WholeClip)
    assert isinstance(pipe.plan(101), ShiftingWindow)
    assert pipe.plan(101).num_frames == 26
    assert isinstance(pipe.plan(101, plan="front"), MovingFront)
    assert pipe.plan(endless=True).total_steps is None


def test_a_voice_changes_what_is_in_its_mask_and_silence_is_not_no_voice(pipe):
    without = make(pipe, masks=[np.zeros((32, 32))])
    silent = make(pipe, voices=[np.zeros(8000, np.float32)])
    speaking = make(pipe)
    assert not torch.allclose(without, silent, atol=1e-3)
    assert not torch.allclose(speaking, silent, atol=1e-3)
    torch.testing.assert_close(make(pipe, voices=[sound(0.5, seed=9)], masks=[np.zeros((32, 32))]), without)


def test_every_scale_counts(pipe):
    usual = make(pipe)
    for changed in (
        {"guidance_scale": 4.0},
        {"voice_scale": 5.0},
        {"portrait_scale": 3.0},
        {"negative_prompt": "blue"},
    ):
        assert not torch.allclose(make(pipe, **changed), usual, atol=1e-3), changed


def test_a_video_may_begin_as_the_portrait_under_noise(pipe):
    """The later it begins, the nearer it stays."""
    portrait = pipe.encode_frames(picture()[None])
    away = [(make(pipe, portrait_start=start) - portrait).square().mean().item() for start in (0.0, 0.5, 0.95)]
    assert away[0] > 1.3 * away[1] > 1.3 * 1.3 * away[2]
    noise = torch.randn(1, 4, 5, 4, 4, generator=torch.Generator().manual_seed(3))
    seen = []
    hook = pipe.transformer.x_embedder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        make(pipe, latents=noise, portrait_start=0.25)
    finally:
        hook.remove()
    torch.testing.assert_close(seen[0][0, :4, 0], 0.25 * portrait[0, :, 0] + 0.75 * noise[0, :, 0])


def test_prompts_may_change_on_the_way(pipe):
    usual, changed = (make(pipe, num_frames=61, prompts_at=later) for later in (None, {40: "a blue ball"}))
    assert not torch.allclose(usual, changed, atol=1e-3)


def test_live_sound_gives_the_numbers_of_the_whole_one(pipe):
    voice = sound(1.2)
    whole = make(pipe, voices=[voice], plan="front", output_type="np", num_frames=30)
    blocks = (voice[start : start + 700] for start in range(0, len(voice), 700))
    live = LiveSound.from_blocks(pipe.speech_encoder, 25, blocks)
    given = {"image": picture(), "masks": [mask()], "output_type": "np"}
    generator = torch.Generator().manual_seed(1)
    chunks = list(pipe.stream("a red ball", voices=[live], generator=generator, **given))
    assert all(len(chunk) <= 8 for chunk in chunks)
    made = np.concatenate([chunk.frames[0] for chunk in chunks])
    assert 30 <= len(made) <= 34  # it ends with the latent frame in which the sound ends
    # Towards the end of the whole one, no later frames are in work.
    np.testing.assert_allclose(made[:21], whole[0, :21], atol=1e-4)


def test_an_endless_video_stops_when_it_is_told(pipe):
    given = {"image": picture(), "voices": [WholeSound.of(pipe.speech_encoder, sound(0.3), 25)], "masks": [mask()]}
    stream = pipe.stream("a red ball", endless=True, output_type="np", num_inference_steps=3, **given)
    chunks = list(itertools.islice(stream, 12))
    assert [len(chunk) for chunk in chunks] == [1] + 11 * [4]


def test_a_run_that_was_kept_goes_on_to_the_same_frames(pipe, tmp_path):
    for plan in ("windows", "front"):
        whole = make(pipe, num_frames=61, plan=plan, output_type="np", portrait_start=0.1)
        kept, calls = RunFolder(tmp_path / plan, {}, every=0), []

        def stop(progress, calls=calls):
            calls.append(progress.step)
            if len(calls) == 2:
                raise KeyboardInterrupt

        given = {"image": picture(), "voices": [sound(0.5)], "masks": [mask()], "num_frames": 61, "plan": plan}
        given |= {"portrait_start": 0.1}
        asked = {"output_type": "np", "resume": kept, **given}
        with pytest.raises(KeyboardInterrupt):
            list(pipe.stream("a red ball", generator=torch.Generator().manual_seed(1), on_progress=stop, **asked))
        again = asked | {"resume": RunFolder(tmp_path / plan, {}, every=0)}
        chunks = list(pipe.stream("a red ball", generator=torch.Generator().manual_seed(1), **again))
        np.testing.assert_allclose(np.concatenate([c.frames[0] for c in chunks]), whole[0], atol=1e-5)


class OneDub:
    """A video of 21 frames whose lower half is a mouth."""

    def __init__(self):
        self.video = np.stack([picture(seed) for seed in range(21)])

    def shown(self, frames):
        return self.video[frames.start : frames.stop]

    def known(self, latents):
        where = np.ones((len(latents), 4, 4), np.float32)
        where[:, 2:] = 0
        return where


def test_a_video_is_known_but_for_its_mouths(pipe):
    dub = OneDub()
    seen = []
    hook = pipe.transformer.x_embedder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    try:
        make(pipe, dub=dub, num_frames=21, window=4, window_overlap=2)
    finally:
        hook.remove()
    expected = pipe.encode_frames(dub.video)
    first = seen[0][0]
    torch.testing.assert_close(first[4:8, :, :2], expected[0, :, :4, :2])
    assert not first[4:8, :, 2:].any()
    assert first[8, :, :2].all()
    assert not first[8, :, 2:].any()


def test_a_causal_autoencoder_is_decoded_with_what_is_before(tiny_text_encoder):
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    ).eval()
    pipe = talking_pipeline(tiny_text_encoder, decode_context=9)
    pipe.register_modules(vae=vae)
    pipe.frames_decoded_together = 3
    latents = make(pipe, num_frames=33)
    pieces = make(pipe, num_frames=33, output_type="pt")
    assert pieces.shape[1] == 33
    # Its decoder normalises over all frames that it gets, so pieces are not parts of the whole.
    torch.testing.assert_close(pieces[:, :9], pipe.decode_frames(latents[:, :, :3]))
    torch.testing.assert_close(pieces[:, 9:21], pipe.decode_frames(latents[:, :, :6])[:, 9:])
    torch.testing.assert_close(pieces[:, 21:], pipe.decode_frames(latents[:, :, :9])[:, 21:])


def test_saved_and_loaded_it_makes_the_same_frames(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = MagicInfinitePipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.sampling == pipe.sampling
    torch.testing.assert_close(make(loaded), make(pipe), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"image": None}, "give a picture of who is to speak"),
        ({"masks": [mask(), mask()]}, "1 voices and 2 masks"),
        ({"masks": [np.ones((8, 16))]}, "a mask is 16x8 pixels, the picture 32x32"),
        ({"masks": None}, "0 faces are found for 1 voices"),
        ({"voices": [Sound(np.zeros((100, 2), np.float32), 16000)]}, "a voice has one channel at 16000 Hz, not 2"),
        ({"voices": [np.zeros(0, np.float32)]}, "the sound holds no samples"),
        ({"height": 24}, "multiples of 16"),
        ({"plan": "spiral"}, "the plan 'spiral' is unknown"),
        ({"voice_scale": -1.0}, "voice_scale must lie between 0 and 100"),
        ({"window": 4, "window_overlap": 4, "num_frames": 61}, "overlap"),
    ],
)
def test_what_cannot_be_is_refused(pipe, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        make(pipe, **changed)


def test_a_voice_in_another_time_is_refused(pipe):
    with pytest.raises(InputError, match="heard at 24 frames a second, the video has 25"):
        make(pipe, voices=[WholeSound.of(pipe.speech_encoder, sound(0.3), 24)])


def test_an_encoder_that_does_not_fit_is_named(tiny_text_encoder):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    pipe = talking_pipeline(tiny_text_encoder)
    config = Wav2Vec2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    pipe.register_modules(audio_encoder=Wav2Vec2Model(config))
    with pytest.raises(InputError, match="the speech encoder gives 2 layers of 16, the transformer reads 3 of 384"):
        make(pipe)


def test_a_portrait_of_less_than_a_token_is_refused(tiny_text_encoder):
    pipe = talking_pipeline(tiny_text_encoder)
    pipe.transformer.register_to_config(portrait_patch=4)
    with pytest.raises(InputError, match="32x16 is too small: this model needs 32 pixels on each side"):
        pipe.check_size(16, 32)
    pipe.check_size(32, 32)
