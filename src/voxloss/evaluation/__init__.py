"""Scores per case, the one long table that holds them, and the statistics over it.

`metrics` scores one prediction against its reference, `scores` reads, writes and checks the table, `significance`
compares the losses by the paper's tests, and `verdict` judges them. Nothing here knows of images on disk or of
training. `voxloss.evaluation.judge` is the verdict on an array.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxloss.evaluation.verdict import Verdict, judge

__all__ = ["Verdict", "judge"]


def __getattr__(name: str) -> Any:
    """Import the verdict only when it is asked for, since it needs pandas and scipy."""
    if name in __all__:
        from voxloss.evaluation import verdict

        return getattr(verdict, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
