"""The contract of every sink, as tests to inherit.

    class TestThing(SinkConformance):
        def make_sink(self, **secrets: str) -> Sink: ...
        def renew(self) -> None: ...
        def read_rows(self, manifest: Manifest) -> list[dict[str, Any]]: ...

`make_sink` builds a sink for the destination of this test, with `secrets` (by Config field name) in place of the right
ones. `renew` turns to a new, empty destination; it is called before anything else. `read_rows` returns the records
(id, formula, energy) that a reader of the destination sees as that run's, found without the sink.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ingestion.ports.context import Context
from ingestion.ports.errors import AuthError, IngestError, Signal, StoreCorrupt
from ingestion.ports.messages import find_message
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, Receipt
from ingestion.ports.sink import CommitStep, Sink
from ingestion.toolkit import failpoints
from tests.conformance.connector import CANARY, secret_fields
from tests.conformance.context import MemoryLake, RecordingContext
from tests.conformance.parts import delivery_of, manifest_of, rows_of, store_part

COMMITTED = frozenset({DeliveryState.PUBLISHED, DeliveryState.AVAILABLE, DeliveryState.VERIFIED})
COMMIT_LIMIT_S = 60.0
PART_ROWS = (7, 1, 12)


class Killed(BaseException):
    """The process ends here; no handler of the sink may run its course on it."""


class SinkConformance:
    """Tests that every sink inherits; see the module for what a subclass provides."""

    refuses_credentials: ClassVar[bool] = False
    """Whether the destination of this test looks at credentials at all."""
    credentials: ClassVar[tuple[str, ...] | None] = None
    """Config fields that the destination of this test refuses where one of them is wrong; None: all that are secret."""

    def make_sink(self, **secrets: str) -> Sink:
        raise NotImplementedError

    def renew(self) -> None:
        raise NotImplementedError

    def read_rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        raise NotImplementedError

    def make_lake(self) -> Any:
        """Return the empty lake that the run lies in; another one where the sink reads it by a way of its own."""
        return MemoryLake()

    def make_context(self, lake: MemoryLake) -> RecordingContext:
        """Return the context that calls are made with; a sink that needs more than lake and clock adds it."""
        return RecordingContext(lake=lake)

    def make_manifest(self, lake: MemoryLake, *, part_rows: Sequence[int] = PART_ROWS) -> Manifest:
        """Return a run of parts with so many rows each, over two lanes, stored in the lake."""
        parts = []
        for number, row_count in enumerate(part_rows):
            rows = rows_of(sum(part_rows[:number]), row_count)
            parts.append(store_part(lake, rows, lane=number % 2, link=number // 2))
        return manifest_of(sorted(parts, key=lambda part: (part.lane, part.link, part.seq)))

    def make_delivery(self, manifest: Manifest) -> DeliveryView:
        """Return the run on its way into the destination."""
        return delivery_of(manifest)

    @pytest.fixture(autouse=True)
    def _begin(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        self.recording: RecordingContext | None = None
        yield
        failpoints.arm("")

    def test_a_delivery_shows_every_row_once(self) -> None:
        manifest, delivery, ctx = self._situation()

        receipts, step = self._deliver(self.make_sink(), manifest, delivery, ctx)

        assert self._count(manifest, delivery, ctx) == manifest.rows
        assert self.read_rows(manifest) == _expected(manifest)
        assert sum(map(_taken, receipts)) == manifest.rows
        assert step.receipt is not None
        assert _taken(step.receipt) == manifest.rows

    def test_nothing_is_visible_before_the_commit(self) -> None:
        manifest, delivery, ctx = self._situation()

        self._stage(self.make_sink(), manifest.parts, delivery, ctx)

        assert self._count(manifest, delivery, ctx) == 0
        assert self.read_rows(manifest) == []

    def test_everything_twice_changes_nothing(self) -> None:
        manifest, delivery, ctx = self._situation()
        sink = self.make_sink()
        first = self._stage(sink, manifest.parts, delivery, ctx)
        second = self._stage(self.make_sink(), manifest.parts, delivery, ctx)

        committed = self._commit(sink, manifest, delivery, ctx)
        again = self._commit(self.make_sink(), manifest, replace(delivery, refs=committed.refs), ctx)
        late = self._stage(self.make_sink(), manifest.parts, delivery, ctx)

        assert first == second == late
        assert committed.receipt == again.receipt
        assert self._count(manifest, delivery, ctx) == manifest.rows
        assert self.read_rows(manifest) == _expected(manifest)

    def test_the_order_in_which_parts_arrive_does_not_matter(self) -> None:
        manifest, delivery, ctx = self._situation()
        sink = self.make_sink()

        self._stage(sink, manifest.parts[::-1], delivery, ctx)
        self._commit(sink, replace(manifest, parts=manifest.parts[::-1]), delivery, ctx)

        assert self._count(manifest, delivery, ctx) == manifest.rows
        assert self.read_rows(manifest) == _expected(manifest)

    def test_a_run_without_rows_is_published_as_such(self) -> None:
        manifest, delivery, ctx = self._situation(part_rows=())

        self._deliver(self.make_sink(), manifest, delivery, ctx)

        assert self._count(manifest, delivery, ctx) == 0
        assert self.read_rows(manifest) == []

    def test_a_part_that_the_lake_has_lost_is_missing_and_not_empty(self) -> None:
        manifest, delivery, ctx = self._situation()
        assert self.recording is not None
        self.recording.lake.delete(manifest.parts[1].key)

        with pytest.raises(StoreCorrupt) as raised:
            self._deliver(self.make_sink(), manifest, delivery, ctx)

        assert raised.value.code == "store.missing"
        assert raised.value.values["key"] == manifest.parts[1].key
        assert self._count(manifest, delivery, ctx) == 0

    def test_an_aborted_delivery_leaves_nothing_and_can_begin_again(self) -> None:
        manifest, delivery, ctx = self._situation()
        self._stage(self.make_sink(), manifest.parts[:2], delivery, ctx)

        for _ in range(2):
            self.make_sink().abort(manifest, delivery, ctx)
        before = (self._count(manifest, delivery, ctx), self.read_rows(manifest))
        self._deliver(self.make_sink(), manifest, delivery, ctx)

        assert before == (0, [])
        assert self.read_rows(manifest) == _expected(manifest)

    def test_a_cancelled_stage_shows_nothing(self) -> None:
        manifest, delivery, ctx = self._situation()
        assert self.recording is not None
        self.recording.stop()

        try:
            self._stage(self.make_sink(), manifest.parts, delivery, ctx)
        except Signal:
            pass

        assert self._count(manifest, delivery, ctx) == 0

    def test_killed_between_any_two_effects_a_repetition_brings_the_same(self) -> None:
        hits = self._hits_of_a_delivery()
        assert hits, "a delivery passes no failpoint, so it cannot be killed anywhere"

        for at in hits:
            manifest, delivery, ctx = self._situation()
            with self._armed(at), pytest.raises(Killed):
                self._deliver(self.make_sink(), manifest, delivery, ctx)
            self._deliver(self.make_sink(), manifest, delivery, ctx)

            assert self._count(manifest, delivery, ctx) == manifest.rows, at
            assert self.read_rows(manifest) == _expected(manifest), at

    def test_killed_at_any_beat_a_repetition_brings_the_same(self) -> None:
        number = 0
        was_killed = True
        while was_killed:
            number += 1
            manifest, delivery, ctx = self._situation()
            kill = _killing(number)
            dying = replace(ctx, beat=kill)
            try:
                self._deliver(self.make_sink(), manifest, delivery, dying)
                was_killed = False
            except Killed:
                self._deliver(self.make_sink(), manifest, delivery, ctx)

            assert self.read_rows(manifest) == _expected(manifest), number

    def test_an_abort_that_is_killed_can_be_repeated(self) -> None:
        def begin() -> tuple[Manifest, DeliveryView, Context]:
            manifest, delivery, ctx = self._situation()
            self._stage(self.make_sink(), manifest.parts, delivery, ctx)
            return manifest, delivery, ctx

        manifest, delivery, ctx = begin()
        with self._recorded() as hits:
            self.make_sink().abort(manifest, delivery, ctx)
        for at in hits():
            manifest, delivery, ctx = begin()
            with self._armed(at), pytest.raises(Killed):
                self.make_sink().abort(manifest, delivery, ctx)
            self.make_sink().abort(manifest, delivery, ctx)

            assert self._count(manifest, delivery, ctx) == 0, at

    def test_a_good_destination_passes_its_check_with_every_layer_timed(self) -> None:
        _, _, ctx = self._situation()

        report = self.make_sink().check(ctx)

        assert report.ok, report
        assert report.findings
        assert all(finding.elapsed_ms >= 0 for finding in report.findings)

    def test_wrong_credentials_are_a_matter_for_a_person(self) -> None:
        if not self.refuses_credentials:
            pytest.skip("this destination asks for no credentials")
        manifest, delivery, ctx = self._situation()

        names = self.credentials
        for name in secret_fields(type(self.make_sink()).Config) if names is None else names:
            with pytest.raises(AuthError) as raised:
                self._deliver(self.make_sink(**{name: CANARY}), manifest, delivery, ctx)
            report = self.make_sink(**{name: CANARY}).check(ctx)

            assert find_message(raised.value.code)
            assert not report.ok
            failed = report.findings[-1]
            assert (failed.layer, bool(failed.fix), bool(failed.code)) == ("auth", True, True)
        assert self._count(manifest, delivery, ctx) == 0

    def test_secrets_show_up_nowhere(self) -> None:
        manifest, delivery, ctx = self._situation()
        assert self.recording is not None
        sink = self.make_sink(**dict.fromkeys(secret_fields(type(self.make_sink()).Config), CANARY))
        calls: list[Callable[[], Any]] = [
            lambda: sink.check(ctx),
            lambda: self._stage(sink, manifest.parts, delivery, ctx),
            lambda: sink.commit(manifest, delivery, ctx),
            lambda: sink.count(manifest, delivery, ctx),
            lambda: sink.abort(manifest, delivery, ctx),
        ]

        shown = [repr(sink), str(sink)]
        for call in calls:
            try:
                shown.append(repr(call()))
            except IngestError as error:
                assert find_message(error.code)
                shown += [str(error), repr(error), repr(error.values), repr(error.__cause__)]

        assert CANARY not in " ".join(shown)
        assert CANARY not in repr(self.recording.events)

    # helpers of the tests above

    def _situation(self, *, part_rows: Sequence[int] = PART_ROWS) -> tuple[Manifest, DeliveryView, Context]:
        self.renew()
        lake = self.make_lake()
        self.recording = self.make_context(lake)
        manifest = self.make_manifest(lake, part_rows=part_rows)
        return manifest, self.make_delivery(manifest), self.recording.context

    def _stage(self, sink: Sink, parts: Sequence[PartView], delivery: DeliveryView, ctx: Context) -> list[Receipt]:
        return [sink.stage(part, delivery, ctx) for part in parts]

    def _commit(self, sink: Sink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        deadline = time.monotonic() + COMMIT_LIMIT_S
        while True:
            step = sink.commit(manifest, delivery, ctx)
            # Published without a receipt is on the way: the destination has the rows and nobody sees them yet.
            refs = {**delivery.refs, **step.refs}
            if step.state in COMMITTED and step.receipt is not None:
                return replace(step, refs=refs)
            assert time.monotonic() < deadline, f"not committed within {COMMIT_LIMIT_S} s, but {step}"
            delivery = replace(delivery, state=step.state, refs=refs)
            time.sleep(min(step.next_poll_s or 0.0, 0.05))

    def _deliver(
        self, sink: Sink, manifest: Manifest, delivery: DeliveryView, ctx: Context
    ) -> tuple[list[Receipt], CommitStep]:
        receipts = self._stage(sink, manifest.parts, delivery, ctx)
        return receipts, self._commit(sink, manifest, delivery, ctx)

    def _count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        return self.make_sink().count(manifest, delivery, ctx)

    def _hits_of_a_delivery(self) -> list[str]:
        manifest, delivery, ctx = self._situation()
        with self._recorded() as hits:
            self._deliver(self.make_sink(), manifest, delivery, ctx)
        return hits()

    @contextmanager
    def _recorded(self) -> Iterator[Callable[[], list[str]]]:
        """Note the failpoints passed; the function given back returns them as `<point>#<n>`."""
        folder = self._fresh_folder()
        failpoints.arm(json.dumps({"dir": str(folder), "record": True}))

        def hits() -> list[str]:
            found = folder / "hits"
            names = found.read_text().split() if found.exists() else []
            return [f"{name}#{names[: place + 1].count(name)}" for place, name in enumerate(names)]

        try:
            yield hits
        finally:
            failpoints.arm("")

    @contextmanager
    def _armed(self, at: str) -> Iterator[None]:
        rule = {"at": at, "do": f"raise:{Killed.__module__}.{Killed.__qualname__}"}
        failpoints.arm(json.dumps({"dir": str(self._fresh_folder()), "rules": [rule]}))
        try:
            yield
        finally:
            failpoints.arm("")

    def _fresh_folder(self) -> Path:
        folder = self.folder / f"failpoints-{len(list(self.folder.glob('failpoints-*')))}"
        folder.mkdir()
        return folder


def _expected(manifest: Manifest) -> list[dict[str, Any]]:
    return rows_of(0, manifest.rows)


def _taken(receipt: Receipt) -> int:
    return receipt.inserted + receipt.updated + receipt.unchanged + receipt.rejected


def _killing(number: int) -> Callable[[], None]:
    left = [number]

    def beat() -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed

    return beat
