"""What MagicInfinite learns from a batch, and how a student of fewer steps does."""

import numpy as np
import pytest
import torch
from talking_models import talking_pipeline

from animagic.systems.magicinfinite.audio import AudioProjector
from animagic.systems.magicinfinite.denoiser import Prompt
from animagic.systems.magicinfinite.distillation import SpeakingDistillation
from animagic.systems.magicinfinite.objectives import MouthObjective, MouthReader, SpeakingObjective, velocity
from animagic.timeline import Window
from animagic.training.distribution_matching import Distillation


class Texts:
    """Embeddings that are the lengths of texts; counts what it is asked."""

    sees = False

    def __init__(self):
        self.asked = []

    def encode(self, texts, portrait):
        self.asked += texts
        return [
            Prompt(
                torch.full((1, 2 + len(text) % 3, 8), len(text) / 10),
                torch.ones(1, 2 + len(text) % 3),
                torch.ones(1, 8),
            )
            for text in texts
        ]


def batch(clips=2, frames=3, speakers=2, seed=0, index=0):
    draw = torch.Generator().manual_seed(seed)
    masks = torch.zeros(clips, speakers, frames, 4, 4)
    masks[:, 0, :, 1:3, 1:3] = 1
    mouth = torch.zeros(clips, frames, 4, 4)
    mouth[:, :, 2, 1:3] = 1
    return {
        "photo": torch.randint(256, (clips, 3, 32, 32), generator=draw, dtype=torch.uint8),
        "video": torch.randint(256, (clips, 3, 4 * frames, 32, 32), generator=draw, dtype=torch.uint8),
        "captions": [f"clip {i}" * (i + 1) for i in range(clips)],
        "speech": torch.randn(clips, speakers, frames, 8, 3, 384, generator=draw),
        "masks": masks,
        "mouth": mouth,
        "index": index,
    }


@pytest.fixture
def pipe():
    return talking_pipeline()


def objective(pipe, **changed):
    return SpeakingObjective(pipe.vae, Texts(), **changed)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_it_learns_a_batch_by_heart(pipe):
    network = pipe.transformer.requires_grad_(True)
    learns = objective(pipe, drop_portrait=0, drop_text=0, drop_voice=0, drop_all=0)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(60):
        optimiser.zero_grad()
        loss, facts = learns(network, batch(), generator(step % 4))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:4])
    assert {"error", "noisy", "mouth"} <= set(facts)


def test_voices_are_not_heard_in_the_first_stage(pipe):
    first = objective(pipe, voices=False)
    for parameter in pipe.transformer.requires_grad_(True).parameters():
        parameter.grad = None
    first(pipe.transformer, batch(), generator())[0].backward()
    heard = [n for n, p in pipe.transformer.named_parameters() if n.startswith("audio_") and p.grad is not None]
    assert not heard
    objective(pipe, drop_voice=0, drop_all=0)(pipe.transformer, batch(), generator())[0].backward()
    assert pipe.transformer.audio_projector.queries.grad.abs().sum() > 0


