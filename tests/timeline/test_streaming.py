"""What all pipelines share: watching a run, keeping it, and handing it out piece by piece. No network takes part."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from animagic import InputError
from animagic.media.outputs import Chunk, VideoOutput
from animagic.timeline import FlowEuler, Progress, Sampler, Timeline, WholeClip
from animagic.timeline.resume import RunFolder
from animagic.timeline.streaming import Interrupted, StreamingPipeline, Watch, kept_clean

FRAMES, STEPS = 4, 5


class Pipe(StreamingPipeline):
    """Hands out chunks of one frame whose pixels are their number."""

    def __init__(self, chunks: int = 3, vae: object | None = "one"):
        self.chunks, self.vae, self.sampling = chunks, vae, SimpleNamespace(fps=12)
        self.bars: list[SimpleNamespace] = []

    def progress_bar(self, total):
        bar = SimpleNamespace(n=0, total=total, closed=False)
        bar.update = lambda steps: setattr(bar, "n", bar.n + steps)
        bar.close = lambda: setattr(bar, "closed", True)
        self.bars.append(bar)
        return bar

    def stream(self, prompt, *, output_type="pil", on_progress=None):
        self.check_call(output_type, ["latents"])
        for i in range(self.chunks):
            if prompt == "break":
                raise RuntimeError("broken")
            on_progress(Progress(2 * i + 2, 2 * self.chunks, i, 1.0, 1.0, None))
            yield Chunk(np.full((1, 1, 2, 2, 3), i / 10), i, 12)


class TestCall:
    def test_pieces_are_joined(self):
        out = Pipe()("a ball", output_type="np")
        assert isinstance(out, VideoOutput)
        assert out.fps == 12
        assert out.frames[0, :, 0, 0, 0].tolist() == [0, 0.1, 0.2]
        (frames,) = Pipe()("a ball", output_type="np", return_dict=False)
        assert np.array_equal(frames, out.frames)

    def test_nothing_made_is_an_empty_list(self):
        assert Pipe(chunks=0)("a ball", output_type="np").frames == []

    def test_the_bar_follows_and_so_does_the_caller(self):
        pipe, seen = Pipe(), []
        pipe("a ball", output_type="np", on_progress=lambda progress: seen.append(progress.step))
        (bar,) = pipe.bars
        assert (bar.n, bar.total, bar.closed) == (6, 6, True)
        assert seen == [2, 4, 6]

    def test_a_bar_is_closed_when_the_caller_breaks_it_off(self):
        pipe = Pipe()

        def stop(progress):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pipe("a ball", output_type="np", on_progress=stop)
        assert pipe.bars[0].closed

    def test_without_a_step_there_is_no_bar(self):
        pipe = Pipe()
        with pytest.raises(RuntimeError, match="broken"):
            pipe("break", output_type="np")
        assert pipe.bars == []

    def test_what_cannot_be_asked_for(self):
        with pytest.raises(InputError, match="'gif' is unknown"):
            Pipe()("a ball", output_type="gif")
        with pytest.raises(InputError, match="no autoencoder; ask for output_type='latent'"):
            Pipe(vae=None)("a ball", output_type="np")
        Pipe(vae=None).check_call("latent", [])
        with pytest.raises(InputError, match="can only be latents, not image_embeds"):
            Pipe().check_call("np", ["latents", "image_embeds"])

    def test_a_pipeline_without_a_stream_has_none(self):
        with pytest.raises(NotImplementedError):
            StreamingPipeline().stream()


def make(pipe=None, **watch) -> Sampler:
    """A run of a clip whose noise is 1 everywhere; the network says how large it finds the latents."""
    solver = FlowEuler(torch.linspace(0, 1, STEPS + 1))
    timeline = Timeline(lambda frames: torch.ones(1, 1, len(frames), 2, 2))
    sampler = Sampler(WholeClip(FRAMES, STEPS), lambda latents, window: 0.5 * latents + 0.1, solver, timeline)
    sampler.on_step = Watch(
        pipe or Pipe(), sampler, lambda level: 100 - level, lambda latents: latents.numpy() * 2, **watch
    )
    return sampler


def result(sampler: Sampler) -> torch.Tensor:
    return torch.cat([clean.latents for clean in sampler.run()], dim=2)


class TestWatch:
    def test_a_callback_sees_every_step(self):
        pipe, seen = Pipe(), []

        def look(whose, step, timestep, tensors):
            seen.append((step, timestep, tensors["latents"].shape[2]))
            assert whose is pipe
            assert tensors.keys() == {"latents"}

        plain = result(make())
        assert torch.equal(result(make(pipe, callback=look)), plain)
        assert seen == [(i, 100 - i, FRAMES) for i in range(STEPS)]

    def test_a_callback_may_change_the_latents(self):
        zero = lambda pipe, step, timestep, tensors: {"latents": torch.zeros_like(tensors["latents"])}  # noqa: E731
        assert not result(make(callback=zero)).any()
        assert torch.equal(result(make(callback=lambda *_: {})), result(make()))

    def test_a_preview_is_made_only_when_it_is_asked_for(self):
        sampler, decoded = make(), []
        sampler.on_step.preview = lambda latents: decoded.append(latents) or latents.numpy()
        sampler.on_step.on_preview = lambda decode: decode() if len(decoded) < 2 else None
        result(sampler)
        assert len(decoded) == 2
        assert decoded[0].shape == (1, 1, FRAMES, 2, 2)

    def test_progress_is_handed_on(self):
        seen = []
        result(make(on_progress=seen.append))
        assert [(p.step, p.total_steps) for p in seen] == [(i + 1, STEPS) for i in range(STEPS)]
        assert seen[-1].seconds_left == 0

    def test_progress_counts_the_runs_before_and_after(self):
        seen, steps = [], []
        result(
            make(on_progress=seen.append, callback=lambda p, step, *_: steps.append(step), done=STEPS, total=3 * STEPS)
        )
        assert [p.step for p in seen] == list(range(STEPS + 1, 2 * STEPS + 1))
        assert {p.total_steps for p in seen} == {3 * STEPS}
        assert steps == list(range(STEPS, 2 * STEPS))
        assert seen[0].seconds_left > 0

    def test_an_interruption_ends_the_run_after_the_step(self):
        pipe, steps = Pipe(), []

        def stop(whose, step, *_):
            steps.append(step)
            whose.interrupt = step == 2

        with pytest.raises(Interrupted):
            result(make(pipe, callback=stop))
        assert steps == [0, 1, 2]

    def test_what_is_final_is_handed_out_before_an_interruption(self):
        pipe = Pipe()

        def stop(whose, step, *_):
            whose.interrupt = step == STEPS - 1

        assert torch.equal(result(make(pipe, callback=stop)), result(make()))


class Stop(Exception):
    pass


def kept(folder, every: float = 0.0, stop_after: int | None = None, state=None) -> torch.Tensor:
    """A run that is kept in a folder, broken off after a step."""
    run = RunFolder(folder, {"seed": 1}, every=every)

    def stop(progress):
        if progress.step == stop_after:
            raise Stop

    sampler = make(resume=run, on_progress=stop)
    return torch.cat([clean.latents for clean in kept_clean(sampler, run, torch.device("cpu"), state)], dim=2)


class TestKeeping:
    @pytest.mark.parametrize("stop_after", range(1, STEPS + 1))
    def test_a_run_goes_on_from_any_step(self, tmp_path, stop_after):
        with pytest.raises(Stop):
            kept(tmp_path, stop_after=stop_after)
        assert torch.equal(kept(tmp_path), result(make()))

    def test_a_finished_run_is_handed_out_again_without_a_step(self, tmp_path):
        kept(tmp_path)
        run, steps = RunFolder(tmp_path, {"seed": 1}), []
        sampler = make(resume=run, on_progress=steps.append)
        (clean,) = kept_clean(sampler, run, torch.device("cpu"))
        assert torch.equal(clean.latents, result(make()))
        assert steps == []

    def test_a_run_is_saved_as_often_as_was_asked(self, tmp_path):
        with pytest.raises(Stop):
            kept(tmp_path, every=1000, stop_after=3)
        assert not (tmp_path / "state.safetensors").exists()

    def test_more_may_be_kept_than_the_sampler_knows(self, tmp_path):
        kept(tmp_path, state=lambda: {"clean_frames": torch.tensor(0), "round": torch.tensor(2)})
        state, _ = RunFolder(tmp_path, {"seed": 1}).load(torch.device("cpu"))
        assert state["round"] == 2

    def test_without_a_folder_nothing_is_kept(self):
        sampler = make()
        (clean,) = kept_clean(sampler, None, torch.device("cpu"))
        assert torch.equal(clean.latents, result(make()))
