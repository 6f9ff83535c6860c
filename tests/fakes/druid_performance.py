"""Performance of the script's steps: named calls whose answers are kept, and the waiting between them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 60.0
SPAN = "2001-01-01_2002-01-01"


@dataclass(frozen=True)
class Addresses:
    """Addresses of the services, without a slash at the end; `files` is where FILES are served."""

    overlord: str
    coordinator: str
    broker: str
    files: str


@dataclass(frozen=True)
class Answer:
    """One answer of the script."""

    name: str
    status: int
    content_type: str | None
    body: Any
    is_json: bool


@dataclass
class Performance:
    """Performance of the steps: named calls are kept, the waiting between them is not."""

    at: Addresses
    prefix: str
    folder: Path
    client: httpx.Client
    answers: list[Answer] = field(default_factory=list)

    def ask(self, role: str, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> httpx.Response:
        """Return the answer to one call; nothing is kept."""
        url = f"{getattr(self.at, role)}{path}"
        if raw is not None:
            return self.client.request(method, url, content=raw, headers={"Content-Type": "application/json"})
        if body is not None:
            return self.client.request(method, url, json=body)
        return self.client.request(method, url, headers={"Content-Type": "application/json"})

    def call(self, name: str, role: str, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> Any:
        """Make one call, keep its answer under a name and return its body."""
        response = self.ask(role, method, path, body, raw=raw)
        body = body_of(response)
        is_json = not isinstance(body, str) or response.text != body
        answer = Answer(name, response.status_code, response.headers.get("Content-Type"), body, is_json)
        self.answers.append(answer)
        return answer.body

    def sql(
        self, name: str, query: str, parameters: Sequence[tuple[str, Any]] = (), *, of: str = "", **options: Any
    ) -> Any:
        """Make one query and keep its answer; `$t` in it stands for the datasource it is `of`."""
        body: dict[str, Any] = {"query": query.replace("$t", of), **options}
        if parameters:
            body["parameters"] = [{"type": kind, "value": value} for kind, value in parameters]
        return self.call(name, "broker", "POST", "/druid/v2/sql", body)

    def id_of(self, name: str) -> str:
        """Return the task id of a named load."""
        return f"{self.prefix}.{name}"

    def datasource(self, name: str) -> str:
        """Return a datasource's name."""
        return f"{self.prefix}_{name}"

    def submit(self, name: str, spec: dict[str, Any]) -> Any:
        """Submit a task and keep the answer."""
        return self.call(f"{name}_submit", "overlord", "POST", "/druid/indexer/v1/task", spec)

    def load(self, name: str, spec: dict[str, Any], *, rows: int | None = None) -> None:
        """Run a task to its end; keep status and report; then wait until a reader sees that many rows."""
        self.submit(name, spec)
        self.finish(name)
        self.call(f"{name}_status", "overlord", "GET", f"/druid/indexer/v1/task/{spec['id']}/status")
        self.call(f"{name}_reports", "overlord", "GET", f"/druid/indexer/v1/task/{spec['id']}/reports")
        if rows is not None:
            self.see(spec["spec"]["dataSchema"]["dataSource"], rows=rows)

    def finish(self, name: str) -> None:
        """Wait until a task is at its end."""
        path = f"/druid/indexer/v1/task/{self.id_of(name)}/status"
        self.until(lambda: self.ask("overlord", "GET", path).json()["status"]["statusCode"] != "RUNNING", name)

    def see(self, datasource: str, *, rows: int | None) -> None:
        """Wait until a reader counts that many rows and they are loaded; None: until the table is unknown."""
        span = f"loadstatus?simple&forceMetadataRefresh=true&interval={SPAN}"
        count = {"query": 'SELECT COUNT(*) AS "c" FROM "$t"'.replace("$t", datasource)}

        def is_seen() -> bool:
            found = self.ask("broker", "POST", "/druid/v2/sql", count)
            if rows is None:
                return found.status_code == httpx.codes.BAD_REQUEST
            loading = self.ask("coordinator", "GET", f"/druid/coordinator/v1/datasources/{datasource}/{span}")
            return (
                found.json() == [{"c": rows}]
                and body_of(loading) == {datasource: 0}
                and self.is_listed(datasource, rows=rows)
            )

        self.until(is_seen, f"{rows} rows of {datasource}")

    def is_listed(self, datasource: str, *, rows: int) -> bool:
        """Return whether the list of segments counts the rows, too; it is read from time to time."""
        query = (
            'SELECT SUM(num_rows) AS "c" FROM sys.segments WHERE datasource = ? AND is_active = 1 AND is_available = 1'
        )
        parameters = [{"type": "VARCHAR", "value": datasource}]
        found = self.ask("broker", "POST", "/druid/v2/sql", {"query": query, "parameters": parameters})
        counted = found.json()
        return bool(counted and counted[0]["c"] is not None and counted[0]["c"] >= rows)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                msg = f"{what} did not come within {PATIENCE_S:.0f} s"
                raise TimeoutError(msg)
            time.sleep(0.02)


def body_of(response: httpx.Response) -> Any:
    """Return a body as JSON where it is, else as text."""
    try:
        return response.json()
    except ValueError:
        return response.text


def columns(p: Performance, name: str, datasource: str) -> None:
    """Keep a datasource's columns."""
    p.sql(
        name,
        "SELECT COLUMN_NAME, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS"
        " WHERE TABLE_SCHEMA = 'druid' AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
        [("VARCHAR", datasource)],
    )
