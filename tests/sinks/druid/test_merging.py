"""Runs met with runs, against a model in plain Python: after each merge the datasource holds what it says."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion.ports.batch import RUN
from ingestion.ports.errors import Cancelled, SinkUnavailable, StoreCorrupt
from ingestion.ports.publication import KEY_HASHES, Manifest, PartView, WriteMode
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.toolkit.clean.keys import hash_keys
from sinks.druid.columns import druid_columns, safe_name
from sinks.druid.config import Granularity
from sinks.druid.intervals import chunk_of, milliseconds
from sinks.druid.merging import TIME_KEY, Merge, MergeResult
from tests.conformance.context import MemoryLake, RecordingContext
from tests.sinks.druid.support import CONTRACT, PIPELINE, day, ms, put_part, table_of

Seen = tuple[int, int, Any, int]
"""A row as a reader sees it: run, id, name, moment in milliseconds."""
LOGICAL = [f"2026-02-{number:02d}T00:00:00+00:00" for number in range(1, 29)]


@dataclass
class Model:
    """A datasource that is written chunk by chunk, and what plain Python says that it should hold."""

    lake: MemoryLake = field(default_factory=MemoryLake)
    granularity: Granularity = Granularity.DAY
    key: tuple[str, ...] = ("id",)
    held: list[Seen] = field(default_factory=list)
    manifests: dict[int, Manifest] = field(default_factory=dict)

    def manifest(self, run_id: int, parts: list[list[dict[str, Any]]]) -> Manifest:
        """Return a run of these rows, stored."""
        views = [
            put_part(self.lake, table_of(rows, CONTRACT, run_id=run_id, part=f"{lane}-0"), run_id=run_id, lane=lane)
            for lane, rows in enumerate(parts)
            if rows
        ]
        return self.of_parts(run_id, [self.hashed(view) for view in views] if run_id % 2 else views)

    def hashed(self, view: PartView) -> PartView:
        """Return the part with its key hashes beside it; those of every other run are made when they are needed."""
        content = hash_keys(pq.read_table(io.BytesIO(self.lake.read(view.key))), ("id",), time=CONTRACT.time)
        self.lake.put_if_absent(f"{view.key}{KEY_HASHES}", content)
        return replace(view, hashes=f"{view.key}{KEY_HASHES}")

    def of_parts(self, run_id: int, views: list[PartView]) -> Manifest:
        """Return a run of stored parts."""
        return Manifest(
            run_id=run_id,
            pipeline=PIPELINE,
            mode=WriteMode.MERGE,
            contract=CONTRACT,
            contract_version=1,
            parts=tuple(views),
            rows=sum(view.rows for view in views),
            logical_time=LOGICAL[run_id % 28],
        )

    def merge(self, manifest: Manifest) -> MergeResult:
        """Bring a run in as the sink does: write the touched chunks anew, and leave all others as they are."""
        self.manifests[manifest.run_id] = manifest
        ctx = RecordingContext(lake=self.lake).context
        held = Counter((chunk_of(row[3], self.granularity)[0], row[0]) for row in self.held)
        with Merge(list(self.manifests.values()), run_id=manifest.run_id, key=self.key, ctx=ctx) as merge:
            result = merge.resolve(self.granularity, held)
            columns = druid_columns(manifest.contract, merge.part_types())
            lines = b"".join(text for text, _ in merge.rows(columns)).splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(rows) == result.handed
        written = [(row[RUN], row["id"], row["name"], row[TIME_KEY]) for row in rows]
        assert all(any(start <= row[3] < end for start, end in result.intervals) for row in written)
        outside = [row for row in self.held if not any(start <= row[3] < end for start, end in result.intervals)]
        self.held = sorted(outside + written, key=repr)
        return result

    def expected(self) -> list[Seen]:
        """Return what readers should see of the runs' rows."""
        seen: dict[Any, tuple[Any, Seen]] = {}
        everything: list[Seen] = []
        for run_id in sorted(self.manifests):
            manifest = self.manifests[run_id]
            for part in manifest.parts:
                for row in read_part(self.lake, part):
                    at = milliseconds(manifest.logical_time) if row["at"] is None else ms(row["at"])
                    content, shown = (row["name"], row["at"]), (run_id, row["id"], row["name"], at)
                    everything.append(shown)
                    if row["id"] not in seen or seen[row["id"]][0] != content:
                        seen[row["id"]] = content, shown
        return sorted(everything if not self.key else [shown for _, shown in seen.values()], key=repr)


