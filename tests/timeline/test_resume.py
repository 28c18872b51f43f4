"""Runs that are kept on disk."""

import pytest
import torch

from animagic.errors import CheckpointError, InputError
from animagic.timeline import Clean, RunFolder

CPU = torch.device("cpu")
REQUEST = {"prompt": "a red ball", "seed": 3}


def clean(start: int, frames: int = 6) -> Clean:
    latents = torch.randn(1, 4, frames, 2, 2, generator=torch.Generator().manual_seed(start))
    return Clean(range(start, start + frames), latents)


def state(clean_frames: int) -> dict[str, torch.Tensor]:
    return {
        "steps_done": torch.tensor(clean_frames * 2),
        "clean_frames": torch.tensor(clean_frames),
        "timeline.latents": torch.full((1, 4, 6, 2, 2), float(clean_frames)),
    }


def test_a_fresh_folder_holds_nothing(tmp_path):
    assert RunFolder(tmp_path / "new" / "run", REQUEST).load(CPU) == (None, [])


def test_what_was_kept_comes_back(tmp_path):
    run = RunFolder(tmp_path / "run", REQUEST)
    run.save_clean(clean(2, 4), state(4))
    run.save_clean(clean(6), state(10))
    loaded, done = RunFolder(tmp_path / "run", REQUEST).load(CPU)
    assert {k: v.tolist() for k, v in loaded.items()} == {k: v.tolist() for k, v in state(10).items()}
    assert [chunk.frames for chunk in done] == [range(2, 6), range(6, 12)]
    assert torch.equal(done[1].latents, clean(6).latents)


def test_a_chunk_written_just_before_an_interruption_is_made_again(tmp_path):
    run = RunFolder(tmp_path / "run", REQUEST)
    run.save_clean(clean(0), state(6))
    run.save_clean(clean(6), state(6))  # as if the second state had not been written
    _, done = run.load(CPU)
    assert [chunk.frames for chunk in done] == [range(6)]


def test_the_state_is_saved_when_it_is_due(tmp_path):
    calls = []

    def ask():
        calls.append(1)
        return state(0)

    RunFolder(tmp_path / "seldom", REQUEST, every=1000).save_if_due(ask)
    assert not calls
    RunFolder(tmp_path / "often", REQUEST, every=0).save_if_due(ask)
    assert calls
    assert (tmp_path / "often" / "state.safetensors").exists()
    assert not (tmp_path / "seldom" / "state.safetensors").exists()


def test_another_request_is_refused(tmp_path):
    RunFolder(tmp_path / "run", REQUEST)
    RunFolder(tmp_path / "run", dict(reversed(REQUEST.items())))  # the same one, in another order
    with pytest.raises(InputError, match="other settings"):
        RunFolder(tmp_path / "run", {**REQUEST, "seed": 4})


def test_a_broken_file_is_named(tmp_path):
    run = RunFolder(tmp_path / "run", REQUEST)
    run.save_clean(clean(0), state(6))
    (tmp_path / "run" / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"state\.safetensors cannot be read"):
        run.load(CPU)


def test_a_finished_run_leaves_nothing(tmp_path):
    run = RunFolder(tmp_path / "run", REQUEST)
    run.save_clean(clean(0), state(6))
    run.remove()
    assert not (tmp_path / "run").exists()
    run.remove()
