"""A million rows into a real Druid, against the same spec posted by hand; and how soon after SUCCESS we say verified."""

import hashlib
import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measurements import CONTRACT, make_frame
from benchmarks.measuring import Cost, interleave, peak_bytes_of
from benchmarks.places import Place
from benchmarks.table import Row

if TYPE_CHECKING:
    import polars as pl

PART_ROWS = 250_000
LOOK_S = 0.25
GOAL_RATIO = 1.25
GOAL_LAG_S = 5.0


def measure_druid(*, quick: bool) -> Iterator[Row]:
    """Yield the seconds from the submission until the rows are counted, ours against a person's with the same spec."""
    import os

    row_count, rounds = (20_000, 1) if quick else (1_000_000, 3)
    with Place() as place:
        place.run("manage.py", "druid", "up", "--detach")
        try:
            loads = _Loads(place.folder, addresses=_addresses(place), frame=make_frame(row_count))
            # The first load of a Druid that has just started warms its machines up, whoever makes it.
            loads.load()
            loads.lags_s.clear()
            ours, by_hand = interleave(rounds, loads.load, loads.post_by_hand)
            peak_bytes = peak_bytes_of(os.getpid())
        finally:
            place.run("manage.py", "druid", "down")
    yield Row(
        f"{row_count:,} rows loaded into Druid, wall",
        ours.wall_s,
        yardstick=by_hand.wall_s,
        goal=GOAL_RATIO,
        peak_bytes=peak_bytes,
        note=f"median of {rounds}; from the submission to the count at the Broker; the rows were staged before, in "
        f"{loads.staging_s:.1f} s; yardstick: the same spec posted by hand and looked at every {LOOK_S} s",
    )
    yield Row(
        "from Druid's SUCCESS to verified",
        max(loads.lags_s),
        goal=GOAL_LAG_S,
        note=f"the longest of {len(loads.lags_s)}; loads took {ours.wall_s:.1f} s",
    )


