"""The embedded speech encoder: the first two layers of Whisper tiny.en (arXiv 2212.04356), heard locally.

Two things differ from the published encoder, so that sound of any length can be encoded piece by piece, and live:
a frame attends to those from 50 before it to 5 after it; and the published positions, of which there are 1500, are
walked through in circles of 400 frames. Two walks, half a circle apart, are mixed so that none counts where it jumps.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from animagic.speech.encoding import FRAME, RATE

WEIGHTS = Path(__file__).parent / "weights" / "whisper_tiny_en_encoder2.safetensors"
BEHIND, AHEAD = 50, 5
"""Frames that a frame attends to, in each layer."""
CIRCLE = 400
"""Frames after which the positions begin again."""

_WIDTH, _HEADS, _LAYERS, _POSITIONS, _MELS = 384, 6, 2, 1500, 80
_WINDOW, _HOP = 400, 160  # samples
_LOUDEST = 1.5  # the log-mel of the loudest part of speech of -20 dB; Whisper takes it from the sound itself
_RAMP = 40  # frames in which one walk is replaced by the other


class EncoderLayer(nn.Module):
    """Attention and a feed-forward network, each normalised before. Names as in transformers' Whisper."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.ModuleDict(
            {
                name: nn.Linear(_WIDTH, _WIDTH, bias=name != "k_proj")
                for name in ("q_proj", "k_proj", "v_proj", "out_proj")
            }
        )
        self.self_attn_layer_norm = nn.LayerNorm(_WIDTH)
        self.fc1 = nn.Linear(_WIDTH, 4 * _WIDTH)
        self.fc2 = nn.Linear(4 * _WIDTH, _WIDTH)
        self.final_layer_norm = nn.LayerNorm(_WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # (batch, frames, width)
        near = self.self_attn_layer_norm(x)
        query, key, value = (
            self.self_attn[name](near).unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.self_attn["out_proj"](found.transpose(1, 2).flatten(2))
        return x + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperNetwork(nn.Module):
    """Two convolutions and two layers; it gives the states before, between and after the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(_MELS, _WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(_WIDTH, _WIDTH, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(_POSITIONS, _WIDTH)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(_LAYERS))

    def forward(self, mel: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """mel: (80, 2 n); positions: (walks, n); mask: True where a frame (row) may see another.
        -> (walks, n, 3, 384)."""
        x = functional.gelu(self.conv1(mel[None]))
        x = functional.gelu(self.conv2(x)).transpose(1, 2) + self.embed_positions(positions)
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return torch.stack(states, 2)


@cache
def mel_filters() -> Tensor:
    """Whisper's 80 triangles over 201 frequencies, (80, 201)."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(_WINDOW // 2 + 1, _MELS, 0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).float().T.contiguous()


def log_mel(sound: Tensor, loudest: float = _LOUDEST) -> Tensor:
    """Whisper's picture of sound (320 n,) at 16 kHz: (80, 2 n). Window m is centred at sample 160 m + 160, so that two
    of them are a frame; outside the sound there is silence."""
    sound = functional.pad(sound, (_WINDOW // 2 - _HOP, _WINDOW // 2))
    spectrum = torch.stft(sound, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), center=False, return_complex=True)
    mel = (mel_filters() @ spectrum.abs().square()).clamp(min=1e-10).log10()
    return (mel.clamp(min=loudest - 8) + 4) / 4


def walks(first: int, count: int) -> tuple[Tensor, Tensor]:
    """The positions of so many frames in each of the two walks, and what each counts: (2, n) and (2, n), sum 1."""
    frames = torch.arange(first, first + count) + CIRCLE // 2 - AHEAD * _LAYERS
    positions = torch.stack([frames, frames + CIRCLE // 2]) % CIRCLE
    last = CIRCLE - AHEAD * _LAYERS  # from here on a frame sees beyond the jump
    share = torch.minimum(positions - (last - CIRCLE // 2 - _RAMP), last - positions) / _RAMP
    return positions, share.clamp(0, 1)


class WhisperEncoder:
    """The embedded encoder: 3 layers of 384 channels. It needs 2040 ms of sound before a frame and 240 ms after it.

    Sound should be of the loudness that `normalised` gives.
    """

    layers, channels = _LAYERS + 1, _WIDTH
    before, after = BEHIND * _LAYERS + 2, AHEAD * _LAYERS + 2  # 2 for the convolutions and the windows

    def __init__(self) -> None:
        self.network = whisper_network()

    @torch.no_grad()
    def encode(self, sound: Tensor, first: int) -> Tensor:
        count = len(sound) // FRAME
        positions, share = walks(first, count)
        taken = share.amax(1) > 0  # mostly one walk is enough
        distance = torch.arange(count)[None] - torch.arange(count)[:, None]
        states = self.network(log_mel(sound), positions[taken], (distance >= -BEHIND) & (distance <= AHEAD))
        return (states * share[taken][..., None, None]).sum(0)


@cache
def whisper_network() -> WhisperNetwork:
    network = WhisperNetwork().requires_grad_(False).eval()
    stored = {name: tensor.float() for name, tensor in load_file(WEIGHTS).items()}
    network.load_state_dict({name: tensor for name, tensor in stored.items() if not name.startswith("layer_norm.")})
    return network
