"""Modelled portraits: heads in three dimensions that move, as pixels."""

from __future__ import annotations

from functools import reduce

import numpy as np
import skia

from .features import GAPE
from .glasses import Glasses
from .heads import ACTIONS, HeadMesh, mesh_of
from .identity import Portrait
from .performance import Performance

_AT_ONCE = 16  # frames whose vertices are held
_DISTANCE = 9.0  # of the camera, in half heights of the face
_TURNED = 50.0  # degrees that a head turns on its neck at most
_EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {"eyeWide": 0.12},
    "smiling": {"mouthSmile": 0.9, "cheekSquint": 0.5, "eyeSquint": 0.2},
    "sad": {"mouthFrown": 1.0, "browInnerUp": 1.0, "eyeBlink": 0.18, "mouthPucker": 0.1},
    "angry": {"browDown": 1.0, "noseSneer": 0.5, "mouthPress": 0.35, "mouthFrown": 0.35, "eyeSquint": 0.3},
    "surprised": {"browInnerUp": 0.8, "browOuterUp": 1.0, "eyeWide": 1.0},
}


def actions_of(performance: Performance, mesh: HeadMesh) -> np.ndarray:
    """(F, A): how far each of ACTIONS is done. The jaw opens so far that the lips part as in features.mouth_of."""
    opening, width, rounding = performance.mouth.astype(float).clip(0, 1).T
    out = {name: np.zeros(len(performance)) for name in ACTIONS}
    out["mouthStretch"] += 1.1 * (2 * width - 1).clip(0)
    out["mouthPucker"] += 0.5 * (1 - 2 * width).clip(0) + 0.3 * rounding
    out["mouthFunnel"] += 0.75 * rounding
    out["mouthLowerDown"] += 0.3 * opening
    out["mouthUpperUp"] += 0.2 * opening
    for name, share in _EXPRESSIONS[performance.expression].items():
        out[name] += share
    blink = performance.blink.astype(float)
    out["eyeBlink"] += blink * (1 - out["eyeBlink"])
    out["eyeWide"] *= 1 - blink
    out["eyeSquint"] *= 1 - blink
    lips = [mesh.marks["upper_lip"], mesh.marks["lower_lip"]]
    rest, each = (points[..., lips[0], 1] - points[..., lips[1], 1] for points in (mesh.points, mesh.actions))
    wanted = GAPE * mesh.half * opening * (1 - 0.15 * rounding)
    left = wanted - rest - sum(out[name] * gap for name, gap in zip(ACTIONS, each.tolist(), strict=True))
    out["jawOpen"] += left.clip(0) / each[ACTIONS.index("jawOpen")]
    out["mouthClose"] += left.clip(None, 0) / each[ACTIONS.index("mouthClose")]
    return np.stack([out[name] for name in ACTIONS], 1)


