"""How MAGI-1's transformer is trained: its times, its losses, its randomness."""

import copy
from types import SimpleNamespace

import pytest
import torch

from animagic.errors import CheckpointError
from animagic.layers.autoencoder import ConvAutoencoder
from animagic.pipelines.text import TextEmbedding
from animagic.systems.magi1.autoencoder import AutoencoderKLMagi1
from animagic.systems.magi1.denoiser import Magi1Denoiser, Magi1Sampling
from animagic.systems.magi1.distillation import ShortcutObjective
from animagic.systems.magi1.objectives import TransformerObjective, initialise
from animagic.systems.magi1.prompts import ChunkPrompts, null_caption
from animagic.systems.magi1.training import SceneChunks, trained_autoencoder
from animagic.timeline import Window, flow_levels
from animagic.training import SceneBatches, Trainer, TrainingConfig
from animagic.training.autoencoding import ReconstructionObjective

WIDTH = 2  # latent frames of a chunk; four times as many pixels


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKLMagi1:
    torch.manual_seed(0)
    autoencoder = AutoencoderKLMagi1(
        depth=1, embed_dim=256, num_heads=4, mlp_ratio=1, video_length=8, video_size=16, z_chans=4
    )
    return autoencoder.eval().requires_grad_(False)


class Tokens(SimpleNamespace):
    def to(self, _):
        return self


def tokenizer(texts, max_length, **_):
    """One token a word: its length."""
    ids = torch.zeros(len(texts), max_length, dtype=torch.long)
    for row, words in enumerate(text.split()[:max_length] for text in texts):
        ids[row, : len(words)] = torch.tensor([len(word) for word in words])
    return Tokens(input_ids=ids, attention_mask=(ids > 0).long())


class Encoder(torch.nn.Module):
    device = torch.device("cpu")

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=torch.sin(input_ids[..., None] * torch.arange(1.0, 9.0)))


@pytest.fixture
def objective(autoencoder):
    def make(**settings) -> TransformerObjective:
        return TransformerObjective(autoencoder, Encoder(), tokenizer, **{"text_length": 12, **settings})

    return make


def batches(chunks: int = 2, clips: int = 4, **settings) -> SceneBatches:
    size = {"batch_size": chunks * clips, "num_frames": 4 * WIDTH, "height": 16, "width": 16}
    return SceneChunks(seed=0, steps=1000, clip_chunks=(chunks,), **size, **settings)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Seen:
    """The transformer, and what it was last shown and said."""

    def __init__(self, transformer):
        self.module, self.config, self.device = transformer, transformer.config, transformer.device
        self.y_embedder = transformer.y_embedder
        self.shown = self.times = self.text = self.velocity = None

    def __call__(self, shown, times, text, **arguments):
        self.shown, self.times, self.text, self.arguments = shown, times, text, arguments
        (velocity,) = self.module(shown, times, text, **arguments)
        self.velocity = velocity.detach().requires_grad_()
        return (self.velocity,)


# Times


