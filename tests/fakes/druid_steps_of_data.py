"""The steps of the script about rows: types, times, input files, queries."""

from typing import Any

from tests.fakes.druid_performance import Performance, columns
from tests.fakes.druid_specs import constant, http, inline, json_column, task

DAY = "2001-01-01/2001-01-02"
TIME = "2001-01-01T00:00:00Z"
MILLIS = 978307200000
ID = {"type": "long", "name": "id"}
CASTS = {"a": "LONG", "b": "ARRAY<STRING>", "c": "ARRAY<DOUBLE>"}


def load_and_read(p: Performance, name: str, source: dict[str, Any], *, rows: int | None, **options: Any) -> None:
    """Load rows into a datasource of their own and keep its columns and rows."""
    datasource = p.datasource(name)
    p.load(name, task(datasource, p.id_of(name), source, **options), rows=rows)
    if rows is not None:
        columns(p, f"{name}_columns", datasource)
        p.sql(f"{name}_rows", 'SELECT * FROM "$t"', of=datasource)


def numbered(name: str, *values: Any) -> dict[str, Any]:
    """Return rows of one column with these values, numbered from 1; Ellipsis leaves the column out."""
    return inline(
        [{"t": TIME, "id": n, **({} if value is ... else {name: value})} for n, value in enumerate(values, start=1)]
    )


def type_steps(p: Performance) -> None:
    """Load values of all kinds into columns of all types, and rows with all kinds of times."""
    texts = ('{"a":1,"b":[1,2]}', "[1,2,3]", '"text"', "12.5", "null", None, ..., "true", '{"n":{"x":"y"}}', "{}", "[]")
    as_json: dict[str, Any] = {"dimensions": [ID, {"type": "json", "name": "v"}], "intervals": [DAY]}
    load_and_read(p, "json_text", numbered("v", *texts, "{broken"), rows=12, transforms=[json_column("v")], **as_json)
    datasource = p.datasource("json_text")
    p.sql("json_nulls", 'SELECT COUNT(*) FILTER (WHERE "v" IS NULL) AS "n", COUNT("v") AS "m" FROM "$t"', of=datasource)
    p.sql(
        "json_value",
        'SELECT "id", JSON_VALUE("v", \'$.a\') AS "a", JSON_VALUE("v", \'$.n.x\') AS "x" FROM "$t"',
        of=datasource,
    )
    load_and_read(p, "json_kept_as_text", numbered("v", *texts), rows=11, **as_json)
    load_and_read(p, "json_numbers", numbered("v", "1", "2"), rows=2, transforms=[json_column("v")], **as_json)
    load_and_read(p, "json_missing", numbered("v", None, ...), rows=2, transforms=[json_column("v")], **as_json)
    load_and_read(p, "json_values", numbered("v", {"a": 1}, [1, 2], None), rows=3, **as_json)
    parsed = [constant("v", 'parse_json("v")')]
    load_and_read(p, "json_strict", numbered("v", "{}", "{broken"), rows=None, transforms=parsed, **as_json)
    numbers = (True, False, None, 1.5, 2, "3", "x", "", 1e18, 2**63 - 1, 2**63, "1.5", [1, 2], {"a": 1}, ...)
    saved = {"maxSavedParseExceptions": 20, "maxParseExceptions": 20}
    for kind in ("long", "double", "string", "auto"):
        dimensions = [ID, {"type": kind, "name": "v"}]
        load_and_read(
            p, f"as_{kind}", numbered("v", *numbers), rows=15, dimensions=dimensions, intervals=[DAY], tuning=saved
        )
    for name, values in {
        "booleans": (True, False, None),
        "numbers": (1, 1.5, None),
        "texts": ("a", "", None),
        "mixed": (1, "x", None),
        "lists": (["a", None], [], None),
        "number_lists": ([1, 2.5], [3], None),
        "nothing": (None, ...),
    }.items():
        dimensions = [ID, {"type": "auto", "name": "v"}]
        load_and_read(
            p, f"auto_{name}", numbered("v", *values), rows=len(values), dimensions=dimensions, intervals=[DAY]
        )
    casts = [ID, *({"type": "auto", "name": name, "castToType": kind} for name, kind in CASTS.items())]
    mixed = [
        {"t": TIME, "id": 1, "a": True, "b": ["x"], "c": [1, 2]},
        {"t": TIME, "id": 2, "a": "7", "b": "solo", "c": None},
    ]
    load_and_read(p, "casts", inline(mixed), rows=2, dimensions=casts, intervals=[DAY])
    load_and_read(
        p,
        "as_float",
        numbered("v", 1, 1.5, None),
        rows=3,
        dimensions=[ID, {"type": "float", "name": "v"}],
        intervals=[DAY],
    )
    time_steps(p)
    constant_steps(p)
    strict = {"maxParseExceptions": 0}
    typed = {"dimensions": [ID, {"type": "long", "name": "v"}], "intervals": [DAY]}
    load_and_read(p, "strict", numbered("v", 1, "x"), rows=None, tuning=strict, **typed)
    names = (
        "with space",
        "with.dot",
        "Upper",
        "upper",
        'quo"te',
        "apo'strophe",
        "ünï",
        "a/b",
        "a\\b",
        "$x",
        "1abc",
        "select",
    )
    row = {"t": TIME, **{name: n for n, name in enumerate(names)}}
    load_and_read(
        p,
        "names",
        inline([row]),
        rows=1,
        dimensions=[{"type": "long", "name": name} for name in names],
        intervals=[DAY],
    )
    found = {"t": TIME, "i": 1, "f": 1.5, "b": True, "s": "a", "arr": [1, 2], "obj": {"x": 1}, "nul": None}
    load_and_read(p, "discovered", inline([found]), rows=1, dimensions=[], discovery=True, intervals=[DAY])
    load_and_read(p, "listed_nowhere", inline([found]), rows=1, dimensions=[], intervals=[DAY])


