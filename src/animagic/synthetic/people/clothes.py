"""What a body wears: hair, clothes and shoes, made of its own surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .identity import REGIONS, Person

PIECES = (
    "face", "scalp", "neckline", "chest", "waist", "pelvis", "upper_sleeve", "lower_sleeve", "forearm", "hand",
    "upper_thigh", "lower_thigh", "shin", "foot", "eye", "lips", "brow",
)  # fmt: skip
"""The pieces that a baked body's surface is cut into, along every line at which some clothes end."""

_TIGHT = {"shirt": 0.007, "trousers": 0.006, "shoes": 0.008}  # metres above the skin
_LOOSE = {"shirt": 0.018, "trousers": 0.016, "shoes": 0.01}
_HEAD, _CHEST, _PELVIS, _LEFT_HIP, _RIGHT_HIP = 4, 2, 0, 13, 16


@dataclass(frozen=True)
class Surface:
    """A mesh in which every vertex has one region and one part.

    points, normals: float32 (V, 3) at rest; weights: float32 (V, J); regions, parts: uint8 (V,); triangles: (T, 3),
    counterclockwise from outside; bias: float32 (T,), metres by which a triangle is drawn as if it were nearer;
    two_sided: bool (T,); shade: float32 (V,), what the light on a vertex is multiplied by.
    """

    points: np.ndarray
    normals: np.ndarray
    weights: np.ndarray
    regions: np.ndarray
    parts: np.ndarray
    triangles: np.ndarray
    bias: np.ndarray
    two_sided: np.ndarray
    shade: np.ndarray


def piece_regions(person: Person) -> dict[str, str]:
    """The region of each of PIECES on this person."""
    worn = dict.fromkeys(PIECES, "skin")
    worn |= {"scalp": "skin" if person.hair_style == "bald" else "hair", "brow": "hair", "eye": "eyes", "foot": "shoes"}
    worn |= {
        "chest": "shirt",
        "waist": "shirt" if person.untucked and person.bottoms != "skirt" else "trousers",
        "pelvis": "trousers",
    }
    worn["upper_thigh"] = "trousers"
    for piece, lengths in (("upper_sleeve", SHORT), ("lower_sleeve", LONG), ("forearm", LONG)):
        if person.sleeves in lengths:
            worn[piece] = "shirt"
    if person.bottoms == "trousers":
        worn |= {"lower_thigh": "trousers", "shin": "trousers"}
    return worn


SHORT, LONG = ("short", "long"), ("long",)


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, 3) of length 1: the mean of the adjoining triangles', by area."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for i in range(3):
        np.add.at(normals, triangles[:, i], face)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)


class _Builder:
    """Collects pieces of mesh into one Surface."""

    def __init__(self) -> None:
        self.pieces: list[tuple[np.ndarray, ...]] = []
        self.count = 0

    def add(self, points, normals, weights, regions, parts, triangles, bias=0.0, two_sided=False, shade=1.0) -> None:
        """regions and parts are per triangle; vertices that several of them share are split."""
        label = regions.astype(int) * 256 + parts
        corners = triangles.reshape(-1) + len(points) * np.repeat(label, 3)
        unique, inverse = np.unique(corners, return_inverse=True)
        vertex, label = unique % len(points), unique // len(points)
        shade = np.broadcast_to(shade, len(points))[vertex]
        size = len(triangles)
        self.pieces.append((
            points[vertex], normals[vertex], weights[vertex], label // 256, label % 256,
            inverse.reshape(-1, 3) + self.count, np.full(size, bias), np.full(size, two_sided), shade,
        ))  # fmt: skip
        self.count += len(vertex)

    def surface(self) -> Surface:
        types = (np.float32, np.float32, np.float32, np.uint8, np.uint8, np.int64, np.float32, bool, np.float32)
        columns = zip(*self.pieces, strict=True)
        return Surface(*(np.concatenate(c).astype(t) for c, t in zip(columns, types, strict=True)))


