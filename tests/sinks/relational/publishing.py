"""Append, merge, replace: what lands, what is counted, who wins."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from ingestion.ports.errors import Cancelled, SinkRejected, SinkUnavailable
from ingestion.ports.publication import WriteMode
from ingestion.ports.schema import ExtraColumns
from tests.conformance.parts import delivery_of
from tests.sinks.relational.place import PRICED, RelationalPlace, contract_of, priced, store, table_of, text

KEYLESS = PRICED.model_copy(update={"key": ()})
ROWS = "SELECT id, price, _run FROM samples ORDER BY id, _run"


class Publishing(RelationalPlace):
    """Tests of the modes."""

    def test_appended_runs_stand_beside_each_other(self) -> None:
        self.begin()

        first = self.deliver(1, priced((1, 1.0), (2, None)), mode=WriteMode.APPEND, contract=KEYLESS)
        second = self.deliver(2, priced((1, 1.0)), priced((3, 3.0)), mode=WriteMode.APPEND, contract=KEYLESS)

        assert (first.counts, second.counts) == ((2, 0, 0, 0), (2, 0, 0, 0))
        assert self.read(ROWS) == [(1, 1.0, 1), (1, 1.0, 2), (2, None, 1), (3, 3.0, 2)]

    def test_a_merge_counts_what_it_inserted_updated_and_left(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0), (3, None)))

        told = self.deliver(2, priced((2, 2.5), (4, 4.0)), priced((3, None), (5, None)))

        assert told.counts == (2, 1, 1, 0)
        assert self.read(ROWS) == [(1, 1.0, 1), (2, 2.5, 2), (3, None, 1), (4, 4.0, 2), (5, None, 2)]

    def test_a_value_that_becomes_null_and_one_that_was_null_are_differences(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, None)))

        told = self.deliver(2, priced((1, None), (2, 2.0)))

        assert told.counts == (0, 2, 0, 0)

    def test_texts_that_differ_in_case_accent_or_trailing_blank_differ(self) -> None:
        self.begin()
        contract = contract_of(text("name"))
        self.deliver(1, [{"id": n, "name": "a"} for n in range(3)], contract=contract)

        told = self.deliver(2, [{"id": n, "name": name} for n, name in enumerate(("A", "ä", "a "))], contract=contract)

        assert told.counts == (0, 3, 0, 0)

    def test_keys_that_differ_in_case_or_trailing_blank_are_two(self) -> None:
        self.begin()
        contract = contract_of(text("code", nullable=False), key=("code",))
        codes = ("a", "A", "a ", "ä", "")

        told = self.deliver(1, [{"id": n, "code": code} for n, code in enumerate(codes)], contract=contract)
        again = self.deliver(2, [{"id": n, "code": code} for n, code in enumerate(codes)], contract=contract)

        assert (told.counts, again.counts) == ((5, 0, 0, 0), (0, 0, 5, 0))

    def test_a_full_refresh_takes_out_what_it_no_longer_has_and_leaves_what_is_the_same(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0), (3, 3.0)), mode=WriteMode.REPLACE)

        told = self.deliver(2, priced((1, 1.0), (2, 2.5)), mode=WriteMode.REPLACE)

        assert told.counts == (0, 1, 1, 0)
        assert self.read(ROWS) == [(1, 1.0, 1), (2, 2.5, 2)]
        assert ("delivery.removed", {"destination": "under-test", "rows": 1}) in self.recording.events

    def test_a_full_refresh_without_a_key_replaces_all(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE, contract=KEYLESS)

        told = self.deliver(2, priced((1, 1.0)), priced((1, 1.0)), mode=WriteMode.REPLACE, contract=KEYLESS)

        assert told.counts == (2, 0, 0, 0)
        assert self.read(ROWS) == [(1, 1.0, 2), (1, 1.0, 2)]

    @pytest.mark.parametrize("contract", [PRICED, KEYLESS])
    def test_an_empty_full_refresh_leaves_an_empty_table(self, contract: Any) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE, contract=contract)

        told = self.deliver(2, mode=WriteMode.REPLACE, contract=contract)

        assert told.counts == (0, 0, 0, 0)
        assert self.read(ROWS) == []

    def test_a_soft_deletion_marks_the_row_and_its_return_takes_the_mark_away(self) -> None:
        self.begin()
        sink = self.make_relational(deletes="soft")
        query = "SELECT id, _run, _deleted_at IS NULL FROM samples ORDER BY id"
        self.deliver(1, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE, sink=sink)

        gone = self.deliver(2, priced((1, 1.0)), mode=WriteMode.REPLACE, sink=sink)
        marked = self.read(query)
        back = self.deliver(3, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE, sink=sink)

        assert (gone.counts, back.counts) == ((0, 0, 1, 0), (0, 1, 1, 0))
        assert [(row[0], row[1], bool(row[2])) for row in marked] == [(1, 1, True), (2, 1, False)]
        assert [(row[0], row[1], bool(row[2])) for row in self.read(query)] == [(1, 1, True), (2, 3, True)]

    def test_soft_deletions_can_be_chosen_later_and_keep_what_a_keyless_refresh_replaces(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0)), mode=WriteMode.REPLACE, contract=KEYLESS)

        told = self.deliver(
            2, priced((1, 9.0)), mode=WriteMode.REPLACE, contract=KEYLESS, sink=self.make_relational(deletes="soft")
        )

        assert told.counts == (1, 0, 0, 0)
        assert self.read("SELECT _run FROM samples WHERE _deleted_at IS NULL") == [(2,)]
        assert self.read("SELECT _run FROM samples WHERE _deleted_at IS NOT NULL") == [(1,)]

    def test_an_unchanged_load_touches_no_row(self) -> None:
        self.begin()
        rows = priced(*((n, n / 7) for n in range(300)))
        self.deliver(1, rows[:200], rows[200:], mode=WriteMode.REPLACE)

        told = self.deliver(2, rows[:100], rows[100:], mode=WriteMode.REPLACE)

        assert told.counts == (0, 0, 300, 0)
        assert self.read("SELECT count(*) FROM samples WHERE _run = 1") == [(300,)]

    def test_the_run_that_publishes_is_written_and_not_the_one_that_read(self) -> None:
        self.begin()
        old = self.manifest(1, priced((1, 1.0)))
        self.publish(old)
        self.deliver(2, priced((1, 2.0)))

        rolled_back = self.publish(replace(old, run_id=3))

        assert rolled_back.counts == (0, 1, 0, 0)
        assert self.read(ROWS) == [(1, 1.0, 3)]

    def test_an_older_run_that_comes_late_overwrites_no_newer_row(self) -> None:
        self.begin()
        self.deliver(8, priced((2, 8.0), (5, 8.0)))
        self.deliver(9, priced((1, 9.0), (2, 9.0)))

        late = self.deliver(7, priced((1, 7.0), (3, 7.0), (5, 7.0)))

        assert late.counts == (1, 0, 2, 0)
        assert self.read(ROWS) == [(1, 9.0, 9), (2, 9.0, 9), (3, 7.0, 7), (5, 8.0, 8)]

    def test_an_older_run_that_comes_late_overwrites_no_row_that_a_newer_one_brought_unchanged(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0), (3, 3.0)))
        same = self.deliver(9, priced((1, 1.0)))

        late = self.deliver(5, priced((1, 5.0), (2, 5.0)))
        late_refresh = self.deliver(7, priced((2, 7.0)), mode=WriteMode.REPLACE)

        assert (same.counts, late.counts, late_refresh.counts) == ((0, 0, 1, 0), (0, 1, 1, 0), (0, 1, 0, 0))
        assert self.read(ROWS) == [(1, 1.0, 1), (2, 7.0, 7)]

    def test_a_late_full_refresh_leaves_the_rows_of_newer_runs_in_place(self) -> None:
        self.begin()
        self.deliver(5, priced((1, 5.0), (2, 5.0), (3, 5.0)), mode=WriteMode.REPLACE)
        self.deliver(9, priced((2, 9.0), (4, 9.0)))

        late = self.deliver(7, priced((1, 7.0), (2, 7.0)), mode=WriteMode.REPLACE)

        assert late.counts == (0, 1, 1, 0)
        assert self.read(ROWS) == [(1, 7.0, 7), (2, 9.0, 9), (4, 9.0, 9)]

    @pytest.mark.parametrize("mode", list(WriteMode))
    def test_a_run_older_than_the_newest_full_refresh_brings_nothing(self, mode: WriteMode) -> None:
        self.begin()
        contract = KEYLESS if mode is WriteMode.APPEND else PRICED
        self.deliver(9, priced((1, 9.0)), mode=WriteMode.REPLACE, contract=contract)

        late = self.deliver(8, priced((1, 8.0), (2, 8.0)), mode=mode, contract=contract)

        assert late.counts == (0, 0, 2, 0)
        assert self.read(ROWS) == [(1, 9.0, 9)]

    @pytest.mark.parametrize("mode", list(WriteMode))
    def test_a_run_completed_by_a_retry_brings_the_rest_once(self, mode: WriteMode) -> None:
        self.begin()
        contract = KEYLESS if mode is WriteMode.APPEND else PRICED
        self.deliver(1, priced((1, 1.0), (2, 2.0), (7, 7.0)), mode=mode, contract=contract)
        whole = self.manifest(
            2, priced((1, 1.0), (2, 2.5)), priced((3, 3.0)), priced((4, 4.0)), mode=mode, contract=contract
        )
        part_of_it = replace(whole, parts=whole.parts[:2], rows=3)
        self.publish(part_of_it)

        completed = self.publish(whole)
        again = self.publish(whole)

        assert completed.receipt == again.receipt
        assert completed.counts == ((4, 0, 0, 0) if mode is WriteMode.APPEND else (2, 1, 1, 0))
        kept = {WriteMode.APPEND: 3, WriteMode.MERGE: 2, WriteMode.REPLACE: 1}[mode]
        assert self.read("SELECT count(*) FROM samples WHERE _run = 1") == [(kept,)]

    def test_a_part_written_anew_under_its_name_takes_the_place_of_what_was_staged(self) -> None:
        self.begin()
        old = self.manifest(1, priced((1, 1.0), (2, 2.0)))
        sink = self.make_relational()
        sink.stage(old.parts[0], delivery_of(old), self.ctx)

        told = self.deliver(1, priced((1, 1.5)))

        assert told.counts == (1, 0, 0, 0)
        assert self.read(ROWS) == [(1, 1.5, 1)]

    def test_a_part_that_the_run_has_no_longer_is_let_go(self) -> None:
        self.begin()
        old = self.manifest(1, priced((1, 1.0)), priced((2, 2.0)), mode=WriteMode.REPLACE)
        sink = self.make_relational()
        for part in old.parts:
            sink.stage(part, delivery_of(old), self.ctx)

        told = self.publish(replace(old, parts=old.parts[:1], rows=1))

        assert told.counts == (1, 0, 0, 0)
        assert self.read(ROWS) == [(1, 1.0, 1)]

    def test_a_run_completed_after_a_newer_full_refresh_still_knows_what_is_its_own(self) -> None:
        self.begin()
        whole = self.manifest(1, priced((1, 1.0)), priced((2, 2.0)), mode=WriteMode.REPLACE)
        self.publish(replace(whole, parts=whole.parts[:1], rows=1))
        self.deliver(2, priced((1, 1.0), (3, 3.0)), mode=WriteMode.REPLACE)

        told = self.publish(whole)

        assert told.counts == (1, 0, 1, 0)
        assert self.read(ROWS) == [(1, 1.0, 1), (3, 3.0, 2)]

    def test_the_same_key_twice_in_a_run_corrupts_nothing(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 0.0)))

        told = self.deliver(2, priced((1, 1.0), (2, 2.0), (2, 2.0)), priced((1, 1.0), (2, 2.0), (3, 3.0)))

        assert told.counts == (2, 1, 3, 0)
        assert self.read(ROWS) == [(1, 1.0, 2), (2, 2.0, 2), (3, 3.0, 2)]

    def test_a_merge_without_a_key_is_refused(self) -> None:
        self.begin()

        with pytest.raises(SinkRejected, match="key"):
            self.deliver(1, priced((1, 1.0)), contract=KEYLESS)

    def test_an_abort_after_the_commit_removes_no_row(self) -> None:
        self.begin()
        told = self.deliver(1, priced((1, 1.0)))

        self.make_relational().abort(told.manifest, delivery_of(told.manifest), self.ctx)

        assert self.read(ROWS) == [(1, 1.0, 1)]

    def test_nothing_waits_once_a_run_is_committed(self) -> None:
        self.begin()
        left = self.manifest(1, priced((1, 1.0)))
        self.make_relational().stage(left.parts[0], delivery_of(left), self.ctx)

        self.deliver(2, priced((2, 2.0)))

        assert not [name for name in self.own_tables() if name.startswith("headgate_stage")]
        assert self.read("SELECT count(*) FROM headgate_parts") == [(0,)]

    def test_a_run_that_is_stopped_before_its_commit_lands_not_at_all(self) -> None:
        self.begin()
        manifest = self.manifest(1, priced((1, 1.0)))
        sink = self.make_relational()
        sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)
        self.recording.stop()

        with pytest.raises(Cancelled):
            sink.commit(manifest, delivery_of(manifest), self.ctx)

        assert self.read("SELECT count(*) FROM samples") == [(0,)]

    def test_readers_see_the_old_rows_until_they_see_the_new_ones(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE)

        with self.seen_on_beats(lambda: self.read(ROWS)) as seen:
            self.deliver(2, priced((2, 2.5)), priced((3, 3.0)), mode=WriteMode.REPLACE)
        with self.seen_on_beats(lambda: self.read(ROWS)) as seen_keyless:
            self.deliver(3, priced((4, 4.0)), mode=WriteMode.REPLACE, contract=KEYLESS)

        old, new = [(1, 1.0, 1), (2, 2.0, 1)], [(2, 2.5, 2), (3, 3.0, 2)]
        assert len(seen) > 4
        assert [rows for rows in seen if rows not in (old, new)] == []
        assert [rows for rows in seen_keyless if rows not in (new, [(4, 4.0, 3)])] == []

    def test_two_who_stage_and_commit_the_same_run_at_once_deliver_it_once(self) -> None:
        self.begin()
        manifest = self.manifest(1, *(priced(*((n + 100 * lane, 1.0) for n in range(50))) for lane in range(4)))
        start = threading.Barrier(2)

        def deliver() -> Any:
            start.wait()
            return self.publish(manifest).receipt

        with ThreadPoolExecutor(2) as threads:
            first, second = (done.result() for done in [threads.submit(deliver), threads.submit(deliver)])

        assert first == second
        assert first.inserted == 200
        assert self.read("SELECT count(*), count(DISTINCT id) FROM samples") == [(200, 200)]

    def test_what_was_delivered_is_written_down_beside_the_rows(self) -> None:
        self.begin()

        self.deliver(4, priced((1, 1.0)), priced((2, 1.0)))

        columns = "table_name, run_id, pipeline, mode, row_count, inserted, updated, unchanged, refused"
        assert self.read(f"SELECT {columns} FROM headgate_deliveries") == [  # noqa: S608
            ("samples", 4, "samples", "merge", 2, 2, 0, 0, 0)
        ]

    def test_a_commit_whose_answer_is_lost_is_found_by_the_next_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begin()
        connection_class: Any = self.make_relational().connection_class
        manifest = self.manifest(1, priced((1, 1.0), (2, 2.0)), mode=WriteMode.APPEND, contract=KEYLESS)
        plain, is_lost = connection_class.end, [False]

        def end(session: Any, *, commits: bool) -> None:
            plain(session, commits=commits)
            if commits and not is_lost[0] and self.read("SELECT count(*) FROM samples") == [(2,)]:
                is_lost[0] = True
                raise ConnectionResetError("the answer was lost")

        delivery, sink = delivery_of(manifest), self.make_relational()
        sink.stage(manifest.parts[0], delivery, self.ctx)
        monkeypatch.setattr(connection_class, "end", end)
        with pytest.raises(SinkUnavailable) as caught:
            sink.commit(manifest, delivery, self.ctx)

        told = self.publish(manifest)

        assert caught.value.code == "sink.unavailable"
        assert told.counts == (2, 0, 0, 0)
        assert self.read("SELECT count(*) FROM samples") == [(2,)]

    def test_an_extra_column_that_a_run_no_longer_has_is_null_in_the_rows_it_writes(self) -> None:
        self.begin()
        self.deliver(1, [{"id": 1, "name": "a", "note": "n"}, {"id": 2, "name": "b", "note": "n"}])

        told = self.deliver(2, priced((1, 1.0)))

        assert told.counts == (0, 1, 0, 0)
        assert self.read("SELECT id, note FROM samples ORDER BY id") == [(1, None), (2, "n")]

    def test_a_column_that_a_contract_gave_up_is_not_compared_and_null_in_rows_that_are_replaced(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0)))
        fewer = contract_of(text("name"), extra_columns=ExtraColumns.DISCARD)

        told = self.deliver(2, [{"id": 1, "name": "x1"}, {"id": 2, "name": "new"}], contract=fewer)

        assert told.counts == (0, 1, 1, 0)
        assert self.read("SELECT id, name, price FROM samples ORDER BY id") == [(1, "x1", 1.0), (2, "new", None)]

    def test_parts_are_told_apart_by_lane_link_and_number(self) -> None:
        self.begin()
        parts = [
            store(self.lake, table_of(priced((n, 1.0)), PRICED), run_id=1, lane=lane, link=link, seq=seq)
            for n, (lane, link, seq) in enumerate(((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)))
        ]
        manifest = replace(self.manifest(1), parts=tuple(parts), rows=4)

        told = self.publish(manifest)

        assert told.counts == (4, 0, 0, 0)
        assert self.read("SELECT id, _part FROM samples ORDER BY id") == [
            (0, "0-0"),
            (1, "0-0"),
            (2, "0-1"),
            (3, "1-0"),
        ]