def test_tokens_of_voices_learn_to_tell_the_mouth():
    torch.manual_seed(0)
    reader = MouthReader(AudioProjector(2, 16, 32, 2, 3))
    optimiser = torch.optim.Adam(reader.parameters(), 3e-3)
    learns, errors = MouthObjective(noise=1.0), []
    for step in range(200):
        speech = torch.randn(64, 8, 2, 16, generator=generator(step))
        heard = speech[:, 2:6].mean(2)  # of the four frames themselves
        mouth = torch.stack([heard[..., 0], heard[..., 1], -heard[..., 0]], dim=-1)
        loss, facts = learns(reader, {"speech": speech, "mouth": mouth}, generator(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(facts["opening"]))
    assert np.mean(errors[-10:]) < 0.5 * np.mean(errors[:10])


def test_a_text_is_encoded_once_and_cut(pipe):
    learns = objective(pipe, text_length=3)
    for _ in range(3):
        embeds, mask, _ = learns.read(["a", "four"], torch.zeros(2, 3, 8, 8), "cpu")
    assert embeds.shape == (2, 3, 8)
    assert mask.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert learns.prompts.asked == ["a", "four"]


@pytest.mark.parametrize("index", [0, 50, 500])
def test_faces_have_their_share_of_the_loss_whatever_their_size(pipe, index):
    learns = objective(pipe, face_share=(0.5, 0.7), ramp=100, mouth=1.0)
    moving = torch.ones(2, 3, dtype=torch.bool)
    given = batch(index=index)
    given["masks"][1] = 0
    given["masks"][1, 1, :, :1, :1] = 1
    weights = learns.weights(given, moving, "cpu")
    faces = given["masks"].amax(1)[:, None]
    share = (weights * faces).sum((1, 2, 3, 4)) / weights.sum((1, 2, 3, 4))
    expected = 0.5 + 0.2 * min(1, index / 100)
    torch.testing.assert_close(share, torch.full((2,), expected))
    assert weights.mean() == pytest.approx(1, abs=1e-4)


def test_mouths_count_more_and_clean_frames_nothing(pipe):
    learns, moving = objective(pipe, mouth=3.0), torch.tensor([[False, True, True]] * 2)
    weights = learns.weights(batch(index=10**6), moving, "cpu")[0, 0]
    assert not weights[0].any()
    assert weights[1, 2, 1] > 1.5 * weights[1, 1, 1] > 1.5 * weights[1, 0, 0]


def test_times_are_of_one_level_or_of_a_front(pipe):
    learns = objective(pipe, front_share=0.0)
    even = learns.times(64, 6, generator())
    assert (even == even[:, :1]).all()
    assert even.min() < 0.05
    assert even.max() > 0.95
    front = objective(pipe, front_share=1.0).times(64, 6, generator())
    assert (front.diff(dim=1) <= 0).all()
    assert (front[:, 0] > front[:, -1]).all()
    clean = (front == 1).sum(1)
    assert set(clean.tolist()) == {0, 1, 2, 3}
    assert (objective(pipe, front_share=1.0).times(64, 1, generator()) < 1).all()


def test_of_a_dubbed_clip_all_but_the_mouth_is_known(pipe):
    learns = objective(pipe, dub_share=1.0, drop_portrait=0, drop_all=0)
    given = batch()
    latents = learns.encode(given["video"])
    known = learns.conditions(given, latents, generator()).known
    where = known[:, -1]
    assert (where == (given["mouth"] == 0)).all()
    torch.testing.assert_close(known[:, :-1], latents * where[:, None])
    plain = objective(pipe, dub_share=0.0).conditions(given, latents, generator()).known
    assert (plain[:, -1] == 1).all()
    assert (plain[:, :-1] == plain[:, :-1, :1]).all()


def test_it_trains_the_network_as_the_denoiser_asks_it(pipe):
    """The same prediction for the same input."""
    learns = objective(pipe, drop_portrait=0, drop_text=0, drop_voice=0, drop_all=0, dub_share=0)
    given, prompts = batch(clips=1), Texts()
    latents = learns.encode(given["video"])
    conditions = learns.conditions(given, latents, generator())
    times = torch.tensor([[1.0, 0.5, 0.0]])
    learnt = velocity(pipe.transformer, latents, times, conditions)

    from animagic.systems.magicinfinite.denoiser import MagicInfiniteDenoiser, Voice

    class Heard:
        def __init__(self, speech):
            self.found = speech

        def speech(self, frames):
            return self.found[list(frames)]

    voices = [
        Voice(Heard(given["speech"][0, i]), lambda frames, i=i: given["masks"][0, i][list(frames)]) for i in range(2)
    ]
    prompt, null = prompts.encode([given["captions"][0], ""], None)
    portrait = conditions.portrait
    known = lambda frames: (portrait[:, :, None].expand(-1, -1, 3, -1, -1), torch.ones(1, 1, 1, 4, 4))  # noqa: E731
    denoiser = MagicInfiniteDenoiser(
        pipe.transformer, torch.tensor([0.0, 0.5, 1.0]), {0: prompt}, null, portrait, known, voices
    )
    with torch.no_grad():
        asked = denoiser(latents, Window(range(3), (2, 1, 0)))
    torch.testing.assert_close(asked, learnt, atol=1e-5, rtol=1e-4)


def test_a_student_learns_by_distribution_matching(pipe):
    whole = objective(pipe, drop_portrait=0, drop_text=0, drop_voice=0, drop_all=0)
    learns = SpeakingDistillation(
        teacher=pipe.transformer,
        speaking=whole,
        sampling=pipe.sampling,
        sampling_steps=3,
        student_every=2,
        ramp=1,
        front=3,
    )
    import copy

    model = Distillation(copy.deepcopy(pipe.transformer).requires_grad_(True), pipe.transformer)
    learns(model, batch(index=0), generator())[0].backward()
    assert all(p.grad is None for p in model.student.parameters())
    assert any(p.grad is not None for p in model.critic.parameters())
    loss, facts = learns(model, batch(index=1), generator())
    loss.backward()
    assert {"critic", "matching", "base"} <= set(facts)
    assert any(p.grad.abs().sum() > 0 for p in model.student.parameters() if p.grad is not None)


def test_the_teacher_is_guided_as_its_sampler_guides_it_but_weaker(pipe):
    whole = objective(pipe, drop_portrait=0, drop_text=0, drop_voice=0, drop_all=0)
    learns = SpeakingDistillation(teacher=pipe.transformer, speaking=whole, sampling=pipe.sampling)
    given = learns.examples(batch(), generator())
    times = torch.full((2, 3), 0.4)
    noisy = torch.randn(given.clean.shape, generator=generator())
    with torch.no_grad():
        parts = [velocity(pipe.transformer, noisy, times, given.conditions.only(count)) for count in range(4)]
        for attenuation, (text, voice) in ((1.0, (1.5, 2.0)), (2.0, (1.25, 1.5))):
            expected = parts[1] + text * (parts[2] - parts[1]) + voice * (parts[3] - parts[2])
            guided = learns.guided(noisy, times, given.conditions, attenuation)
            torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)