def dress(
    person: Person,
    points: np.ndarray,
    weights: np.ndarray,
    triangles: np.ndarray,
    parts: np.ndarray,
    pieces: np.ndarray,
    joints: np.ndarray,
) -> Surface:
    """Clothe a bare body.

    Args:
        points (V, 3), weights (V, J), triangles (T, 3): the mesh at rest; parts, pieces (T,): of each triangle.
        joints: (J, 3) at rest.
    """
    worn = piece_regions(person)
    region_of_piece = np.array([REGIONS.index(worn[piece]) for piece in PIECES])
    regions = region_of_piece[pieces]
    normals = vertex_normals(points, triangles)
    # Cloth stands off the skin; a vertex of several materials goes with the thickest.
    cut = _LOOSE if person.loose else _TIGHT
    thickness = np.array([cut.get(name, 0.0) for name in REGIONS])[regions]
    off = np.zeros(len(points))
    np.maximum.at(off, triangles.reshape(-1), np.repeat(thickness, 3))
    clothed = points + normals * off[:, None]
    lips, brow, eye = (pieces == PIECES.index(name) for name in ("lips", "brow", "eye"))
    shade = np.ones(len(points))
    shade[triangles[lips]] = 0.74
    builder = _Builder()
    normals = vertex_normals(clothed, triangles)
    for chosen, bias in ((~eye & ~brow, 0.0), (brow, 0.004), (eye, 0.006)):
        builder.add(clothed, normals, weights, regions[chosen], parts[chosen], triangles[chosen], bias, shade=shade)
    scalp = triangles[pieces == PIECES.index("scalp")]
    if person.hair_style != "bald":
        _hair(builder, person, points, triangles, scalp, joints, weights.shape[1])
    if person.bottoms == "skirt":
        _skirt(builder, points, weights, triangles, pieces, joints)
    return builder.surface()


def _only(joint: int, count: int, joints: int) -> np.ndarray:
    weights = np.zeros((count, joints))
    weights[:, joint] = 1
    return weights


