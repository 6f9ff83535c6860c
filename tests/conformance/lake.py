"""The contract of every store of a lake, as tests to inherit.

    class TestThing(LakeConformance):
        def make_lake(self) -> ObjectStore: ...

`make_lake` returns a new, empty lake, in a place of its own. A store that promises more inherits
`CreateOnceConformance`: of several writers at once exactly one wins, and unfinished writes are found by their age.
"""

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from ingestion.ports.errors import ConfigError, IngestError
from ingestion.toolkit.lake.keys import sha256_of
from ingestion.toolkit.lake.opening import ObjectStore

KEY = "raw/samples/7/0-0/000001-0123456789abcdef.zst"
MEGABYTE = 1 << 20
SMALL = b"hello world"
LARGE = os.urandom(MEGABYTE) * 17
"""More than two parts of 8 MB."""
BAD_KEYS = (
    *("", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\nb", "a\x00", "a\\b", "x" * 201),
    *(".w-1", "a/.b", ".headgate/x"),  # what a store itself keeps beside the objects
)


class EnoughError(Exception):
    """Raised by who was told of progress and wants no more."""


def code_of(attempt: Callable[[], object]) -> str:
    """Return the code of the error that an attempt ends with, empty where it succeeds."""
    try:
        attempt()
    except IngestError as error:
        return error.code
    return ""


class LakeConformance:
    """Tests that every store inherits; see the module for what a subclass provides."""

    writer_sizes: ClassVar[tuple[int, ...]] = (0, 5, 8 * MEGABYTE, 8 * MEGABYTE + 1, len(LARGE))
    """Lengths of streams on both sides of each change in how the store takes them."""

    told_of_large: ClassVar[int] = 3
    """How often the writer of a large object is told of progress."""

    def make_lake(self) -> ObjectStore:
        raise NotImplementedError

    def traces(self, lake: ObjectStore) -> list[str]:
        """Return what lies in the store, the unseen included."""
        return [info.key for info in lake.list("")]

    @pytest.fixture
    def lake(self, renewed: None) -> ObjectStore:
        return self.make_lake()

    @pytest.fixture
    def renewed(self) -> None:
        """Prepare what `make_lake` needs."""

    @pytest.fixture(params=["bytes", "file"])
    def large(self, request: pytest.FixtureRequest, tmp_path: Path) -> bytes | Path:
        if request.param == "bytes":
            return LARGE
        (tmp_path / "large.bin").write_bytes(LARGE)
        return tmp_path / "large.bin"

    def test_an_object_reads_back_as_it_was_written(self, lake: ObjectStore) -> None:
        info = lake.put_if_absent(KEY, SMALL)
        lake.put_if_absent("empty", b"")

        found = lake.head(KEY)
        assert found is not None
        assert (info.size_bytes, info.sha256) == (11, sha256_of(SMALL))
        # Some stores forget what they were told beside the bytes.
        assert (found.size_bytes, found.sha256 or info.sha256) == (info.size_bytes, info.sha256)
        assert lake.read(KEY) == SMALL
        assert lake.read(KEY, offset=6) == b"world"
        assert lake.read(KEY, offset=2, length=3) == b"llo"
        assert lake.read(KEY, offset=2, length=0) == lake.read(KEY, offset=50, length=3) == b""
        with lake.open("empty") as stream:
            assert stream.read() == lake.read("empty") == b""
        assert self.traces(lake) == ["empty", KEY]

    def test_open_gives_a_seekable_file(self, lake: ObjectStore) -> None:
        lake.put_if_absent(KEY, LARGE)

        with lake.open(KEY) as stream:
            assert stream.seek(-7, os.SEEK_END) == len(LARGE) - 7
            assert stream.read() == LARGE[-7:]
            stream.seek(5_000_000)
            assert stream.read(10) == LARGE[5_000_000:5_000_010]
            stream.seek(0)
            assert sha256_of(stream.read()) == sha256_of(LARGE)
            assert stream.read(1) == b""

    def test_the_same_content_a_second_time_is_success_and_other_content_is_refused(
        self, lake: ObjectStore, tmp_path: Path
    ) -> None:
        (tmp_path / "large.bin").write_bytes(LARGE)

        for key, content in (("small", SMALL), (KEY, tmp_path / "large.bin")):
            first = lake.put_if_absent(key, content, sha256=sha256_of(content))
            second = lake.put_if_absent(key, content)
            assert (second.size_bytes, second.sha256) == (first.size_bytes, first.sha256)
            for other in (b"other", LARGE[1:]):
                assert code_of(lambda key=key, other=other: lake.put_if_absent(key, other)) == "store.conflict"  # type: ignore[misc]

        assert lake.read("small") == SMALL
        assert sha256_of(lake.read(KEY)) == sha256_of(LARGE)
        assert self.traces(lake) == [KEY, "small"]

    def test_bytes_that_are_not_those_recorded_are_never_stored(
        self, lake: ObjectStore, large: bytes | Path, tmp_path: Path
    ) -> None:
        for content in (SMALL, large):
            assert code_of(lambda content=content: lake.put_if_absent(KEY, content, sha256="0" * 64)) == "store.corrupt"  # type: ignore[misc]

        assert self.traces(lake) == []

    def test_a_pointer_moves(self, lake: ObjectStore) -> None:
        lake.put("latest.json", b"1")
        lake.put("latest.json", b"2")

        assert lake.read("latest.json") == b"2"
        assert self.traces(lake) == ["latest.json"]

    def test_a_writer_shows_nothing_before_its_commit(self, lake: ObjectStore) -> None:
        for size_bytes in self.writer_sizes:
            key, content = f"streams/{size_bytes:09}", (LARGE * 3)[:size_bytes]
            writer = lake.writer(key)
            for start in range(0, size_bytes, 1_000_000):
                writer.write(content[start : start + 1_000_000])
            before = (lake.head(key), list(lake.list("")))

            info = writer.commit()
            writer.abort()

            assert before == (None, []), size_bytes
            assert (info.size_bytes, info.sha256) == (size_bytes, sha256_of(content))
            assert writer.commit() is info
            assert sha256_of(lake.read(key)) == info.sha256
            assert self.traces(lake) == [key]
            lake.delete(key)

    def test_a_writer_meets_the_same_content_as_success_and_other_content_as_conflict(self, lake: ObjectStore) -> None:
        writers = [lake.writer(KEY) for _ in range(3)]
        for writer, content in zip(writers, [LARGE, LARGE, LARGE[:-1] + bytes([LARGE[-1] ^ 1])], strict=True):
            writer.write(content)

        writers[0].commit()

        assert writers[1].commit().sha256 == sha256_of(LARGE)
        assert code_of(writers[2].commit) == "store.conflict"
        assert sha256_of(lake.read(KEY)) == sha256_of(LARGE)
        assert self.traces(lake) == [KEY]

    def test_who_waits_for_a_large_object_hears_of_progress_and_can_end_it(
        self, lake: ObjectStore, large: bytes | Path
    ) -> None:
        told: list[int] = []

        def end_it() -> None:
            raise EnoughError

        with pytest.raises(EnoughError):
            lake.put_if_absent(KEY, large, beat=end_it)
        left = self.traces(lake)
        lake.put_if_absent(KEY, large, sha256=sha256_of(LARGE), beat=lambda: told.append(1))

        assert left == []
        assert len(told) == self.told_of_large
        assert sha256_of(lake.read(KEY)) == sha256_of(LARGE)

    def test_an_aborted_writer_leaves_nothing(self, lake: ObjectStore) -> None:
        writer = lake.writer(KEY)
        writer.write(LARGE)

        writer.abort()
        writer.abort()

        assert self.traces(lake) == []

    def test_a_missing_object_is_missing_and_not_empty(self, lake: ObjectStore) -> None:
        attempts = (lambda: lake.open(KEY), lambda: lake.read(KEY), lambda: lake.read(KEY, offset=3))

        assert [code_of(attempt) for attempt in attempts] == ["store.missing"] * 3
        assert lake.head(KEY) is None
        lake.delete(KEY)

    def test_list_follows_the_order_of_keys_and_hides_what_is_not_finished(self, lake: ObjectStore) -> None:
        for key in ["ab/1", "b", "a/b.c", "a-b/c", "ab/2", "a.b", "uploads/1/Größe 1.csv"]:
            lake.put_if_absent(key, b"")
        unfinished = lake.writer("ab/3")

        def listed(prefix: str) -> list[str]:
            return [info.key for info in lake.list(prefix)]

        assert listed("") == ["a-b/c", "a.b", "a/b.c", "ab/1", "ab/2", "b", "uploads/1/Größe 1.csv"]
        assert listed("ab/") == ["ab/1", "ab/2"]
        assert listed("a") == ["a-b/c", "a.b", "a/b.c", "ab/1", "ab/2"]
        assert listed("uploads/1/Gr") == ["uploads/1/Größe 1.csv"]
        assert listed("zzz/deep") == []
        lake.delete("ab/1")
        assert listed("ab/") == ["ab/2"]
        unfinished.abort()

    def test_a_key_that_could_leave_its_place_is_refused(self, lake: ObjectStore) -> None:
        for key in BAD_KEYS:
            for attempt in (lake.head, lake.open, lake.writer, lake.delete, lake.read, lake.local_path):
                with pytest.raises(ConfigError) as caught:
                    attempt(key)
                assert caught.value.code == "store.bad_key", key
                assert "?" not in str(caught.value)


class CreateOnceConformance(LakeConformance):
    """Tests of stores that create an object once, whoever tries, and know of what was never finished."""

    rivals: ClassVar[int] = 4

    def reopen(self, lake: ObjectStore) -> ObjectStore:
        """Return the same lake as another process sees it."""
        raise NotImplementedError

    def leave_unfinished(self, lake: ObjectStore) -> None:
        """Begin a write that nobody ends."""
        raise NotImplementedError

    def test_of_many_writers_exactly_one_wins(self, lake: ObjectStore) -> None:
        lake.put_if_absent("warm", b"")
        for key, size_bytes in (("small", 100_000), ("large", 9 * MEGABYTE)):
            contents = [bytes([65 + number]) * size_bytes for number in range(self.rivals)]
            outcomes: list[str] = []
            barrier = threading.Barrier(len(contents))

            def write(
                content: bytes, key: str = key, barrier: threading.Barrier = barrier, outcomes: list[str] = outcomes
            ) -> None:
                mine = self.reopen(lake)
                barrier.wait()
                outcomes.append(code_of(lambda: mine.put_if_absent(key, content)))

            threads = [threading.Thread(target=write, args=(content,)) for content in contents]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            assert sorted(outcomes) == ["", *["store.conflict"] * (self.rivals - 1)]
            assert lake.read(key) in contents
        assert self.traces(lake) == ["large", "small", "warm"]

    def test_unfinished_writes_are_counted_and_swept_by_their_age(self, lake: ObjectStore) -> None:
        self.leave_unfinished(lake)
        now = datetime.now(UTC)
        earlier, later = now - timedelta(hours=1), now + timedelta(hours=1)

        assert [lake.abort_stale_uploads(earlier, dry_run=dry_run) for dry_run in (True, False)] == [0, 0]
        assert [lake.abort_stale_uploads(later, dry_run=dry_run) for dry_run in (True, True, False, False)] == [
            1,
            1,
            1,
            0,
        ]
        assert self.traces(lake) == []
        lake.put_if_absent(KEY, SMALL)
