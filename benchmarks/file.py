"""A large CSV, sent to the API of a whole stack and published as objects, against one lazy pass of polars."""

import http.client
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.measurements import COLUMNS, CONTRACT, write_measurements
from benchmarks.measuring import Cost, PeakWatch, cpu_of_tree, interleave
from benchmarks.places import Place, Process, wait_until
from benchmarks.table import Row

BLOCK_BYTES = 1 << 20
EMPTY_ROW = b"," * (len(COLUMNS) - 1) + b"\n"
GOAL_RATIO = 2.5
GOAL_PEAK_MB = 1000
GOAL_ANSWER_MS = 200
SERVICES = "broker,web,workers,beat"
MEGABYTE = 1_000_000


def measure_file(*, quick: bool) -> Iterator[Row]:
    """Yield wall, CPU and memory from the upload to the publication, and how soon the upload was accepted."""
    row_count, rounds = (50_000, 1) if quick else (2_500_000, 2)
    with Place() as place:
        good = write_measurements(place.folder, row_count=row_count)
        with _Stack(place) as stack:
            files = _Files(place, stack, good=good, bad=row_count - good)
            with PeakWatch(stack.process.pid) as watch:
                ours, polars = interleave(rounds, files.publish, files.sink)
    size = f"{files.size_bytes / MEGABYTE:.0f} MB CSV"
    name, peak_bytes = watch.greatest
    peaks = ", ".join(
        f"{who} {peak / MEGABYTE:.0f}" for who, peak in sorted(watch.peaks.items(), key=lambda i: -i[1])[:6]
    )
    note = f"from the first byte sent to the end of the run, median of {rounds}; yardstick: polars, two sinks"
    yield Row(f"{size} published, wall", ours.wall_s, yardstick=polars.wall_s, goal=GOAL_RATIO, note=note)
    yield Row(f"{size} published, CPU of the stack", ours.cpu_s, yardstick=polars.cpu_s, goal=GOAL_RATIO)
    yield Row(
        f"{size} published, peak of one process",
        peak_bytes / MEGABYTE,
        "MB",
        yardstick=None,
        goal=GOAL_PEAK_MB,
        peak_bytes=peak_bytes,
        note=f"{name}; in MB: {peaks}; polars itself {files.sink_peak_bytes / MEGABYTE:.0f}",
    )
    yield Row(
        f"{size} accepted after its last byte",
        sorted(files.answers_ms)[len(files.answers_ms) // 2],
        "ms",
        goal=GOAL_ANSWER_MS,
        note=f"of {len(files.answers_ms)} uploads: {', '.join(f'{ms:.0f}' for ms in files.answers_ms)} ms",
    )


class _Stack:
    """`manage.py up` in the place, and this process as one of its own."""

    def __init__(self, place: Place) -> None:
        from ingest_project.stack.broker import free_port

        self.port = free_port()
        place.enter_django(HEADGATE_PORT=str(self.port))
        words = [sys.executable, "manage.py", "up", "--services", SERVICES]
        variables = place.environment(HEADGATE_PORT=str(self.port))
        self.process: Process = place.start(words, name="stack", variables=variables)

    def __enter__(self) -> "_Stack":
        from ingest_project.stack.state import read_state

        self.process.wait_for("| ready")

        def is_ready() -> bool:
            from django.conf import settings

            state = read_state(settings.HEADGATE_DATA_DIR)
            return state is not None and state.is_ready

        wait_until(is_ready, what="the start of the stack", of=self.process)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()


@dataclass
class _Files:
    """Both sides of the comparison; every upload has one bad row more, for the same file twice would be one."""

    place: Place
    stack: _Stack
    good: int
    bad: int
    answers_ms: list[float] = field(default_factory=list)
    sink_peak_bytes: int = 0

    def __post_init__(self) -> None:
        from django.contrib.auth import get_user_model
        from rest_framework.authtoken.models import Token

        from ingestion.models import Pipeline
        from ingestion.runs.start import contracts, pipelines

        self.csv = self.place.folder / "dirty.csv"
        self.size_bytes = self.csv.stat().st_size
        user = get_user_model().objects.create_user("benchmark", is_staff=True)
        self.token = Token.objects.create(user=user).key
        self.pipeline = Pipeline.objects.create(
            name="measured",
            source=pipelines.upload_source(),
            stream="rows",
            contract=contracts.save_contract(CONTRACT),
            mode=Pipeline.Mode.FULL_REFRESH,
        )
        self.pipeline.destinations.set([pipelines.default_destinations()[0]])

    def publish(self) -> Cost:
        """Send the file and wait for the end of its run."""
        from ingestion.models import Run, RunState

        before, began = cpu_of_tree(self.stack.process.pid), time.perf_counter()
        run = Run.objects.get(pk=self._upload())

        def has_ended() -> bool:
            run.refresh_from_db()
            return run.is_terminal

        wait_until(has_ended, what="the end of the run", of=self.stack.process, patience_s=300)
        cost = Cost(time.perf_counter() - began, cpu_of_tree(self.stack.process.pid) - before)
        assert run.state == RunState.SUCCEEDED, (run.state, run.code, run.message)
        found, expected = (run.accepted, run.rejected + run.duplicate), (self.good, self.bad + len(self.answers_ms))
        assert found == expected, f"good and bad rows are {found} instead of {expected}"
        return cost

    def sink(self) -> Cost:
        """Let polars alone read, check and write the same file in a process of its own."""
        folder = self.place.folder / "polars"
        folder.mkdir(exist_ok=True)
        found = json.loads(self.place.run("-m", "benchmarks.measurements", str(self.csv), str(folder)))
        assert (found["good"], found["bad"]) == (self.good, self.bad), found
        self.sink_peak_bytes = max(self.sink_peak_bytes, found["peak_bytes"])
        return Cost(found["wall_s"], found["cpu_s"])

    def _upload(self) -> int:
        """Return the run of the file, sent as a bare body; note how long the answer took after the last byte."""
        tail = EMPTY_ROW * (len(self.answers_ms) + 1)
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=300)
        query = urlencode({"name": "dirty.csv", "pipeline": self.pipeline.name})
        connection.putrequest("POST", f"/api/v1/uploads?{query}")
        connection.putheader("Authorization", f"Token {self.token}")
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(self.size_bytes + len(tail)))
        connection.endheaders()
        with Path(self.csv).open("rb") as source:
            while block := source.read(BLOCK_BYTES):
                connection.send(block)
        connection.send(tail)
        sent_at = time.perf_counter()
        answer = connection.getresponse()
        self.answers_ms.append((time.perf_counter() - sent_at) * 1000)
        body: dict[str, Any] = json.loads(answer.read())
        assert answer.status == 202, body
        return int(body["run"])
