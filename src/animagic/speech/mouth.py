"""How a mouth moves with speech: phones, the fourteen shapes that can be told apart, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from animagic.errors import InputError


@dataclass(frozen=True, slots=True)
class Phone:
    """One sound of speech, ARPABET ("AA1", "pau") or IPA ("tʃ"), from `start` to `end`, in seconds."""

    name: str
    start: float
    end: float


SILENCE = "sil"
SHAPES: dict[str, tuple[float, float, float]] = {
    SILENCE: (0.0, 0.5, 0.0),
    "PP": (0.0, 0.5, 0.1),
    "FF": (0.1, 0.55, 0.0),
    "TH": (0.2, 0.55, 0.0),
    "DD": (0.2, 0.6, 0.0),
    "kk": (0.25, 0.55, 0.0),
    "CH": (0.2, 0.35, 0.5),
    "SS": (0.1, 0.65, 0.0),
    "nn": (0.2, 0.55, 0.0),
    "RR": (0.25, 0.4, 0.4),
    "aa": (1.0, 0.6, 0.0),
    "E": (0.6, 0.75, 0.0),
    "ih": (0.35, 0.85, 0.0),
    "oh": (0.65, 0.3, 0.7),
    "ou": (0.3, 0.15, 1.0),
}
"""Each viseme's opening (0 shut, 1 wide open), width (0 pursed, 0.5 at rest, 1 spread) and rounding (0 to 1)."""

_ARPABET = {
    SILENCE: "PAU SIL H# BRTH SP SPN NSN +SPN+ +NSN+",
    "PP": "P B M EM",
    "FF": "F V",
    "TH": "TH DH",
    "DD": "T D DX",
    "kk": "K G NG HH HV Q",
    "CH": "CH JH SH ZH",
    "SS": "S Z",
    "nn": "N L EN EL NX",
    "RR": "R ER AXR",
    "aa": "AA AE AH AX AY AW",
    "E": "EH EY",
    "ih": "IH IY IX Y",
    "oh": "AO OW OY",
    "ou": "UW UH UX W",
}
_SECOND = {"AY": "ih", "EY": "ih", "OY": "ih", "AW": "ou", "OW": "ou"}  # the ends of diphthongs
_IPA = {
    SILENCE: "_",
    "PP": "pbmɓ",
    "FF": "fvɱʋ",
    "TH": "θð",
    "DD": "tdɾʈɖɗ",
    "kk": "kgɡŋxɣqχhɦħçʔ",
    "CH": "ʃʒɕʑʂʐ",
    "SS": "szɬ",
    "nn": "nlɫɲɳʎɭ",
    "RR": "rɹɝɚɻʁʀɽɜ",
    "aa": "aɑɐæʌɒə",
    "E": "eɛœø",
    "ih": "iɪɨᵻyʏjɘ",
    "oh": "oɔɤɵ",
    "ou": "uʊʉɯwɥ",
}
_OF_ARPABET = {name: viseme for viseme, names in _ARPABET.items() for name in names.split()}
_OF_IPA = {sign: viseme for viseme, signs in _IPA.items() for sign in signs}

_HOLD = 0.05  # seconds: a shape is held but for so much, a quarter of a short phone, at either end
_FINE = 200  # points a second at which the curves are drawn before they are averaged over a frame


def visemes_of(phone: str) -> tuple[str, ...]:
    """The visemes of a phone, two of a diphthong: names of SHAPES. "" is silence, an unknown one "kk".

    ARPABET of CMU and of flite, any case, with or without a stress; otherwise IPA, signs that change nothing left out.
    """
    name = phone.upper().rstrip("012")
    if name in _OF_ARPABET and not (len(phone) == 1 and phone in _OF_IPA):
        return (_OF_ARPABET[name], _SECOND[name]) if name in _SECOND else (_OF_ARPABET[name],)
    found = [_OF_IPA[sign] for sign in phone if sign in _OF_IPA]
    return tuple(found) or (("kk",) if name else (SILENCE,))


def mouth_shapes(phones: Sequence[Phone], fps: float, frames: int | None = None) -> np.ndarray:
    """Opening, width and rounding for every video frame, as in SHAPES: float32 (frames, 3).

    A shape is held for most of its phone and goes over into the next one evenly; before, between and after phones
    there is silence. Each frame has the mean over the time it is shown.

    Args:
        frames: how many; None: until the last phone ends.
    Raises: InputError for phones that are not in order, or frames that cannot be.
    """
    if not 1 <= fps <= 240 or (frames is not None and frames < 1):
        raise InputError(f"fps is {fps} and frames {frames}: give 1 to 240 frames a second, and at least one.")
    times, shapes, end = [-1.0], [SHAPES[SILENCE]], 0.0
    for phone in phones:
        if not end - 1e-3 <= phone.start <= phone.end:
            raise InputError(f"the phone {phone.name} lasts from {phone.start} to {phone.end} s: put phones in order.")
        parts = visemes_of(phone.name)
        if phone.start > end + 1e-3:
            _hold(times, shapes, SILENCE, end, phone.start)
        width = (phone.end - phone.start) / len(parts)
        for number, viseme in enumerate(parts):
            _hold(times, shapes, viseme, phone.start + number * width, phone.start + (number + 1) * width)
        end = phone.end
    frames = max(1, round(end * fps)) if frames is None else frames
    _hold(times, shapes, SILENCE, end, max(end, frames / fps) + 1)
    each = max(1, round(_FINE / fps))
    grid = (np.arange(frames * each) + 0.5) / (fps * each)
    curves = [np.interp(grid, times, values) for values in zip(*shapes, strict=True)]
    return np.stack(curves, 1).reshape(frames, each, 3).mean(1).astype(np.float32)


def mouth_curve(phones: Sequence[Phone], fps: float, frames: int | None = None) -> np.ndarray:
    """How far the mouth is open in every video frame, 0 to 1, shut in silence: float32 (frames,). As `mouth_shapes`."""
    return mouth_shapes(phones, fps, frames)[:, 0]


def _hold(times: list[float], shapes: list[tuple[float, float, float]], viseme: str, start: float, end: float) -> None:
    edge = min((end - start) / 4, _HOLD)
    times += [start + edge, end - edge]
    shapes += [SHAPES[viseme]] * 2