class _Loads:
    """The same rows loaded again and again, each time into a datasource of its own."""

    def __init__(self, folder: Path, *, addresses: Mapping[str, str], frame: "pl.DataFrame") -> None:
        from ingestion.ports.context import Context
        from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, WriteMode
        from ingestion.ports.schema import ContractBody
        from ingestion.toolkit.http.client import Http
        from ingestion.toolkit.http.egress import EgressPolicy
        from ingestion.toolkit.lake.opening import open_lake

        self._lake = open_lake(str(folder / "lake"))
        # A delivery that is done removes what it had staged; the next round is to read the same.
        self._lake.delete = lambda key: None  # type: ignore[method-assign]
        policy = EgressPolicy(allow=("127.0.0.0/8",), ports=frozenset(range(1, 65536)))
        self._ctx = Context(
            http=Http(policy),
            limiter=None,  # type: ignore[arg-type]  # no sink asks it
            lake=self._lake,
            clock=lambda: datetime.now(UTC),
            scratch=folder,
        )
        self._addresses, self._number = addresses, 0
        self.lags_s: list[float] = []
        body = ContractBody.model_validate(CONTRACT)
        parts = tuple(
            self._store(frame.slice(first, PART_ROWS), lane=lane)
            for lane, first in enumerate(range(0, frame.height, PART_ROWS))
        )
        moment = datetime.now(UTC).isoformat()
        self._manifest = Manifest(1, "bench", WriteMode.REPLACE, body, 1, parts, frame.height, moment)
        self._delivery = DeliveryView(
            id=1, run_id=1, pipeline="bench", pipeline_id=1, destination="druid", mode=WriteMode.REPLACE,
            contract=body, state=DeliveryState.STAGED, attempt=1, logical_time=moment,
        )  # fmt: skip
        began = time.perf_counter()
        for part in parts:
            self._sink("unused").stage(part, self._delivery, self._ctx)
        self.staging_s = time.perf_counter() - began
        self._spec: dict[str, Any] = {}

    def load(self) -> Cost:
        """Return what a delivery takes from its commit until it is verified; looks come when the engine would look."""
        from ingestion.ports.publication import DeliveryState

        self._number += 1
        sink, delivery = self._sink(f"ours{self._number}"), self._delivery
        began, own_began, succeeded_at = time.perf_counter(), time.process_time(), 0.0
        while True:
            step = sink.commit(self._manifest, delivery, self._ctx)
            delivery = replace(delivery, state=step.state, refs={**delivery.refs, **step.refs})
            if step.next_poll_s:
                succeeded_at = self._sleep(step.next_poll_s, delivery.refs, succeeded_at)
            elif step.state == DeliveryState.AVAILABLE:
                break
        counted = sink.count(self._manifest, delivery, self._ctx)
        assert counted == self._manifest.rows, (counted, self._manifest.rows)
        cost = Cost(time.perf_counter() - began, time.process_time() - own_began)
        self.lags_s.append(time.perf_counter() - succeeded_at)
        return cost

    def post_by_hand(self) -> Cost:
        """Return what the same spec takes when a person posts it and looks at it every quarter of a second."""
        import httpx

        from sinks.druid.planning import Planner
        from sinks.druid.spec import native_spec

        name = f"hand{self._number}"
        sink = self._sink(name)
        client = sink._client(self._ctx, "druid")
        planner = Planner(
            sink.config,
            client,
            sink._staging(client, self._delivery, self._ctx),
            self._manifest,
            self._delivery,
            self._ctx,
            previous=None,
        )
        load = planner.plan(attempt=1, is_late=False)
        spec = native_spec(load.plan(planner.source(load)))
        began, own_began = time.perf_counter(), time.process_time()
        with httpx.Client(timeout=30) as http:
            http.post(f"{self._addresses['url']}/druid/indexer/v1/task", json=spec).raise_for_status()
            while self._status(http, spec["id"]) == "RUNNING":
                time.sleep(LOOK_S)
            question = {"query": f'SELECT COUNT(*) AS c FROM "{name}_bench"'}  # noqa: S608 (our own name)
            while True:
                answer = http.post(f"{self._addresses['broker_url']}/druid/v2/sql", json=question)
                if answer.status_code == 200 and answer.json()[0]["c"] == self._manifest.rows:
                    break
                time.sleep(LOOK_S)
        return Cost(time.perf_counter() - began, time.process_time() - own_began)

    def _sleep(self, seconds: float, refs: Mapping[str, Any], succeeded_at: float) -> float:
        """Wait as the engine would, and return when the task was first seen to have ended."""
        import httpx

        ends_at = time.perf_counter() + seconds
        while time.perf_counter() < ends_at:
            if not succeeded_at and refs.get("submitted_at"):
                with httpx.Client(timeout=30) as http:
                    if self._status(http, refs["task"]) == "SUCCESS":
                        succeeded_at = time.perf_counter()
            time.sleep(min(0.1, max(0.0, ends_at - time.perf_counter())))
        return succeeded_at

    def _status(self, http: Any, task_id: str) -> str:
        found = http.get(f"{self._addresses['url']}/druid/indexer/v1/task/{task_id}/status")
        return str(found.json()["status"]["statusCode"]) if found.status_code == 200 else "RUNNING"

    def _sink(self, name: str) -> Any:
        from sinks.druid.config import DruidConfig
        from sinks.druid.sink import DruidSink

        return DruidSink(DruidConfig(**self._addresses, shares_disk=True, datasource=f"{name}_{{pipeline}}"))

    def _store(self, frame: "pl.DataFrame", *, lane: int) -> Any:
        import polars as pl

        from ingestion.ports.publication import PartView

        file = io.BytesIO()
        columns = {"_run": pl.lit(1, pl.Int64), "_part": pl.lit(f"{lane}-0"), "_page": pl.lit(None, pl.Int32)}
        frame.with_columns(**columns).with_row_index("_row").with_columns(pl.col("_row").cast(pl.Int64)).write_parquet(
            file
        )
        data = file.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        key = f"clean/bench/1/{lane}-0/000000-{digest[:16]}.parquet"
        self._lake.put_if_absent(key, data)
        return PartView(key, lane, 0, 0, rows=frame.height, size_bytes=len(data), sha256=digest)


def _addresses(place: Place) -> dict[str, str]:
    import json

    text = (Path(place.environment()["HEADGATE_DATA"]) / "druid" / "run" / "stack.json").read_text()
    ports = json.loads(text)["druid_ports"]
    return {"url": f"http://127.0.0.1:{ports['coordinator']}", "broker_url": f"http://127.0.0.1:{ports['broker']}"}