@pytest.mark.parametrize("chunks", [1, 2, 3, 6, 12])
def test_older_chunks_are_never_noisier(objective, chunks):
    positions = objective().positions(500, chunks, generator())
    assert positions.shape == (500, chunks)
    assert positions.min() >= 0
    assert positions.max() <= 1
    assert (positions.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("chunks", [1, 3, 6])
def test_every_chunk_is_seen_at_every_level(objective, chunks):
    positions = objective().positions(4000, chunks, generator())
    for chunk in range(chunks):
        counts = torch.histc(positions[:, chunk][positions[:, chunk] < 1], bins=8, min=0, max=1)
        assert (counts > 20).all(), (chunk, counts)
    if chunks > 1:
        assert (positions[:, 0] == 1).float().mean() > 0.1  # history is often clean
    assert (positions[:, -1] < 1).float().mean() > 0.9


def test_neighbours_often_stand_one_stage_apart(objective):
    """As in sampling: a share of the samples lies on the staircase."""
    positions = objective(window_size=4).positions(2000, 3, generator())
    apart = positions[:, 0] - positions[:, 1]
    between = (positions[:, 0] < 1) & (positions[:, 1] > 0)
    assert ((apart - 0.25).abs() < 1e-5)[between].float().mean() > 0.4


def test_times_are_the_sampler_s_own_spacing(objective):
    u = torch.linspace(0, 1, 17)
    ours = objective().times(u, torch.tensor(True))
    torch.testing.assert_close(ours, flow_levels(16))
    assert torch.equal(objective().times(u, torch.tensor(False)), u)


# What is shown and what is learned


def run(objective, transformer, batch, seed=0):
    """One step with the transformer wrapped: (what it saw, the gradient of the loss by its velocity, latents)."""
    seen = Seen(transformer)
    loss, figures = objective(seen, batch, generator(seed))
    loss.backward()
    video = batch["video"].float() / 127.5 - 1
    with torch.no_grad():
        latents = objective.autoencoder.encode(video).latent_dist.mode()
    latents = latents * objective.autoencoder.config.scaling_factor
    return seen, seen.velocity.grad, latents, (loss.detach(), figures)


def is_given(seen, latents) -> torch.Tensor:
    """(clips, frames): whether a frame is shown just as it is."""
    return ((seen.shown - latents).abs() < 1e-6).all(dim=4).all(dim=3).all(dim=1)


def has_loss(gradient) -> torch.Tensor:
    return (gradient != 0).any(dim=4).any(dim=3).any(dim=1)


@pytest.mark.parametrize("seed", range(6))
def test_frames_that_are_given_carry_no_loss_and_all_others_do(objective, tiny_transformer, seed):
    batch = batches(chunks=3, held_share=0.3)[seed]
    seen, gradient, latents, _ = run(objective(prefix=0.7), tiny_transformer(), batch, seed)
    given = is_given(seen, latents)
    assert given.any()
    assert not given.all()
    assert torch.equal(has_loss(gradient), ~given)


def test_of_a_picture_that_begins_to_move_only_the_picture_is_given(objective, tiny_transformer):
    batch = batches(chunks=1, clips=16, held_share=1.0)[0]
    seen, gradient, latents, _ = run(objective(), tiny_transformer(), batch)
    given = is_given(seen, latents)
    moving = seen.times[:, 0] < 0.9999
    assert moving.sum() > 8
    assert given[moving].tolist() == [[True, False]] * int(moving.sum())
    assert has_loss(gradient)[moving].tolist() == [[False, True]] * int(moving.sum())


def test_chunks_that_are_given_as_a_whole_are_shown_as_clean(objective, tiny_transformer):
    """A prefix goes on from the front without a gap, and whole chunks of it have the time of clean ones."""
    task, transformer, clean_t = objective(prefix=1.0), tiny_transformer(), 0.9999
    for seed in range(4):
        seen, _, latents, _ = run(task, transformer, batches(chunks=3)[seed], seed)
        given = is_given(seen, latents)
        assert given[:, :WIDTH].all()  # at least two frames
        assert (given.int().diff(dim=1) <= 0).all()
        whole = given.view(-1, 3, WIDTH).all(dim=2)
        assert torch.allclose(seen.times[:, 0], torch.tensor(clean_t))
        assert (seen.times[~whole] < clean_t).all()
        assert (seen.times.diff(dim=1) <= 0).all()


def test_without_a_prefix_all_that_is_shown_is_the_straight_path(objective, tiny_transformer):
    """x_t = (1 - t) noise + t data, and the loss is that of the velocity data - noise."""
    task, batch = objective(prefix=0.0), batches(chunks=2)[0]
    seen, _, latents, (loss, _) = run(task, tiny_transformer(), batch)
    t = seen.times.repeat_interleave(WIDTH, dim=1)[:, None, :, None, None]
    learned = ~is_given(seen, latents)
    noise = (seen.shown - t * latents) / (1 - t)
    error = (seen.velocity.detach() - (latents - noise)).square().mean(dim=(1, 3, 4))
    assert loss.item() == pytest.approx(error[learned].mean().item(), rel=1e-3)
    assert noise.transpose(1, 2)[learned].std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_captions_are_dropped_for_whole_samples(objective, tiny_transformer, share):
    transformer, batch = tiny_transformer(), batches(chunks=3)[1]
    seen, _, _, _ = run(objective(drop_text=share), transformer, batch)
    assert (seen.arguments["caption_dropped"] == bool(share)).all()
    assert seen.arguments["caption_dropped"].shape == seen.times.shape
    clean = seen.times >= 0.9999
    null = transformer.y_embedder.null_caption_embedding
    reads_null = (seen.text == null[: seen.text.shape[2]]).all(dim=3).all(dim=2)
    # Clean chunks read the null caption in any case, as in sampling.
    assert torch.equal(reads_null, clean if share == 0 else torch.ones_like(clean))
    words = torch.tensor([len(caption.split()) for caption in batch["captions"]]).clamp(max=12)
    lengths = seen.arguments["encoder_attention_mask"].sum(2)
    assert (lengths[clean | bool(share)] == 12).all()  # the whole null caption of the tiny network
    assert (lengths == words[:, None])[~clean & (not share)].all()


def test_the_null_caption_learns_and_the_autoencoder_does_not(objective, tiny_transformer):
    transformer = tiny_transformer()
    loss, _ = objective(drop_text=1.0)(transformer, batches()[0], generator())
    loss.backward()
    assert transformer.y_embedder.null_caption_embedding.grad.abs().sum() > 0
    assert all(p.grad is not None for p in transformer.parameters())
    assert all(p.grad is None for p in objective().autoencoder.parameters())


def test_the_loss_is_a_function_of_model_batch_and_generator(objective, tiny_transformer):
    task, transformer, batch = objective(), tiny_transformer(), batches()[0]
    losses = [task(transformer, batch, generator(seed))[0] for seed in (0, 0, 1)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_figures_tell_the_loss_by_time(objective, tiny_transformer):
    _, _, _, (_, figures) = run(objective(), tiny_transformer(), batches(chunks=2, clips=24)[0])
    assert set(figures) == {"noisy", "middle", "nearly_clean"}
    assert all(value > 0 for value in figures.values())


# Training


def train(folder, transformer, objective, steps, on_log=None, **settings):
    config = TrainingConfig(
        steps=steps,
        **{
            "warmup": 0,
            "decay": 1,
            "workers": 0,
            "log_every": 1,
            "save_every": 3,
            "learning_rate": 3e-3,
            **settings,
        },
    )
    return Trainer(transformer, objective, batches(), config, folder, on_log).run()


def test_the_loss_falls(objective, tiny_transformer, tmp_path):
    task, transformer = objective(prefix=0.0), tiny_transformer()
    initialise(transformer)
    batch = batches(clips=8)[999]

    def loss():
        with torch.no_grad():
            return sum(task(transformer, batch, generator(seed))[0].item() for seed in range(4)) / 4

    before = loss()
    train(tmp_path, transformer, task, 30, save_every=100)
    assert loss() < 0.7 * before


def test_an_initialised_network_begins_with_no_guess_of_its_own(tiny_transformer):
    transformer = tiny_transformer()
    initialise(transformer)
    assert (transformer(torch.randn(1, 4, 2, 4, 4), torch.zeros(1, 1), torch.randn(1, 1, 3, 8)).sample == 0).all()
    assert (transformer.videodit_blocks.layers[1].mlp_post_norm.weight == -0.8).all()


def test_an_interrupted_training_ends_with_the_same_bits(objective, tiny_transformer, tmp_path):
    def stop(line):
        if line["step"] == 4:
            raise KeyboardInterrupt

    train(tmp_path / "whole", tiny_transformer(), objective(), 6)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", tiny_transformer(), objective(), 6, on_log=stop)
    train(tmp_path / "parts", tiny_transformer(seed=1), objective(), 6)
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert a["step"] == b["step"] == 6
    assert all(torch.equal(tensor, b["model"][name]) for name, tensor in a["model"].items())
    assert (tmp_path / "whole" / "average.safetensors").read_bytes() == (
        tmp_path / "parts" / "average.safetensors"
    ).read_bytes()


def test_what_is_trained_is_what_the_sampler_asks_for(objective):
    """The time of clean chunks, the shift and the chunks in flight are those of sampling."""
    sampling, task = Magi1Sampling(), objective()
    assert (task.clean_t, task.window_size) == (sampling.clean_t, sampling.window_size)


def test_the_autoencoder_s_objective_is_a_loss(autoencoder):
    model = copy.deepcopy(autoencoder).requires_grad_(True)
    loss, figures = ReconstructionObjective()(model, batches(chunks=1, clips=2)[0], generator())
    loss.backward()
    assert loss.isfinite()
    assert set(figures) == {"psnr"}
    assert all(p.grad is not None for p in model.decoder.parameters())


def test_a_new_transformer_starts_at_the_best_linear_guess_and_looks_near(tiny_transformer):
    model = tiny_transformer()
    initialise(model)
    assert not model.final_linear.linear.weight.any()
    assert (model.rope.bands.diff() < 0).all()
    biases = [block.self_attention.k_layernorm.bias for block in model.videodit_blocks.layers]
    n = model.rope.bands.numel()
    assert (biases[0][n : 3 * n] > biases[0][0]).all()  # even layers: along time, at the same place
    assert torch.equal(biases[1][: 3 * n], torch.full((3 * n,), 0.5))


# Distillation


@pytest.fixture
def shortcut(autoencoder):
    def make(teacher, **settings) -> ShortcutObjective:
        given = {"text_length": 12, "prefix": 0.0, "sampling": SETTINGS, **settings}
        return ShortcutObjective(autoencoder, Encoder(), tokenizer, teacher=teacher, **given)

    return make


SETTINGS = Magi1Sampling(
    cfg_t_range=[0.0, 0.1, 0.4],
    prev_chunk_scales=[1.5, 1.0, 1.0],
    text_scales=[4.0, 3.0, 0.0],
    num_steps=64,
    chunk_width=WIDTH,
)


class Remembers(ShortcutObjective):
    """Keeps what the student was asked for."""

    def loss(self, network, clips, velocity, target, t):
        self.clips, self.target, self.t = clips, target, t
        return super().loss(network, clips, velocity, target, t)


def remembering(objective: ShortcutObjective) -> Remembers:
    return Remembers(**vars(objective))


def test_the_smallest_step_is_the_guided_teacher(shortcut, tiny_transformer):
    """The target of a clip of one chunk is what the base model's own sampler computes there."""
    torch.manual_seed(0)
    teacher = tiny_transformer(in_channels=4, out_channels=4, caption_channels=8, chunk_width=WIDTH)
    torch.nn.init.normal_(teacher.final_linear.linear.weight)
    objective = remembering(shortcut(teacher, sizes=(64,)))
    objective(teacher, batches(chunks=1, clips=6)[0], generator())
    clips = objective.clips
    plan = SETTINGS.plan(1)
    checked = 0
    for i in range(6):
        if clips.clean[i].any():
            continue
        level = int((clips.positions[i, 0] * 64).floor())
        text = TextEmbedding(clips.caption[i : i + 1], clips.mask[i : i + 1].long())
        null = null_caption(teacher.y_embedder.null_caption_embedding, 1)
        denoiser = SETTINGS.guide(Magi1Denoiser(teacher, ChunkPrompts(((0, text),), null), plan, SETTINGS))
        window = Window(range(WIDTH), (level,) * WIDTH)
        with torch.no_grad():
            expected = denoiser(clips.noisy(objective.t)[i : i + 1], window)[0]
        torch.testing.assert_close(objective.target[i], expected, rtol=1e-4, atol=1e-4)
        checked += 1
    assert checked >= 4


class Straight(torch.nn.Module):
    """A student whose velocity is the state plus the time and the step size that it was told: easy to step by hand."""

    def __init__(self, transformer):
        super().__init__()
        self.config, self.device, self.y_embedder = transformer.config, transformer.device, transformer.y_embedder
        self.asked = []

    def forward(self, state, t, text, *, shortcut, **_):
        self.asked.append(shortcut)
        wide = [x.repeat_interleave(WIDTH, dim=1)[:, None, :, None, None] for x in (t, shortcut)]
        return (state + wide[0] + 0.01 * wide[1],)


def test_a_large_step_is_two_small_ones(shortcut, tiny_transformer):
    teacher = tiny_transformer(in_channels=4, out_channels=4, caption_channels=8, chunk_width=WIDTH)
    objective = remembering(shortcut(teacher, sizes=(16, 8, 4)))
    student = Straight(teacher)
    objective(student, batches(chunks=2, clips=6)[0], generator(3))
    clips, times = objective.clips, flow_levels(32)
    # Two small steps for the samples of 8 and 4 steps, then the step that is learned, of all.
    assert [x[:, 0].tolist() for x in student.asked] == [[8, 4] * 2, [8, 4] * 2, [8, 4, 2] * 2]
    moved = 0
    for i, steps in enumerate((16, 8, 4) * 2):
        if steps == 16:
            continue
        for chunk in range(2):
            if clips.clean[i, chunk]:
                continue
            place = int((clips.positions[i, chunk] * steps).floor()) * 32 // steps
            begin, middle, end = (times[place + k * 16 // steps] for k in range(3))
            rows = slice(chunk * WIDTH, (chunk + 1) * WIDTH)
            told = 0.01 * steps  # of a schedule with twice the steps
            start = ((1 - begin) * clips.noise + begin * clips.latents)[i, :, rows]
            halfway = start + (middle - begin) * (start + begin + told)
            arrived = halfway + (end - middle) * (halfway + middle + told)
            expected = (arrived - start) / (end - begin)
            torch.testing.assert_close(objective.target[i, :, rows], expected, rtol=1e-3, atol=1e-3)
            moved += 1
    assert moved >= 4


def test_step_sizes_come_in_turn_from_batch_to_batch(shortcut, tiny_transformer):
    teacher = tiny_transformer(in_channels=4, out_channels=4, caption_channels=8, chunk_width=WIDTH)
    objective, told = shortcut(teacher, sizes=(8, 4, 2)), []
    for step in range(3):
        student = Straight(teacher)
        objective(student, batches(chunks=1, clips=1)[step], generator(step))
        told.append(float(student.asked[-1]))
    assert told == [4, 2, 1]


def test_a_damaged_autoencoder_is_named(tmp_path):
    ConvAutoencoder(widths=(8, 8, 8)).save_pretrained(tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=f"the autoencoder in {tmp_path} cannot be read"):
        trained_autoencoder({"vae": str(tmp_path)}, tmp_path)