def time_steps(p: Performance) -> None:
    """Load rows whose times are numbers, texts, missing or nonsense."""
    rows = inline(
        [
            {"id": 1, "ms": MILLIS, "iso": TIME},
            {"id": 2, "ms": None, "iso": None},
            {"id": 3},
            {"id": 4, "ms": "", "iso": ""},
            {"id": 5, "ms": str(MILLIS + 1), "iso": "2001-01-01"},
            {"id": 6, "ms": float(MILLIS), "iso": "2001-01-01T00:00:00.123456+02:00"},
            {"id": 7, "ms": "abc", "iso": "abc"},
            {"id": 8, "ms": MILLIS + 5000, "iso": "2001-01-01 00:00:05"},
        ]
    )
    missing = {"missingValue": "2001-03-01T00:00:00Z"}
    for name, seen, spec in (
        ("millis", 4, {"column": "ms", "format": "millis"}),
        ("millis_missing", 6, {"column": "ms", "format": "millis", **missing}),
        ("iso", 3, {"column": "iso", "format": "iso"}),
        ("auto_number", 4, {"column": "ms", "format": "auto"}),
        ("auto_text", 4, {"column": "iso", "format": "auto"}),
        ("nowhere", 8, {"column": "nope", "format": "millis", **missing}),
    ):
        load_and_read(p, f"time_{name}", rows, rows=seen, timestamp=spec, dimensions=[ID])
    both = [ID, {"type": "long", "name": "ms"}, "iso"]
    load_and_read(
        p, "time_kept", rows, rows=6, timestamp={"column": "ms", "format": "millis", **missing}, dimensions=both
    )
    nowhere = task(p.datasource("never"), p.id_of("never"), rows, timestamp={"column": "nope", "format": "millis"})
    p.load("never", nowhere)


def constant_steps(p: Performance) -> None:
    """Set a column of every row, whatever the row has there."""
    rows = inline([{"t": TIME, "id": 1, "_run": 5}, {"t": TIME, "id": 2, "_run": None}, {"t": TIME, "id": 3}])
    for name, kind, expression in (
        ("number", "long", "1234567890123456789"),
        ("negative", "long", "-5"),
        ("text", "string", "'it\\'s \"q\" é'"),
        ("number_as_text", "string", "123"),
        ("fraction", "double", "12.5"),
        ("text_as_number", "long", "'run-1'"),
    ):
        dimensions = [ID, {"type": kind, "name": "_run"}]
        transforms = [constant("_run", expression)]
        load_and_read(
            p, f"constant_{name}", rows, rows=3, dimensions=dimensions, transforms=transforms, intervals=[DAY]
        )