def read_part(lake: MemoryLake, part: PartView) -> Iterator[dict[str, Any]]:
    yield from pq.read_table(io.BytesIO(lake.read(part.key))).to_pylist()


ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(0, 5),
        "name": st.sampled_from(["Si", "Ge", "", None]),
        "at": st.none()
        | st.builds(
            lambda number, hour, micro: day(number, hour).replace(minute=59, second=59, microsecond=micro),
            st.integers(1, 4),
            st.sampled_from([0, 23]),
            st.sampled_from([0, 999_400, 999_999]),
        ),
    }
)
PARTS = st.lists(st.lists(ROWS, max_size=4), max_size=2)
STEPS = st.one_of(
    st.tuples(st.just("new"), PARTS),
    st.tuples(st.just("late"), PARTS),
    st.tuples(st.just("withdraw"), st.integers(0, 9)),
    st.tuples(st.just("roll back"), st.integers(0, 9)),
    st.tuples(st.just("tear"), st.integers(0, 20)),
    st.tuples(st.just("drop"), st.none()),
    st.tuples(st.just("again"), st.integers(0, 9)),
)
HISTORIES = st.lists(STEPS, min_size=1, max_size=7)
GRANULARITIES = st.sampled_from([Granularity.HOUR, Granularity.DAY, Granularity.MONTH])


def play(model: Model, history: list[tuple[str, Any]]) -> None:
    """Let runs come, come late, be withdrawn, rolled back to and torn; compare after each that is brought in."""
    latest = 0
    for kind, value in history:
        known = sorted(model.manifests)
        manifest: Manifest | None = None
        if kind == "new":
            latest += 3
            manifest = model.manifest(latest, value)
        elif kind == "late" and latest and latest - 1 not in model.manifests:
            manifest = model.manifest(latest - 1, value)
        elif kind == "withdraw" and known:
            # What it had brought stays where it is, until the next run comes.
            del model.manifests[known[value % len(known)]]
        elif kind == "roll back" and known:
            latest += 3
            earlier = model.manifests[known[value % len(known)]]
            manifest = model.of_parts(latest, list(earlier.parts))
        elif kind == "tear" and model.held:
            model.held.pop(value % len(model.held))
        elif kind == "drop":
            model.held.clear()
        elif kind == "again" and known:
            manifest = model.manifests[known[value % len(known)]]
        if manifest is not None:
            result = model.merge(manifest)

            assert model.held == model.expected(), (kind, value)
            assert result.inserted + result.updated + result.unchanged == manifest.rows
            shown = [row for row in model.held if row[0] == manifest.run_id]
            assert len(shown) == result.inserted + result.updated


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES, GRANULARITIES)
def test_after_each_merge_the_datasource_holds_the_state(
    history: list[tuple[str, Any]], granularity: Granularity
) -> None:
    play(Model(granularity=granularity), history)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES)
def test_without_a_key_every_row_of_every_run_is_there_once(history: list[tuple[str, Any]]) -> None:
    play(Model(key=()), history)


@pytest.mark.drill  # `make test` tries 40
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HISTORIES, GRANULARITIES, st.sampled_from([("id",), ()]))
def test_after_each_of_many_merges_the_datasource_holds_the_state(
    history: list[tuple[str, Any]], granularity: Granularity, key: tuple[str, ...]
) -> None:
    play(Model(granularity=granularity, key=key), history)


# single situations, named


@pytest.fixture
def model() -> Model:
    return Model()


def row(number: int, name: Any = "Si", at: datetime | None = None) -> dict[str, Any]:
    return {"id": number, "name": name, "at": at or day(1)}


def test_a_row_that_came_again_unchanged_keeps_its_run(model: Model) -> None:
    model.merge(model.manifest(1, [[row(1), row(2)]]))

    result = model.merge(model.manifest(2, [[row(1), row(2, "Ge"), row(3)]]))

    assert (result.inserted, result.updated, result.unchanged) == (1, 1, 1)
    assert [(run, number) for run, number, _, _ in model.held] == [(1, 1), (2, 2), (2, 3)]


def test_a_row_whose_time_changes_leaves_its_old_chunk(model: Model) -> None:
    model.merge(model.manifest(1, [[row(1), row(2)]]))

    result = model.merge(model.manifest(2, [[row(1, at=day(9))]]))

    assert result.intervals == (chunk_of(ms(day(1)), Granularity.DAY), chunk_of(ms(day(9)), Granularity.DAY))
    assert model.held == model.expected()


