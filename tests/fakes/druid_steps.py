"""The steps of the script about a Druid's own state: services, refusals, time chunks, sampling, removal."""

from typing import Any

from tests.fakes.druid_performance import SPAN, Performance, columns
from tests.fakes.druid_specs import day_rows, inline, lines, task, without

FIVE_DAYS = "2001-01-01/2001-01-06"
ETERNITY = "-146136543-09-08T08:23:32.096Z/146140482-04-24T15:36:27.903Z"
TIME = "2001-01-01T00:00:00Z"


def status_steps(p: Performance) -> None:
    """Ask the services who they are."""
    for name, role, path in (
        ("overlord_status", "overlord", "/status"),
        ("overlord_health", "overlord", "/status/health"),
        ("overlord_is_leader", "overlord", "/druid/indexer/v1/isLeader"),
        ("overlord_leader", "overlord", "/druid/indexer/v1/leader"),
        ("overlord_workers", "overlord", "/druid/indexer/v1/workers"),
        ("overlord_capacity", "overlord", "/druid/indexer/v1/totalWorkerCapacity"),
        ("coordinator_is_leader", "coordinator", "/druid/coordinator/v1/isLeader"),
        ("coordinator_leader", "coordinator", "/druid/coordinator/v1/leader"),
        ("coordinator_nowhere", "coordinator", "/nowhere"),
        ("broker_status", "broker", "/status"),
        ("broker_health", "broker", "/status/health"),
        ("broker_readiness", "broker", "/druid/broker/v1/readiness"),
    ):
        p.call(name, role, "GET", path)
    rule = [{"type": "loadForever", "tieredReplicants": {"_default_tier": 1}}]
    p.call("rules_set", "coordinator", "POST", "/druid/coordinator/v1/rules/_default", rule)
    p.call("rules_default", "coordinator", "GET", "/druid/coordinator/v1/rules/_default")
    p.call("rules_of_datasource", "coordinator", "GET", f"/druid/coordinator/v1/rules/{p.datasource('none')}")


def refusal_steps(p: Performance) -> None:
    """Ask for what there is not, and submit what cannot run."""
    unknown = "/druid/indexer/v1/task/none"
    p.call("unknown_status", "overlord", "GET", f"{unknown}/status")
    p.call("unknown_reports", "overlord", "GET", f"{unknown}/reports")
    p.call("unknown_log", "overlord", "GET", f"{unknown}/log")
    p.call("unknown_task", "overlord", "GET", unknown)
    p.call("unknown_shutdown", "overlord", "POST", f"{unknown}/shutdown")
    p.call("status_of_unknown_only", "overlord", "POST", "/druid/indexer/v1/taskStatus", ["none"])
    p.call("status_of_nothing", "overlord", "POST", "/druid/indexer/v1/taskStatus", [])
    p.call("status_of_object", "overlord", "POST", "/druid/indexer/v1/taskStatus", {"a": 1})
    p.call("tasks_of_unknown", "overlord", "GET", f"/druid/indexer/v1/tasks?datasource={p.datasource('none')}")
    p.call("tasks_in_no_state", "overlord", "GET", "/druid/indexer/v1/tasks?state=banana")
    datasource = f"/druid/coordinator/v1/datasources/{p.datasource('none')}"
    p.call("unknown_datasource", "coordinator", "GET", datasource)
    p.call("unknown_intervals", "coordinator", "GET", f"{datasource}/intervals")
    load = f"{datasource}/loadstatus?simple&forceMetadataRefresh=true&interval="
    p.call("unknown_loadstatus", "coordinator", "GET", f"{load}{SPAN}")
    p.call("loadstatus_without_force", "coordinator", "GET", f"{datasource}/loadstatus?simple")
    p.call("loadstatus_of_no_interval", "coordinator", "GET", f"{load}abc")
    removal = f"/druid/indexer/v1/datasources/{p.datasource('none')}"
    p.call("unknown_delete", "overlord", "DELETE", removal)
    p.call("unknown_mark_unused", "overlord", "POST", f"{removal}/markUnused", {"interval": FIVE_DAYS})
    p.call("mark_unused_without_interval", "overlord", "POST", f"{removal}/markUnused", {})
    p.call("shutdown_all", "overlord", "POST", f"{removal}/shutdownAllTasks")
    for name, body in refused_tasks(p).items():
        p.call(f"refused_{name}", "overlord", "POST", "/druid/indexer/v1/task", body)
    p.call("refused_text", "overlord", "POST", "/druid/indexer/v1/task", raw=b"{not json")
    p.call("refused_nothing", "overlord", "POST", "/druid/indexer/v1/task")


