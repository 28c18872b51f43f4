"""Articulated drawings: flat limbs with an outline on the skeleton of a body. One code a pixel, as in `mesh`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import skia

from ...poses import LANDMARKS, PARTS
from .body import Body, Posed
from .clothes import piece_regions
from .identity import REGIONS, Person, seed_of
from .skeleton import JOINTS, PARENTS
from .view import Camera, project

_LINE, _PLAIN = 84, 200  # light of an outline and of a surface
_J = {name: index for index, name in enumerate(JOINTS)}
_L = {name: index for index, name in enumerate(LANDMARKS)}
_P = {name: index for index, name in enumerate(PARTS)}


def drawn_body(person: Person, body: Body) -> Body:
    """The body with the proportions of a drawing: a larger head, shorter or longer limbs."""
    rng = np.random.default_rng(seed_of(person))
    limb, hand, head = rng.uniform(0.86, 1.08), rng.uniform(1.1, 1.35), rng.uniform(1.25, 1.7)
    scale = np.ones(len(JOINTS))
    for name, j in _J.items():
        if name.endswith(("elbow", "wrist", "knee", "ankle")):
            scale[j] = limb
    joints = body.joints.copy()
    for j, parent in enumerate(PARENTS):
        if parent >= 0:
            joints[j] = joints[parent] + (body.joints[j] - body.joints[parent]) * scale[j]
    size = np.ones(len(JOINTS))
    size[_J["head"]], size[_J["left_wrist"]], size[_J["right_wrist"]] = head, hand, hand
    moved_by = body.landmark_joints
    offsets = (body.landmarks - body.joints[moved_by]) * size[moved_by][:, None]
    landmarks = joints[moved_by] + offsets
    shorter = (body.joints[_J["left_hip"], 1] - body.joints[_J["left_ankle"], 1]) * (1 - limb)
    return replace(
        body,
        joints=joints,
        landmarks=landmarks,
        stature=body.stature - shorter + 0.16 * (head - 1),
        leg=body.leg - shorter,
    )


# A path, its region, its part, its light, and the paths that it is clipped to (True) or away from (False).
_Clip = tuple[skia.Path, bool]
_Shape = tuple[skia.Path, int, int, int, tuple[_Clip, ...]]


@dataclass
class _Group:
    """Shapes that are outlined together; depth in pixels, the nearest group is drawn last."""

    depth: float
    shapes: list[_Shape] = field(default_factory=list)

    def add(self, path: skia.Path, region: str, part: str, light: int = _PLAIN, clips: tuple[_Clip, ...] = ()) -> None:
        self.shapes.append((path, REGIONS.index(region), _P[part], light, clips))


def _limb(a: np.ndarray, b: np.ndarray, start: float, end: float) -> skia.Path:
    """A tapered limb between two points, with round ends of these radii."""
    path = skia.Path()
    along = b - a
    length = float(np.hypot(*along))
    if length > 1e-3:
        aside = np.array([-along[1], along[0]]) / length
        corners = (a + aside * start, b + aside * end, b - aside * end, a - aside * start)
        path.addPoly([skia.Point(*map(float, corner)) for corner in corners], True)
    path.addCircle(*map(float, a), start, skia.PathDirection.kCCW)
    path.addCircle(*map(float, b), end, skia.PathDirection.kCCW)
    path.setFillType(skia.PathFillType.kWinding)
    return path


def _rounded(a: np.ndarray, b: np.ndarray, wide_a: np.ndarray, wide_b: np.ndarray, radius: float) -> skia.Path:
    """A trunk from a to b, as wide to both sides as these vectors, with round corners."""
    path = skia.Path()
    corners = (a + wide_a, b + wide_b, b - wide_b, a - wide_a)
    middle = (a + b) / 2
    inner = [middle + (corner - middle) * max(0.0, 1 - radius / max(float(np.hypot(*(corner - middle))), 1e-3))
             for corner in corners]  # fmt: skip
    path.addPoly([skia.Point(*map(float, corner)) for corner in inner], True)
    paint = skia.Paint(Style=skia.Paint.kStrokeAndFill_Style, StrokeWidth=2 * radius,
                       StrokeJoin=skia.Paint.kRound_Join)  # fmt: skip
    outer = skia.Path()
    paint.getFillPath(path, outer)
    return outer


def codes(
    person: Person, body: Body, pose: Posed, camera: Camera, height: int, width: int, larger: int
) -> Iterator[np.ndarray]:
    """Frame by frame, uint8 (height * larger, width * larger, 4); see `mesh.codes`."""
    rng = np.random.default_rng(seed_of(person) + 1)
    outline = float(rng.choice([0.0, 0.012, 0.018]))  # metres
    points = project(camera, pose.landmarks)
    joints = project(camera, pose.places)
    toward = camera.turn[2]  # the direction to the camera
    pixels = np.zeros((height * larger, width * larger, 4), np.uint8)
    canvas = skia.Surface(pixels, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
    canvas.scale(larger, larger)
    for frame in range(len(points)):
        pixels[...] = 0
        figure = _Figure(person, body, points[frame], joints[frame], pose.turns[frame], toward, camera.scale)
        for group in sorted(figure.groups(), key=lambda group: -group.depth):
            _draw(canvas, group, outline * camera.scale)
        yield pixels


def _draw(canvas: skia.Canvas, group: _Group, outline: float) -> None:
    for line in (True, False) if outline else (False,):
        for path, region, part, light, clips in group.shapes:
            paint = skia.Paint(Color=skia.Color(32 * region + 16, 8 * part + 4, _LINE if line else light))
            if line:
                paint.setStyle(skia.Paint.kStrokeAndFill_Style)
                paint.setStrokeWidth(2 * outline)
                paint.setStrokeJoin(skia.Paint.kRound_Join)
            with skia.AutoCanvasRestore(canvas, bool(clips)):
                for clip, inside in clips:
                    canvas.clipPath(clip, skia.ClipOp.kIntersect if inside else skia.ClipOp.kDifference)
                canvas.drawPath(path, paint)


class _Figure:
    """One frame of a puppet: where everything is, in pixels."""

    def __init__(self, person, body, points, joints, turns, toward, scale):
        self.person, self.worn = person, piece_regions(person)
        self.points, self.joints, self.scale = points, joints, scale
        self.at = lambda name: joints[_J[name], :2]
        self.mark = lambda name: points[_L[name], :2]
        self.depth = lambda *names: float(np.mean([joints[_J[name], 2] for name in names]))
        # Whether the front of what a joint moves is seen.
        self.front = lambda joint: float((turns[_J[joint]] @ body.align[_J[joint]].T @ [0, 0, 1]) @ toward)
        self.turned = lambda joint, vector: (turns[_J[joint]] @ body.align[_J[joint]].T @ vector) @ toward
        gender, _, muscle, weight = person.phenotype[:4]
        self.bulk = (0.8 + 0.5 * weight + 0.15 * muscle) * (1.06 - 0.12 * gender)

    def groups(self) -> list[_Group]:
        behind = _Group(self.depth("chest") + (0.15 if self.front("head") > 0 else -0.12) * self.scale)
        torso, head = self.torso(), self.head(behind)
        neck = _Group(max(torso.depth, head.depth) + 1)
        chest = (self.at("left_shoulder") + self.at("right_shoulder")) / 2
        part = "torso_front" if self.front("chest") > 0 else "torso_back"
        neck.add(_limb(chest, self.at("head"), self.size(0.045), self.size(0.045)), "skin", part)
        return [behind, neck, torso, head, *map(self.arm, ("left", "right")), *map(self.leg, ("left", "right"))]

    def size(self, metres: float) -> float:
        return metres * self.scale * self.bulk

    def torso(self) -> _Group:
        group = _Group(self.depth("chest", "pelvis") - 0.06 * self.scale)
        part = "torso_front" if self.front("chest") > 0 else "torso_back"
        chest = (self.at("left_shoulder") + self.at("right_shoulder")) / 2
        hips = (self.at("left_hip") + self.at("right_hip")) / 2
        waist = hips + 0.35 * (chest - hips)
        across, low = self.across("shoulder", chest - hips, 0.08), self.across("hip", chest - hips, 0.1)
        group.add(_rounded(waist, hips, low, 1.06 * low, self.size(0.03)), "trousers", part)
        if self.person.bottoms == "skirt":
            self.skirt(group, waist, low)
        hem = hips if self.worn["waist"] == "shirt" else waist
        group.add(_rounded(chest, hem, 0.82 * across, 1.03 * low, self.size(0.035)), "shirt", part)
        return group

    def across(self, joint: str, up: np.ndarray, least: float) -> np.ndarray:
        """From the middle of two joints to the body's outline on one side: at right angles to its axis."""
        aside = np.array([-up[1], up[0]]) / max(float(np.hypot(*up)), 1e-3)
        wide = float(aside @ (self.at(f"left_{joint}") - self.at(f"right_{joint}"))) / 2
        return aside * float(np.hypot(wide, self.size(least)))

    def skirt(self, group: _Group, waist: np.ndarray, low: np.ndarray) -> None:
        front = "front" if self.front("pelvis") > 0 else "back"
        knees = [self.at("left_knee"), self.at("right_knee")]
        wide = 1.35 * low
        middle = waist + 0.92 * ((knees[0] + knees[1]) / 2 - waist)
        for side, knee in zip(("left", "right"), knees, strict=True):
            out = np.sign(low @ (self.at(f"{side}_hip") - (self.at("left_hip") + self.at("right_hip")) / 2)) or 1.0
            hem = waist + 0.92 * (knee - waist)
            # The hem reaches as far as the knee does, and never in beyond the middle.
            reach = max(float((hem - middle) @ low) * out / float(low @ low), 0.0)
            corners = (waist, waist + out * low, hem + out * max(1 - reach, 0.3) * wide, middle)
            path = skia.Path()
            path.addPoly([skia.Point(*map(float, corner)) for corner in corners], True)
            group.add(path, "trousers", f"{side}_upper_leg_{front}")

    def arm(self, side: str) -> _Group:
        shoulder, elbow, wrist = (self.at(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist"))
        group = _Group(self.depth(f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist", f"{side}_wrist"))
        out = 1.0 if side == "left" else -1.0

        def part(joint: str, name: str) -> str:
            outer = self.turned(f"{side}_{joint}", np.array([out, 0, -0.3])) > 0
            return f"{side}_{name}_{'outer' if outer else 'inner'}"

        upper, lower = part("shoulder", "upper_arm"), part("elbow", "lower_arm")
        fingers = (self.mark(f"{side}_index") + self.mark(f"{side}_pinky")) / 2
        group.add(_limb(wrist, fingers, self.size(0.03), self.size(0.042)), "skin", f"{side}_hand")
        thumb = self.mark(f"{side}_thumb")
        group.add(_limb(wrist, thumb, self.size(0.02), self.size(0.016)), "skin", f"{side}_hand")
        group.add(_limb(elbow, wrist, self.size(0.042), self.size(0.032)), self.worn["forearm"], lower)
        group.add(_limb(shoulder, elbow, self.size(0.055), self.size(0.042)), self.worn["lower_sleeve"], upper)
        sleeve = shoulder + 0.55 * (elbow - shoulder)
        if self.worn["upper_sleeve"] == "shirt":
            group.add(_limb(shoulder, sleeve, self.size(0.06), self.size(0.056)), "shirt", upper)
        return group

    def leg(self, side: str) -> _Group:
        hip, knee, ankle = (self.at(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
        group = _Group(self.depth(f"{side}_knee", f"{side}_ankle", f"{side}_hip"))

        def part(joint: str, name: str) -> str:
            return f"{side}_{name}_{'front' if self.front(f'{side}_{joint}') > 0 else 'back'}"

        thigh, shin = part("hip", "upper_leg"), part("knee", "lower_leg")
        group.add(_limb(knee, ankle, self.size(0.06), self.size(0.04)), self.worn["shin"], shin)
        group.add(_limb(hip, knee, self.size(0.088), self.size(0.06)), self.worn["lower_thigh"], thigh)
        cut = hip + 0.6 * (knee - hip)
        if self.worn["lower_thigh"] != "trousers":
            group.add(_limb(hip, cut, self.size(0.092), self.size(0.08)), "trousers", thigh)
        heel, toe = self.mark(f"{side}_heel"), self.mark(f"{side}_foot_index")
        group.add(_limb(0.75 * heel + 0.25 * ankle, toe, self.size(0.042), self.size(0.036)), "shoes", f"{side}_foot")
        group.add(_limb(heel, ankle, self.size(0.04), self.size(0.036)), "shoes", f"{side}_foot")
        return group

    def head(self, behind: _Group) -> _Group:
        """The head; hair that falls over the back goes into the group `behind`."""
        group = _Group(self.depth("head") - 0.08 * self.scale)
        left, right, nose = (self.mark(name) for name in ("left_ear", "right_ear", "nose"))
        middle = (left + right) / 2
        depths = self.points[:, 2]
        ahead = (depths[_L["left_ear"]] + depths[_L["right_ear"]]) / 2 - depths[_L["nose"]]
        forward = nose - middle
        reach = float(np.sqrt(forward @ forward + ahead**2))  # from the ears to the nose
        radius = 1.02 * reach
        up = middle - self.at("neck")
        up = up / max(float(np.hypot(*up)), 1e-3)
        centre = middle + up * 0.3 * radius
        style, facing = self.person.hair_style, ahead / max(reach, 1e-3)
        ball = _limb(centre + up * 0.12 * radius, centre - up * 0.42 * radius, radius, 0.8 * radius)
        # Which half of the ball is the person's left: the plane through the nose, seen from here.
        aside = np.array([-up[1], up[0]])
        shift = float(forward @ aside) / max(reach, 1e-3)
        left_side = 1.0 if float((left - right) @ aside) > 0 else -1.0
        edge = centre + aside * shift * radius
        half = _half_plane(edge, aside * left_side, up, 3 * radius)
        if style in ("long", "bob"):
            length = {"long": 2.1, "bob": 1.1}[style]
            back = _limb(centre, centre - up * length * radius - forward * 0.3, 1.08 * radius, 0.85 * radius)
            self.halves(behind, back, half, "hair")
        if style in ("bun", "ponytail"):
            drop = 1.35 if style == "bun" else -0.6
            end = centre + up * drop * radius - forward * (0.2 if style == "bun" else 1.1)
            self.halves(group, _limb(centre, end, 0.3 * radius, 0.42 * radius), half, "hair")
        if style == "afro":
            self.halves(group, _limb(centre, centre + up * 0.35 * radius, 1.2 * radius, 1.25 * radius), half, "hair")
        self.halves(group, ball, half, "skin")
        if style != "bald":
            # The hair begins higher on the side of the face.
            brow = centre + up * radius * (0.34 * facing - 0.1 * (1 - abs(facing))) - forward * 0.25
            cap = _half_plane(brow, up, aside, 3 * radius, up - 0.5 * forward / max(reach, 1e-3))
            large = _limb(centre + up * 0.14 * radius, centre - up * 0.4 * radius, 1.05 * radius, 0.82 * radius)
            if facing < -0.25:
                cap = _half_plane(centre - up * 0.75 * radius, up, aside, 3 * radius)
            self.halves(group, large, half, "hair", ((cap, True),))
        if facing > 0.1:
            for side in ("left", "right"):
                if depths[_L[f"{side}_eye"]] < depths[_L["left_ear"]] / 2 + depths[_L["right_ear"]] / 2 - 0.3 * reach:
                    eye = skia.Path()
                    eye.addCircle(*map(float, self.mark(f"{side}_eye")), 0.13 * radius)
                    group.add(eye, "eyes", f"head_{side}")
            mouth = _limb(self.mark("mouth_left"), self.mark("mouth_right"), 0.05 * radius, 0.05 * radius)
            self.halves(group, mouth, half, "skin", light=130)
        return group

    def halves(
        self,
        group: _Group,
        path: skia.Path,
        half: skia.Path,
        region: str,
        clips: tuple[_Clip, ...] = (),
        light: int = _PLAIN,
    ) -> None:
        """Add a path as what belongs to the left and to the right of the head."""
        group.add(path, region, "head_left", light, clips=(*clips, (half, True)))
        group.add(path, region, "head_right", light, clips=(*clips, (half, False)))


def _half_plane(edge, toward, along, size, tilted=None) -> skia.Path:
    """A square that begins at a point, and lies from there in a direction."""
    if tilted is not None:
        toward = tilted / np.hypot(*tilted)
        along = np.array([-toward[1], toward[0]])
    corners = (edge - along * size, edge + along * size, edge + along * size + toward * 2 * size,
               edge - along * size + toward * 2 * size)  # fmt: skip
    path = skia.Path()
    path.addPoly([skia.Point(*map(float, corner)) for corner in corners], True)
    return path