def _head_parts(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    return np.where(points[triangles, 0].mean(1) > 0, 24, 23)


def _hair(builder, person, points, triangles, scalp, joints, count) -> None:
    style, head = person.hair_style, joints[_HEAD]
    used, inverse = np.unique(scalp, return_inverse=True)
    local, shell = inverse.reshape(-1, 3), points[used]
    # How many triangles a vertex lies within the hairline: hair rises towards the middle.
    edge = np.isin(used, np.unique(triangles[~np.isin(triangles, used).all(1)]))
    depth = np.where(edge, 0.25, 1.0)
    for _ in range(2):
        near = depth[local].min(1)
        lowest = np.ones(len(used))
        np.minimum.at(lowest, local.reshape(-1), np.repeat(near, 3))
        depth = np.minimum(depth, lowest + 0.3)
    top = shell[:, 1].max()
    rise = {"afro": 0.055, "short": 0.014}.get(style, 0.018)
    middle = np.array([0, head[1] + 0.09, head[2] + 0.01])
    outward = shell - middle
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    shell = shell + outward * (rise * depth)[:, None]
    weights = _only(_HEAD, len(shell), count)
    if style in ("long", "bob"):
        length = {"long": 0.24, "bob": 0.11}[style]
        ear = head[1] + 0.05
        low = ((ear + 0.06 - shell[:, 1]) / 0.13).clip(0, 1)
        low = low * low * (3 - 2 * low) * ((head[2] + 0.06 - shell[:, 2]) / 0.06).clip(0, 1)
        shell = (
            shell
            + np.stack([0.25 * shell[:, 0], -length * np.ones(len(low)), -0.012 * np.ones(len(low))], 1) * low[:, None]
        )
        if style == "long":
            share = 0.5 * low * (shell[:, 1] < head[1] - 0.08)
            weights = weights * (1 - share)[:, None] + _only(_CHEST, len(shell), count) * share[:, None]
    region = np.full(len(local), REGIONS.index("hair"))
    builder.add(shell, vertex_normals(shell, local), weights, region, _head_parts(shell, local), local, 0.012, True)
    blobs = {
        "bun": [((0, top + 0.012, head[2] - 0.045), (0.048, 0.042, 0.048))],
        "ponytail": [((0, head[1] + 0.03, head[2] - 0.1), (0.032, 0.11, 0.036))],
    }.get(style, [])
    for place, radii in blobs:
        ball, faces = _ball()
        ball = ball * radii + place
        region = np.full(len(faces), REGIONS.index("hair"))
        weights = _only(_HEAD, len(ball), count)
        builder.add(ball, vertex_normals(ball, faces), weights, region, _head_parts(ball, faces), faces, 0.0)


def _ball(rows: int = 7, columns: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of radius 1: points and triangles."""
    polar, around = np.meshgrid(
        np.linspace(0.001, np.pi - 0.001, rows), np.arange(columns) * 2 * np.pi / columns, indexing="ij"
    )
    points = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1).reshape(
        -1, 3
    )
    return points, _sheet(rows, columns)


def _sheet(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid that closes around, from the top row down, counterclockwise from outside."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = row * columns + column, row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)]).reshape(-1, 3)


def _skirt(builder, points, weights, triangles, pieces, joints) -> None:
    rows, columns = 7, 24
    hips, thighs = (np.unique(triangles[np.isin(pieces, [PIECES.index(n) for n in names])]) for names in
                    (("waist", "pelvis"), ("upper_thigh",)))  # fmt: skip
    top = points[hips, 1].max() - 0.01
    bottom = joints[_LEFT_HIP + 1, 1] + 0.05
    both = points[np.concatenate([hips, thighs])]
    heights = np.linspace(top, bottom, rows)
    around = np.arange(columns) * 2 * np.pi / columns
    centre_z, wide, deep = [], [], []
    for height in heights:
        band = both[np.abs(both[:, 1] - max(height, joints[_LEFT_HIP, 1] - 0.06)) < 0.035]
        centre_z.append((band[:, 2].max() + band[:, 2].min()) / 2)
        wide.append(np.abs(band[:, 0]).max())
        deep.append((band[:, 2].max() - band[:, 2].min()) / 2)
    flare = np.linspace(0, 1, rows)
    widths = np.maximum.accumulate(wide) * (1.05 + 0.22 * flare)
    depths = np.maximum.accumulate(deep) * (1.1 + 0.5 * flare)
    cloth = np.stack(
        [
            widths[:, None] * np.sin(around),
            np.repeat(heights[:, None], columns, 1),
            np.array(centre_z)[:, None] + depths[:, None] * np.cos(around),
        ],
        -1,
    ).reshape(-1, 3)
    left = 0.5 + 0.5 * np.tanh(3 * np.tile(np.sin(around), rows))
    hang = (1.5 * flare).clip(0, 1)
    follow = np.repeat(0.97 * hang * hang * (3 - 2 * hang), columns)  # as the thighs do a hand below the hip
    mixed = np.zeros((len(cloth), weights.shape[1]))
    mixed[:, _PELVIS] = 1 - follow
    mixed[:, _LEFT_HIP], mixed[:, _RIGHT_HIP] = follow * left, follow * (1 - left)
    faces = _sheet(rows, columns)
    centre = cloth[faces].mean(1)
    front, on_left = centre[:, 2] > centre_z[0], centre[:, 0] > 0
    parts = np.where(front, np.where(on_left, 10, 9), np.where(on_left, 8, 7))
    region = np.full(len(faces), REGIONS.index("trousers"))
    builder.add(cloth, vertex_normals(cloth, faces), mixed, region, parts, faces, 0.035, True)
