"""One person is near to herself in another picture and far from others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from animagic.errors import InputError
from animagic.faces import SAME_PERSON, find_faces, identity, identity_distance
from animagic.faces.recognition import IdentityNetwork, chip_of


def who(picture: np.ndarray) -> np.ndarray:
    picture = np.ascontiguousarray(picture)
    return identity(picture, find_faces(picture)[0])


def test_an_identity_has_128_numbers(astronaut):
    known = who(astronaut)
    assert (known.shape, known.dtype) == ((128,), np.float32)


@pytest.mark.parametrize("change", ["mirrored", "smaller", "leaning", "darker"])
def test_somebody_remains_the_same(astronaut, change):
    picture = Image.fromarray(astronaut)
    changed = {
        "mirrored": astronaut[:, ::-1],
        "smaller": np.asarray(picture.resize((256, 256))),
        "leaning": np.asarray(picture.rotate(25, Image.Resampling.BICUBIC)),
        "darker": (astronaut * 0.5).astype(np.uint8),
    }[change]
    assert identity_distance(who(astronaut), who(changed)) < 0.35


def test_two_are_told_apart(astronaut, anny):
    assert identity_distance(who(astronaut), who(anny)) > SAME_PERSON


def test_distances_of_many_at_once():
    a, b = np.zeros((3, 128)), np.zeros(128)
    a[1, 0] = 2
    assert identity_distance(a, b).tolist() == [0, 2, 0]


def test_a_chip_turns_with_the_face(turned):
    upright, leaning = chip_of(turned()), chip_of(turned(roll=30))
    assert np.degrees(leaning.angle - upright.angle) == pytest.approx(30, abs=0.1)
    assert leaning.size == pytest.approx(upright.size, rel=1e-4)
    assert upright.x == pytest.approx(128, abs=1)


def test_a_batch_gives_what_each_gives():
    torch.manual_seed(0)
    network, pictures = IdentityNetwork().eval(), torch.rand(2, 3, 150, 150) * 255
    with torch.no_grad():
        together = network(pictures)
        alone = torch.cat([network(picture[None]) for picture in pictures])
    assert torch.allclose(together, alone, atol=1e-4)


def test_a_frame_of_another_kind_is_named(turned):
    with pytest.raises(InputError, match="uint8"):
        identity(np.zeros((4, 4)), turned())