def test_an_older_run_that_comes_late_undoes_no_newer_row(model: Model) -> None:
    model.merge(model.manifest(1, [[row(1)]]))
    model.merge(model.manifest(3, [[row(1, "new")]]))

    result = model.merge(model.manifest(2, [[row(1, "late"), row(2)]]))

    assert (result.inserted, result.updated, result.unchanged) == (1, 0, 1)
    assert [(run, number) for run, number, _, _ in model.held] == [(2, 2), (3, 1)]


def test_what_a_withdrawn_run_had_moved_comes_back_where_it_was(model: Model) -> None:
    model.merge(model.manifest(1, [[row(1)]]))
    model.merge(model.manifest(2, [[row(1, at=day(9))]]))
    del model.manifests[2]

    model.merge(model.manifest(3, [[row(5, at=day(20))]]))

    assert [(run, number, at) for run, number, _, at in model.held] == [(1, 1, ms(day(1))), (3, 5, ms(day(20)))]


def test_a_run_without_a_change_removes_what_a_withdrawn_one_left(model: Model) -> None:
    model.merge(model.manifest(1, [[row(1)]]))
    model.merge(model.manifest(2, [[row(2, at=day(9))]]))
    del model.manifests[2]

    result = model.merge(model.manifest(3, [[row(1)]]))

    assert result.intervals == (chunk_of(ms(day(9)), Granularity.DAY),)
    assert result.handed == 0
    assert [(run, number) for run, number, _, _ in model.held] == [(1, 1)]


def test_the_last_moment_of_a_day_stays_in_that_day(model: Model) -> None:
    # A sentinel that sources write for "the whole day": rounded it would be the next one's first moment.
    last = datetime(2026, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC)

    model.merge(model.manifest(1, [[row(1, at=last)]]))

    assert [at for _, _, _, at in model.held] == [ms(day(2, 0)) - 1]


def test_a_moment_before_1970_is_cut_off_like_any_other(model: Model) -> None:
    at = datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC)

    model.merge(model.manifest(1, [[row(1, at=at)]]))

    assert [at for _, _, _, at in model.held] == [-1]


def merged(lake: MemoryLake, *manifests: Manifest, key: tuple[str, ...] = ("id",)) -> list[dict[str, Any]]:
    """Return the rows that a merge of the last of these runs writes into an empty datasource."""
    ctx = RecordingContext(lake=lake).context
    with Merge(manifests, run_id=manifests[-1].run_id, key=key, ctx=ctx) as merge:
        merge.resolve(Granularity.DAY, {})
        columns = druid_columns(manifests[-1].contract, merge.part_types())
        lines = b"".join(text for text, _ in merge.rows(columns)).splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda found: (found[RUN], repr(found.get("id"))))


def test_a_change_in_a_column_that_differs_in_case_only_is_a_change(model: Model) -> None:
    first = model.manifest(1, [[{**row(1), "Energy": 1, "energy": 1}]])
    second = model.manifest(2, [[{**row(1), "Energy": 1, "energy": 2}]])

    rows = merged(model.lake, first, second)

    assert [(found[RUN], found["Energy"], found["energy"]) for found in rows] == [(2, 1, 2)]


@pytest.mark.parametrize("name", ["row", "moment", "number", "part", "c0", "__headgate_index", 'q"uote', "a.b", "a\0b"])
def test_a_column_may_have_any_name(model: Model, name: str) -> None:
    first = model.manifest(1, [[{**row(1), name: "x"}]])
    second = model.manifest(2, [[{**row(1), name: "y"}]])

    assert [found[safe_name(name)] for found in merged(model.lake, first, second)] == ["y"]


def test_a_run_from_before_the_key_was_declared_is_neither_replaced_nor_lost(model: Model) -> None:
    before = replace(
        model.manifest(1, [[]]),
        contract=ContractBody(name="samples"),
        parts=(put_part(model.lake, pa.table({"name": ["a", "b"], RUN: pa.array([1, 1], pa.int64())}), run_id=1),),
        rows=2,
    )

    rows = merged(model.lake, before, model.manifest(2, [[row(1)]]))

    assert [(found[RUN], found["name"]) for found in rows] == [(1, "a"), (1, "b"), (2, "Si")]


