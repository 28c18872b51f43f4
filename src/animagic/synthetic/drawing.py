"""From a scene to pixels, with skia: flat colours, thin dark outlines, a soft shadow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numpy as np
import skia

from ..errors import InputError
from .photos import photo_background
from .scenes import COLOURS, FLOORS, GROUNDED, PLAIN, RGB, VIEWS, WALLS, Background, Scene, Thing

WHITE, BLACK, MOON, SUN = (255, 255, 255), (0, 0, 0), (226, 222, 190), (255, 226, 160)
HORIZON = 44.0  # where floors and waters begin, units
PIVOT_LENGTH = 38.0  # of the thread a swinging thing hangs on, units


class Pose(NamedTuple):
    """Where a thing is: centre (units), angle (radians, clockwise), horizontal and vertical scale."""

    x: float
    y: float
    angle: float
    stretch: tuple[float, float]


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Colour between a (share 0) and b (share 1)."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _paint(rgb: RGB, alpha: float = 1.0, stroke: float = 0.0, shader: skia.Shader | None = None) -> skia.Paint:
    paint = skia.Paint(AntiAlias=True, Color=skia.Color(*rgb, round(255 * alpha)), Shader=shader)
    if stroke:
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(stroke)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
    return paint


# ---- things ----------------------------------------------------------------------------------------------
# Every shape is drawn within a circle of about radius 1 around the origin.


# M, L, Q and C: move, line, quadratic and cubic curve to; Z: close.
_OUTLINES = {
    "triangle": "M 0 -1.05; L 1 .68; L -1 .68; Z",
    "heart": "M 0 .95; C -.55 .5 -1.05 .1 -1 -.38; C -.95 -.92 -.25 -1 0 -.45; C .25 -1 .95 -.92 1 -.38; "
    "C 1.05 .1 .55 .5 0 .95; Z",
    "boat": "M -1.05 .25; L 1.05 .25; L .65 .85; L -.65 .85; Z; M .02 -1; L .85 .12; L .02 .12; Z; "
    "M -.1 -.8; L -.1 .12; L -.75 .12; Z",
    "rocket": "M 0 -1.1; C .5 -.7 .5 -.1 .42 .35; L .85 .75; L .85 1; L .36 .8; L -.36 .8; L -.85 1; L -.85 .75; "
    "L -.42 .35; C -.5 -.1 -.5 -.7 0 -1.1; Z",
    "car": "M -1.1 .4; L -1.1 -.02; Q -1.1 -.12 -.95 -.14; L -.68 -.18; L -.42 -.68; L .35 -.68; L .68 -.14; "
    "Q 1.12 -.1 1.12 .12; L 1.12 .4; Z",
}


def _polygon(points: Iterable[tuple[float, float]]) -> skia.Path:
    return skia.Path.Polygon([skia.Point(x, y) for x, y in points], True)


@cache
def _outline(shape: str) -> skia.Path:
    if shape == "ball":
        return skia.Path.Circle(0, 0, 1)
    if shape == "square":
        return skia.Path.RRect(skia.Rect(-0.85, -0.85, 0.85, 0.85), 0.1, 0.1)
    if shape == "star":
        radii = [1.06, 0.52] * 5
        return _polygon((r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii))
    if shape == "ring":
        path = skia.Path.Circle(0, 0, 1)
        path.addCircle(0, 0, 0.5)
        path.setFillType(skia.PathFillType.kEvenOdd)
        return path
    path = skia.Path()
    draw = {"M": path.moveTo, "L": path.lineTo, "Q": path.quadTo, "C": path.cubicTo, "Z": path.close}
    for command, *numbers in map(str.split, _OUTLINES[shape].split(";")):
        draw[command](*map(float, numbers))
    return path


@cache
def _bottom(shape: str) -> float:
    """How far below its centre a thing of radius 1 reaches."""
    return 0.70 if shape == "car" else _outline(shape).computeTightBounds().bottom()


@cache
def _body(shape: str, colour: str) -> skia.Picture:
    """The thing at radius 1, as a recording."""
    rgb = COLOURS[colour]
    path, dark = _outline(shape), mix(rgb, (16, 18, 30), 0.68)
    pale = mix(rgb, WHITE, 0.72) if colour != "white" else (150, 160, 178)
    recorder = skia.PictureRecorder()
    canvas = recorder.beginRecording(skia.Rect(-1.5, -1.5, 1.5, 1.5))
    canvas.drawPath(path, _paint(rgb))
    if shape == "ball":  # a curved stripe shows that it turns
        with skia.AutoCanvasRestore(canvas):
            canvas.clipPath(path, True)
            canvas.drawCircle(-0.95, 0, 1.1, _paint(pale, stroke=0.26))
    elif shape == "ring":
        for start in (0, 180):
            canvas.drawArc(skia.Rect(-0.75, -0.75, 0.75, 0.75), start, 40, False, _paint(pale, stroke=0.3))
    elif shape == "rocket":
        canvas.drawCircle(0, -0.25, 0.2, _paint(pale))
    elif shape == "car":
        canvas.drawPath(_polygon([(-0.34, -0.52), (-0.06, -0.52), (-0.06, -0.18), (-0.52, -0.18)]), _paint(pale))
        canvas.drawPath(_polygon([(0.08, -0.52), (0.3, -0.52), (0.5, -0.18), (0.08, -0.18)]), _paint(pale))
    canvas.drawPath(path, _paint(dark, stroke=0.1))
    if shape == "car":
        for x, y in ((-0.58, 0.42), (0.6, 0.42)):
            canvas.drawCircle(x, y, 0.28, _paint((38, 40, 50)))
            canvas.drawCircle(x, y, 0.11, _paint((190, 194, 202)))
    return recorder.finishRecordingAsPicture()


@cache
def _shadow_paint() -> skia.Paint:
    colours = [skia.Color(10, 12, 30, alpha) for alpha in (110, 80, 0)]
    return _paint(BLACK, shader=skia.GradientShader.MakeRadial(skia.Point(0, 0), 1, colours, [0, 0.5, 1]))


def pose(thing: Thing, time: float, width: float = 64.0, height: float = 64.0, camera_x: float = 0.0) -> Pose:
    """Where the thing is at a time (frames at 24 a second) in a picture of width x height units.

    Whatever leaves the picture comes back on the other side. camera_x: how far the camera has gone, units.
    """
    motion, name = thing.motion, thing.motion.name
    x, y, angle, wide, tall = motion.x, motion.y, 0.0, 1.0, 1.0
    travelled, cycle = motion.rate * time, motion.phase + motion.rate * time
    if name.endswith("left"):
        x -= travelled
    elif name.endswith("right"):
        x += travelled
    elif name == "rises":
        y -= travelled
    elif name == "falls":
        y += travelled
    elif name == "bounces":
        u = cycle % 1.0
        height_above = 4 * u * (1 - u)
        y -= motion.reach * height_above
        press = max(0.0, 1 - height_above / 0.3)
        wide, tall = 1 + 0.14 * press, 1 - 0.2 * press
    elif name == "orbits":
        x += motion.reach * math.cos(2 * math.pi * cycle)
        y += motion.reach * math.sin(2 * math.pi * cycle)
    elif name == "swings":
        angle = -motion.reach * math.sin(2 * math.pi * cycle)
        x -= PIVOT_LENGTH * math.sin(angle)
        y += PIVOT_LENGTH * math.cos(angle)
    elif name == "spins":
        angle = 2 * math.pi * cycle
    elif name in ("grows", "shrinks"):
        share = min(1.0, max(0.0, travelled))
        wide = tall = 0.5 + 0.6 * (share if name == "grows" else 1 - share)
    elif name == "collides":
        x += motion.reach * abs(2 * (cycle % 1.0) - 1)
    if name.startswith("rolls"):
        angle = (x - motion.x) / (thing.size / 2)
    if name in GROUNDED:
        y -= _bottom(thing.shape) * tall * thing.size / 2
    margin = 0.62 * thing.size
    if camera_x or name.startswith(("slides", "rolls")):
        low = 32 - width / 2 - margin
        x = low + (x - camera_x - low) % (width + 2 * margin)
    if name in ("rises", "falls"):
        low = 32 - height / 2 - margin
        y = low + (y - low) % (height + 2 * margin)
    return Pose(x, y, angle, (wide, tall))


@contextmanager
def _placed(canvas: skia.Canvas, thing: Thing, at: Pose) -> Iterator[None]:
    """Inside, what is drawn within a circle of radius 1 lands where the thing is."""
    radius, (wide, tall), name = thing.size / 2, at.stretch, thing.motion.name
    mirrored = name == "slides left" or (name == "collides" and thing.motion.reach > 0)
    with skia.AutoCanvasRestore(canvas):
        canvas.translate(at.x, at.y)
        canvas.scale(-radius * wide if mirrored else radius * wide, radius * tall)
        canvas.rotate(math.degrees(at.angle))
        yield


def _draw_thing(canvas: skia.Canvas, thing: Thing, at: Pose) -> None:
    radius, name = thing.size / 2, thing.motion.name
    wide, tall = at.stretch
    if name == "swings":
        canvas.drawLine(thing.motion.x, thing.motion.y, at.x, at.y, _paint((60, 60, 72), stroke=0.8))
    if name in GROUNDED:  # the higher, the narrower the shadow
        above = thing.motion.y - at.y - _bottom(thing.shape) * tall * radius
        spread = radius * wide * (1.12 - 0.018 * above)
        with skia.AutoCanvasRestore(canvas):
            canvas.translate(at.x, thing.motion.y - 0.3)
            canvas.scale(spread, spread * 0.24)
            canvas.drawCircle(0, 0, 1, _shadow_paint())
    with _placed(canvas, thing, at):
        canvas.drawPicture(_body(thing.shape, thing.colour))
    if thing.shape == "ball":  # light stays where it is while the ball turns
        light = skia.Rect.MakeXYWH(at.x - 0.55 * radius, at.y - 0.68 * radius * tall, 0.42 * radius, 0.3 * radius)
        canvas.drawOval(light, _paint(WHITE, 0.75))


# ---- backgrounds -----------------------------------------------------------------------------------------


def _gradient(y0: float, y1: float, *colours: RGB) -> skia.Paint:
    """From the first colour at y0 down to the last at y1."""
    ends = [skia.Point(0, y0), skia.Point(0, y1)]
    return _paint(BLACK, shader=skia.GradientShader.MakeLinear(ends, [skia.Color(*rgb) for rgb in colours]))


def _waves(y: float, swell: float, cycles: int, phase: float, area: skia.Rect) -> skia.Path:
    """The part of the area below a sine that repeats after the area's width less 2 units."""
    xs = np.linspace(0, area.width(), 49)
    ys = y - swell * np.sin(2 * np.pi * (cycles * xs / (area.width() - 2) + phase))
    crest = zip((area.left() + xs).tolist(), ys.tolist(), strict=True)
    return _polygon([*crest, (area.right(), area.bottom()), (area.left(), area.bottom())])


