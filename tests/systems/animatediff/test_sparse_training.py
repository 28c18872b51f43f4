"""Training SparseCtrl on a frozen AnimateDiff."""

import copy

import pytest
import torch

from animagic.systems.animatediff.sparse import SparseControlNet
from animagic.systems.animatediff.sparse_training import SparseControlObjective, outlines
from animagic.systems.animatediff.training import ClipObjective, SceneClips
from animagic.timeline import build_scheduler
from animagic.training import Trainer, TrainingConfig
from animagic.training.stages import fingerprint

KINDS = {
    "rgb": {"conditioning_channels": 4, "use_simplified_condition_embedding": True},
    "scribble": {"conditioning_channels": 3, "conditioning_embedding_out_channels": (4, 8, 8)},
}
SIZE = {"batch_size": 2, "num_frames": 4, "height": 32, "width": 32}


@pytest.fixture
def parts(animatediff_parts):
    return animatediff_parts()


@pytest.fixture(params=KINDS)
def network(request, parts):
    settings = {"motion_num_attention_heads": 2, "motion_max_length": 16}
    torch.manual_seed(0)
    return SparseControlNet.from_unet(parts["unet"], **KINDS[request.param], **settings)


def objective(parts, kind=SparseControlObjective, **settings):
    frozen = {"autoencoder": parts["vae"], "text_encoder": parts["text_encoder"], "tokenizer": parts["tokenizer"]}
    return kind(**frozen, scheduler_config=dict(build_scheduler("ddim").config), **settings)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_before_training_it_is_the_loss_of_the_base(parts, network):
    batch = SceneClips(0, 1, **SIZE)[0]
    steered, plain = objective(parts, unet=parts["unet"]), objective(parts, ClipObjective)
    generator = seeded()
    steered.choose(2, 4, generator)
    expected, _ = plain(parts["unet"], batch, generator)
    loss, figures = steered(network, batch, seeded())
    torch.testing.assert_close(loss, expected)
    assert figures["error"] == pytest.approx(float(expected))


def test_the_network_learns_and_the_base_stays(parts, network, tmp_path):
    unet = parts["unet"]
    before, start = fingerprint(unet, set()), copy.deepcopy(network.state_dict())
    quick = {"learning_rate": 1e-2, "warmup": 0, "decay": 1, "workers": 0, "ema": 0.0, "log_every": 1}
    trainer = Trainer(
        network, objective(parts, unet=unet, noises=2), SceneClips(0, 3, **SIZE), TrainingConfig(3, **quick), tmp_path
    )
    trained = trainer.run().state_dict()
    assert fingerprint(unet, set()) == before
    for part in ("controlnet_mid_block", "controlnet_cond_embedding", "motion_modules", "mid_block.resnets"):
        changed = [name for name in trained if part in name and not torch.equal(trained[name], start[name])]
        assert changed, part


def test_what_is_shown(parts):
    shown = objective(parts, unet=parts["unet"]).choose(4000, 8, seeded())
    assert shown.any(1).all()
    counts = shown.sum(1).bincount(minlength=9)[1:] / 4000
    first = (shown[:, 0] & (shown.sum(1) == 1)).float().mean()
    # 0.4 the first; 0.1 all; the others any number, of one frame in eight the first again
    assert first == pytest.approx(0.4 + 0.5 / 64, abs=0.03)
    assert counts[7] == pytest.approx(0.1 + 0.5 / 8, abs=0.03)
    assert counts[1:7].tolist() == pytest.approx([0.5 / 8] * 6, abs=0.02)
    random = shown[(shown.sum(1) == 4)]
    assert random.float().mean(0).tolist() == pytest.approx([0.5] * 8, abs=0.12)


def test_conditions_are_the_shown_frames(parts, network):
    video = SceneClips(0, 1, **SIZE)[0]["video"]
    shown = torch.tensor([[True, False, False, True], [False, True, False, False]])
    condition, mask = objective(parts, unet=parts["unet"]).conditions(network, video, shown)
    rgb = network.config.use_simplified_condition_embedding
    assert condition.shape == ((2, 4, 4, 8, 8) if rgb else (2, 3, 4, 32, 32))
    assert torch.equal(mask[:, 0, :, 3, 3] == 1, shown)
    assert torch.equal(condition.abs().sum((1, 3, 4)) > 0, shown)
    if rgb:
        pixels = video[1:, :, 1].float() / 127.5 - 1
        latents = parts["vae"].encode(pixels).latent_dist.mode()[0] * parts["vae"].config.scaling_factor
        torch.testing.assert_close(condition[1, :, 1], latents)
    else:
        torch.testing.assert_close(condition[1, :, 1], outlines(video[1:, :, 1].float() / 255)[0])


def test_outlines():
    pixels = torch.zeros(2, 3, 8, 8)
    pixels[0, :, :, 4:] = 0.6  # an edge down the middle; the other picture is plain
    lines = outlines(pixels)
    assert lines.shape == pixels.shape
    assert lines[0, 0, 0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert not lines[1].any()
