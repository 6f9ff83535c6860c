"""Whether a load could succeed now: what each part of the way says, and what to do where one does not.

Looks at most for about five seconds, and stops at what makes everything after it pointless.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ingestion.ports.check import Finding
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, IngestError, SinkRejected, SinkUnavailable
from ingestion.ports.publication import DeliveryState, DeliveryView, WriteMode
from ingestion.ports.schema import ContractBody
from sinks.druid.causes import Cause, cause_in_druid, cause_in_store
from sinks.druid.client import DruidClient
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.config import DruidConfig, Engine, Granularity, InputWay
from sinks.druid.slots import budget_of, capacity_of
from sinks.druid.spec import JSON, LoadPlan, sampler_spec
from sinks.druid.staging import StagedObject, Staging
from sinks.druid.ways import Extensions, find_way

T = TypeVar("T")

BUDGET_S = 5.0
CALL_S = 2.5
MOST_SKEW_S = 300
_PROBE_ROWS = b'{"probe":1}\n'
_DAY_MS = 86_400_000
_SETTINGS_FIX = "Correct the addresses, or start what does not answer."
_AUTH_FIX = "Correct username and password, and give that user WRITE and READ on its datasources and READ on STATE and EXTERNAL."


class _Stop(Exception):  # noqa: N818 (a way out, not an error)
    """What was found makes the rest pointless."""


def _nothing_known(_: IngestError) -> Cause | None:
    return None


@dataclass
class _Look:
    """One look at everything, within its time."""

    config: DruidConfig
    ctx: Context
    client: DruidClient
    ends_at: float = field(default_factory=lambda: time.monotonic() + BUDGET_S)
    findings: list[Finding] = field(default_factory=list)

    def take(
        self,
        layer: str,
        step: Callable[[], str],
        fix: str,
        *,
        stops: bool = True,
        explain: Callable[[IngestError], Cause | None] = _nothing_known,
    ) -> None:
        """Note what a step says; a failed one ends the look where nothing after it could succeed.

        `explain` may know a closer cause for what the step failed with.
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
            detail = step()
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


def findings_of(config: DruidConfig, ctx: Context) -> Iterator[Finding]:
    """Yield what each part of the way says."""
    try:
        client = DruidClient(config, ctx.http, destination=config.place, deadline_s=CALL_S)
    except ConfigError as error:
        yield Finding("tls", ok=False, elapsed_ms=0.0, detail=str(error), fix="Correct ca_file.", code=error.code)
        return
    look = _Look(config, ctx, client)
    try:
        _look_at_cluster(look)
        _look_at_input(look)
    except _Stop:
        pass
    yield from look.findings


def _known_code(code: str, cause: Cause, error: IngestError) -> Cause | None:
    return cause if error.code == code else None


def _look_at_cluster(look: _Look) -> None:
    client, config = look.client, look.config
    places = {client.broker: "broker", client.coordinator: "coordinator", client.overlord: "overlord"}
    for base, name in places.items():
        allow = Cause(name, f"Add {urlsplit(base).netloc} to HEADGATE_EGRESS_ALLOW, and start everything again.")
        look.take(
            name,
            partial(_reach, look, base),
            f"Correct the address {base}, or start the service there.",
            explain=partial(_known_code, "egress.forbidden", allow),
        )
    look.take(
        "leader",
        lambda: _leader(client),
        "Start an Overlord, or wait until one of them leads.",
        explain=partial(_known_code, "sink.no_overlord", Cause("leader", "Correct url.")),
    )
    look.take(
        "clock", lambda: _clock(look), "Set the clocks of this machine and of Druid's by a time server.", stops=False
    )
    look.take("slots", lambda: _slots(config, client), "Start a MiddleManager or an Indexer, or raise its capacity.")
    look.take("query", lambda: _query(client), "Correct broker_url: queries go to the Broker or the Router.")
    look.take(
        "historical",
        lambda: _historicals(client),
        "Start a Historical, or give it room (druid.segmentCache.locations); without one no row is ever seen.",
        stops=False,
    )
    look.take(
        "load rule",
        lambda: _load_rule(client),
        "Set a load rule: POST /druid/coordinator/v1/rules/_default"
        ' [{"type":"loadForever","tieredReplicants":{"_default_tier":1}}].',
        stops=False,
    )


def _look_at_input(look: _Look) -> None:
    client, config, ctx = look.client, look.config, look.ctx
    look.take(
        "extension",
        lambda: _extensions(config, client, ctx),
        "Load the missing extension (druid.extensions.loadList), or let the input be auto; with neither, set staging to"
        " a bucket that Druid can reach, or shares_disk where it sees this machine's disk.",
        explain=partial(_known_code, "sink.no_sql", Cause("extension", "Let engine be native.")),
    )
    staging = Staging(config, ctx, delivery=_probe_delivery(), find_way=lambda: find_way(config, client, ctx.lake))
    probe: list[StagedObject] = []
    try:
        if staging.way.input is not InputWay.INLINE:
            look.take(
                "staging",
                lambda: _write_probe(look, staging, probe),
                "Correct the place of the rows on their way, and let it list, read, write and delete.",
                explain=cause_in_store,
            )
        in_bucket = staging.way.input is InputWay.S3
        look.take(
            "input",
            lambda: _read_probe(look, staging, probe),
            _input_fix(staging.way.input),
            explain=cause_in_druid if in_bucket else _nothing_known,
        )
    finally:
        if probe:
            _quietly(look, staging.remove)


