"""A motion module that needs few steps and one pass."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from animagic import AnimateDiffPipeline, InputError
from animagic.systems.animatediff.denoiser import AnimateDiffSampling
from animagic.systems.animatediff.distillation import MotionDistillation
from animagic.systems.animatediff.training import STAGES, SceneClips
from animagic.training import stages
from animagic.training.distribution_matching import Discrete, Distillation

SIZE = {"batch_size": 1, "num_frames": 3, "height": 32, "width": 32}
LEARN = {"steps": 2, "learning_rate": 1e-2, "warmup": 0, "decay": 1, "ema": 0.5, "save_every": 1, "log_every": 1}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("animagic.training.trainer.plot_log", lambda log, picture: None)


@pytest.fixture
def recipe(animatediff_model) -> dict:
    objective = {"sampling_steps": 4, "student_every": 1, "ramp": 1, "base": "teacher", "teacher_steps": 2}
    section = {"objective": objective, "data": dict(SIZE), "training": {**LEARN, "workers": 0}}
    return {"teacher": str(animatediff_model), "distil": section}


def load(folder) -> AnimateDiffPipeline:
    pipe = AnimateDiffPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def motion_of(pipe) -> dict[str, torch.Tensor]:
    return pipe.unet.motion_state_dict()


def objective_of(pipe, **settings) -> MotionDistillation:
    parts = {"teacher": pipe.unet, "autoencoder": pipe.vae, "text_encoder": pipe.text_encoder}
    parts |= {"tokenizer": pipe.tokenizer, "scheduler_config": dict(pipe.scheduler.config)}
    return MotionDistillation(**parts, **{"sampling": AnimateDiffSampling(guidance_scale=5.0), **settings})


@pytest.mark.integration
def test_a_recipe_makes_a_student(recipe, tmp_path):
    before, seen = copy.deepcopy(recipe), []
    folder = stages.train(recipe, STAGES, tmp_path, on_log=lambda part, line: seen.append((part, set(line))))
    assert recipe == before
    assert [part for part, _ in seen] == ["distil"] * 2
    assert all({"critic", "matching", "base"} <= names for _, names in seen)

    student, teacher = load(folder), load(recipe["teacher"])
    for name, tensor in teacher.unet.base_state_dict().items():
        assert torch.equal(student.unet.state_dict()[name], tensor.half().float()), name
    changed = {name for name, x in motion_of(teacher).items() if not torch.equal(motion_of(student)[name], x.half())}
    assert any("proj_out" in name for name in changed)
    saved = load_file(tmp_path / "motion_module.safetensors")
    assert all(torch.equal(x.half().float(), motion_of(student)[name]) for name, x in saved.items())

    # It makes its few steps, with one pass each, by itself.
    assert (student.sampling.num_inference_steps, student.sampling.guidance_scale) == (4, 1.0)
    assert student.sampling.num_frames == teacher.sampling.num_frames
    calls = []
    student.unet.register_forward_pre_hook(lambda _, given: calls.append((len(given[0]), int(given[1]))))
    frames = student("a red ball", num_frames=3, generator=seeded(), output_type="latent").frames
    assert frames.shape == (1, 4, 3, 8, 8)
    assert calls == [(1, time) for time in (999, 749, 499, 249)]


@pytest.mark.integration
def test_samples_of_training_are_those_of_the_pipeline(recipe, tmp_path):
    recipe["distil"]["training"]["steps"] = 1
    pipe = load(stages.train(recipe, STAGES, tmp_path))
    objective = objective_of(pipe, last_share=1.0)
    batch = SceneClips(0, 1, **SIZE)[0] | {"captions": ["a red ball"]}
    del batch["motions"]
    examples = objective.examples(batch, seeded(1))
    sample, _ = objective.sample(pipe.unet, examples, seeded(2))
    generator = seeded(2)
    torch.rand(2, generator=generator)
    noise = torch.randn(examples.clean.shape, generator=generator)
    frames = pipe("a red ball", latents=noise, num_frames=3, height=32, width=32, output_type="latent").frames
    torch.testing.assert_close(frames, sample, rtol=1e-3, atol=1e-2)


@pytest.fixture
def pipe(animatediff_model) -> AnimateDiffPipeline:
    return load(animatediff_model)


@pytest.mark.parametrize(("attenuation", "scale"), [(1.0, 5.0), (2.5, 2.0), (10.0, 1.0)])
def test_the_teacher_is_guided_more_weakly(pipe, attenuation, scale):
    objective = objective_of(pipe)
    conditions = objective.examples(SceneClips(0, 1, **SIZE)[0], seeded()).conditions
    assert not torch.equal(conditions.text, conditions.empty)
    noisy, times = torch.randn(1, 4, 3, 8, 8, generator=seeded()), torch.tensor([600])
    with torch.no_grad():
        guided = objective.guided(noisy, times, conditions, attenuation)
        with_text = pipe.unet(noisy, times, conditions.text, conditions.motion).sample
        without = pipe.unet(noisy, times, conditions.empty, conditions.empty).sample
    torch.testing.assert_close(guided, without + scale * (with_text - without), rtol=1e-4, atol=1e-4)


def test_only_motion_modules_of_the_student_learn(recipe, tmp_path):
    run = stages.prepare(recipe, STAGES, tmp_path)
    model, _ = run.stages[0].start(run.stages[0])
    learns = {name for name, p in model.student.named_parameters() if p.requires_grad}
    assert learns == set(model.student.motion_state_dict())
    assert all(p.requires_grad for p in model.critic.parameters())
    recipe["distil"]["objective"]["matching_weight"] = 0.0
    run = stages.prepare(recipe, STAGES, tmp_path)
    assert run.stages[0].start(run.stages[0])[0].critic is None


@pytest.mark.integration
def test_it_goes_on_from_a_student(recipe, tmp_path):
    first = stages.train(recipe, STAGES, tmp_path / "first")
    run = stages.prepare(recipe, STAGES, tmp_path / "second")
    stages.start_from(run, first)
    model, _ = run.stages[0].start(run.stages[0])
    assert isinstance(model, Distillation)
    expected = motion_of(load(first))
    assert all(torch.equal(x, expected[name]) for name, x in model.student.motion_state_dict().items())
    assert motion_of(load(run.export())).keys() == expected.keys()  # from what it starts with


@pytest.mark.integration
def test_a_student_is_no_teacher(recipe, tmp_path):
    recipe["distil"]["training"]["steps"] = 1
    student = stages.train(recipe, STAGES, tmp_path / "first")
    with pytest.raises(InputError, match="model is distilled already; give a model with guidance as the teacher"):
        stages.train({**recipe, "teacher": str(student)}, STAGES, tmp_path / "second")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objective": {"steps": 4}}, "an unknown field distil.objective.steps"),
        ({"objective": {"sampling_steps": 0}}, "sampling_steps must be at least 1, not 0"),
        ({"data": {"colour": 1}}, "an unknown field distil.data.colour"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused(recipe, tmp_path, change, said):
    recipe["distil"] |= change
    with pytest.raises(InputError, match=said):
        stages.train(recipe, STAGES, tmp_path)


def test_what_a_recipe_lacks_is_named(recipe, tmp_path):
    with pytest.raises(InputError, match=r"the recipe lacks distil.objective"):
        stages.train({"teacher": recipe["teacher"]}, STAGES, tmp_path)
    with pytest.raises(InputError, match="'frames' is unknown"):
        stages.train({**recipe, "sampling": {"frames": 3}}, STAGES, tmp_path)


def test_the_noise_schedule_is_that_of_the_teacher(pipe):
    torch.testing.assert_close(objective_of(pipe).diffusion.kept[:-1], pipe.scheduler.alphas_cumprod)
    assert isinstance(objective_of(pipe).diffusion, Discrete)
