"""Fewer steps and one pass: shortcut distillation. Source: arXiv 2505.13211, section 3; shortcut models, 2410.12557."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...timeline.guidance import branch_weights
from .denoiser import Magi1Sampling
from .objectives import Clips, TransformerObjective


@dataclass
class ShortcutObjective(TransformerObjective):
    """One large step equals two small ones; the smallest equals the teacher with its guidance, in a single pass.

    The samples draw their numbers of steps in turn. A student of the most steps learns the velocity that the guided
    teacher has there; of n steps it learns the mean velocity of two of its own steps of the 2n-step schedule.

    Args:
        teacher: frozen, with guidance as in `sampling` (a base model's settings).
        sizes: numbers of steps, each half of the one before it.
    """

    teacher: Any = None
    sampling: Magi1Sampling = field(default_factory=Magi1Sampling)
    sizes: Sequence[int] = (64, 32, 16, 8)

    def __call__(self, model: Any, batch: dict, generator: torch.Generator):
        device = generator.device
        self.teacher.to(device)
        clips = self.clips(model, batch, generator)
        count = len(clips.latents)
        turn = (batch["index"] * count + torch.arange(count, device=device)) % len(self.sizes)
        steps = torch.tensor(self.sizes, device=device)[turn][:, None]  # (size, 1)
        step = (clips.positions * steps).floor()

        def time(step: torch.Tensor) -> torch.Tensor:
            t = self.times(step / steps, torch.ones_like(clips.clean))
            return torch.where(clips.clean, self.clean_t, t)

        text, mask = self.read(model, clips, clips.clean)

        def velocity(state: torch.Tensor, t: torch.Tensor, steps: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
            return model(
                state,
                t,
                text[part],
                encoder_attention_mask=mask[part],
                # The step size as distilled models read it: 2 * steps / 4.
                shortcut=(steps / 2.0).expand_as(t),
                return_dict=False,
            )[0]

        begin, middle, end = time(step), time(step + 0.5), time(step + 1)
        state = clips.visible(clips.noisy(begin))
        everything = torch.arange(count, device=device)
        finest = steps[:, 0] == max(self.sizes)
        with torch.no_grad():
            target = torch.empty_like(state)
            if finest.any():
                target[finest] = self._guided(clips, state, begin, finest)
            if not finest.all():
                part = ~finest
                some = clips.part(part)
                first, second = some.spread((middle - begin)[part]), some.spread((end - middle)[part])
                one = velocity(state[part], begin[part], 2 * steps[part], part)
                halfway = some.visible(state[part] + first * one)
                two = velocity(halfway, middle[part], 2 * steps[part], part)
                # Clean chunks do not move; they are not learned from.
                target[part] = (first * one + second * two) / (first + second).clamp_min(1e-6)
        return self.loss(model, clips, velocity(state, begin, steps, everything), target, begin)

    def _guided(self, clips: Clips, state: torch.Tensor, t: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        """The teacher's velocity of some samples, guided by text and history as its sampler does it."""
        state, t, clean = state[part], t[part], clips.clean[part]
        settings, width = self.sampling, clips.width

        def teach(text: bool) -> torch.Tensor:
            words, mask = self.read(self.teacher, clips, clips.clean if text else torch.ones_like(clips.clean))
            dropped = torch.full_like(clean, not text)
            return self.teacher(
                state, t, words[part], encoder_attention_mask=mask[part], caption_dropped=dropped, return_dict=False
            )[0]

        scales = (settings.cfg_t_range, settings.prev_chunk_scales, settings.text_scales)
        by_itself, history, text = (clips.spread(weight) for weight in branch_weights(t, *scales))
        guided = text * teach(text=True) + history * teach(text=False)
        if (by_itself != 0).any():
            null, mask = self.read(self.teacher, clips, torch.ones_like(clips.clean))
            chunks = state.unflatten(2, (-1, width)).transpose(1, 2).flatten(0, 1)
            alone = self.teacher(
                chunks,
                t.flatten()[:, None],
                null[part].flatten(0, 1)[:, None],
                encoder_attention_mask=mask[part].flatten(0, 1)[:, None],
                caption_dropped=torch.ones_like(t.flatten()[:, None], dtype=torch.bool),
                return_dict=False,
            )[0]
            guided = guided + by_itself * alone.unflatten(0, t.shape).transpose(1, 2).flatten(2, 3)
        return guided