def refused_tasks(p: Performance) -> dict[str, Any]:
    """Return what the Overlord refuses, by its fault."""
    day = ["2001-01-01/2001-01-02"]
    name, source = p.datasource("refused"), inline(day_rows(1))
    good = task(name, p.id_of("refused"), source, intervals=day)
    path = ("spec", "dataSchema")

    def changed(**changes: Any) -> dict[str, Any]:
        return task(
            **{"datasource": name, "task_id": p.id_of("refused"), "source": source, "intervals": day, **changes}
        )

    return {
        "empty_object": {},
        "list": [],
        "unknown_type": {"type": "nope"},
        "no_spec": {"type": "index_parallel", "id": p.id_of("refused")},
        "empty_spec": {"type": "index_parallel", "id": p.id_of("refused"), "spec": {}},
        "no_timestamp": without(good, *path, "timestampSpec"),
        "no_input_source": without(good, "spec", "ioConfig", "inputSource"),
        "no_input_format": without(good, "spec", "ioConfig", "inputFormat"),
        "s3_source": changed(source={"type": "s3", "objects": [{"bucket": "b", "path": "k"}]}),
        "parquet_format": changed(input_format={"type": "parquet"}),
        "empty_inline": changed(source=inline("")),
        "file_address": changed(source={"type": "http", "uris": ["file:///etc/hostname"]}),
        "drop_without_intervals": changed(drop=True, intervals=None),
        "drop_and_append": changed(drop=True, append=True),
        "append_hashed": changed(append=True, tuning={"partitionsSpec": {"type": "hashed"}}),
        "granularity": changed(granularity="FORTNIGHT"),
        "interval": changed(intervals=["x/y"]),
        "twice_the_same_dimension": changed(dimensions=["a", "a"]),
        "nameless_dimension": changed(dimensions=[{"type": "long", "name": ""}]),
        "time_as_dimension": changed(dimensions=["a", {"type": "long", "name": "__time"}]),
        "slash_in_id": changed(task_id=f"{p.prefix}/x"),
        "slash_in_datasource": changed(datasource=f"{p.prefix}/x"),
        "dot_before_datasource": changed(datasource=f".{p.prefix}"),
    }


