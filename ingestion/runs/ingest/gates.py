"""Gates: the last judgement of a run before anything leaves our lake."""

from dataclasses import dataclass
from enum import Enum

from ingestion.models import Run


class Gate(Enum):
    """The decisions there are."""

    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The decision, and why in one sentence."""

    gate: Gate
    reason: str


def judge(run: Run) -> Judgement:
    """Return whether the run may be published; its contract has judged every row already."""
    return Judgement(Gate.PUBLISH, f"Run {run.pk} may be published.")
