"""Gates: the last judgement of a run before anything leaves our lake.

Each gate looks at the run and its control totals and says publish, hold or fail. One that fails decides; else one that
holds; a run that a person approved, or asked to publish again, passes all of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ingestion.models import Pipeline, Run
from ingestion.ports.messages import sentence


@dataclass(frozen=True, slots=True)
class Publish:
    """Verdict that the run goes on, and why in one sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Verdict that a person decides: the code of the first reason, and a sentence for each."""

    code: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fail:
    """Verdict that the run ends as failed, with the code that says why."""

    code: str
    message: str


Verdict = Publish | Hold | Fail
Totals = Mapping[str, int]


def judge(run: Run, totals: Totals) -> Verdict:
    """Return whether the run may be published; its contract has judged every row already."""
    passed = Publish(f"Run {run.pk} may be published.")
    if run.approved_at is not None:
        return Publish(f"Run {run.pk} is published because a person approved it.")
    if run.republishes_id is not None or run.published_at is not None:
        return passed
    verdicts = [gate(run, totals) for gate in GATES]
    for verdict in verdicts:
        if isinstance(verdict, Fail):
            return verdict
    held = [verdict for verdict in verdicts if isinstance(verdict, Hold)]
    if held:
        return Hold(held[0].code, tuple(reason for verdict in held for reason in verdict.reasons))
    return passed


def judge_emptiness(run: Run, totals: Totals) -> Verdict:
    """Return that a run without an accepted row is held, or fails where nothing was published that it could replace.

    A run that adds to what is there and found nothing new is as it should be.
    """
    arrived = totals["fetched"] - totals["filtered"]
    if totals["accepted"] or run.pipeline.allow_empty:
        return Publish("")
    if not arrived and (run.mode == Pipeline.Mode.INCREMENTAL or _is_empty_already(run)):
        return Publish("")
    if not _published(run).exists():
        code = "run.nothing_accepted" if arrived else "run.empty"
        return Fail(code, sentence(code, totals))
    code = "held.nothing_accepted" if arrived else "held.empty"
    return Hold(code, (sentence(code, totals),))


GATES: tuple[Callable[[Run, Totals], Verdict], ...] = (judge_emptiness,)
"""The gates that every run passes, in this order."""


def _published(run: Run) -> Any:
    return Run.objects.filter(pipeline=run.pipeline_id, published_at__isnull=False).exclude(pk=run.pk)


def _is_empty_already(run: Run) -> bool:
    """Return whether the pipeline's published state has no rows: then nothing is replaced by nothing."""
    published = _published(run)
    base = published.filter(mode=Pipeline.Mode.FULL_REFRESH).order_by("-pk").values_list("pk", flat=True).first()
    return base is not None and not published.filter(pk__gte=base, accepted__gt=0).exists()
