"""The Broker's calls: queries, and with the multi-stage engine also statements that load."""

from re import Match
from typing import Any

from tests.fakes.druid.broker import Broker, rendered
from tests.fakes.druid.http import JSON, Reply, Routes, druid_error, json_reply, nothing, parsed, refused
from tests.fakes.druid.msq import MsqWork, statement_of
from tests.fakes.druid.sql import SqlError
from tests.fakes.druid.state import State
from tests.fakes.druid.system_tables import SystemTables
from tests.fakes.druid.tasks import Task
from tests.fakes.druid.times import now_ms
from tests.fakes.requests import Request


class Queries:
    """Answers below /druid/v2."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._broker = Broker(state.store, SystemTables(state.store, state.runner, state.ports).by_name())

    def routes(self) -> Routes:
        """Return the calls."""
        return {
            ("POST", "/druid/v2/sql"): self.query,
            ("POST", "/druid/v2/sql/task"): self.load,
            ("DELETE", "/druid/v2/sql/(?P<query>[^/]+)"): lambda *_: nothing(404, content_type=JSON),
            ("GET", "/druid/broker/v1/readiness"): lambda *_: nothing(200),
        }

    def query(self, request: Request, _: Match[str]) -> Reply:
        """Answer a query."""
        body = _body(request)
        if isinstance(body, Reply):
            return body
        try:
            return Reply(rendered(self._broker.query(body), body).encode())
        except SqlError as error:
            return druid_error(str(error), code=error.code, context=error.context, status=error.status)

    def load(self, request: Request, _: Match[str]) -> Reply:
        """Take a loading statement on as a task."""
        if "msq" not in self._state.extensions:
            return nothing(405)
        body = _body(request)
        if isinstance(body, Reply):
            return body
        try:
            statement = statement_of(body["query"])
        except SqlError as error:
            return druid_error(str(error), code=error.code, context=error.context)
        task_id = f"query-{body.get('context', {}).get('sqlQueryId') or f'made-up-{now_ms()}'}"
        work = MsqWork(statement, self._state.store, s3=self._state.s3, context=body.get("context", {}))
        payload = {"type": "query_controller", "sqlQuery": body["query"], "sqlQueryContext": body.get("context", {})}
        task = Task(task_id, "query_controller", statement.datasource, payload, work, self._state.ports()["indexer"])
        if not self._state.accept(task):
            return druid_error(f"Task[{task_id}] already exists", code="entryAlreadyExists")
        return json_reply({"taskId": task_id, "state": "RUNNING"}, status=202)


def _body(request: Request) -> Any | Reply:
    body = parsed(request)
    if not isinstance(body, Reply) and body.get("query") is None:
        return refused("Cannot construct instance of `org.apache.druid.sql.http.SqlQuery`, problem: query")
    return body