def input_steps(p: Performance) -> None:
    """Read files over HTTP and from the disk; whole, torn, empty, missing."""
    files, saved = p.at.files, {"maxSavedParseExceptions": 10, "maxParseExceptions": 10}
    two_days = ["2001-01-01/2001-01-03"]
    load_and_read(
        p, "http_gzip", http(f"{files}/rows.ndjson.gz?signature=a%2Fb"), rows=40, intervals=two_days, drop=True
    )
    load_and_read(p, "http_two", http(f"{files}/rows.ndjson", f"{files}/rows.ndjson.gz"), rows=80, intervals=two_days)
    load_and_read(p, "http_bad", http(f"{files}/bad.ndjson"), rows=9, intervals=[DAY], tuning=saved)
    csv = {"type": "csv", "findColumnsFromHeader": True}
    load_and_read(p, "http_csv", http(f"{files}/rows.csv"), rows=4, intervals=[DAY], tuning=saved, input_format=csv)
    columns_given = {"type": "csv", "columns": ["t", "name", "n"]}
    given = inline("2001-01-01,a,1\n2001-01-01,b,2\n")
    load_and_read(p, "csv_columns", given, rows=2, intervals=[DAY], input_format=columns_given)
    p.load(
        "http_empty",
        task(p.datasource("empty"), p.id_of("http_empty"), http(f"{files}/empty.ndjson"), intervals=[DAY], drop=True),
    )
    strict = task(
        p.datasource("torn"),
        p.id_of("http_strict"),
        http(f"{files}/bad.ndjson"),
        intervals=[DAY],
        tuning={"maxParseExceptions": 0},
    )
    p.load("http_strict", strict)
    (p.folder / "on_disk.ndjson").write_text('{"t":"2001-01-01","name":"disk","e":1,"n":2}\n')
    by_filter = {"type": "local", "baseDir": str(p.folder), "filter": "on_disk.*"}
    load_and_read(p, "local_filter", by_filter, rows=1, intervals=[DAY])
    by_name = {"type": "local", "files": [str(p.folder / "on_disk.ndjson"), str(p.folder / "not_there.ndjson")]}
    load_and_read(p, "local_files", by_name, rows=1, intervals=[DAY])
    lines_of = (
        '{"t":"2001-01-01","name":"a"}{"t":"2001-01-01","name":"b"}',
        "",
        '{"t":"2001-01-01","name":NaN}',
        "[]",
        "5",
    )
    load_and_read(p, "odd_lines", inline("\n".join(lines_of)), rows=1, intervals=[DAY], tuning=saved)
    p.submit(
        "http_missing",
        task(p.datasource("missing"), p.id_of("http_missing"), http(f"{files}/missing.ndjson"), intervals=[DAY]),
    )
    path = f"/druid/indexer/v1/task/{p.id_of('http_missing')}"
    p.until(
        lambda: "movingAverages" in p.ask("overlord", "GET", f"{path}/reports").text, "the report of a running task"
    )
    p.until(lambda: '"port":-1' not in p.ask("overlord", "GET", f"{path}/status").text, "the place of a running task")
    p.call("http_missing_status", "overlord", "GET", f"{path}/status")
    p.call("http_missing_reports", "overlord", "GET", f"{path}/reports")
    p.call(
        "tasks_running_now",
        "overlord",
        "GET",
        f"/druid/indexer/v1/tasks?datasource={p.datasource('missing')}&state=running",
    )
    p.call("workers_running", "overlord", "GET", "/druid/indexer/v1/workers")
    p.sql("sys_tasks_running", "SELECT * FROM sys.tasks WHERE datasource = ?", [("VARCHAR", p.datasource("missing"))])
    p.call("http_missing_shutdown", "overlord", "POST", f"{path}/shutdown")
    p.finish("http_missing")
    p.call("http_missing_cancelled", "overlord", "GET", f"{path}/status")


