"""Bake the recorded motions of animagic.synthetic.people once, out of the package pybullet.

    pip download --no-deps pybullet==3.2.7 && unzip pybullet-*.whl 'pybullet_data/data/motions/*'
    PYTHONPATH=src python recipes/bake_motions.py pybullet_data/data/motions src/animagic/synthetic/people

Axes of what is written: x to the person's left, y up, z to the front; metres. The recordings are of the CMU and
SFU databases, by way of DeepMimic.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.spatial.transform import Rotation, Slerp

from animagic.synthetic.people.motion import CLIP_JOINTS, FPS


def clip(path):
    """One motion at 30 frames a second: place of the pelvis (F, 3) and local rotations (F, 13, 4), x y z w."""
    data = json.loads(path.read_text())
    frames = np.array(data["Frames"])
    times = np.concatenate([[0], np.cumsum(frames[:-1, 0])])
    axes = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], float)  # from front, up, right to left, up, front
    column, rotations = 4, [Rotation.from_quat(np.roll(frames[:, 4:8], -1, 1))]
    column = 8
    for name in CLIP_JOINTS[1:]:
        if "knee" in name or "elbow" in name:
            rotations.append(Rotation.from_rotvec(frames[:, column, None] * [0, 0, 1]))
            column += 1
        else:
            rotations.append(Rotation.from_quat(np.roll(frames[:, column : column + 4], -1, 1)))
            column += 4
    assert column == frames.shape[1]
    wanted = np.arange(0, times[-1], 1 / FPS)
    quats = []
    for rotation in rotations:
        ours = Rotation.from_matrix(axes @ rotation.as_matrix() @ axes.T)
        quats.append(Slerp(times, ours)(wanted).as_quat())
    place = frames[:, 1:4] @ axes.T
    place = np.stack([np.interp(wanted, times, place[:, i]) for i in range(3)], -1)
    return np.float16(place), np.float16(np.stack(quats, 1))


def motions(folder):
    out = {}
    for path in sorted(folder.glob("humanoid3d_*.txt")):
        name = path.stem.removeprefix("humanoid3d_")
        out[f"{name}.place"], out[f"{name}.rotations"] = clip(path)
    return out


if __name__ == "__main__":
    file = Path(sys.argv[2]) / "motions.safetensors"
    save_file(motions(Path(sys.argv[1])), file)
    print(file, file.stat().st_size, "bytes")
