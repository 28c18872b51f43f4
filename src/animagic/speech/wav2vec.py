"""Published wav2vec 2.0 encoders (arXiv 2006.11477), which the paper of MagicInfinite names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from animagic.errors import CheckpointError, first_line
from animagic.speech.encoding import FRAME, RATE

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model


class Wav2VecEncoder:
    """All hidden states of a wav2vec 2.0 model: the input of its first layer and what each layer gives.

    Its attention, its first normalisation and the levelling of the sound see a whole piece, so that the numbers depend
    on the step of the pieces; `before` and `after` say how many frames around it a piece has.
    """

    def __init__(self, model: Wav2Vec2Model, before: int = 100, after: int = 25) -> None:
        self.model = model.requires_grad_(False).eval()
        self.levelled = getattr(model.config, "do_normalize", True)  # kept by from_pretrained
        self.layers, self.channels = model.config.num_hidden_layers + 1, model.config.hidden_size
        self.before, self.after = before, after

    @classmethod
    def from_pretrained(cls, folder: str | Path, before: int = 100, after: int = 25) -> Wav2VecEncoder:
        """Read a folder as transformers saves it: config.json, the weights, preprocessor_config.json.

        Raises: CheckpointError if there is no such model there, or one for another rate or other frames.
        """
        from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

        try:
            extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder, local_files_only=True)
            model = Wav2Vec2Model.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            why = first_line(error)
            raise CheckpointError(f"{folder} is no folder of a wav2vec 2.0 model that can be read: {why}.") from error
        frame = math.prod(model.config.conv_stride)
        if (extractor.sampling_rate, frame) != (RATE, FRAME):
            raise CheckpointError(
                f"{folder} wants {extractor.sampling_rate} Hz and {frame} samples a frame: only models for {RATE} Hz "
                f"and {FRAME} samples can be used."
            )
        model.config.do_normalize = extractor.do_normalize
        return cls(model, before, after)

    @torch.no_grad()
    def encode(self, sound: Tensor, first: int) -> Tensor:
        if self.levelled:
            sound = (sound - sound.mean()) / (sound.var(unbiased=False) + 1e-7).sqrt()
        padded = functional.pad(sound, (40, 40))  # the convolutions see 400 samples, 40 more than a frame on each side
        given = padded[None].to(self.model.device, self.model.dtype)
        states = self.model(given, output_hidden_states=True).hidden_states
        return torch.cat(states).transpose(0, 1).to(sound)