def query_steps(p: Performance) -> None:
    """Ask by SQL what a client asks."""
    rows = [
        {
            "t": f"2001-01-0{1 + n % 3}T0{n}:00:00.{n:03d}Z",
            "name": "a" if n % 2 else None,
            "e": n + 0.5,
            "n": n,
            "_run": 1 + n % 2,
            "o": {"k": n},
        }
        for n in range(10)
    ]
    dimensions = [
        "name",
        {"type": "double", "name": "e"},
        {"type": "long", "name": "n"},
        {"type": "long", "name": "_run"},
        {"type": "json", "name": "o"},
    ]
    asked = p.datasource("asked")
    spec = task(
        asked, p.id_of("asked"), inline(rows), dimensions=dimensions, intervals=["2001-01-01/2001-01-04"], drop=True
    )
    p.load("asked", spec, rows=10)
    for name, query, *parameters in (
        ("count", 'SELECT COUNT(*) AS "c" FROM t'),
        (
            "count_nulls",
            'SELECT COUNT(*) AS c, COUNT(*) FILTER (WHERE "name" IS NULL) AS n, COUNT(*) FILTER (WHERE "o" IS NULL) AS o FROM t',
        ),
        ("distinct", 'SELECT DISTINCT "_run" FROM t'),
        ("count_of_run", 'SELECT COUNT(*) AS c FROM t WHERE "_run" = ?', ("BIGINT", 1)),
        ("span", "SELECT MIN(__time) AS a, MAX(__time) AS b FROM t"),
        (
            "span_of_nothing",
            'SELECT MIN(__time) AS a, MAX(__time) AS b, COUNT(*) AS c, SUM("n") AS s FROM t WHERE "_run" = 99',
        ),
        ("days", "SELECT TIME_FLOOR(__time, 'P1D') AS d, COUNT(*) AS c FROM t GROUP BY 1 ORDER BY 1"),
        ("hours", "SELECT TIME_FLOOR(__time, 'PT6H') AS d, COUNT(*) AS c FROM t GROUP BY 1 ORDER BY 1"),
        (
            "time_literal",
            "SELECT COUNT(*) AS c FROM t WHERE __time >= TIMESTAMP '2001-01-02 00:00:00' AND __time < TIMESTAMP '2001-01-03 00:00:00'",
        ),
        (
            "time_parameters",
            "SELECT COUNT(*) AS c FROM t WHERE __time >= MILLIS_TO_TIMESTAMP(?) AND __time < MILLIS_TO_TIMESTAMP(?)",
            ("BIGINT", MILLIS + 86_400_000),
            ("BIGINT", MILLIS + 172_800_000),
        ),
        ("timestamp_parameter", "SELECT COUNT(*) AS c FROM t WHERE __time >= ?", ("TIMESTAMP", "2001-01-02 00:00:00")),
        ("time_in_interval", "SELECT COUNT(*) AS c FROM t WHERE TIME_IN_INTERVAL(__time, '2001-01-02/2001-01-03')"),
        (
            "runs",
            'SELECT "_run", COUNT(*) AS c, MIN(__time) AS a, MAX(__time) AS b FROM t GROUP BY "_run" ORDER BY "_run"',
        ),
        ("first_rows", "SELECT * FROM t ORDER BY __time LIMIT 2"),
        ("page", 'SELECT "n", "e" FROM t ORDER BY __time DESC LIMIT 2 OFFSET 1'),
        ("sums", 'SELECT AVG("e") AS a, SUM("n") AS s, MAX("n") AS m, SUM("e") AS d FROM t'),
        ("distinct_count", 'SELECT COUNT(DISTINCT "_run") AS c FROM t'),
        ("having", 'SELECT "name", COUNT(*) AS c FROM t GROUP BY 1 HAVING COUNT(*) > 1'),
        (
            "weeks",
            "SELECT TIME_FLOOR(__time, 'P1W') AS w, TIME_FLOOR(__time, 'P1M') AS m, FLOOR(__time TO DAY) AS d, COUNT(*) AS c FROM t GROUP BY 1, 2, 3 ORDER BY 3",
        ),
        (
            "quarters",
            "SELECT TIME_FLOOR(__time, 'P3M') AS q, TIME_FLOOR(__time, 'P1Y') AS y, TIME_FLOOR(__time, 'PT15M') AS p FROM t ORDER BY __time LIMIT 1",
        ),
        (
            "conversions",
            'SELECT CAST(__time AS BIGINT) AS a, TIMESTAMP_TO_MILLIS(__time) AS b, CAST("n" AS VARCHAR) AS v, CAST("n" AS DOUBLE) AS d, "n" / 2 AS h, TIME_SHIFT(__time, \'P1D\', 1) AS s FROM t ORDER BY __time LIMIT 2',
        ),
        ("subselect", 'SELECT COUNT(*) AS c FROM (SELECT "n" FROM "$t" LIMIT 2)'),
        ("among", 'SELECT COUNT(*) AS c FROM t WHERE "n" IN (?, ?)', ("BIGINT", 1), ("BIGINT", 2)),
        ("most", 'SELECT "_run", COUNT(*) AS c FROM t WHERE "n" < 9 GROUP BY 1 ORDER BY COUNT(*) DESC, 1 LIMIT 1'),
        ("unnamed", 'SELECT COUNT(*), "n" + 1 FROM t GROUP BY 2 ORDER BY 2 LIMIT 1'),
        (
            "branches",
            "SELECT CASE WHEN \"n\" > 4 THEN 'many' ELSE 'few' END AS b, COUNT(*) AS c FROM t GROUP BY 1 ORDER BY 1",
        ),
        ("approximate", 'SELECT APPROX_COUNT_DISTINCT("_run") AS c FROM t'),
        ("schema_named", 'SELECT COUNT(*) AS c FROM druid."$t"'),
        ("no_function", 'SELECT STDDEV("n") AS s FROM t'),
        ("reserved_alias", "SELECT COUNT(*) AS one FROM t"),
        (
            "time_between",
            "SELECT COUNT(*) AS c FROM t WHERE __time BETWEEN TIMESTAMP '2001-01-02 00:00:00' AND TIMESTAMP '2001-01-02 23:59:59'",
        ),
        ("null_parameter", 'SELECT COUNT(*) AS c FROM t WHERE "name" = ?', ("VARCHAR", None)),
        ("like", "SELECT COUNT(*) AS c FROM t WHERE \"name\" LIKE 'A%'"),
        ("json", 'SELECT JSON_VALUE("o", \'$.k\' RETURNING BIGINT) AS k, "o" FROM t ORDER BY __time LIMIT 1'),
        ("unknown_column", 'SELECT "nope" FROM t'),
        ("order_by_other", 'SELECT "n" FROM t ORDER BY "n"'),
        ("least_text", 'SELECT MIN("name") AS m FROM t'),
        ("unbound", 'SELECT COUNT(*) AS c FROM t WHERE "_run" = ?'),
        ("insert", "INSERT INTO t SELECT * FROM t PARTITIONED BY DAY"),
        (
            "columns",
            "SELECT COLUMN_NAME, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = 'druid' AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            ("VARCHAR", asked),
        ),
        (
            "column",
            "SELECT * FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = ? AND COLUMN_NAME = '__time'",
            ("VARCHAR", asked),
        ),
        ("table", "SELECT * FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_NAME = ?", ("VARCHAR", asked)),
        (
            "no_table",
            "SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'druid' AND TABLE_NAME = 'nope'",
        ),
        ("segments", 'SELECT * FROM sys.segments WHERE datasource = ? ORDER BY "start" LIMIT 1', ("VARCHAR", asked)),
        (
            "segment_sums",
            "SELECT SUM(num_rows) AS r, COUNT(*) AS c FROM sys.segments WHERE datasource = ? AND is_active = 1",
            ("VARCHAR", asked),
        ),
        (
            "segments_missing",
            "SELECT COUNT(*) FILTER (WHERE is_available = 0 AND is_published = 1 AND replication_factor <> 0) AS c FROM sys.segments WHERE datasource = ? AND is_overshadowed = 0",
            ("VARCHAR", asked),
        ),
        ("tasks", "SELECT * FROM sys.tasks WHERE datasource = ?", ("VARCHAR", asked)),
        (
            "tasks_like",
            "SELECT task_id, status, error_msg FROM sys.tasks WHERE task_id LIKE ?",
            ("VARCHAR", f"{p.prefix}.aske%"),
        ),
        ("servers", "SELECT * FROM sys.servers ORDER BY server_type"),
    ):
        p.sql(
            f"sql_{name}",
            query.replace(" FROM t", ' FROM "$t"').replace(" INTO t", ' INTO "$t"'),
            parameters,
            of=asked,
        )
    rows_query = 'SELECT __time, "n", "name" FROM "$t" ORDER BY __time LIMIT 2'
    for form in ("array", "objectLines", "arrayLines", "csv"):
        p.sql(f"sql_as_{form}", rows_query, of=asked, resultFormat=form)
    p.sql("sql_headers", rows_query, of=asked, resultFormat="array", header=True, typesHeader=True, sqlTypesHeader=True)
    p.sql("sql_unknown_table", 'SELECT COUNT(*) AS c FROM "nope"')
    p.sql("sql_syntax", "SELEKT 1")
    p.sql("sql_nothing", "SELECT 1", context={"sqlQueryId": f"{p.prefix}-q", "timeout": 1000})
    p.call("sql_without_query", "broker", "POST", "/druid/v2/sql", {"quary": "x"})
    p.call("sql_not_json", "broker", "POST", "/druid/v2/sql", raw=b"{not json")
    p.call("sql_task_missing", "broker", "POST", "/druid/v2/sql/task", {"query": "SELECT 1"})
    p.call("sql_cancel_unknown", "broker", "DELETE", "/druid/v2/sql/none")
