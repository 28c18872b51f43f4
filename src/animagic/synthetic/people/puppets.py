"""Articulated drawings: flat limbs with an outline on the skeleton of a body. One code a pixel, as in `mesh`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import skia

from ...poses import LANDMARKS
from .body import Body, Posed
from .clothes import piece_regions
from .identity import Person, seed_of
from .skeleton import JOINTS, PARENTS
from .strokes import Group, aside, disc, half_plane, limb, polygon, trunk, unit
from .view import Camera, project

_SIDES = ("left", "right")
_JOINT = {name: index for index, name in enumerate(JOINTS)}
_MARK = {name: index for index, name in enumerate(LANDMARKS)}


def drawn_body(person: Person, body: Body) -> Body:
    """The body with the proportions of a drawing: a larger head, shorter or longer limbs."""
    rng = np.random.default_rng(seed_of(person))
    limbs, hand, head = rng.uniform(0.86, 1.08), rng.uniform(1.1, 1.35), rng.uniform(1.25, 1.7)
    joints = body.joints.copy()
    for j, (name, parent) in enumerate(zip(JOINTS, PARENTS, strict=True)):
        if parent >= 0:
            scale = limbs if name.endswith(("elbow", "wrist", "knee", "ankle")) else 1.0
            joints[j] = joints[parent] + (body.joints[j] - body.joints[parent]) * scale
    size = np.ones(len(JOINTS))
    size[_JOINT["head"]], size[_JOINT["left_wrist"]], size[_JOINT["right_wrist"]] = head, hand, hand
    moved_by = body.landmark_joints
    landmarks = joints[moved_by] + (body.landmarks - body.joints[moved_by]) * size[moved_by][:, None]
    shorter = (body.joints[_JOINT["left_hip"], 1] - body.joints[_JOINT["left_ankle"], 1]) * (1 - limbs)
    stature = body.stature - shorter + 0.16 * (head - 1)
    return replace(body, joints=joints, landmarks=landmarks, stature=stature, leg=body.leg - shorter)


def codes(
    person: Person, body: Body, pose: Posed, camera: Camera, height: int, width: int, larger: int
) -> Iterator[np.ndarray]:
    """Frame by frame, uint8 (height * larger, width * larger, 4); see `mesh.codes`."""
    rng = np.random.default_rng(seed_of(person) + 1)
    outline = float(rng.choice([0.0, 0.012, 0.018])) * camera.scale
    marks, joints = project(camera, pose.landmarks), project(camera, pose.places)
    turned = pose.turns @ np.swapaxes(body.align, -1, -2)
    pixels = np.zeros((height * larger, width * larger, 4), np.uint8)
    canvas = skia.Surface(pixels, skia.kRGBA_8888_ColorType, skia.kUnpremul_AlphaType).getCanvas()
    canvas.scale(larger, larger)
    for frame in range(len(marks)):
        pixels[...] = 0
        figure = _Figure(person, marks[frame], joints[frame], camera.turn[2] @ turned[frame], camera.scale)
        for group in sorted(figure.groups(), key=lambda group: -group.depth):
            group.draw(canvas, outline)
        yield pixels


@dataclass(frozen=True)
class _Figure:
    """One frame of a drawing.

    marks (33, 3), joints (J, 3): as in `project`; facing (J, 3): how far the left, the top and the front of what a
    joint moves look to the camera, -1 to 1; scale: pixels a metre.
    """

    person: Person
    marks: np.ndarray
    joints: np.ndarray
    facing: np.ndarray
    scale: float

    def groups(self) -> list[Group]:
        behind = Group(self.depth("chest") + (0.15 if self.front("head") else -0.12) * self.scale)
        torso, head = self.torso(), self.head(behind)
        neck = Group(max(torso.depth, head.depth) + 1)
        neck.add(limb(self.between("shoulder"), self.at("head"), *self.sizes(0.045, 0.045)), "skin", self.torso_part)
        return [behind, neck, torso, head, *map(self.arm, _SIDES), *map(self.leg, _SIDES)]

    def at(self, joint: str) -> np.ndarray:
        return self.joints[_JOINT[joint], :2]

    def mark(self, landmark: str) -> np.ndarray:
        return self.marks[_MARK[landmark], :2]

    def between(self, joint: str) -> np.ndarray:
        """The middle of the left and the right joint of a kind."""
        return (self.at(f"left_{joint}") + self.at(f"right_{joint}")) / 2

    def depth(self, *joints: str) -> float:
        return float(np.mean([self.joints[_JOINT[joint], 2] for joint in joints]))

    def front(self, joint: str) -> bool:
        return bool(self.facing[_JOINT[joint], 2] > 0)

    def sizes(self, *metres: float) -> list[float]:
        """Pixels of what is so wide on a person of middle build."""
        return [size * self.scale * self.bulk for size in metres]

    @cached_property
    def bulk(self) -> float:
        gender, _, muscle, weight = self.person.phenotype[:4]
        return (0.8 + 0.5 * weight + 0.15 * muscle) * (1.06 - 0.12 * gender)

    @cached_property
    def worn(self) -> dict[str, str]:
        return piece_regions(self.person)

    @property
    def torso_part(self) -> str:
        return "torso_front" if self.front("chest") else "torso_back"

    def torso(self) -> Group:
        group = Group(self.depth("chest", "pelvis") - 0.06 * self.scale)
        chest, hips = self.between("shoulder"), self.between("hip")
        waist = hips + 0.35 * (chest - hips)
        wide, low = self.across("shoulder", chest - hips, 0.08), self.across("hip", chest - hips, 0.1)
        group.add(trunk(waist, hips, low, 1.06 * low, *self.sizes(0.03)), "trousers", self.torso_part)
        if self.person.bottoms == "skirt":
            self.skirt(group, waist, low)
        hem = hips if self.worn["waist"] == "shirt" else waist
        group.add(trunk(chest, hem, 0.82 * wide, 1.03 * low, *self.sizes(0.035)), "shirt", self.torso_part)
        return group

    def across(self, joint: str, up: np.ndarray, least: float) -> np.ndarray:
        """From the middle of two joints to the outline on one side, at right angles to the trunk. least: metres."""
        out = aside(unit(up))
        wide = float(out @ (self.at(f"left_{joint}") - self.at(f"right_{joint}"))) / 2
        return out * float(np.hypot(wide, self.sizes(least)[0]))

    def skirt(self, group: Group, waist: np.ndarray, low: np.ndarray) -> None:
        """low: from the waist to its outline on one side."""
        middle = waist + 0.92 * (self.between("knee") - waist)
        for side in _SIDES:
            out = np.sign(low @ (self.at(f"{side}_hip") - self.between("hip"))) or 1.0
            hem = waist + 0.92 * (self.at(f"{side}_knee") - waist)
            # The hem reaches beyond the knee, less so if that is far out.
            reach = max(float((hem - middle) @ low) * out / float(low @ low), 0.0)
            corner = hem + out * max(1 - reach, 0.3) * 1.35 * low
            part = f"{side}_upper_leg_{'front' if self.front('pelvis') else 'back'}"
            group.add(polygon((waist, waist + out * low, corner, middle)), "trousers", part)

    def arm(self, side: str) -> Group:
        shoulder, elbow, wrist = (self.at(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist"))
        group = Group(self.depth(f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist", f"{side}_wrist"))
        outside = np.array([1.0 if side == "left" else -1.0, 0, -0.3])

        def part(joint: str, name: str) -> str:
            outer = self.facing[_JOINT[f"{side}_{joint}"]] @ outside > 0
            return f"{side}_{name}_{'outer' if outer else 'inner'}"

        upper, lower, hand = part("shoulder", "upper_arm"), part("elbow", "lower_arm"), f"{side}_hand"
        fingers = (self.mark(f"{side}_index") + self.mark(f"{side}_pinky")) / 2
        group.add(limb(wrist, fingers, *self.sizes(0.03, 0.042)), "skin", hand)
        group.add(limb(wrist, self.mark(f"{side}_thumb"), *self.sizes(0.02, 0.016)), "skin", hand)
        group.add(limb(elbow, wrist, *self.sizes(0.042, 0.032)), self.worn["forearm"], lower)
        group.add(limb(shoulder, elbow, *self.sizes(0.055, 0.042)), self.worn["lower_sleeve"], upper)
        if self.worn["upper_sleeve"] == "shirt":
            sleeve = shoulder + 0.55 * (elbow - shoulder)
            group.add(limb(shoulder, sleeve, *self.sizes(0.06, 0.056)), "shirt", upper)
        return group

    def leg(self, side: str) -> Group:
        hip, knee, ankle = (self.at(f"{side}_{name}") for name in ("hip", "knee", "ankle"))
        group = Group(self.depth(f"{side}_hip", f"{side}_knee", f"{side}_ankle"))
        thigh = f"{side}_upper_leg_{'front' if self.front(f'{side}_hip') else 'back'}"
        shin = f"{side}_lower_leg_{'front' if self.front(f'{side}_knee') else 'back'}"
        group.add(limb(knee, ankle, *self.sizes(0.06, 0.04)), self.worn["shin"], shin)
        group.add(limb(hip, knee, *self.sizes(0.088, 0.06)), self.worn["lower_thigh"], thigh)
        if self.worn["lower_thigh"] != "trousers":
            group.add(limb(hip, hip + 0.6 * (knee - hip), *self.sizes(0.092, 0.08)), "trousers", thigh)
        heel, toe = self.mark(f"{side}_heel"), self.mark(f"{side}_foot_index")
        group.add(limb(0.75 * heel + 0.25 * ankle, toe, *self.sizes(0.042, 0.036)), "shoes", f"{side}_foot")
        group.add(limb(heel, ankle, *self.sizes(0.04, 0.036)), "shoes", f"{side}_foot")
        return group

    def head(self, behind: Group) -> Group:
        """A ball between the ears, with face and hair; hair that falls over the back goes into the group `behind`."""
        group = Group(self.depth("head") - 0.08 * self.scale)
        ears = (self.marks[_MARK["left_ear"]] + self.marks[_MARK["right_ear"]]) / 2
        nose = self.marks[_MARK["nose"]] - ears
        radius = 1.02 * float(np.linalg.norm(nose))
        forward, facing = nose[:2] / radius, -float(nose[2]) / radius
        up = unit(ears[:2] - self.at("neck"))
        centre = ears[:2] + up * 0.3 * radius
        # The plane through the nose, seen from here, parts its left half from its right one.
        to_left = aside(up) * (1 if (self.mark("left_ear") - self.mark("right_ear")) @ aside(up) > 0 else -1)
        left = half_plane(centre + aside(up) * (forward @ aside(up)) * radius, to_left, 3 * radius)

        def add(end: np.ndarray, start_size: float, end_size: float, region: str = "hair", to: Group = group) -> None:
            """From the centre on; end, start_size, end_size: in radii."""
            to.add_halves(limb(centre, centre + end * radius, start_size * radius, end_size * radius), region, left)

        style = self.person.hair_style
        if style == "long":
            add(-2.1 * up - 0.3 * forward, 1.08, 0.85, to=behind)
        elif style == "bob":
            add(-1.1 * up - 0.3 * forward, 1.08, 0.85, to=behind)
        elif style == "bun":
            add(1.35 * up - 0.2 * forward, 0.3, 0.42)
        elif style == "ponytail":
            add(-0.6 * up - 1.1 * forward, 0.3, 0.42)
        elif style == "afro":
            add(0.35 * up, 1.2, 1.25)
        skull = limb(centre + up * 0.12 * radius, centre - up * 0.42 * radius, radius, 0.8 * radius)
        group.add_halves(skull, "skin", left)
        if style != "bald":
            hairline = centre + (up * (0.34 * facing - 0.1 * (1 - abs(facing))) - 0.25 * forward) * radius
            above = half_plane(hairline, up - 0.5 * forward, 3 * radius)
            if facing < -0.25:  # from behind down to the neck
                above = half_plane(centre - up * 0.75 * radius, up, 3 * radius)
            cap = limb(centre + up * 0.14 * radius, centre - up * 0.4 * radius, 1.05 * radius, 0.82 * radius)
            group.add_halves(cap, "hair", left, clips=((above, True),))
        if facing > 0.1:
            for side in _SIDES:
                if self.marks[_MARK[f"{side}_eye"], 2] < ears[2] - 0.3 * radius:
                    group.add(disc(self.mark(f"{side}_eye"), 0.13 * radius), "eyes", f"head_{side}")
            lips = limb(self.mark("mouth_left"), self.mark("mouth_right"), 0.05 * radius, 0.05 * radius)
            group.add_halves(lips, "skin", left, light=130)
        return group
