"""How well a model does what it is asked: judges that look at frames, metrics, suites of held-out cases, and reports.

    result = evaluate(animagic.load("magi1-tiny"), "text", count=20)
    print(table(result.report))

Needs scikit-image and skia-python: pip install 'animagic[eval]'.
"""

from .cameras import camera_motion, camera_move
from .metrics import Limit, angle, psnr, rate, seams, summarise, wilson
from .reports import sheet, table
from .running import Result, evaluate, find_suite
from .scenes import Verdict, direction, judge
from .styles import flicker, style_of
from .suites import SUITES, Case, Suite, Take, Variant, make_cases

__all__ = [
    "SUITES",
    "Case",
    "Limit",
    "Result",
    "Suite",
    "Take",
    "Variant",
    "Verdict",
    "angle",
    "camera_motion",
    "camera_move",
    "direction",
    "evaluate",
    "find_suite",
    "flicker",
    "judge",
    "make_cases",
    "psnr",
    "rate",
    "seams",
    "sheet",
    "style_of",
    "summarise",
    "table",
    "wilson",
]
