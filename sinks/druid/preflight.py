"""Preflight checks of a destination: each part of the way to a load, and the remedy where one fails.

Takes about five seconds at most, and stops at what makes everything after it pointless.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from ingestion.ports.check import Finding
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, IngestError, SinkRejected, SinkUnavailable
from ingestion.ports.publication import DeliveryState, DeliveryView, WriteMode
from ingestion.ports.schema import ContractBody
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig, InputKind
from sinks.druid.diagnostics import Cause, cause_in_druid, cause_in_store
from sinks.druid.input_source import Extensions, find_input
from sinks.druid.sampling import read_probe, write_probe
from sinks.druid.staging import StagedObject, Staging
from sinks.druid.tasks import budget_of, capacity_of

T = TypeVar("T")

BUDGET_S = 5.0
CALL_S = 2.5
MOST_SKEW_S = 300
_SETTINGS_FIX = "Correct the addresses, or start what does not answer."
_AUTH_FIX = "Correct username and password, and give that user WRITE and READ on its datasources and READ on STATE and EXTERNAL."


class _Stop(Exception):  # noqa: N818 (a way out, not an error)
    """Signal that nothing after a failed check could succeed."""


def _nothing_known(_: IngestError) -> Cause | None:
    return None


@dataclass
class _Preflight:
    """One pass over all checks, within its time."""

    config: DruidConfig
    ctx: Context
    client: DruidClient
    ends_at: float = field(default_factory=lambda: time.monotonic() + BUDGET_S)
    findings: list[Finding] = field(default_factory=list)

    def run(
        self,
        layer: str,
        check: Callable[[], str],
        fix: str,
        *,
        stops: bool = True,
        explain: Callable[[IngestError], Cause | None] = _nothing_known,
    ) -> None:
        """Note what a check says; a failed one ends the pass where nothing after it could succeed.

        `explain` may know a closer cause for what the check failed with.
        """
        if time.monotonic() > self.ends_at:
            detail = "There was no time left for this; what came before it took too long."
            self.findings.append(
                Finding(layer, ok=False, elapsed_ms=0.0, detail=detail, fix=_SETTINGS_FIX, code="sink.unavailable")
            )
            raise _Stop
        started = time.monotonic()
        failure: IngestError | None = None
        try:
            detail = check()
        except IngestError as error:
            detail, failure = str(error), error
        elapsed_ms = (time.monotonic() - started) * 1000
        if failure is None:
            self.findings.append(Finding(layer, ok=True, elapsed_ms=elapsed_ms, detail=detail))
            return
        cause = explain(failure) or (Cause("auth", _AUTH_FIX) if failure.code == "sink.auth" else Cause(layer, fix))
        self.findings.append(
            Finding(cause.layer, ok=False, elapsed_ms=elapsed_ms, detail=detail, fix=cause.fix, code=failure.code)
        )
        if stops or cause.layer == "auth":
            raise _Stop

    def bounded(self, step: Callable[[], T]) -> T:
        """Return what the step returns; SinkUnavailable once the time is over, whatever a store is waiting for."""
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                outcome.set_result(step())
            except BaseException as error:  # noqa: BLE001 (given to the one who waits)
                outcome.set_exception(error)

        # A store's client tries again by itself for minutes; it is left alone then, and ends with the process.
        threading.Thread(target=work, daemon=True).start()
        try:
            return outcome.result(timeout=max(0.5, self.ends_at - time.monotonic()))
        except TimeoutError:
            detail = "the staging store does not answer in time"
            raise SinkUnavailable("sink.unavailable", destination=self.client.destination, detail=detail) from None


def findings_of(config: DruidConfig, ctx: Context) -> Iterator[Finding]:
    """Yield what each part of the way says."""
    try:
        client = DruidClient(config, ctx.http, destination=config.place, deadline_s=CALL_S)
    except ConfigError as error:
        yield Finding("tls", ok=False, elapsed_ms=0.0, detail=str(error), fix="Correct ca_file.", code=error.code)
        return
    preflight = _Preflight(config, ctx, client)
    try:
        _check_cluster(preflight)
        _check_input(preflight)
    except _Stop:
        pass
    yield from preflight.findings


def _known_code(code: str, cause: Cause, error: IngestError) -> Cause | None:
    return cause if error.code == code else None


def _check_cluster(preflight: _Preflight) -> None:
    client, config = preflight.client, preflight.config
    places = {client.broker: "broker", client.coordinator: "coordinator", client.overlord: "overlord"}
    for base, name in places.items():
        allow = Cause(name, f"Add {urlsplit(base).netloc} to HEADGATE_EGRESS_ALLOW, and start everything again.")
        preflight.run(
            name,
            partial(_reach, preflight, base),
            f"Correct the address {base}, or start the service there.",
            explain=partial(_known_code, "egress.forbidden", allow),
        )
    preflight.run(
        "leader",
        lambda: _leader(client),
        "Start an Overlord, or wait until one of them leads.",
        explain=partial(_known_code, "sink.no_overlord", Cause("leader", "Correct url.")),
    )
    preflight.run(
        "clock",
        lambda: _clock(preflight),
        "Set the clocks of this machine and of Druid's by a time server.",
        stops=False,
    )
    preflight.run(
        "slots", lambda: _slots(config, client), "Start a MiddleManager or an Indexer, or raise its capacity."
    )
    preflight.run("query", lambda: _query(client), "Correct broker_url: queries go to the Broker or the Router.")
    preflight.run(
        "historical",
        lambda: _historicals(client),
        "Start a Historical, or give it room (druid.segmentCache.locations); without one no row is ever seen.",
        stops=False,
    )
    preflight.run(
        "load rule",
        lambda: _load_rule(client),
        "Set a load rule: POST /druid/coordinator/v1/rules/_default"
        ' [{"type":"loadForever","tieredReplicants":{"_default_tier":1}}].',
        stops=False,
    )


def _check_input(preflight: _Preflight) -> None:
    client, config, ctx = preflight.client, preflight.config, preflight.ctx
    preflight.run(
        "extension",
        lambda: _extensions(config, client, ctx),
        "Load the missing extension (druid.extensions.loadList), or let the input be auto; with neither, set staging to"
        " a bucket that Druid can reach, or shares_disk where it sees this machine's disk.",
    )
    staging = Staging(config, ctx, delivery=_probe_delivery(), find_input=lambda: find_input(config, client, ctx.lake))
    kind = staging.input.kind
    probe: list[StagedObject] = []

    def write() -> str:
        probe.append(preflight.bounded(lambda: write_probe(staging)))
        return "a file of one row was written and found again"

    def read() -> str:
        read_probe(client, staging, probe, logical_time=ctx.clock().isoformat(), timeout_ms=int(CALL_S * 1000))
        return "Druid read a row by that way"

    try:
        if kind is not InputKind.INLINE:
            preflight.run(
                "staging",
                write,
                "Correct the place of the rows on their way, and let it list, read, write and delete.",
                explain=cause_in_store,
            )
        explain = cause_in_druid if kind is InputKind.S3 else _nothing_known
        preflight.run("input", read, _input_fix(kind), explain=explain)
    finally:
        if probe:
            # A probe's file that stays behind is harmless, and what was found out is worth more.
            with suppress(IngestError):
                preflight.bounded(staging.remove)


def _reach(preflight: _Preflight, base: str) -> str:
    """Reach the service, naming the layer that fails: the way to it first, then what it answers."""
    report = preflight.ctx.http.variant(ca_file=preflight.config.ca_file or None, deadline_s=CALL_S).probe(
        f"{base}/status/health"
    )
    failed = next((finding for finding in report.findings if not finding.ok), None)
    if failed is not None and failed.layer != "auth" and failed.code not in ("source.rejected", "source.not_found"):
        if failed.code == "egress.forbidden":
            raise ConfigError(failed.code, host=urlsplit(base).hostname, address=urlsplit(base).netloc)
        # Its first sentence: what to do about a source is not what to do here.
        said = failed.detail.partition(". ")[0]
        raise SinkUnavailable(
            "sink.unavailable", destination=preflight.client.destination, detail=f"{failed.layer}: {said}"
        )
    version = preflight.client.status(base).get("version")
    if not version:
        raise SinkRejected("sink.not_druid", where=base)
    return f"{base} is Druid {version}"


def _leader(client: DruidClient) -> str:
    if not client.has_leader():
        raise SinkUnavailable(
            "sink.unavailable", destination=client.destination, detail="no Overlord leads at the moment"
        )
    return "an Overlord leads"


def _clock(preflight: _Preflight) -> str:
    theirs, ours = preflight.client.date(), preflight.ctx.clock()
    if theirs is None:
        return "Druid does not say what time it has"
    seconds = abs((theirs - ours).total_seconds())
    if seconds > MOST_SKEW_S:
        raise ConfigError(
            "sink.clock",
            seconds=round(seconds),
            where=preflight.client.overlord,
            theirs=f"{theirs:%Y-%m-%d %H:%M:%S} UTC",
            ours=f"{ours:%Y-%m-%d %H:%M:%S} UTC",
        )
    return f"the clocks differ by less than {int(seconds) + 1} s"


def _slots(config: DruidConfig, client: DruidClient) -> str:
    total, used = capacity_of(client.workers())
    if not total:
        raise SinkUnavailable("sink.unavailable", destination=client.destination, detail="no worker could run a task")
    return f"{total - used} of {total} task slots are free; ours may be {budget_of(config, total)}"


def _query(client: DruidClient) -> str:
    client.sql("SELECT 1 AS c")
    return "queries are answered"


def _historicals(client: DruidClient) -> str:
    rows = client.sql(
        "SELECT server, curr_size, max_size FROM sys.servers WHERE server_type = 'historical'"  # the words are fixed
    )
    free = sum(int(row["max_size"] or 0) - int(row["curr_size"] or 0) for row in rows)
    if not rows or free <= 0:
        detail = "no Historical runs" if not rows else "no Historical has room for another segment"
        raise SinkUnavailable("sink.unavailable", destination=client.destination, detail=detail)
    return f"{len(rows)} Historicals have {free // 1_000_000} MB of room"


def _load_rule(client: DruidClient) -> str:
    rules = client.default_rules()
    if rules and str(rules[0].get("type", "")).startswith("drop"):
        raise SinkRejected(
            "sink.rejected", destination=client.destination, detail="the first default rule drops all segments"
        )
    return f"segments are loaded by the rule {rules[0].get('type')}" if rules else "no default rule is set"


def _extensions(config: DruidConfig, client: DruidClient, ctx: Context) -> str:
    found = Extensions.of(client.status())
    loaded = [name for name, there in (("S3", found.s3), ("Parquet", found.parquet)) if there]
    return f"{find_input(config, client, ctx.lake).reason} Loaded: {', '.join(loaded) or 'no extension of use here'}."


def _input_fix(kind: InputKind) -> str:
    return {
        InputKind.PRESIGNED: "Let Druid's machines reach the bucket's endpoint under the name that is written here (not"
        " localhost, for example); and set both clocks, for a signed address holds for a while only.",
        InputKind.S3: "Give Druid the bucket's endpoint, region, path style and keys (druid.s3.*, AWS_REGION), or name the"
        " variables that hold them in s3_key_variable and s3_secret_variable.",
        InputKind.LOCAL: "Let Druid's workers see the lake's folder under the same path, or switch shares_disk off.",
    }.get(kind, "Look at the Overlord's log: it could not read a row that stood in the question itself.")


def _probe_delivery() -> DeliveryView:
    return DeliveryView(
        id=0,
        run_id=0,
        pipeline="headgate-check",
        pipeline_id=0,
        destination="check",
        mode=WriteMode.APPEND,
        contract=ContractBody(name="check"),
        state=DeliveryState.PLANNED,
        attempt=0,
        logical_time="1970-01-01T00:00:00+00:00",
    )
