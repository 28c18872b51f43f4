"""Evaluation of models: judges that look at frames, metrics, suites of held-out cases, and reports.

    result = evaluate(animagic.load("magi1-tiny"), "text", count=20)
    print(table(result.report))
    print(pairs_table(compare_videos("generated", "truth").report))

Needs scikit-image and skia-python: pip install 'animagic[eval]'.
"""

from .frechet import frechet_distance
from .pairs import compare_videos, pairs_sheet, pairs_table
from .reports import page, sheet, speech_plot, table
from .running import Result, evaluate
from .scenes import Verdict, judge
from .suites import SUITES, Case, Suite, Take, Variant
from .videos import judge_video, sync_scores, video_table, with_scores

__all__ = [
    "SUITES",
    "Case",
    "Result",
    "Suite",
    "Take",
    "Variant",
    "Verdict",
    "compare_videos",
    "evaluate",
    "frechet_distance",
    "judge",
    "judge_video",
    "page",
    "pairs_sheet",
    "pairs_table",
    "sheet",
    "speech_plot",
    "sync_scores",
    "table",
    "video_table",
    "with_scores",
]
