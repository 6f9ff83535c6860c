"""Trying a source or destination out: which layer answers, and what to do where one does not."""

from ingestion import registry
from ingestion.models import Destination, Source
from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.errors import IngestError
from ingestion.runs.work.contexts import sink_context, source_context


def check_source(source: Source) -> CheckReport:
    """Return what the source's own check finds; settings that do not validate are the first finding."""
    try:
        connector = registry.build_connector(source)
        with source_context(source) as ctx:
            return connector.check(ctx)
    except IngestError as error:
        return _failed(error)


def check_destination(destination: Destination) -> CheckReport:
    """Return what the destination's own check finds; settings that do not validate are the first finding."""
    try:
        with sink_context() as ctx:
            return registry.build_sink(destination).check(ctx)
    except IngestError as error:
        return _failed(error)


def _failed(error: IngestError) -> CheckReport:
    return CheckReport((Finding("settings", ok=False, elapsed_ms=0.0, detail=str(error), code=error.code),))
