"""Validation of tasks as the Overlord does it at once, in the words of 33.0.0."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.fakes.druid.native import granularity_of
from tests.fakes.druid.times import GRANULARITIES, Interval

_BATCH = "org.apache.druid.indexing.common.task.batch.parallel"
_TASKS = (
    "archive, compact, index, index_hadoop, index_parallel, index_sub, kill, move, noop, partial_dimension_cardinality,"
    " partial_dimension_distribution, partial_index_generate, partial_index_generic_merge,"
    " partial_range_index_generate, restore, single_phase_sub_task"
)
_PLAIN_SOURCES = ("combining", "druid", "generator", "http", "inline", "local", "sql")
_PLAIN_FORMATS = ("csv", "json", "regex", "tsv")


class RefusedError(Exception):
    """A request that is answered by 400 and this message."""


def check_task(body: Any, *, extensions: frozenset[str]) -> None:
    """Raise RefusedError for a task that the Overlord does not take."""
    if isinstance(body, list):
        raise RefusedError(
            "Unexpected token (END_ARRAY), expected VALUE_STRING: need JSON String that contains type id"
            " (for subtype of org.apache.druid.indexing.common.task.Task)"
        )
    if "type" not in body:
        raise RefusedError(_missing_type("org.apache.druid.indexing.common.task.Task"))
    if body["type"] == "noop":
        return
    if body["type"] != "index_parallel":
        raise RefusedError(_unknown_type(body["type"], "org.apache.druid.indexing.common.task.Task", _TASKS))
    if "spec" not in body:
        raise RefusedError(
            _null_pointer("ParallelIndexSupervisorTask", "ParallelIndexIngestionSpec.getDataSchema", "ingestionSchema")
        )
    check_spec(body["spec"], extensions=extensions)
    if "/" in body.get("id", ""):
        raise RefusedError(_problem(f"{_BATCH}.ParallelIndexSupervisorTask", _slash("task ID", body["id"])))


def check_sampler(body: Any, *, extensions: frozenset[str]) -> None:
    """Raise RefusedError for what the sampler does not take."""
    kind = "org.apache.druid.client.indexing.SamplerSpec"
    if "type" not in body:
        raise RefusedError(_missing_type(kind))
    if body["type"] != "index":
        raise RefusedError(_unknown_type(body["type"], kind, "index"))
    check_spec(body["spec"], extensions=extensions)


def check_spec(spec: Mapping[str, Any], *, extensions: frozenset[str]) -> None:
    """Raise RefusedError for an ingestion spec that cannot be."""
    schema, io = spec.get("dataSchema"), spec.get("ioConfig")
    tuning = spec.get("tuningConfig") or {}
    if schema is None or io is None:
        raise RefusedError(
            _problem(
                f"{_BATCH}.ParallelIndexIngestionSpec",
                'Cannot invoke "org.apache.druid.segment.indexing.DataSchema.getParserMap()" because "dataSchema" is null',
            )
        )
    problems = (*_schema_problems(schema), *_io_problems(io, extensions), *_whole_problems(schema, io, tuning))
    for problem in problems:
        raise RefusedError(problem)


def _schema_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    owner = "org.apache.druid.segment.indexing.DataSchema"
    granularity = schema.get("granularitySpec") or {}
    if granularity_of(schema) not in GRANULARITIES:
        package = "org.apache.druid.java.util.common.granularity"
        yield _problem(f"{package}.Granularity", f"No enum constant {package}.GranularityType.{granularity_of(schema)}")
    for text in granularity.get("intervals") or ():
        try:
            Interval.parse(text)
        except ValueError as error:
            chain = (
                f'{_BATCH}.ParallelIndexSupervisorTask["spec"]->{_BATCH}.ParallelIndexIngestionSpec["dataSchema"]->'
                f'{owner}["granularitySpec"]->org.apache.druid.indexer.granularity.UniformGranularitySpec["intervals"]'
                "->java.util.ArrayList[0]"
            )
            yield f"Invalid interval[{text}]: [{error}] (through reference chain: {chain})"
    names = [each if isinstance(each, str) else each.get("name") for each in _dimensions(schema)]
    doubles = sorted({name for name in names if names.count(name) > 1 and name})
    if doubles:
        yield _problem(
            "org.apache.druid.data.input.impl.DimensionsSpec",
            f"Duplicate column entries found : [{', '.join(doubles)}]",
        )
    if "timestampSpec" not in schema:
        yield _problem(owner, "timestampSpec")
    for position, name in enumerate(names):
        if not name:
            yield _problem(owner, f"Encountered dimension with null or empty name at position[{position}]")
        if name == "__time":
            yield _problem(owner, _TIME_AS_DIMENSION.format(position=position))
    datasource = schema.get("dataSource") or ""
    if "/" in datasource:
        yield _problem(owner, _slash("dataSource", datasource))
    if datasource.startswith("."):
        yield _problem(owner, f"Invalid value for field [dataSource]: Value [{datasource}] cannot start with '.'.")


def _io_problems(io: Mapping[str, Any], extensions: frozenset[str]) -> Iterator[str]:
    source, form = io.get("inputSource"), io.get("inputFormat")
    if source is not None:
        known = sorted({*_PLAIN_SOURCES, *({"s3"} & extensions)})
        if source.get("type") not in known:
            owner = "org.apache.druid.data.input.InputSource"
            yield _unknown_type(source.get("type"), owner, ", ".join(known), " (for POJO property 'inputSource')")
        if source.get("type") == "inline" and not source.get("data"):
            yield _problem("org.apache.druid.data.input.impl.InlineInputSource", "empty data")
        if source.get("type") == "http" and any(
            urlsplit(uri).scheme not in ("http", "https") for uri in source.get("uris", ())
        ):
            owner = "org.apache.druid.data.input.impl.HttpInputSource"
            yield _problem(owner, "Only [http, https] protocols are allowed")
    if form is not None:
        known = sorted({*_PLAIN_FORMATS, *({"parquet"} & extensions)})
        if form.get("type") not in known:
            owner = "org.apache.druid.data.input.InputFormat"
            yield _unknown_type(form.get("type"), owner, ", ".join(known), " (for POJO property 'inputFormat')")


def _whole_problems(schema: Mapping[str, Any], io: Mapping[str, Any], tuning: Mapping[str, Any]) -> Iterator[str]:
    task = f"{_BATCH}.ParallelIndexSupervisorTask"
    partitions = (tuning.get("partitionsSpec") or {}).get("type", "dynamic")
    if partitions != "dynamic" and not tuning.get("forceGuaranteedRollup"):
        yield _problem(
            f"{_BATCH}.ParallelIndexTuningConfig", "DynamicPartitionsSpec must be used for best-effort rollup"
        )
    if "inputFormat" not in io:
        yield _problem(
            f"{_BATCH}.ParallelIndexIngestionSpec",
            "At least one of properties[[parser, inputFormat]] must be present",
        )
    if "inputSource" not in io:
        yield _problem(task, "inputSource")
    if io.get("dropExisting") and io.get("appendToExisting"):
        yield _problem(
            task,
            "Cannot simultaneously replace and append to existing segments. Either dropExisting or appendToExisting"
            " should be set to false",
        )
    if io.get("dropExisting") and not (schema.get("granularitySpec") or {}).get("intervals"):
        yield _problem(task, "GranularitySpec's intervals cannot be empty when using replace.")


_TIME_AS_DIMENSION = (
    "Encountered dimension[__time] at position[{position}]. This is only supported when the dimensionsSpec"
    " parameter[forceSegmentSortByTime] is set to[false]. Warning: support for segments not sorted by[__time] is"
    " experimental. Such segments are not readable by older version of Druid, and certain queries cannot run on them."
    " See https://druid.apache.org/docs/latest/ingestion/partitioning#sorting for details before setting"
    " forceSegmentSortByTime to[false]."
)


def _dimensions(schema: Mapping[str, Any]) -> list[Any]:
    return list((schema.get("dimensionsSpec") or {}).get("dimensions") or ())


def _problem(owner: str, text: str) -> str:
    return f"Cannot construct instance of `{owner}`, problem: {text}"


def _slash(field: str, value: str) -> str:
    return f"Invalid value for field [{field}]: Value [{value}] cannot contain '/'."


def _null_pointer(owner: str, method: str, variable: str) -> str:
    return _problem(f"{_BATCH}.{owner}", f'Cannot invoke "{_BATCH}.{method}()" because "{variable}" is null')


def _missing_type(owner: str) -> str:
    return f"Could not resolve subtype of [simple type, class {owner}]: missing type id property 'type'"


def _unknown_type(kind: Any, owner: str, known: str, suffix: str = "") -> str:
    return (
        f"Please make sure to load all the necessary extensions and jars with type '{kind}' on 'druid/coordinator'"
        f" service. Could not resolve type id '{kind}' as a subtype of `{owner}` known type ids = [{known}]{suffix}"
    )