def layout_steps(p: Performance) -> None:
    """Replace, append and empty time chunks, of one granularity and of several."""
    days = p.datasource("days")
    base = inline(day_rows(1, 2, 3, 4, 5))

    def run(name: str, datasource: str, source: dict[str, Any], *, rows: int | None, **options: Any) -> None:
        p.load(name, task(datasource, p.id_of(name), source, **options), rows=rows)
        if rows is not None:
            look(p, name, datasource)

    run("days_first", days, base, rows=50, intervals=[FIVE_DAYS], drop=True)
    again = task(days, p.id_of("days_first"), base, intervals=[FIVE_DAYS], drop=True)
    p.submit("days_first_again", again)
    two = ["2001-01-01/2001-01-02", "2001-01-04/2001-01-05"]
    changed = inline([*day_rows(1, count=3, name="b"), *day_rows(4, count=4, name="b")])
    run("days_two_replaced", days, changed, rows=37, intervals=two, drop=True)
    ends = ["2001-01-02/2001-01-03", "2001-01-05/2001-01-06"]
    run("days_one_emptied", days, inline(day_rows(2, count=2, name="c")), rows=19, intervals=ends, drop=True)
    run("days_not_dropped", days, inline(day_rows(1, count=7, name="d")), rows=23, intervals=two)
    half = ["2001-01-01T00:00/2001-01-01T12:00"]
    run("days_half_listed", days, inline(day_rows(1, count=24, name="f")), rows=40, intervals=half, drop=True)
    run("days_appended", days, inline(day_rows(3, count=5, name="g")), rows=45, append=True)
    run(
        "days_appended_coarse",
        days,
        inline(day_rows(3, 20, count=2, name="h")),
        rows=49,
        append=True,
        granularity="MONTH",
    )
    run("days_appended_fine", days, inline(day_rows(3, count=2)), rows=None, append=True, granularity="HOUR")
    outside = inline(day_rows(9, count=2))
    run("days_outside", days, outside, rows=49, intervals=["2001-01-12/2001-01-13"])
    run("days_all_emptied", days, outside, rows=0, intervals=["2001-01-12/2001-03-01", FIVE_DAYS], drop=True)
    months = p.datasource("months")
    run("months_first", months, base, rows=50, intervals=[FIVE_DAYS], drop=True)
    run(
        "months_over_days",
        months,
        inline(day_rows(2, count=3)),
        rows=3,
        granularity="MONTH",
        intervals=["2001-01-02/2001-01-03"],
        drop=True,
    )
    run("days_over_month", months, inline(day_rows(1, count=2)), rows=5, intervals=["2001-01-01/2001-01-02"], drop=True)
    run("months_appended_fine", months, inline(day_rows(9, count=2)), rows=None, append=True)
    whole = p.datasource("whole")
    run("whole_first", whole, base, rows=50, granularity="ALL")
    run("whole_again", whole, inline(day_rows(7, count=4)), rows=4, granularity="ALL", intervals=[ETERNITY], drop=True)
    run("whole_appended", whole, inline(day_rows(8, count=2)), rows=6, granularity="ALL", append=True)
    run(
        "whole_of_interval",
        months,
        inline(day_rows(1, count=4)),
        rows=7,
        granularity="ALL",
        intervals=["2001-01-01/2001-01-02"],
        drop=True,
    )
    state_of(p, "days", days)
    p.sql("emptied_rows", 'SELECT * FROM "$t"', of=days)
    p.sql("emptied_span", 'SELECT MIN(__time) AS a, COUNT(*) AS c FROM "$t"', of=days)
    columns(p, "emptied_columns", days)
    for name in ("HOUR", "WEEK", "QUARTER", "YEAR"):
        lower = name.lower()
        run(f"by_{lower}", p.datasource(f"by_{lower}"), base, rows=50, granularity=name, intervals=[FIVE_DAYS])
    drifting = p.datasource("drifting")
    for day, typed in ((1, {"type": "long", "name": "v"}), (2, {"type": "string", "name": "v"})):
        row = {"t": f"2001-01-0{day}", "v": day, "w" if day == 1 else "x": 1.5}
        dimensions = [typed, {"type": "double", "name": "w" if day == 1 else "x"}]
        run(
            f"drifting_{day}",
            drifting,
            inline([row]),
            rows=day,
            dimensions=dimensions,
            intervals=[f"2001-01-0{day}/P1D"],
        )
    columns(p, "drifting_columns", drifting)
    p.sql("drifting_rows", 'SELECT * FROM "$t"', of=drifting)
    small = {"partitionsSpec": {"type": "dynamic", "maxRowsPerSegment": 4}}
    run(
        "small_segments",
        p.datasource("small"),
        inline(day_rows(1, count=10)),
        rows=10,
        tuning=small,
        intervals=[FIVE_DAYS],
    )


def look(p: Performance, name: str, datasource: str) -> None:
    """Keep the rows a day and the segments of a datasource."""
    p.sql(
        f"{name}_days",
        'SELECT TIME_FLOOR(__time, \'P1D\') AS "d", COUNT(*) AS "c" FROM "$t" GROUP BY 1 ORDER BY 1',
        of=datasource,
    )
    p.sql(
        f"{name}_segments",
        'SELECT "start", "end", partition_num, num_rows, is_published, is_available, is_overshadowed, is_active'
        ' FROM sys.segments WHERE datasource = ? AND is_active = 1 ORDER BY "start", "end", partition_num',
        [("VARCHAR", datasource)],
    )


def state_of(p: Performance, name: str, datasource: str) -> None:
    """Ask all calls that say something about a datasource and its tasks."""
    tasks, task_id = "/druid/indexer/v1/tasks", p.id_of(f"{name}_first")
    p.call("status_of_several", "overlord", "POST", "/druid/indexer/v1/taskStatus", [task_id, "none"])
    p.call("tasks_of_datasource", "overlord", "GET", f"{tasks}?datasource={datasource}&max=3")
    p.call("tasks_complete", "overlord", "GET", f"{tasks}?datasource={datasource}&state=complete&max=1")
    p.call("tasks_running", "overlord", "GET", f"{tasks}?datasource={datasource}&state=running")
    p.call("task_payload", "overlord", "GET", f"/druid/indexer/v1/task/{task_id}")
    p.call("task_segments", "overlord", "GET", f"/druid/indexer/v1/task/{task_id}/segments")
    p.call("shutdown_finished", "overlord", "POST", f"/druid/indexer/v1/task/{task_id}/shutdown")
    path = f"/druid/coordinator/v1/datasources/{datasource}"
    p.call("datasource", "coordinator", "GET", path)
    p.call("intervals", "coordinator", "GET", f"{path}/intervals")
    p.call("loadstatus_full", "coordinator", "GET", f"{path}/loadstatus?full&forceMetadataRefresh=true&interval={SPAN}")
    p.call("loadstatus_percent", "coordinator", "GET", f"{path}/loadstatus?forceMetadataRefresh=true&interval={SPAN}")
    other = "2011-01-01_2011-02-01"
    p.call(
        "loadstatus_elsewhere",
        "coordinator",
        "GET",
        f"{path}/loadstatus?simple&forceMetadataRefresh=true&interval={other}",
    )
    p.call("loadstatus_recent", "coordinator", "GET", f"{path}/loadstatus?simple&forceMetadataRefresh=true")
    p.call(
        "loadstatus_slash",
        "coordinator",
        "GET",
        f"{path}/loadstatus?simple&forceMetadataRefresh=false&interval={SPAN.replace('_', '/')}",
    )