def test_what_a_column_held_under_an_earlier_contract_is_not_lost(model: Model) -> None:
    earlier = ContractBody(
        name="samples", key=("id",), columns=(CONTRACT.columns[0], Column(name="cell", type=ColumnType.STRING))
    )
    later = earlier.model_copy(update={"columns": (CONTRACT.columns[0], Column(name="cell", type=ColumnType.OBJECT))})
    tables = [
        table_of([{"id": number, "cell": text}], contract, run_id=number, part="0-0")
        for number, text, contract in ((1, "no json", earlier), (2, '{"a":1}', later))
    ]
    first, second = (
        replace(model.of_parts(number, [put_part(model.lake, table, run_id=number)]), contract=contract)
        for number, table, contract in zip((1, 2), tables, (earlier, later), strict=True)
    )

    rows = merged(model.lake, first, second)
    columns = druid_columns(later, [])

    assert [found["cell"] for found in rows] == ["no json", '{"a":1}']
    assert columns[1].type == "json"


def test_a_lost_part_is_missing_and_not_empty(model: Model) -> None:
    manifest = model.manifest(1, [[row(1)]])
    model.lake.delete(manifest.parts[0].key)

    with pytest.raises(StoreCorrupt) as raised:
        model.merge(manifest)

    assert raised.value.code == "store.missing"


def test_a_merge_leaves_nothing_on_the_disk_however_it_ends(model: Model, tmp_path: Path) -> None:
    recording = RecordingContext(lake=model.lake, scratch=tmp_path)
    manifest = model.manifest(1, [[row(1)]])

    with Merge([manifest], run_id=1, key=("id",), ctx=recording.context):
        assert len(list(tmp_path.iterdir())) == 1
    recording.stop()
    with pytest.raises(Cancelled), Merge([manifest], run_id=1, key=("id",), ctx=recording.context):
        pass

    assert list(tmp_path.iterdir()) == []


def test_two_merges_at_once_have_folders_of_their_own(model: Model, tmp_path: Path) -> None:
    ctx = RecordingContext(lake=model.lake, scratch=tmp_path).context
    manifest = model.manifest(1, [[row(1)]])

    with Merge([manifest], run_id=1, key=("id",), ctx=ctx), Merge([manifest], run_id=1, key=("id",), ctx=ctx):
        folders = list(tmp_path.iterdir())

    assert len(folders) == 2


def test_a_cancel_in_the_middle_of_a_part_is_a_cancel(model: Model) -> None:
    manifest = model.manifest(1, [[row(1)]])
    recording = RecordingContext(lake=model.lake)
    seen: list[int] = []

    def stop_at_the_second_beat() -> None:
        seen.append(1)
        if len(seen) > 1:
            raise Cancelled

    ctx = replace(recording.context, beat=stop_at_the_second_beat)

    with pytest.raises(Cancelled), Merge([manifest], run_id=1, key=("id",), ctx=ctx) as merge:
        merge.resolve(Granularity.DAY, {})


def test_a_store_that_fails_in_the_middle_of_a_part_fails_as_a_store(model: Model) -> None:
    manifest = model.manifest(1, [[row(1)]])
    reads = model.lake.open
    opened: list[str] = []

    def open_once(key: str) -> Any:
        opened.append(key)
        if len(opened) > 1:
            raise SinkUnavailable("store.unavailable", detail="SlowDown")
        return reads(key)

    model.lake.open = open_once  # type: ignore[method-assign]

    with pytest.raises(SinkUnavailable):
        model.merge(manifest)


def test_a_merge_opens_no_more_parts_the_longer_the_history(model: Model) -> None:
    model.granularity = Granularity.MONTH
    reads, opened = model.lake.open, list[str]()

    def counted(key: str) -> Any:
        opened.append(key)
        return reads(key)

    model.lake.open = counted  # type: ignore[method-assign]
    base = [row(number, "base", datetime(2026, number % 12 + 1, 1, tzinfo=UTC)) for number in range(240)]
    counts = {}
    for number in range(1, 101):
        # Half of the rows are updates in two months of twelve, the other half are new, of a time of their own.
        updates = [at for at in range(240) if at % 12 in (3, 4)][number % 4 :: 4]
        fresh = [
            row(1000 + number * 10 + at, "new", datetime(2027 + number // 12, number % 12 + 1, 2, tzinfo=UTC))
            for at in range(10)
        ]
        rows = [row(at, f"run {number}", datetime(2026, at % 12 + 1, 1, tzinfo=UTC)) for at in updates]
        made = model.manifest(number * 2 + 1, [rows + fresh if number > 1 else base])
        opened.clear()
        model.merge(made)
        counts[number] = len({key for key in opened if not key.endswith(KEY_HASHES)})

    assert model.held == model.expected()
    assert counts[100] <= 1.2 * counts[10]