def _turns(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """(F, 3, 3) of angles in degrees, as in Performance."""
    sy, cy, sp, cp, sr, cr = (f(np.radians(a)) for a in (yaw, pitch, roll) for f in (np.sin, np.cos))
    one, zero = np.ones_like(sy), np.zeros_like(sy)

    def matrix(*rows: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    about_y = matrix((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    about_x = matrix((one, zero, zero), (zero, cp, sp), (zero, -sp, cp))
    about_z = matrix((cr, sr, zero), (-sr, cr, zero), (zero, zero, one))
    return about_z @ about_x @ about_y


class Modelled:
    """A head in every frame of a performance; arguments and attributes as of `drawn.Drawn`."""

    def __init__(
        self, portrait: Portrait, performance: Performance, unit: float, x: float, y: float, height: int, width: int
    ) -> None:
        self.portrait, self.performance = portrait, performance
        self.mesh = mesh = mesh_of(portrait)
        self.scale, self.centre = unit / mesh.half, np.array([x, y])
        self.actions = actions_of(performance, mesh)
        self.larger = int(np.clip(round(384 / min(height, width)), 2, 4))
        self.size = height, width
        self._pose()
        marks = [mesh.marks[name] for name in ("upper_lip", "lower_lip", "left_outer", "right_outer")]
        moved = mesh.points[marks] + np.tensordot(self.actions, mesh.actions[:, marks], 1)
        gap = (moved[:, 0, 1] - moved[:, 1, 1]).clip(0)
        self.opening = np.float32(gap / np.linalg.norm(moved[:, 2] - moved[:, 3], axis=1))
        order = np.argsort(mesh.triangles.reshape(-1), kind="stable")
        self.adjoining = order // 3
        self.vertices, self.starts = np.unique(mesh.triangles.reshape(-1)[order], return_index=True)
        n = self.larger
        self.pixels = np.zeros((height * n, width * n, 4), np.uint8)
        self.canvas = skia.Surface(self.pixels, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
        self.mask = np.zeros((height, width, 4), np.uint8)
        self.mask_canvas = skia.Surface(self.mask, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
        self.mask_canvas.scale(1 / n, 1 / n)
        packed = mesh.masks.astype(np.int64)
        self.mask_colours = (255 << 24 | packed[:, 0] << 16 | packed[:, 1] << 8).tolist()
        self.held: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.glasses = None
        if portrait.glasses != "none":
            self.glasses = self._glasses(unit)

    def _pose(self) -> None:
        """Turns and places of torso, neck and head: x' = turn @ x + place."""
        mesh, performance = self.mesh, self.performance
        yaw, pitch, roll = performance.angles.astype(float).T
        relative = (0.8 * yaw).clip(-_TURNED, _TURNED)
        zero = np.zeros_like(yaw)
        body = yaw - relative
        turns = [_turns(body, zero, 0.2 * roll), _turns(body + relative / 2, pitch / 2, 0.6 * roll)]
        turns.append(_turns(yaw, pitch, roll))
        shift = performance.shift.astype(float) * [1, -1, 1] * mesh.half
        breath = np.outer(performance.breath.astype(float), [0, 1, 0]) * mesh.half
        rest, places = mesh.joints[:3], []
        at = np.broadcast_to(rest[0] + 0.3 * shift + 0.6 * breath, (len(yaw), 3))
        for joint in range(3):
            if joint:
                parent = turns[joint - 1]
                at = at + (parent @ (rest[joint] - rest[joint - 1])) + (0.35 * shift if joint else 0)
            places.append(at - turns[joint] @ rest[joint])
        # What turns on its own axis stays in the middle of the picture.
        self.turns, self.places = np.stack(turns, 1), np.stack(places, 1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres to (..., 3): x and y in pixels, and depth in metres, less is nearer."""
        moved = points - self.mesh.middle
        scale = self.scale * _DISTANCE * self.mesh.half / (_DISTANCE * self.mesh.half - moved[..., 2:])
        return np.concatenate([self.centre + scale * moved[..., :2] * [1, -1], -moved[..., 2:]], -1)

    def _moved(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Corners on the screen (F, N, 3) and their colours (F, N), of the frames from start on."""
        mesh, some = self.mesh, slice(start, start + _AT_ONCE)
        count = mesh.points.shape[0]
        offset = self.actions[some].astype(np.float32) @ mesh.actions.reshape(len(ACTIONS), -1)
        points = mesh.points + offset.reshape(-1, count, 3)
        self._look(points, start)
        affine = np.concatenate([self.turns[some], self.places[some, :, :, None]], -1).astype(np.float32)
        frames = len(affine)
        blended = np.matmul(mesh.weights, affine.reshape(frames, 3, 12)).reshape(frames, -1, 3, 4)
        points = np.matmul(blended[..., :3], points[..., None])[..., 0] + blended[..., 3]
        a, b, c = (points[:, mesh.triangles[:, i]] for i in range(3))
        face = np.cross(b - a, c - a)
        normals = np.zeros_like(points)
        normals[:, self.vertices] = np.add.reduceat(face[:, self.adjoining], self.starts, 1)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-12)
        screen = self.project(points)[:, mesh.source]
        return screen, self._light(normals[:, mesh.source])

    def _look(self, points: np.ndarray, start: int) -> None:
        """Turn the irises, in place."""
        mesh, gaze = self.mesh, self.performance.gaze[start : start + _AT_ONCE].astype(float)
        turn = _turns(22 * gaze[:, 0], -14 * gaze[:, 1], 0 * gaze[:, 0]).astype(np.float32)
        for side in (0, 1):
            some = slice(mesh.iris + 26 * side, mesh.iris + 26 * (side + 1))
            eye = mesh.joints[3 + side].astype(np.float32)
            points[:, some] = np.einsum("fij,fvj->fvi", turn, points[:, some] - eye) + eye

    def _light(self, normals: np.ndarray) -> np.ndarray:
        """Colours as skia takes them, (F, N)."""
        direction = np.array([0.75 * self.portrait.light, 0.5, 0.8])
        direction /= np.linalg.norm(direction)
        lit = (normals @ direction.astype(np.float32)).clip(-0.3, 1)
        rgb = self.mesh.colours * (0.6 + 0.5 * lit)[..., None]
        rgb += (26 * (lit.clip(0) ** 10))[..., None]
        red, green, blue = np.moveaxis(rgb.clip(0, 255).astype(np.int64), -1, 0)
        return 255 << 24 | red << 16 | green << 8 | blue

    def _frame(self, f: int) -> tuple[np.ndarray, np.ndarray]:
        start = f - f % _AT_ONCE
        if start not in self.held:
            self.held = {start: self._moved(start)}
        screen, colours = self.held[start]
        return screen[f - start], colours[f - start]

    def paint(self, canvas: skia.Canvas, f: int) -> None:
        """Draw a frame."""
        mesh, n = self.mesh, self.larger
        screen, colours = self._frame(f)
        a, b, c = (screen[mesh.corners[:, i]] for i in range(3))
        facing = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        seen = np.flatnonzero(facing | mesh.two_sided)
        depth = (a[seen, 2] + b[seen, 2] + c[seen, 2]) / 3 - mesh.bias[seen]
        order = seen[np.argsort(-depth, kind="stable")]
        self.pixels[...] = 0
        self.points = list(map(skia.Point, *(n * screen[:, :2].T).tolist()))
        self._triangles(self.canvas, colours.tolist(), order)
        self.facing = facing | mesh.two_sided
        drawn = self.pixels.astype(np.uint16)
        mixed = reduce(np.add, [drawn[i::n, j::n] for i in range(n) for j in range(n)])
        layer = ((mixed + n * n // 2) // (n * n)).astype(np.uint8)  # multiplied by how far a pixel is covered
        image = skia.Image.fromarray(np.ascontiguousarray(layer), skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType)
        canvas.drawImage(image, 0, 0)
        if self.glasses is not None:
            self.glasses.draw(canvas, f)

    def _triangles(self, canvas: skia.Canvas, colours: list[int], order: np.ndarray) -> None:
        vertices = skia.Vertices(
            skia.Vertices.kTriangles_VertexMode, self.points, None, colours,
            self.mesh.corners[order].reshape(-1).tolist(),
        )  # fmt: skip
        canvas.drawVertices(vertices, skia.Paint(AntiAlias=False, Dither=False), skia.BlendMode.kDst)

    def masks(self, f: int, face: np.ndarray, mouth: np.ndarray) -> None:
        """Fill uint8 (height, width) each, for the frame that was painted last."""
        if self.turns[f, 2, 2, 2] <= 0:
            return
        self.mask[...] = 0
        self._triangles(self.mask_canvas, self.mask_colours, np.flatnonzero(self.mesh.masked & self.facing))
        face[...], mouth[...] = self.mask[..., 0], self.mask[..., 1]

    def _glasses(self, unit: float) -> Glasses:
        mesh, half = self.mesh, self.mesh.half
        corner, middle = mesh.points[mesh.marks["left_outer"]], mesh.joints[3]
        eye = np.array([middle[0] / half, (mesh.middle[1] - middle[1]) / half])
        temple = mesh.points[mesh.marks["left_temple"]]

        def place(points: np.ndarray) -> np.ndarray:
            """(N, 3) in half heights of the face, y downward, from its middle: (F, N, 2) pixels."""
            rest = points * [half, -half, half] + [0, mesh.middle[1], 0]
            moved = np.einsum("fij,nj->fni", self.turns[:, 2], rest) + self.places[:, None, 2]
            return self.project(moved)[..., :2]

        wide = (corner[0] - middle[0]) / half
        front = (float(mesh.points[mesh.marks["left_outer"], 2]) + 0.022) / half
        return Glasses(
            self.portrait, (eye[0], eye[1]), wide, front, (temple[0] / half, temple[2] / half), place,
            np.radians(self.performance.angles[:, 0].astype(float)), unit,
        )  # fmt: skip
