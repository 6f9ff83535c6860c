"""Contracts: every change is a new version, one of a key a full refresh; a draft is inferred once and adopted by its pipeline."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max, Q, QuerySet

from ingestion.models import SETTLED_RUN_STATES, Contract, Pipeline, Run
from ingestion.ports.messages import sentence
from ingestion.ports.schema import ContractBody
from ingestion.quality.contracts import contract_hash, dump_contract, parse_contract
from ingestion.runs.record import events

KEY_CHANGED = "run.key_changed"
"""Event and message of a run that reads all anew: rows under other names or types of a key cannot be merged with."""


def save_contract(given: str | Mapping[str, Any] | ContractBody, *, is_draft: bool = False) -> Contract:
    """Return the contract's newest version, a new one if the body differs from it; ConfigError names what is wrong."""
    body = given if isinstance(given, ContractBody) else parse_contract(given)
    digest = contract_hash(body)
    while True:
        newest = Contract.objects.filter(name=body.name).order_by("-version").first()
        if newest is not None and newest.sha256 == digest and newest.is_draft == is_draft:
            return newest
        try:
            with transaction.atomic():
                return Contract.objects.create(
                    name=body.name,
                    version=newest.version + 1 if newest else 1,
                    body=dump_contract(body),
                    sha256=digest,
                    is_draft=is_draft,
                )
        except IntegrityError:
            # Somebody else wrote that version number just now; look again.
            if not Contract.objects.filter(name=body.name).exists():
                raise


def adopt_draft(run: Run, body: ContractBody) -> Contract:
    """Return the run's contract: `body` as a draft, unless another partition was quicker."""
    draft = save_contract(body, is_draft=True)
    with transaction.atomic():
        if Run.objects.filter(pk=run.pk, contract__isnull=True).update(contract=draft):
            Pipeline.objects.filter(pk=run.pipeline_id, contract__isnull=True).update(contract=draft)
            events.record(run.pk, "contract.drafted", contract=str(draft), columns=len(body.columns))
            return draft
    return Contract.objects.get(runs=run.pk)


def latest_version(contract: Contract) -> Contract:
    """Return the newest version of the contract's name: what the next run is checked against."""
    newest = Contract.objects.filter(name=contract.name).aggregate(version=Max("version"))["version"]
    return Contract.objects.get(name=contract.name, version=newest)


def key_change(pipeline: Pipeline, contract: Contract | None, *, before: Run | None = None) -> str:
    """Return why a run under this contract has to be a full refresh, "" where it merges with what is there.

    Every run of the published state counts, and so does one that is still at work: also those that an earlier version
    has merged under a key of another type. `before` leaves out that run and all later ones.
    """
    if contract is None:
        return ""
    body = ContractBody.model_validate(contract.body)
    for other in Contract.objects.filter(pk__in=_runs_of_state(pipeline, before).values("contract")).order_by("-pk"):
        old = ContractBody.model_validate(other.body)
        if old.key_types != body.key_types:
            values = {"pipeline": pipeline.name, "contract": str(contract), "old": _told(old), "new": _told(body)}
            return sentence(KEY_CHANGED, values)
    return ""


def full_refreshes(contract: Contract) -> Iterator[tuple[Pipeline, str]]:
    """Yield the pipelines whose next run this version makes a full refresh, each with the reason."""
    merging = Pipeline.objects.filter(contract__name=contract.name, mode=Pipeline.Mode.INCREMENTAL)
    for pipeline in merging.order_by("name"):
        if reason := key_change(pipeline, contract):
            yield pipeline, reason


def _runs_of_state(pipeline: Pipeline, before: Run | None) -> QuerySet[Run]:
    """Return the runs that are published, or may be, since the last full refresh."""
    runs = Run.objects.filter(Q(published_at__isnull=False) | ~Q(state__in=SETTLED_RUN_STATES), pipeline=pipeline)
    if before is not None:
        runs = runs.filter(pk__lt=before.pk)
    base = runs.filter(mode=Pipeline.Mode.FULL_REFRESH).order_by("-pk").values_list("pk", flat=True).first()
    return runs if base is None else runs.filter(pk__gte=base)


def _told(body: ContractBody) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in body.key_types) or "none"