def _draw_background(canvas: skia.Canvas, background: Background, width: float, height: float, period: float) -> None:
    """Paint one period of an endless background, from the left edge of a width x height picture on."""
    left, top, bottom = 32 - width / 2, 32 - height / 2, 32 + height / 2
    # A unit more at both sides, so that no seam shows between periods.
    whole = skia.Rect(left - 1, top, left + period + 1, bottom)
    below = skia.Rect(whole.left(), HORIZON, whole.right(), bottom)
    uniform = np.random.default_rng(background.seed).uniform
    kind = background.kind
    if kind == "plain":
        rgb = PLAIN[background.colour]
        canvas.drawRect(whole, _gradient(top, bottom, mix(rgb, WHITE, 0.1), mix(rgb, BLACK, 0.06)))
    elif kind == "floor":
        rgb = FLOORS[background.colour]
        canvas.drawRect(whole, _paint(WALLS[background.colour]))
        canvas.drawRect(below, _gradient(HORIZON, bottom, mix(rgb, BLACK, 0.08), mix(rgb, WHITE, 0.08)))
        edge = _paint(mix(rgb, BLACK, 0.4), stroke=0.8)
        canvas.drawLine(below.left(), HORIZON, below.right(), HORIZON, edge)
    elif kind == "hills":
        sky, haze, far, near = VIEWS[kind]
        canvas.drawRect(whole, _gradient(top, HORIZON, sky, haze))
        for x, y, r in ((14, 12, 4), (19, 10, 5), (24, 12, 4)):
            cloud = skia.Rect.MakeXYWH(x - 2 * r + uniform(0, 30), y - r, 4 * r, 2 * r)
            canvas.drawOval(cloud, _paint((250, 252, 255), 0.75))
        canvas.drawPath(_waves(38, 4, 2, uniform(), whole), _paint(far))
        canvas.drawPath(_waves(46, 1.5, 1, uniform(), whole), _paint(near))
    elif kind == "night":
        sky, haze, land = VIEWS[kind]
        canvas.drawRect(whole, _gradient(top, HORIZON, sky, haze))
        for _ in range(int(period / 6)):
            star = uniform(left, left + period), uniform(2, 36), uniform(0.4, 0.7)
            canvas.drawCircle(*star, _paint(MOON, 0.75))
        moon = 50.0 if uniform() < 0.5 else 13.0
        canvas.drawCircle(moon, 12, 6, _paint(MOON))
        canvas.drawCircle(moon + 2.6, 10.6, 5, _paint(mix(sky, haze, 0.25)))
        canvas.drawPath(_waves(46, 2, 2, uniform(), whole), _paint(land))
    elif kind == "sunset":
        zenith, haze, glow, land = VIEWS[kind]
        canvas.drawRect(whole, _gradient(top, HORIZON, zenith, haze, glow))
        canvas.drawCircle(uniform(18, 46), HORIZON - 2, 8, _paint(SUN))
        canvas.drawPath(_waves(45, 1.5, 2, uniform(), whole), _paint(land))
    elif kind == "sea":
        sky, haze, far, near = VIEWS[kind]
        canvas.drawRect(whole, _gradient(top, HORIZON - 4, sky, haze))
        water = skia.Rect(whole.left(), HORIZON - 4, whole.right(), bottom)
        canvas.drawRect(water, _gradient(HORIZON - 4, bottom, far, near))
        for y in (46, 54, 61):
            for x in np.arange(left + uniform(0, 12), left + period - 8, 20).tolist():
                canvas.drawLine(x, y, x + 6, y, _paint((214, 232, 238), 0.5, stroke=0.8))
    elif kind == "room":
        wall, floor, glass = VIEWS[kind]
        canvas.drawRect(whole, _paint(wall))
        x = 6 if uniform() < 0.5 else 40
        frame = _paint((250, 246, 238), stroke=1.8)
        for paint in (_paint(glass), frame):
            canvas.drawRect(skia.Rect(x, 8, x + 18, 28), paint)
        canvas.drawLine(x + 9, 8, x + 9, 28, frame)
        canvas.drawLine(x, 18, x + 18, 18, frame)
        canvas.drawRect(below, _paint(floor))
        canvas.drawLine(below.left(), HORIZON - 0.8, below.right(), HORIZON - 0.8, _paint((246, 240, 230), stroke=1.6))
    else:
        raise InputError(f"There is no background {kind!r}; choose plain, floor, photo, {', '.join(VIEWS)}.")


