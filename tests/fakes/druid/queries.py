"""Calls of the Broker: queries."""

from re import Match
from typing import Any

from tests.fakes.druid.broker import Broker, rendered
from tests.fakes.druid.http import JSON, Reply, Routes, druid_error, nothing, parsed, refused
from tests.fakes.druid.sql import SqlError
from tests.fakes.druid.state import State
from tests.fakes.druid.system_tables import SystemTables
from tests.fakes.requests import Request


class Queries:
    """Answers below /druid/v2."""

    def __init__(self, state: State) -> None:
        self._broker = Broker(state.store, SystemTables(state.store, state.runner, state.ports).by_name())

    def routes(self) -> Routes:
        """Return the calls."""
        return {
            ("POST", "/druid/v2/sql"): self.query,
            ("POST", "/druid/v2/sql/task"): lambda *_: nothing(405),
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


def _body(request: Request) -> Any | Reply:
    body = parsed(request)
    if not isinstance(body, Reply) and body.get("query") is None:
        return refused("Cannot construct instance of `org.apache.druid.sql.http.SqlQuery`, problem: query")
    return body
