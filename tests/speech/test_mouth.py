"""The mouth that belongs to phones."""

import json
import re

import numpy as np
import pytest

from animagic.errors import InputError
from animagic.speech import Phone, mouth_curve, mouth_shapes, visemes_of
from animagic.speech.mouth import SHAPES


def in_a_row(names: str, each: float = 0.12) -> list[Phone]:
    return [Phone(name, k * each, (k + 1) * each) for k, name in enumerate(names.split())]


@pytest.mark.parametrize(
    ("phone", "visemes"),
    [
        ("AA1", ("aa",)),
        ("pau", ("sil",)),
        ("SIL", ("sil",)),
        ("", ("sil",)),
        ("ow", ("oh", "ou")),
        ("m", ("PP",)),
        ("hh", ("kk",)),
        ("tʃ", ("DD", "CH")),
        ("oʊ", ("oh", "ou")),
        ("uː", ("ou",)),
        ("y", ("ih",)),
        ("?", ("kk",)),
    ],
)
def test_phones_have_visemes(phone, visemes):
    assert visemes_of(phone) == visemes


def test_there_are_fourteen_and_silence():
    assert len(SHAPES) == 15


def test_the_mouth_is_shut_in_silence_and_open_in_a():
    curve = mouth_curve(in_a_row("pau AA pau AA pau", 0.4), 25)
    assert len(curve) == 50
    assert curve.max() <= 1
    assert (curve[[0, 5, 23, 25, 45, 49]] == 0).all()
    assert (curve[[14, 15, 34, 35]] == 1).all()


def test_the_mouth_shuts_for_a_short_m():
    curve = mouth_curve([Phone("aa", 0, 0.2), Phone("m", 0.2, 0.28), Phone("aa", 0.28, 0.5)], 25)
    assert curve[4:8].min() < 0.15
    assert curve[[3, 9]].min() > 0.8


def test_lips_are_round_in_u_and_wide_in_i():
    u, i = (mouth_shapes(in_a_row(name, 0.4), 25)[5] for name in ("UW", "IY"))
    assert u[2] > 0.9
    assert i[2] == 0
    assert i[1] > u[1] + 0.5


def test_before_between_and_after_phones_is_silence():
    curve = mouth_curve([Phone("AA", 1, 1.2), Phone("AA", 2, 2.2)], 25, frames=75)
    assert len(curve) == 75
    assert (curve[[0, 20, 40, 70]] == 0).all()
    assert curve[27] == curve[52] == 1


def test_no_phones_are_silence():
    assert mouth_curve([], 25, frames=5).tolist() == [0] * 5


def test_phones_out_of_order_are_named():
    with pytest.raises(InputError, match="order"):
        mouth_curve([Phone("AA", 1, 2), Phone("B", 0, 1)], 25)


def test_it_moves_as_the_jaw_of_the_sample(sample):
    about = json.loads(sample("talking_anny_controls.json").read_text())
    phones = [Phone(name, start / 100, (start + count) / 100) for name, start, count in about["phones_10ms"]]
    jaw = np.array(about["controls_per_frame"]["jaw_open"])
    ours = mouth_curve(phones, about["fps"], len(jaw))
    lags = [np.corrcoef(np.roll(ours, lag), jaw)[0, 1] for lag in (-2, -1, 0, 1, 2)]
    assert np.argmax(lags) == 2
    assert lags[2] > 0.85


def test_every_phone_of_english_is_known():
    names = re.findall(r"\w+", "aa ae ah ao aw ax axr ay b ch d dh dx eh el em en er ey f g hh hv ih iy jh k l m n ng")
    names += re.findall(r"\w+", "nx ow oy p r s sh t th uh uw v w y z zh pau")
    assert [name for name in names if visemes_of(name) == ("kk",) and name not in ("g", "hh", "hv", "k", "ng")] == []
