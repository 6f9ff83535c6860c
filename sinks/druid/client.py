"""Client of the Overlord, the Coordinator and the Broker, or of the Router in front of them."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from ingestion.ports.context import HttpClient, HttpResponse
from ingestion.ports.errors import AuthError, SinkRejected, SinkUnavailable, SourceChanged, SourceUnavailable
from ingestion.toolkit.redact import redact, register_secret
from sinks.druid.config import DruidConfig
from sinks.druid.intervals import EVERYTHING, Interval, as_text
from sinks.druid.responses import (
    DETAIL_CHARACTERS,
    NOTHING_THERE,
    TaskStatus,
    chunks_of,
    date_of,
    detail_of,
    error_code,
    is_unknown_object,
    is_unknown_task,
    json_of,
    status_of,
)

Shape = TypeVar("Shape")

ANY_STATUS = range(300, 600)
MOST_REDIRECTS = 3
CALL_S = 20.0
"""For one call; no worker slot waits longer for a service that hangs."""
QUERY_S = 60.0
"""For a question about rows, which may have to read all of them."""
ETERNITY = "-146136543-09-08T08:23:32.096Z/146140482-04-24T15:36:27.903Z"
_UNAUTHORIZED = (401, 403)
_BUSY = (408, 425, 429)
_REDIRECTS = (301, 302, 307, 308)
_REDIRECT, _ERROR, _NOT_FOUND, _BROKEN = 300, 400, 404, 500
_NO_CONTENT = 204
_PORTS = {"http": 80, "https": 443}


class UnknownObjectError(SinkRejected):
    """The Broker does not know the table or column (yet)."""


@dataclass(frozen=True, slots=True)
class Submission:
    """Outcome of a submission: accepted, or `exists` where a task of that id is there already."""

    is_accepted: bool
    exists: bool = False


class DruidClient:
    """One Druid as one destination sees it. Errors are those of a destination; texts carry no credentials.

    Requests with credentials follow a redirect to the leader only where its address is one of the configured ones.
    """

    def __init__(
        self, config: DruidConfig, http: HttpClient, *, destination: str, deadline_s: float | None = None
    ) -> None:
        """Take the client of the work at hand; `deadline_s` bounds every call in the place of the usual deadlines."""
        self.destination = destination
        ca_file = config.ca_file or None
        self._http = http.variant(ca_file=ca_file, deadline_s=deadline_s or CALL_S)
        self._patient = self._http if deadline_s else http.variant(ca_file=ca_file, deadline_s=QUERY_S)
        self.overlord = config.overlord_url or config.url
        self.coordinator = config.coordinator_url or config.url
        self.broker = config.broker_url or config.url
        places = (self.overlord, self.coordinator, self.broker)
        self._known = {_place(url) for url in places} | {
            (urlsplit(url).scheme, *_host_and_port(f"{urlsplit(url).scheme}://{allowed}"))
            for url in places
            for allowed in config.allowed_redirects
        }
        self._headers: dict[str, str] = {}
        if config.password is not None:
            login = f"{config.username}:{config.password.get_secret_value()}"
            coded = base64.b64encode(login.encode()).decode()
            register_secret(coded)
            self._headers = {"authorization": f"Basic {coded}"}

    # the cluster

    def status(self, base: str | None = None) -> dict[str, Any]:
        """Return version and modules of a service; the Overlord's without an address."""
        return self._shaped(dict, self._checked(self._call("GET", f"{base or self.overlord}/status")))

    def date(self) -> datetime | None:
        """Return what the Overlord's machine takes for the time, or None where it does not say."""
        return date_of(self._checked(self._call("GET", f"{self.overlord}/status")))

    def has_leader(self) -> bool:
        """Return whether the Overlord that answers leads, or knows who does.

        SinkRejected where a part of Druid answers that is no Overlord, and no way to one.
        """
        response = self._call("GET", f"{self.overlord}/druid/indexer/v1/leader")
        if response.status == _NOT_FOUND:
            raise SinkRejected("sink.no_overlord", where=self.overlord)
        address = response.body.strip().strip(b'"').decode("utf-8", "replace")
        return response.status < _REDIRECT and urlsplit(address).scheme in _PORTS

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers with their capacity and how much of it is used."""
        return self._rows(self._checked(self._call("GET", f"{self.overlord}/druid/indexer/v1/workers")))

    def default_rules(self) -> list[dict[str, Any]]:
        """Return the load rules that hold where a datasource has none of its own."""
        return self._rows(self._checked(self._call("GET", f"{self.coordinator}/druid/coordinator/v1/rules/_default")))

    # tasks

    def submit(self, task: Mapping[str, Any]) -> Submission:
        """Hand a task over; SinkRejected where it will never be taken, SinkUnavailable where nobody knows."""
        response = self._call("POST", f"{self.overlord}/druid/indexer/v1/task", json=task)
        if error_code(response) == "entryAlreadyExists":
            return Submission(is_accepted=False, exists=True)
        # A page that says 200 is no acceptance: only an answer that names the task is.
        if self._shaped(dict, self._checked(response)).get("task") != str(task["id"]):
            self._raise_senseless(response)
        return Submission(is_accepted=True)

    def task(self, task_id: str) -> dict[str, Any] | None:
        """Return the task as it was handed over, without its passwords; None where there is no such task."""
        return self._of_task(self._call("GET", self._task(task_id)))

    def task_status(self, task_id: str) -> TaskStatus | None:
        """Return how far the task is, or None where Druid knows of none."""
        found = self._of_task(self._call("GET", f"{self._task(task_id)}/status"))
        return None if found is None else status_of(found.get("status"))

    def task_statuses(self, task_ids: Sequence[str]) -> dict[str, TaskStatus]:
        """Return how far the tasks are, with one question; those that Druid does not know are left out."""
        if not task_ids:
            return {}
        url = f"{self.overlord}/druid/indexer/v1/taskStatus"
        response = self._checked(self._call("POST", url, json=list(task_ids), is_repeatable=True))
        return {task_id: status_of(status) for task_id, status in self._shaped(dict, response).items()}

    def report(self, task_id: str) -> dict[str, Any] | None:
        """Return the task's report, or None where there is none (yet)."""
        return self._of_task(self._call("GET", f"{self._task(task_id)}/reports"))

    def log_tail(self, task_id: str, *, tail_bytes: int) -> str:
        """Return the end of the task's log without secrets; empty where none was kept."""
        response = self._call("GET", f"{self._task(task_id)}/log?offset=-{tail_bytes}")
        if is_unknown_task(response):
            return ""
        return redact(self._checked(response).body[-tail_bytes:].decode("utf-8", "replace"))

    def shutdown(self, task_id: str) -> bool:
        """Stop the task; return whether Druid knew it."""
        response = self._call("POST", f"{self._task(task_id)}/shutdown", json={}, is_repeatable=True)
        if is_unknown_task(response):
            return False
        self._checked(response)
        return True

    def use_up(self, task_id: str) -> bool:
        """Take an id out of use by a task that does nothing; return False where a task of that id is there.

        A submission of that id that is still on its way, or a worker that wakes up late, is refused from then on.
        """
        task = {"type": "noop", "id": task_id, "runTime": 1}
        if self.submit(task).exists:
            return False
        # Without a free slot it would wait for one.
        self.shutdown(task_id)
        return True

    def tasks(self, *, completed: int) -> list[dict[str, Any]]:
        """Return all tasks that run or wait, and the last completed ones."""
        url = f"{self.overlord}/druid/indexer/v1/tasks?max={completed}"
        return self._rows(self._checked(self._call("GET", url)))

    def sample(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return what Druid makes of the first rows of an input; it reads them itself."""
        url = f"{self.overlord}/druid/indexer/v1/sampler"
        return self._shaped(dict, self._checked(self._call("POST", url, json=question, is_repeatable=True)))

    # segments

    def unloaded_count(self, datasource: str, interval: Interval = EVERYTHING) -> int | None:
        """Return how many published segments of the interval are not served yet; None where none is published there.

        The interval is always given: without it only the last two weeks are looked at. The Coordinator reads its list
        of segments anew for this.
        """
        span = as_text(interval).replace("/", "_")
        url = f"{self.coordinator}/druid/coordinator/v1/datasources/{quote(datasource, safe='')}/loadstatus"
        response = self._checked(self._call("GET", f"{url}?simple&forceMetadataRefresh=true&interval={span}"))
        if response.status == _NO_CONTENT or NOTHING_THERE.encode() in response.body[:200]:
            return None
        found = self._shaped(dict, response).get(datasource)
        if not isinstance(found, int):
            self._raise_senseless(response)
        return found

    def chunks(self, datasource: str) -> tuple[Interval, ...]:
        """Return the intervals of the published segments, whatever of them is served; ask `unloaded_count` before."""
        url = f"{self.coordinator}/druid/coordinator/v1/metadata/datasources/{quote(datasource, safe='')}/segments"
        response = self._call("GET", url)
        if response.status == _NOT_FOUND and not response.body:
            return ()
        ids = self._shaped(list, self._checked(response))
        return chunks_of(map(str, ids), datasource=datasource)

    def mark_all_unused(self, datasource: str) -> int:
        """Take all segments out of the datasource, and return how many.

        By the longest interval there is, and never by a list of ids: where the segments that cover older ones go and
        those do not, the older ones are read again (measured).
        """
        url = f"{self.overlord}/druid/indexer/v1/datasources/{quote(datasource, safe='')}/markUnused"
        response = self._checked(self._call("POST", url, json={"interval": ETERNITY}, is_repeatable=True))
        return int(self._shaped(dict, response).get("numChangedSegments") or 0)

    # questions in SQL

    def sql(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Return the rows of an answer; SinkRejected with Druid's words where the question is refused.

        UnknownObjectError, which is one, where the Broker does not know the table or column.
        """
        body = {
            "query": query,
            "parameters": [{"type": _sql_type(value), "value": value} for value in parameters],
            "resultFormat": "object",
            "context": {"useApproximateCountDistinct": False},
        }
        response = self._call("POST", f"{self.broker}/druid/v2/sql", json=body, is_repeatable=True, is_long=True)
        if is_unknown_object(response):
            raise UnknownObjectError("sink.rejected", destination=self.destination, detail=detail_of(response))
        return self._rows(self._checked(response))

    def has_table(self, datasource: str) -> bool:
        """Return whether the Broker knows the datasource."""
        # Not COUNT: of a system table's nothing Druid answers no row at all (measured).
        query = "SELECT TABLE_NAME AS t FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'druid' AND TABLE_NAME = ?"
        return bool(self.sql(query, datasource))

    def table_columns(self, datasource: str) -> set[str]:
        """Return the names of the datasource's columns as the Broker knows them."""
        query = (
            "SELECT COLUMN_NAME AS c FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = 'druid' AND TABLE_NAME = ?"
        )
        return {row["c"] for row in self.sql(query, datasource)}

    # how a call is made

    def _task(self, task_id: str) -> str:
        return f"{self.overlord}/druid/indexer/v1/task/{quote(task_id, safe='')}"

    def _call(
        self, method: str, url: str, *, json: Any = None, is_repeatable: bool = False, is_long: bool = False
    ) -> HttpResponse:
        http = self._patient if is_long else self._http
        with self._outages_named():
            for _ in range(MOST_REDIRECTS + 1):
                if method == "GET":
                    response = http.get(url, headers=self._headers, accept_status=ANY_STATUS)
                else:
                    response = http.post(
                        url, json=json, headers=self._headers, accept_status=ANY_STATUS, is_repeatable=is_repeatable
                    )
                location = response.headers.get("location")
                if response.status not in _REDIRECTS or not location:
                    return response
                url = self._followed(url, location)
        raise SinkUnavailable("sink.unavailable", destination=self.destination, detail="it redirects in a circle")

    def _followed(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            place = _place(target)
        except ValueError:
            target, place = "", ("", "", 0)
        if place not in self._known:
            host = redact(urlsplit(target).netloc.rpartition("@")[2]) if target else ""
            named = f"{place[0]}://{host}" if host else "an address that is none"
            raise SinkRejected("sink.foreign_redirect", destination=self.destination, host=named[:DETAIL_CHARACTERS])
        return target

    @contextmanager
    def _outages_named(self) -> Iterator[None]:
        try:
            yield
        except (SourceUnavailable, SourceChanged) as error:
            detail = str(error.values.get("detail") or error)
            host = error.values.get("host")
            said = f"{host}: {detail}" if host and str(host) not in detail else detail
            self._raise_unavailable(said, cause=error)

    def _of_task(self, response: HttpResponse) -> dict[str, Any] | None:
        return None if is_unknown_task(response) else self._shaped(dict, self._checked(response))

    def _checked(self, response: HttpResponse) -> HttpResponse:
        """Return the answer if it is a good one; else raise what it means."""
        status, detail = response.status, detail_of(response)
        if status < _REDIRECT:
            return response
        if status in _UNAUTHORIZED:
            raise AuthError("sink.auth", destination=self.destination, detail=f"Druid answered {status}")
        if status < _ERROR:
            self._raise_unavailable(f"it answered {status} and named no place to go on to")
        if status == _NOT_FOUND:
            # What Druid itself does not find was told apart before: this is somebody else's word.
            self._raise_unavailable(
                f"it answered 404 with {detail or 'nothing'}, as if it were no Druid or just starting"
            )
        if status in _BUSY or status >= _BROKEN:
            self._raise_unavailable(detail or f"Druid answered {status} without a word; it may have no leader")
        detail = detail or f"it answered {status} without a word"
        raise SinkRejected("sink.rejected", destination=self.destination, detail=detail)

    def _rows(self, response: HttpResponse) -> list[dict[str, Any]]:
        found = self._shaped(list, response)
        if not all(isinstance(row, dict) for row in found):
            self._raise_senseless(response)
        return found

    def _shaped(self, shape: type[Shape], response: HttpResponse) -> Shape:
        """Return the answer's JSON value of that shape; SinkUnavailable for anything else, which is not Druid's."""
        try:
            found = json_of(response)
        except ValueError as error:
            self._raise_senseless(response, cause=error)
        if not isinstance(found, shape):
            self._raise_senseless(response)
        return found

    def _raise_senseless(self, response: HttpResponse, *, cause: Exception | None = None) -> NoReturn:
        # A Router that starts, a proxy, an answer that was cut off: what it says is no answer of Druid's.
        said = detail_of(response) or "nothing"
        self._raise_unavailable(f"it answered {response.status} with {said} instead of what was asked for", cause=cause)

    def _raise_unavailable(self, detail: str, *, cause: Exception | None = None) -> NoReturn:
        raise SinkUnavailable("sink.unavailable", destination=self.destination, detail=redact(detail)) from cause


def _place(url: str) -> tuple[str, str, int]:
    return urlsplit(url).scheme, *_host_and_port(url)


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.username or parts.password:
        return "", 0
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


def _sql_type(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOLEAN"
    return "BIGINT" if isinstance(value, int) else "VARCHAR"
