"""Captions of scenes: one plain sentence, or one of thousands of paraphrases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .scenes import CAMERAS, FLOORS, PHOTOS, PLAIN, Background, Motion, Scene, Thing

T = TypeVar("T")

# The first word of each row is the plain one.
COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet", "bright red"),
    "orange": ("orange", "tangerine", "bright orange"),
    "yellow": ("yellow", "golden", "lemon yellow", "bright yellow"),
    "green": ("green", "emerald", "bright green", "grass green"),
    "blue": ("blue", "azure", "royal blue", "deep blue"),
    "purple": ("purple", "violet", "deep purple"),
    "pink": ("pink", "rose pink", "bright pink"),
    "white": ("white", "snow white", "pure white"),
}
SHAPE_WORDS = {
    "ball": ("ball", "sphere", "round ball", "disc"),
    "square": ("square", "box", "block", "cube"),
    "triangle": ("triangle", "triangular shape", "pyramid"),
    "star": ("star", "five-pointed star", "star shape"),
    "heart": ("heart", "heart shape", "love heart"),
    "ring": ("ring", "hoop", "donut"),
    "boat": ("boat", "sailboat", "ship", "sailing boat"),
    "rocket": ("rocket", "spaceship", "space rocket"),
    "car": ("car", "automobile", "small car"),
}
MOTION_WORDS = {  # (what it does, what it is doing)
    "slides left": (("slides left", "sliding left"), ("slides to the left", "sliding to the left"),
                    ("moves left", "moving left"), ("glides leftward", "gliding leftward"),
                    ("goes from right to left", "going from right to left")),
    "slides right": (("slides right", "sliding right"), ("slides to the right", "sliding to the right"),
                     ("moves right", "moving right"), ("glides rightward", "gliding rightward"),
                     ("goes from left to right", "going from left to right")),
    "bounces": (("bounces", "bouncing"), ("bounces up and down", "bouncing up and down"),
                ("leaps up and down", "leaping up and down"), ("jumps", "jumping"), ("hops", "hopping")),
    "rolls left": (("rolls left", "rolling left"), ("rolls to the left", "rolling to the left"),
                   ("rolls leftward", "rolling leftward"),
                   ("rolls from right to left", "rolling from right to left")),
    "rolls right": (("rolls right", "rolling right"), ("rolls to the right", "rolling to the right"),
                    ("rolls rightward", "rolling rightward"),
                    ("rolls from left to right", "rolling from left to right")),
    "orbits": (("moves in a circle", "moving in a circle"), ("orbits the centre", "orbiting the centre"),
               ("circles around", "circling around"), ("flies in circles", "flying in circles")),
    "spins": (("spins", "spinning"), ("spins in place", "spinning in place"), ("rotates", "rotating"),
              ("turns around and around", "turning around and around"), ("twirls", "twirling")),
    "swings": (("swings", "swinging"), ("swings on a string", "swinging on a string"),
               ("swings back and forth", "swinging back and forth"),
               ("hangs and sways", "hanging and swaying"),
               ("swings like a pendulum", "swinging like a pendulum")),
    "rises": (("rises", "rising"), ("floats up", "floating up"), ("moves up", "moving up"),
              ("goes upward", "going upward"), ("flies up", "flying up")),
    "falls": (("falls", "falling"), ("falls down", "falling down"), ("moves down", "moving down"),
              ("sinks down", "sinking down"), ("drops down", "dropping down")),
    "grows": (("grows", "growing"), ("grows bigger", "growing bigger"), ("gets larger", "getting larger"),
              ("becomes bigger", "becoming bigger"), ("expands", "expanding")),
    "shrinks": (("shrinks", "shrinking"), ("gets smaller", "getting smaller"),
                ("becomes smaller", "becoming smaller"), ("grows smaller", "growing smaller")),
    "stays still": (("stays still", "staying still"), ("does not move", "not moving"),
                    ("stands still", "standing still"), ("rests", "resting"), ("is still", "keeping still")),
    "collides": (("collide", "colliding"), ("bump into each other", "bumping into each other"),
                 ("crash into each other", "crashing into each other"),
                 ("hit each other", "hitting each other")),
}  # fmt: skip
VIEW_WORDS = {
    "hills": ("in front of green hills", "in a green landscape", "under a blue sky", "on a meadow with hills behind"),
    "night": ("at night", "under the moon and stars", "under the night sky", "in the dark night"),
    "sunset": ("at sunset", "in the evening", "before the setting sun", "under a sunset sky"),
    "sea": ("by the sea", "on the sea", "at the ocean", "on the water"),
    "room": ("in a room", "inside a room", "in a room with a window", "indoors"),
}
PHOTO_WORDS = {
    "coffee": "a cup of coffee", "chelsea": "a cat", "astronaut": "an astronaut", "rocket": "a rocket launch",
    "hubble_deep_field": "galaxies", "brick": "a brick wall", "grass": "grass", "gravel": "gravel",
}  # fmt: skip
PLACE_WORDS = {
    "plain": ("on a {} background", "in front of a {} wall", "against a {} backdrop"),
    "floor": ("on a {} floor", "on the {} floor", "on {} ground", "over a {} floor"),
    "photo": ("on a photo of {}", "before a photo of {}", "over a picture of {}"),
}
CAMERA_WORDS = ("the camera pans {}", "the camera moves {}", "the view pans to the {}")
PLAIN_RATE, BACKGROUND_LEFT_OUT = 0.4, 0.15

EXAMPLES = (
    Scene(Background("floor", "green"), (Thing("ball", "red", 24, Motion("bounces", 32, 55)),)),
    Scene(Background("night"), (Thing("star", "blue", 24, Motion("spins", 32, 32)),)),
    Scene(Background("hills"), (Thing("rocket", "yellow", 24, Motion("rises", 32, 50)),)),
)
"""What one may ask for, to begin with."""

Chance = np.random.Generator | None
"""Chooses among wordings; None takes the plain one."""


def _choose(chance: Chance, wordings: Sequence[T]) -> T:
    return wordings[0 if chance is None else int(chance.integers(len(wordings)))]


def _coin(chance: Chance, rate: float) -> bool:
    """Whether to leave the plain order of words."""
    return chance is not None and chance.random() < rate


def _places(background: Background) -> list[str]:
    name = PHOTO_WORDS[background.colour] if background.kind == "photo" else background.colour
    return [words.format(name) for words in PLACE_WORDS.get(background.kind) or VIEW_WORDS[background.kind]]


def _where(background: Background, chance: Chance) -> str:
    return _choose(chance, _places(background))


def _name(thing: Thing, chance: Chance) -> str:
    words = f"{_choose(chance, COLOUR_WORDS[thing.colour])} {_choose(chance, SHAPE_WORDS[thing.shape])}"
    return ("an " if words[0] in "aeiou" else "a ") + words


def _sentence(scene: Scene, chance: Chance, leave_out: bool) -> str:
    """leave_out: say nothing of the background."""
    names = [_name(thing, chance) for thing in scene.things]
    phrases = [_choose(chance, MOTION_WORDS[thing.motion.name]) for thing in scene.things]
    progressive = _coin(chance, 0.4)
    if scene.things[0].motion.name == "collides":
        does, doing = phrases[0]
        core = f"{' and '.join(names)} {'are ' + doing if progressive else does}"
    elif len(names) == 1 and _coin(chance, 0.15):
        core = _choose(chance, ("a video of {} {}", "there is {} {}", "{} {}")).format(names[0], phrases[0][1])
    else:
        parts = [f"{name} {'is ' + doing if progressive else does}"
                 for name, (does, doing) in zip(names, phrases, strict=True)]  # fmt: skip
        core = _choose(chance, (" and ", " while ")).join(parts)
    if not leave_out:
        where = _where(scene.background, chance)
        core = f"{where}, {core}" if _coin(chance, 0.3) else f"{core} {where}"
    if scene.camera == "still":
        return core
    view = _choose(chance, CAMERA_WORDS).format(scene.camera.removeprefix("pan "))
    return f"{view}: {core}" if _coin(chance, 0.3) else f"{core}, {view}"


def canonical_caption(scene: Scene) -> str:
    """The plain sentence for a scene, for example "a red ball bounces on a green floor"."""
    return _sentence(scene, None, leave_out=False)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """The plain sentence (two times in five) or a paraphrase; 15 % of all say nothing of the background."""
    leave_out, plain = rng.random() < BACKGROUND_LEFT_OUT, rng.random() < PLAIN_RATE
    return _sentence(scene, None if plain else rng, leave_out)


def picture_caption(scene: Scene, rng: np.random.Generator) -> str:
    """The caption of one frame, without a word of motion, for example "a red ball on a green floor"."""
    leave_out, plain = rng.random() < BACKGROUND_LEFT_OUT, rng.random() < PLAIN_RATE
    chance = None if plain else rng
    core = _choose(chance, ("{}", "a picture of {}", "there is {}", "{}"))
    core = core.format(" and ".join(_name(thing, chance) for thing in scene.things))
    if leave_out:
        return core
    where = _where(scene.background, chance)
    return f"{where}, {core}" if _coin(chance, 0.3) else f"{core} {where}"


def motion_caption(scene: Scene, rng: np.random.Generator) -> str:
    """The caption of the motion alone, for example "sliding to the left"."""
    plain, progressive = rng.random() < PLAIN_RATE, rng.random() < 0.5
    chance = None if plain else rng
    names = dict.fromkeys(thing.motion.name for thing in scene.things)
    words = " and ".join(_choose(chance, MOTION_WORDS[name])[progressive] for name in names)
    return words if scene.camera == "still" else f"{words}, the camera {scene.camera.replace('pan', 'pans')}"


def vocabulary() -> dict[str, dict[str, list[str]]]:
    """The words of the captions: group -> canonical word -> its wordings, the plain one first.

    Groups: "colours", "things", "motions", "backgrounds", "camera", and "prompts": whole ones made of these words.
    """
    kinds = {"plain": PLAIN, "floor": FLOORS, "photo": PHOTOS}
    places = [_places(Background(kind, name)) for kind, names in kinds.items() for name in names]
    return {
        "colours": {name: list(words) for name, words in COLOUR_WORDS.items()},
        "things": {name: list(words) for name, words in SHAPE_WORDS.items()},
        "motions": {name: [does for does, _ in words] for name, words in MOTION_WORDS.items()},
        "backgrounds": {words[0].removeprefix("on a "): words for words in places}
        | {name: list(words) for name, words in VIEW_WORDS.items()},
        "camera": {move: [words.format(move.removeprefix("pan ")) for words in CAMERA_WORDS] for move in CAMERAS[1:]},
        "prompts": {
            canonical_caption(scene): [canonical_caption(scene), _sentence(scene, np.random.default_rng(1), False)]
            for scene in EXAMPLES
        },
    }
