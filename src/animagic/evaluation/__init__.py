"""Evaluation of models: judges that look at frames, metrics, suites of held-out cases, and reports.

    result = evaluate(animagic.load("magi1-tiny"), "text", count=20)
    print(table(result.report))

Needs scikit-image and skia-python: pip install 'animagic[eval]'.
"""

from .reports import sheet, table
from .running import Result, evaluate
from .scenes import Verdict, judge
from .suites import SUITES, Case, Suite, Take, Variant

__all__ = ["SUITES", "Case", "Result", "Suite", "Take", "Variant", "Verdict", "evaluate", "judge", "sheet", "table"]