def _photo(background: Background, height: int, width: int) -> np.ndarray:
    """A crop, muted so that saturated things stand out, uint8 (height, width, 3)."""
    crop = photo_background(np.random.default_rng(background.seed), height, width, background.colour)
    grey = crop.mean(-1, keepdims=True)
    return np.rint(0.225 * (crop + grey) + 0.55 * 140).astype(np.uint8)


def _surface(height: int, width: int) -> tuple[np.ndarray, skia.Canvas, float, float]:
    """Black pixels (height, width, 4), a canvas in units that draws on them, and their width and height in units."""
    scale = min(height, width) / 64
    pixels = np.zeros((height, width, 4), np.uint8)
    canvas = skia.Surface(pixels, skia.kRGBA_8888_ColorType, skia.kPremul_AlphaType).getCanvas()
    canvas.translate(width / 2, height / 2)
    canvas.scale(scale, scale)
    canvas.translate(-32, -32)
    return pixels, canvas, width / scale, height / scale


def _pan(scene: Scene) -> float:
    return {"still": 0.0, "pan left": -scene.pan_rate, "pan right": scene.pan_rate}[scene.camera]


def silhouettes(scene: Scene, times: Sequence[float], height: int, width: int) -> np.ndarray:
    """Where the things are at these times (frames at 24 a second): uint8 (times, height, width), 255 inside."""
    pixels, canvas, wide, high = _surface(height, width)
    masks = np.empty((len(times), height, width), np.uint8)
    for mask, time in zip(masks, times, strict=True):
        pixels[...] = 0
        for thing in scene.things:
            with _placed(canvas, thing, pose(thing, time, wide, high, _pan(scene) * time)):
                canvas.drawPath(_outline(thing.shape), _paint(WHITE))
        mask[...] = pixels[..., 0]
    return masks


