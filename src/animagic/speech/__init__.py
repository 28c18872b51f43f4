"""Speech: what a network hears in it, when there is any, how a mouth moves with it, and a voice that reads text.

Sound is float32 samples (n,), -1 to 1, and a rate. torch is imported when a name that needs it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from animagic.speech.encoding import FeatureStream, SpeechEncoder, features, iter_features
    from animagic.speech.frames import at_frames, per_frame, per_latent
    from animagic.speech.levels import normalised, voiced
    from animagic.speech.mouth import Phone, mouth_curve, mouth_shapes, visemes_of
    from animagic.speech.saying import VOICES, Utterance, say
    from animagic.speech.wav2vec import Wav2VecEncoder
    from animagic.speech.whisper import WhisperEncoder

__all__ = [
    "VOICES",
    "FeatureStream",
    "Phone",
    "SpeechEncoder",
    "Utterance",
    "Wav2VecEncoder",
    "WhisperEncoder",
    "at_frames",
    "features",
    "iter_features",
    "mouth_curve",
    "mouth_shapes",
    "normalised",
    "per_frame",
    "per_latent",
    "say",
    "visemes_of",
    "voiced",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for room in ("mouth", "levels", "saying", "encoding", "frames", "whisper", "wav2vec"):  # the light ones first
            if name in (values := vars(import_module(f"{__name__}.{room}"))):
                return values[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
