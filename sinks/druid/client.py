"""Speaks with the Overlord, the Coordinator and the Broker, or with the Router in front of them."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import orjson

from ingestion.ports.context import HttpClient, HttpResponse
from ingestion.ports.errors import AuthError, SinkRejected, SinkUnavailable, SourceChanged, SourceUnavailable
from sinks.druid.config import DruidConfig
from sinks.druid.intervals import Interval, as_text, from_text

ANY_STATUS = range(300, 600)
MOST_REDIRECTS = 3
_UNAUTHORIZED = (401, 403)
_BUSY = (429, 502, 503, 504)
_REDIRECTS = (301, 302, 307, 308)
_ERROR = 400
_NOT_FOUND = 404
_NO_CONTENT = 204
_DETAIL_CHARACTERS = 400
_UNKNOWN_TABLE = "not found"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """How far a task is: RUNNING, SUCCESS or FAILED, and what it said."""

    code: str
    message: str = ""
    duration_ms: int | None = None

    @property
    def is_over(self) -> bool:
        """Return whether it will not change any more."""
        return self.code in ("SUCCESS", "FAILED")


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submission: `exists` where a task of that id is there already."""

    is_accepted: bool
    exists: bool = False


class DruidClient:
    """One Druid as one destination sees it. Errors are those of a destination; texts carry no credentials.

    Requests with credentials follow a redirect to the leader only where its address is one of the configured ones.
    """

    def __init__(
        self, config: DruidConfig, http: HttpClient, *, destination: str, deadline_s: float | None = None
    ) -> None:
        self._config = config
        self._http = http.variant(ca_file=config.ca_file or None, deadline_s=deadline_s)
        self._destination = destination
        self.overlord = config.overlord_url or config.url
        self.coordinator = config.coordinator_url or config.url
        self.broker = config.broker_url or config.url
        self._headers: dict[str, str] = {}
        if config.password is not None:
            login = f"{config.username}:{config.password.get_secret_value()}"
            self._headers = {"authorization": "Basic " + base64.b64encode(login.encode()).decode()}

    # the cluster

    def status(self, base: str | None = None) -> dict[str, Any]:
        """Return version and modules of a service; the Overlord's without an address."""
        found: dict[str, Any] = self._get(f"{base or self.overlord}/status")
        return found

    def has_leader(self) -> bool:
        """Return whether the Overlord that answers leads, or knows who does."""
        response = self._call("GET", f"{self.overlord}/druid/indexer/v1/leader")
        return response.status < _ERROR and bool(response.body.strip())

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers with their capacity and how much of it is used."""
        found: list[dict[str, Any]] = self._get(f"{self.overlord}/druid/indexer/v1/workers")
        return found

    def default_rules(self) -> list[dict[str, Any]]:
        """Return the load rules that hold where a datasource has none of its own."""
        found: list[dict[str, Any]] = self._get(f"{self.coordinator}/druid/coordinator/v1/rules/_default")
        return found

    # tasks

    def submit(self, task: Mapping[str, Any]) -> Submission:
        """Hand a task over; SinkRejected where it will never be taken, SinkUnavailable where nobody knows."""
        response = self._call("POST", f"{self.overlord}/druid/indexer/v1/task", json=task)
        if response.status < _ERROR:
            return Submission(is_accepted=True)
        if _error_code(response) == "entryAlreadyExists":
            return Submission(is_accepted=False, exists=True)
        self._raise_for(response)
        raise SinkRejected("sink.rejected", destination=self._destination, detail=detail_of(response))

    def task(self, task_id: str) -> dict[str, Any] | None:
        """Return the task as it was handed over, without its passwords; None where there is no such task."""
        return self._get_or_none(f"{self._task(task_id)}")

    def task_status(self, task_id: str) -> TaskStatus | None:
        """Return how far the task is, or None where Druid knows of none."""
        found = self._get_or_none(f"{self._task(task_id)}/status")
        return None if found is None else _status(found.get("status") or {})

    def task_statuses(self, task_ids: Sequence[str]) -> dict[str, TaskStatus]:
        """Return how far the tasks are, with one question; those that Druid does not know are left out."""
        if not task_ids:
            return {}
        url = f"{self.overlord}/druid/indexer/v1/taskStatus"
        found = self._parsed(self._checked(self._call("POST", url, json=list(task_ids), is_repeatable=True)))
        return {task_id: _status(status or {}) for task_id, status in found.items()}

    def report(self, task_id: str) -> dict[str, Any] | None:
        """Return the task's report, or None where there is none (yet)."""
        return self._get_or_none(f"{self._task(task_id)}/reports")

    def log_tail(self, task_id: str, *, tail_bytes: int) -> str:
        """Return the end of the task's log; empty where none was kept."""
        response = self._call("GET", f"{self._task(task_id)}/log?offset=-{tail_bytes}")
        if response.status == _NOT_FOUND:
            return ""
        return self._checked(response).body[-tail_bytes:].decode("utf-8", "replace")

    def shutdown(self, task_id: str) -> bool:
        """Stop the task; return whether Druid knew it."""
        response = self._call("POST", f"{self._task(task_id)}/shutdown", json={}, is_repeatable=True)
        if response.status == _NOT_FOUND:
            return False
        self._checked(response)
        return True

    def tasks(self, *, limit: int) -> list[dict[str, Any]]:
        """Return running, waiting and the last completed tasks."""
        found: list[dict[str, Any]] = self._get(f"{self.overlord}/druid/indexer/v1/tasks?max={limit}")
        return found

    def sample(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return what Druid makes of the first rows of an input; it reads them itself."""
        url = f"{self.overlord}/druid/indexer/v1/sampler"
        found: dict[str, Any] = self._parsed(self._checked(self._call("POST", url, json=question, is_repeatable=True)))
        return found

    # segments

    def unloaded_count(self, datasource: str, interval: Interval) -> int | None:
        """Return how many published segments of the interval are not served yet; None where none is known there.

        The interval must be given: without it only the last two weeks are looked at.
        """
        span = as_text(interval).replace("/", "_")
        url = f"{self.coordinator}/druid/coordinator/v1/datasources/{quote(datasource, safe='')}/loadstatus"
        response = self._call("GET", f"{url}?simple&forceMetadataRefresh=true&interval={span}")
        if response.status in (_NO_CONTENT, _NOT_FOUND):
            return None
        found = self._parsed(self._checked(response))
        return int(found.get(datasource, 0)) if isinstance(found, dict) else None

    def mark_unused(self, datasource: str, interval: Interval) -> None:
        """Take the interval's segments out of the datasource."""
        url = f"{self.overlord}/druid/indexer/v1/datasources/{quote(datasource, safe='')}/markUnused"
        self._checked(self._call("POST", url, json={"interval": as_text(interval)}, is_repeatable=True))

    def mark_all_unused(self, datasource: str) -> None:
        """Take all segments out of the datasource."""
        url = f"{self.overlord}/druid/indexer/v1/datasources/{quote(datasource, safe='')}"
        # The Overlord's DELETE by another name: `markUnused` over the years 1 to 9999 would leave eternity there.
        segments = [row["segment_id"] for row in self.segments(datasource)]
        if segments:
            self._checked(self._call("POST", f"{url}/markUnused", json={"segmentIds": segments}, is_repeatable=True))

    # questions in SQL

    def sql(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of an answer; SinkRejected with Druid's words where the question is refused."""
        body = {
            "query": query,
            "parameters": [{"type": _sql_type(value), "value": value} for value in parameters],
            "resultFormat": "object",
            "context": {"useApproximateCountDistinct": False},
        }
        response = self._call("POST", f"{self.broker}/druid/v2/sql", json=body, is_repeatable=True)
        found: list[dict[str, Any]] = self._parsed(self._checked(response))
        return found

    def submit_sql(self, query: str, *, query_id: str, context: Mapping[str, Any]) -> Submission:
        """Hand a statement of the multi-stage engine over; its task is called `query-<query_id>`."""
        body = {"query": query, "context": {**context, "sqlQueryId": query_id}}
        response = self._call("POST", f"{self.broker}/druid/v2/sql/task", json=body)
        if response.status < _ERROR:
            return Submission(is_accepted=True)
        self._raise_for(response)
        # What it says of a query id that is there already was never seen: so the id itself is asked for.
        if self.task_status(f"query-{query_id}") is not None:
            return Submission(is_accepted=False, exists=True)
        raise SinkRejected("sink.rejected", destination=self._destination, detail=detail_of(response))

    def segments(self, datasource: str) -> list[dict[str, Any]]:
        """Return id, start and end of the segments that readers see."""
        query = (
            'SELECT "segment_id", "start", "end" FROM sys.segments '
            "WHERE datasource = ? AND is_published = 1 AND is_overshadowed = 0"
        )
        return self.sql(query, datasource)

    def chunks(self, datasource: str) -> list[Interval]:
        """Return the intervals of the segments that readers see, or are about to."""
        return sorted({from_text(row["start"], row["end"]) for row in self.segments(datasource)})

    def has_table(self, datasource: str) -> bool:
        """Return whether the Broker knows the datasource."""
        query = "SELECT COUNT(*) AS c FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'druid' AND TABLE_NAME = ?"
        return bool(self.sql(query, datasource)[0]["c"])

    def table_columns(self, datasource: str) -> set[str]:
        """Return the names of the datasource's columns as the Broker knows them."""
        query = (
            "SELECT COLUMN_NAME AS c FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = 'druid' AND TABLE_NAME = ?"
        )
        return {row["c"] for row in self.sql(query, datasource)}

    # how a call is made

    def _task(self, task_id: str) -> str:
        return f"{self.overlord}/druid/indexer/v1/task/{quote(task_id, safe='')}"

    def _get(self, url: str) -> Any:
        return self._parsed(self._checked(self._call("GET", url)))

    def _get_or_none(self, url: str) -> dict[str, Any] | None:
        response = self._call("GET", url)
        if response.status == _NOT_FOUND:
            return None
        found = self._parsed(self._checked(response))
        return found if isinstance(found, dict) else None

    def _call(self, method: str, url: str, *, json: Any = None, is_repeatable: bool = False) -> HttpResponse:
        with self._outages_named():
            for _ in range(MOST_REDIRECTS + 1):
                if method == "GET":
                    response = self._http.get(url, headers=self._headers, accept_status=ANY_STATUS)
                else:
                    response = self._http.post(
                        url, json=json, headers=self._headers, accept_status=ANY_STATUS, is_repeatable=is_repeatable
                    )
                location = response.headers.get("location")
                if response.status not in _REDIRECTS or not location:
                    return response
                url = self._followed(url, location)
        raise SinkUnavailable("sink.unavailable", destination=self._destination, detail="it redirects in a circle")

    def _followed(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        known = {urlsplit(base).netloc for base in (self.overlord, self.coordinator, self.broker)}
        if urlsplit(target).netloc not in known | set(self._config.allowed_redirects):
            raise SinkRejected(
                "sink.foreign_redirect", destination=self._destination, host=urlsplit(target).netloc or "nowhere"
            )
        return target

    @contextmanager
    def _outages_named(self) -> Iterator[None]:
        try:
            yield
        except (SourceUnavailable, SourceChanged) as error:
            detail = str(error.values.get("detail") or error)
            host = error.values.get("host")
            said = f"{host}: {detail}" if host and str(host) not in detail else detail
            raise SinkUnavailable("sink.unavailable", destination=self._destination, detail=said) from error

    def _checked(self, response: HttpResponse) -> HttpResponse:
        if response.status >= _ERROR:
            self._raise_for(response)
            raise SinkRejected("sink.rejected", destination=self._destination, detail=detail_of(response))
        return response

    def _raise_for(self, response: HttpResponse) -> None:
        """Raise for the answers that are not about the question: not let in, nobody there, overloaded, broken."""
        if response.status in _UNAUTHORIZED:
            raise AuthError("sink.auth", destination=self._destination, detail=f"Druid answered {response.status}")
        if response.status in _BUSY or response.status >= 500:  # noqa: PLR2004
            detail = detail_of(response) or f"Druid answered {response.status} without a word; it may have no leader"
            raise SinkUnavailable("sink.unavailable", destination=self._destination, detail=detail)

    def _parsed(self, response: HttpResponse) -> Any:
        try:
            return orjson.loads(response.body)
        except orjson.JSONDecodeError as error:
            # A Router that starts, or a proxy: what it says is no answer of Druid's.
            detail = f"it answered {response.status} with {detail_of(response) or 'nothing'} instead of JSON"
            raise SinkUnavailable("sink.unavailable", destination=self._destination, detail=detail) from error


def is_unknown_table(error: SinkRejected) -> bool:
    """Return whether a question was refused because the Broker does not know the table or column (yet)."""
    return _UNKNOWN_TABLE in str(error.values.get("detail", ""))


def detail_of(response: HttpResponse) -> str:
    """Return what an answer says is wrong, in one line: Druid's message, a line of text, a page's title."""
    body = response.body[: 1 << 16]
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = body.decode("utf-8", "replace")
    if isinstance(found, dict):
        found = found.get("errorMessage") or found.get("error") or ""
    text = str(found).strip()
    if text.startswith("<"):
        head, _, rest = text.partition("<title>")
        text = rest.partition("</title>")[0] or "a web page" if rest or head else ""
    return (text.splitlines() or [""])[0][:_DETAIL_CHARACTERS]


def _error_code(response: HttpResponse) -> str:
    try:
        found = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return ""
    return str(found.get("errorCode", "")) if isinstance(found, dict) else ""


def _status(found: Mapping[str, Any]) -> TaskStatus:
    # Of a finished task runnerStatusCode still says WAITING, so only this one is looked at.
    code = str(found.get("statusCode") or found.get("status") or "RUNNING")
    message = str(found.get("errorMsg") or "")
    duration = found.get("duration")
    return TaskStatus(
        code, (message.splitlines() or [""])[0][:_DETAIL_CHARACTERS], duration if isinstance(duration, int) else None
    )


def _sql_type(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    return "BIGINT" if isinstance(value, int) else "VARCHAR"
