"""SyncNet's architecture, sound and crops, with random weights: the published ones may not be kept here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animagic.errors import CheckpointError, InputError
from animagic.evaluation.speaking import Heard, Talk
from animagic.evaluation.syncnet import FPS, SIDE, SyncNet, SyncNetwork, cepstrum, face_crops


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    counts = {"num_batches_tracked"}  # files of old PyTorch have none
    state = {name: tensor for name, tensor in SyncNetwork().state_dict().items() if name.split(".")[-1] not in counts}
    torch.save(state, path)
    return path


def talk(frames=20, samples=16_000, fps=FPS):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)
    sound = rng.normal(0, 0.1, samples).astype(np.float32)
    return Talk(video, fps, Heard(sound), np.tile([16.0, 8, 16, 16], (frames, 1)), np.zeros(frames))


def test_the_network_is_as_large_as_the_public_file():
    assert sum(parameter.numel() for parameter in SyncNetwork().parameters()) == 13_631_616


def test_the_scores_are_those_of_the_distances(file, monkeypatch):
    net = SyncNet.load(file)
    codes = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 1024)).astype(np.float32))
    seen = iter(range(100))
    # Lips that say at frame i what was heard two frames before.
    monkeypatch.setattr(net.network, "see", lambda faces: torch.stack([codes[next(seen) + 3] for _ in faces]))
    heard = iter(range(100))
    monkeypatch.setattr(net.network, "hear", lambda sound: torch.stack([codes[next(heard) + 5] for _ in sound]))
    found = net(talk())
    assert found["LSE offset"] == 2
    assert found["LSE-D"] < found["LSE-C"]


def test_random_weights_give_numbers(file):
    found = SyncNet.load(file)(talk())
    assert all(np.isfinite(value) for value in found.values())
    assert found["LSE-D"] > 0


def test_the_coefficients_are_those_of_python_speech_features():
    sound = np.zeros(3000, np.float32)
    sound[1000:1300] = 500 / 2**15
    expected = [11.87, -7.099, 2.927, 1.387, 4.261, 3.9, 5.001, 4.126, 4.149, 3.376, 3.705, 3.093, 2.805]
    found = cepstrum(sound)
    assert found.shape == (18, 13)
    np.testing.assert_allclose(found[7], expected, atol=1e-3)


def test_a_crop_shows_the_face_and_what_is_below_it():
    frame = np.zeros((1, 100, 100, 3), np.uint8)
    frame[0, 40:60, 40:60] = (255, 0, 0)
    crop = face_crops(np.repeat(frame, 13, 0), np.tile([40.0, 40, 20, 20], (13, 1)))[6]
    assert crop.shape == (SIDE, SIDE, 3)
    red = np.argwhere(crop[..., 2] > 128)  # the last channel: blue comes first
    assert red.min(0).tolist() == pytest.approx([0, 32], abs=1)
    assert red.max(0).tolist() == pytest.approx([SIDE * 20 / 28, SIDE * 24 / 28], abs=2)


def test_beside_the_frame_it_is_grey():
    frames = np.zeros((13, 20, 20, 3), np.uint8)
    crop = face_crops(frames, np.tile([-10.0, 0, 20, 20], (13, 1)))[6]
    assert (crop[:, : SIDE // 2 - 8] == 110).all()
    assert not crop[: SIDE // 2, SIDE // 2 + 8 :].any()


@pytest.mark.parametrize("given", [{"fps": 24}, {"frames": 10}, {"samples": 5000}])
def test_what_it_cannot_judge_is_named(file, given):
    with pytest.raises(InputError, match="25 frames a second"):
        SyncNet.load(file)(talk(**given))


def test_wrong_files_are_named(file, tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        SyncNet.load(tmp_path / "none.model")
    state = torch.load(file, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if name != "netfclip.3.bias"}, tmp_path / "a.model")
    with pytest.raises(CheckpointError, match=r"netfclip\.3\.bias is missing"):
        SyncNet.load(tmp_path / "a.model")
    torch.save([1], tmp_path / "b.model")
    with pytest.raises(CheckpointError, match="something else"):
        SyncNet.load(tmp_path / "b.model")
