"""The walk through a listing: the state between two pages, and when to stop with an error. Pure."""

from base64 import urlsafe_b64encode
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, field, replace
from hashlib import blake2b
from typing import Self

from ingestion.ports.batch import Cursor
from ingestion.ports.errors import IngestError, SourceChanged
from ingestion.toolkit.redact import redact_url
from ingestion.toolkit.rest.listing import Listing
from ingestion.toolkit.rest.paginators import Paginator, resolve_next

MARK_CHARS = 8
RECENT_MARKS = 16
KEPT_IDS = 500
KEPT_WARNINGS = 20
EMPTY_PAGES_ALLOWED = 1


def _mark(text: str) -> str:
    return urlsafe_b64encode(blake2b(text.encode("utf-8", "replace"), digest_size=6).digest()).decode()


@dataclass(frozen=True, slots=True)
class Trail:
    """Remembers a walk of any length in a bounded number of marks, so that walking in a circle is noticed.

    A circle of up to 16 steps, or one through the first step, is noticed when it closes; a longer one at the latest
    in its third round. Source: R. P. Brent, "An improved Monte Carlo factorization algorithm" (1980), section 3:
    one mark that is renewed at every power of two.
    """

    count: int = 0
    first: str = ""
    anchor: str = ""
    recent: str = ""

    def has(self, text: str) -> bool:
        """Return whether that step was walked, as far as it is remembered."""
        mark = _mark(text)
        marks = [self.recent[at : at + MARK_CHARS] for at in range(0, len(self.recent), MARK_CHARS)]
        return self.count > 0 and mark in (self.first, self.anchor, *marks)

    def step(self, text: str) -> "Trail":
        """Return the trail with one more step."""
        mark, count = _mark(text), self.count + 1
        return Trail(
            count=count,
            first=self.first or mark,
            anchor=mark if count & (count - 1) == 0 else self.anchor,
            recent=(self.recent + mark)[-MARK_CHARS * RECENT_MARKS :],
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """The place where a listing is read on, and what is kept of the pages before. Its JSON is the cursor."""

    url: str
    seen_count: int = 0
    again_count: int = 0
    total: int | None = None
    empty_count: int = 0
    is_recheck: bool = False
    urls: Trail = field(default_factory=Trail)
    pages: Trail = field(default_factory=Trail)
    last_ids: str = ""
    warned: tuple[str, ...] = ()

    @classmethod
    def from_cursor(cls, cursor: Cursor) -> Self:
        """Return the walk that `to_cursor` wrote."""
        return cls(
            url=cursor["next"],
            seen_count=cursor["seen"],
            again_count=cursor["again"],
            total=cursor["total"],
            empty_count=cursor["empty"],
            is_recheck=cursor["recheck"],
            urls=Trail(*cursor["urls"]),
            pages=Trail(*cursor["pages"]),
            last_ids=cursor["ids"],
            warned=tuple(cursor["warned"]),
        )

    def to_cursor(self) -> Cursor:
        """Return the walk as JSON values."""
        return {
            "next": self.url,
            "seen": self.seen_count,
            "again": self.again_count,
            "total": self.total,
            "empty": self.empty_count,
            "recheck": self.is_recheck,
            "urls": list(astuple(self.urls)),
            "pages": list(astuple(self.pages)),
            "ids": self.last_ids,
            "warned": list(self.warned),
        }

    @property
    def read_count(self) -> int:
        """Return how many records were read, those that came a second time not counted."""
        return self.seen_count - self.again_count

    def new_messages(self, messages: Sequence[str]) -> tuple[str, ...]:
        """Return the messages that no earlier page brought."""
        return tuple(text for text in messages if _mark(text) not in self.warned)


@dataclass(frozen=True, slots=True)
class Step:
    """The consequence of a page: the walk after it (None: it was the last), or the fault that ends the walk.

    With a fault the walk leads to the same page again, so that a later attempt sees whether it was repaired.
    """

    walk: Walk | None
    fault: IngestError | None = None
    note: str = ""


def take_step(
    walk: Walk, answer: Listing, paginator: Paginator, *, limit: int | None, allowed_hosts: Collection[str] = ()
) -> Step:
    """Return the step after the page that `walk.url` gave."""
    marks = [_mark(identifier) for identifier in answer.ids][-KEPT_IDS:]
    known = {walk.last_ids[at : at + MARK_CHARS] for at in range(0, len(walk.last_ids), MARK_CHARS)}
    after = replace(
        walk,
        seen_count=walk.seen_count + answer.record_count,
        again_count=walk.again_count + sum(1 for mark in marks if mark in known),
        total=answer.total if walk.total is None else walk.total,
        empty_count=0 if answer.record_count else walk.empty_count + 1,
        is_recheck=False,
        urls=walk.urls.step(walk.url),
        pages=walk.pages.step(_page_mark(answer)) if answer.ids else walk.pages,
        last_ids="".join(marks) or walk.last_ids,
        warned=(*walk.warned, *(_mark(text) for text in walk.new_messages(answer.messages)))[-KEPT_WARNINGS:],
    )
    if limit is not None and after.seen_count >= limit:
        return Step(None)
    try:
        _check_total(walk, answer)
        link = paginator.next_link(walk.url, answer, read=after.read_count)
        if link is None:
            return Step(None, note=_end(after, answer))
        url = resolve_next(link, current=walk.url, allowed_hosts=allowed_hosts)
        repeats = bool(marks) and not walk.is_recheck and (set(marks) <= known or walk.pages.has(_page_mark(answer)))
        if after.urls.has(url) or repeats or after.empty_count > EMPTY_PAGES_ALLOWED:
            raise SourceChanged("source.pagination_loop", url=redact_url(url))
    except IngestError as fault:
        return Step(replace(after, url=walk.url, is_recheck=True), fault)
    return Step(replace(after, url=url))


def _page_mark(answer: Listing) -> str:
    return "\n".join(sorted(answer.ids))


def _check_total(walk: Walk, answer: Listing) -> None:
    if walk.total is not None and answer.total is not None and answer.total < walk.total:
        raise SourceChanged("source.total_shrank", total=walk.total, found=answer.total)


def _end(after: Walk, answer: Listing) -> str:
    """Return the warning for the end of the pages; SourceChanged where the source itself says that more follow.

    Some providers (OQMD) say so on every page, the last included: the number of records decides then.
    """
    is_short = answer.total is not None and after.read_count < answer.total
    if answer.has_more and (answer.total is None or is_short):
        raise SourceChanged("source.incomplete", records=after.seen_count)
    if is_short:
        return f"The source counts {answer.total} matching records but gave {after.read_count} of them before its pages ended."
    return ""