def sampler_steps(p: Performance) -> None:
    """Sample rows with and without types."""
    rows = inline(
        lines(
            {"t": TIME, "i": 1, "f": 1.5, "b": True, "s": "a", "arr": [1, 2], "obj": {"x": 1}, "mix": 1, "nul": None},
            {"t": TIME, "i": 2, "f": 2, "b": False, "s": "b", "arr": [3.5], "obj": {"y": "z"}, "mix": "x", "nul": None},
            {"t": None, "i": 3},
            "broken{",
        )
    )
    never = {"column": "!!!_no_such_column_!!!", "missingValue": "2001-01-01T00:00:00Z"}
    typed = [{"type": "long", "name": "i"}, "s", {"type": "long", "name": "mix"}]
    for name, rows_wanted, options in (
        ("discovery", 500, {"dimensions": [], "discovery": True}),
        ("without_time", 500, {"dimensions": [], "discovery": True, "timestamp": never}),
        ("typed", 2, {"dimensions": typed, "timestamp": never}),
    ):
        spec = task("sampled", "sampled", rows, kind="index", **options)["spec"]
        sampled = {"type": "index", "spec": spec, "samplerConfig": {"numRows": rows_wanted, "timeoutMs": 5000}}
        p.call(f"sampler_{name}", "overlord", "POST", "/druid/indexer/v1/sampler", sampled)
    s3 = task("sampled", "sampled", {"type": "s3", "objects": []}, kind="index")["spec"]
    p.call("sampler_s3", "overlord", "POST", "/druid/indexer/v1/sampler", {"type": "index", "spec": s3})
    p.call(
        "sampler_wrong_type", "overlord", "POST", "/druid/indexer/v1/sampler", {"type": "index_parallel", "spec": s3}
    )
    p.call("sampler_nothing", "overlord", "POST", "/druid/indexer/v1/sampler", {})


def removal_steps(p: Performance) -> None:
    """Take rows out of use and load again."""
    gone, day = p.datasource("gone"), "2001-01-01/2001-01-02"
    removal = f"/druid/indexer/v1/datasources/{gone}"

    def load(name: str, *, rows: int, **options: Any) -> None:
        p.load(name, task(gone, p.id_of(name), inline(day_rows(1, 2)), **options), rows=rows)

    load("gone_first", rows=20, intervals=[FIVE_DAYS], drop=True)
    p.call("mark_unused_elsewhere", "overlord", "POST", f"{removal}/markUnused", {"interval": "2011-01-01/2012-01-01"})
    p.call("mark_unused_day", "overlord", "POST", f"{removal}/markUnused", {"interval": day})
    p.see(gone, rows=10)
    look(p, "mark_unused_day", gone)
    p.call("mark_unused_all", "overlord", "POST", f"{removal}/markUnused", {"interval": "2000-01-01/2010-01-01"})
    loading = f"/druid/coordinator/v1/datasources/{gone}/loadstatus?simple&forceMetadataRefresh=true&interval={SPAN}"
    p.call("loadstatus_of_unused", "coordinator", "GET", loading)
    p.see(gone, rows=None)
    p.sql("count_of_unused", 'SELECT COUNT(*) AS "c" FROM "$t"', of=gone)
    load("gone_back", rows=20, append=True)
    p.call("delete_datasource", "overlord", "DELETE", removal)
    p.see(gone, rows=None)
    p.call("datasource_of_unused", "coordinator", "GET", f"/druid/coordinator/v1/datasources/{gone}")
