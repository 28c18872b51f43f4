"""How the published motion modules are sampled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...timeline import build_scheduler


def published_sampling(version: str | None, file: Path) -> tuple[Any, dict[str, Any]]:
    """The scheduler and the fields of AnimateDiffSampling that a motion module was made for.

    Its tensors do not say it; the file's name tells few-step ones.

    LCM (AnimateLCM): LCM, 6 steps, guidance 2. Lightning: Euler with trailing timesteps, as many steps as it was
    distilled for, no guidance. Others: DDIM, 25 steps, guidance 7.5; SDXL with its own betas.
    Source: the model cards of wangfuyun/AnimateLCM and ByteDance/AnimateDiff-Lightning, the inference configurations of
    guoyww/AnimateDiff.
    """
    name = file.name.lower()
    if "lightning" in name:
        steps = re.search(r"(\d+)[-_]?step", name)
        config = {"num_inference_steps": int(steps[1]) if steps else 4, "guidance_scale": 1.0}
        return build_scheduler("euler", timestep_spacing="trailing"), config
    if "lcm" in name:
        return build_scheduler("lcm"), {"num_inference_steps": 6, "guidance_scale": 2.0}
    if version == "sdxl":
        return build_scheduler("ddim", beta_end=0.02, beta_schedule="scaled_linear"), {}
    return build_scheduler("ddim"), {}
