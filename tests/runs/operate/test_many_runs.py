"""Tables with many runs: no tick of the reconciler and no frequent question reads one of them as a whole."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from ingestion.models import ACTIVE_RUN_STATES, Run, RunState
from ingestion.runs.operate import health
from ingestion.runs.operate.reconcile import reconcile
from ingestion.runs.start.admission import send_waiting_runs
from tests.runs.driver import Driver

pytestmark = [pytest.mark.both, pytest.mark.django_db]

READS_ALL = re.compile(r"(SCAN|Seq Scan on) ingestion_(run|partition|part|delivery|deliverypart|runevent)\b")
ASKED: dict[str, Callable[[], Any]] = {
    "a tick of the reconciler": reconcile,
    "the runs next in line": send_waiting_runs,
    "the newest ended run": health.last_run_state,
    "the active runs": lambda: Run.objects.filter(state__in=ACTIVE_RUN_STATES).count(),
    "a rare state": lambda: list(Run.objects.filter(state=RunState.HELD).order_by("-pk")[:50]),
    "the runs of a time": lambda: list(Run.objects.filter(created_at__gte=timezone.now()).order_by()),
}


@pytest.mark.parametrize("what", ASKED)
def test_no_table_of_runs_is_read_as_a_whole(what: str, driver: Driver) -> None:
    asked: dict[str, Any] = {}

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("SELECT", "UPDATE", "DELETE")):
            asked[sql] = params
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        ASKED[what]()

    plans = {sql: plan_of(sql, params) for sql, params in asked.items()}
    read_whole = [f"{sql[sql.find(' FROM ') :]}\n{plan}" for sql, plan in plans.items() if READS_ALL.search(plan)]
    assert asked
    assert not read_whole, "\n\n".join(read_whole)


def plan_of(sql: str, params: Any) -> str:
    """Return how the database would answer, where its tables were large."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Of a few rows it reads all; now it does so only where it could do nothing else with many, either.
            cursor.execute("SET enable_seqscan = off")
        words = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        cursor.execute(f"{words} {sql}", params)
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
    for table, alias in re.findall(r'"(ingestion_\w+)" ([A-Z]\d+)', sql):
        plan = re.sub(rf"SCAN {alias}\b", f"SCAN {table}", plan)
    return plan