def render(
    scene: Scene, num_frames: int, height: int = 64, width: int = 64, fps: float = 24, start: int = 0
) -> np.ndarray:
    """Draw frames start ... start + num_frames - 1 of the scene's endless timeline.

    Returns uint8 (num_frames, height, width, 3). The same arguments give the same pixels.
    """
    if num_frames < 1 or height < 8 or width < 8 or fps <= 0:
        raise InputError(
            f"{num_frames} frames of {height} x {width} pixels at {fps} a second were asked for; "
            "at least 1 frame, 8 x 8 pixels and a positive rate are needed."
        )
    # One small surface for all frames: the same time gives the same pixels, whatever `start` is.
    pixels, canvas, wide, high = _surface(height, width)
    period, pan = wide + 32, _pan(scene)
    picture = None
    if scene.background.kind == "photo":
        pixels[..., :3], pixels[..., 3] = _photo(scene.background, height, width), 255
    elif pan:
        recorder = skia.PictureRecorder()
        endless = recorder.beginRecording(skia.Rect(-1e4, -1e4, 1e4, 1e4))
        _draw_background(endless, scene.background, wide, high, period)
        picture = recorder.finishRecordingAsPicture()
    else:
        _draw_background(canvas, scene.background, wide, high, period)
    backdrop = pixels.copy()

    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        time = (start + index) * 24 / fps
        if picture is None:
            pixels[...] = backdrop
        else:
            left = 32 - wide / 2
            for shift in (0.0, period):
                with skia.AutoCanvasRestore(canvas):
                    canvas.translate(shift - (pan * time) % period, 0)
                    canvas.clipRect(skia.Rect(left, 32 - high, left + period, 32 + high), doAntiAlias=False)
                    canvas.drawPicture(picture)
        for thing in scene.things:
            _draw_thing(canvas, thing, pose(thing, time, wide, high, pan * time))
        frames[index] = pixels[..., :3]
    return frames
