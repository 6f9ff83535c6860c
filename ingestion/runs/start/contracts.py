"""Contracts: every change is a new version; a draft is inferred once and adopted by its pipeline."""

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max

from ingestion.models import Contract, Pipeline, Run
from ingestion.ports.schema import ContractBody
from ingestion.quality.contracts import contract_hash, dump_contract, parse_contract
from ingestion.runs.record import events


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