def _reach(look: _Look, base: str) -> str:
    """Reach the service, naming the layer that fails: the way to it first, then what it answers."""
    report = look.ctx.http.variant(ca_file=look.config.ca_file or None, deadline_s=CALL_S).probe(
        f"{base}/status/health"
    )
    failed = next((finding for finding in report.findings if not finding.ok), None)
    if failed is not None and failed.layer != "auth" and failed.code not in ("source.rejected", "source.not_found"):
        if failed.code == "egress.forbidden":
            raise ConfigError(failed.code, host=urlsplit(base).hostname, address=urlsplit(base).netloc)
        # Its first sentence: what to do about a source is not what to do here.
        said = failed.detail.partition(". ")[0]
        raise SinkUnavailable("sink.unavailable", destination=look.client.destination, detail=f"{failed.layer}: {said}")
    version = look.client.status(base).get("version")
    if not version:
        raise SinkRejected("sink.not_druid", where=base)
    return f"{base} is Druid {version}"


def _leader(client: DruidClient) -> str:
    if not client.has_leader():
        raise SinkUnavailable(
            "sink.unavailable", destination=client.destination, detail="no Overlord leads at the moment"
        )
    return "an Overlord leads"


def _clock(look: _Look) -> str:
    theirs, ours = look.client.date(), look.ctx.clock()
    if theirs is None:
        return "Druid does not say what time it has"
    seconds = abs((theirs - ours).total_seconds())
    if seconds > MOST_SKEW_S:
        raise ConfigError(
            "sink.clock",
            seconds=round(seconds),
            where=look.client.overlord,
            theirs=f"{theirs:%Y-%m-%d %H:%M:%S} UTC",
            ours=f"{ours:%Y-%m-%d %H:%M:%S} UTC",
        )
    return f"the clocks differ by less than {int(seconds) + 1} s"


def _slots(config: DruidConfig, client: DruidClient) -> str:
    total, used = capacity_of(client.workers())
    if not total:
        raise SinkUnavailable("sink.unavailable", destination=client.destination, detail="no worker could run a task")
    needed = 2 if config.engine is Engine.SQL else 1
    if total < needed:
        detail = f"a statement of the multi-stage engine needs {needed} slots at once, there is {total}"
        raise SinkUnavailable("sink.unavailable", destination=client.destination, detail=detail)
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
    loaded = [name for name, there in (("S3", found.s3), ("Parquet", found.parquet), ("SQL", found.sql)) if there]
    return f"{find_way(config, client, ctx.lake).reason} Loaded: {', '.join(loaded) or 'no extension of use here'}."


def _write_probe(look: _Look, staging: Staging, probe: list[StagedObject]) -> str:
    from sinks.druid.rows import gzipped  # noqa: PLC0415 (polars)

    def write() -> StagedObject:
        found = staging.staged_blocks("probe", gzipped([_PROBE_ROWS]), rows=1)
        staging.look_up([found], is_clean=False)
        return found

    probe.append(_bounded(look, write))
    return "a file of one row was written and found again"


def _read_probe(look: _Look, staging: Staging, probe: list[StagedObject]) -> str:
    """Let Druid read one row the way it would read a run's; it only looks, nothing is loaded."""
    source: dict[str, Any] = {"type": "inline", "data": _PROBE_ROWS.decode()}
    if probe:
        source = staging.input_source(probe, is_clean=False)
    plan = LoadPlan(
        datasource="headgate_probe",
        task_id="",
        columns=(DruidColumn("probe", "probe", DruidType.LONG),),
        time_column=None,
        logical_time=look.ctx.clock().isoformat(),
        granularity=Granularity.DAY,
        intervals=((0, _DAY_MS),),
        format=JSON,
        run_id=None,
        is_append=True,
        source=source,
    )
    answer = look.client.sample(sampler_spec(plan, rows=1, timeout_ms=int(CALL_S * 1000)))
    if not answer.get("numRowsRead"):
        if staging.way.input is InputWay.LOCAL:
            raise ConfigError("sink.disk_not_shared", path=source["files"][0])
        detail = "it read the row of a probe and found none in it"
        raise SinkRejected("sink.rejected", destination=look.client.destination, detail=detail)
    return "Druid read a row by that way"


def _input_fix(way: InputWay) -> str:
    return {
        InputWay.PRESIGNED: "Let Druid's machines reach the bucket's endpoint under the name that is written here (not"
        " localhost, for example); and set both clocks, for a signed address holds for a while only.",
        InputWay.S3: "Give Druid the bucket's endpoint, region, path style and keys (druid.s3.*, AWS_REGION), or name the"
        " variables that hold them in s3_key_variable and s3_secret_variable.",
        InputWay.LOCAL: "Let Druid's workers see the lake's folder under the same path, or switch shares_disk off.",
    }.get(way, "Look at the Overlord's log: it could not read a row that stood in the question itself.")


def _bounded(look: _Look, step: Callable[[], T]) -> T:
    """Return what the step returns; SinkUnavailable once the look's time is over, whatever a store is waiting for."""
    found: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(step())
        except BaseException as error:  # noqa: BLE001 (given to the one who waits)
            failed.append(error)

    # A store's client tries again by itself for minutes; it is left alone then, and ends with the process.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(max(0.5, look.ends_at - time.monotonic()))
    if failed:
        raise failed[0]
    if not found:
        raise SinkUnavailable(
            "sink.unavailable", destination=look.client.destination, detail="the staging store does not answer in time"
        )
    return found[0]


def _quietly(look: _Look, step: Callable[[], None]) -> None:
    def work() -> bool:
        step()
        return True

    try:
        _bounded(look, work)
    except IngestError:
        # A probe's file that stays behind is harmless, and what was found out is worth more.
        pass


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
