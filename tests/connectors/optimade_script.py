"""Scripted OPTIMADE providers and short ways to read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from connectors.materials.optimade import OptimadeConfig, OptimadeConnector
from ingestion.ports.batch import Page, PartitionSpec, Query
from ingestion.ports.context import HttpResponse
from tests.conformance.connector import records_of
from tests.conformance.context import RecordingContext, SentRequest, answer

DATA = Path(__file__).parents[1] / "data" / "optimade"
BASE = "http://127.0.0.1:21000"
STRUCTURES = Query(stream="structures")
Respond = Callable[[SentRequest], HttpResponse]


def recorded(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def recorded_provider(request: SentRequest) -> HttpResponse:
    """Answer as the reference server did: 17 structures on four pages."""
    parts = urlsplit(request.url)
    if parts.path.endswith("/info"):
        return answer(recorded("info.json"))
    offset = parse_qs(parts.query).get("page_offset", ["0"])[0]
    return answer(
        (DATA / f"structures_offset_{offset}.json").read_bytes(), headers={"content-type": "application/vnd.api+json"}
    )


def connector(**config: Any) -> OptimadeConnector:
    return OptimadeConnector(OptimadeConfig.model_validate({"base_url": BASE, **config}))


def entry(number: int, **attributes: Any) -> dict[str, Any]:
    dated = {"last_modified": f"2024-01-01T00:{number:02d}:00Z", **attributes}
    return {"id": f"s{number}", "type": "structures", "attributes": dated}


def listing(entries: list[Any], *, next_link: Any = None, **meta: Any) -> dict[str, Any]:
    return {
        "data": entries,
        "meta": {"more_data_available": next_link is not None, **meta},
        "links": {"next": next_link},
    }


def always(body: Any, **options: Any) -> Respond:
    """Answer every request alike."""
    return lambda _: answer(body, **options)


def pages_of(*documents: dict[str, Any]) -> Respond:
    """Answer with the documents in turn, by the parameter n of the address."""

    def respond(request: SentRequest) -> HttpResponse:
        return answer(documents[int(parse_qs(urlsplit(request.url).query).get("n", ["0"])[0])])

    return respond


def fetch(respond: Respond, query: Query = STRUCTURES, **config: Any) -> tuple[list[Page], RecordingContext]:
    recording = RecordingContext(respond)
    reader = connector(**config)
    spec = next(iter(reader.plan(query, None, recording.context)))
    return list(reader.fetch(spec, None, recording.context)), recording


def rows(pages: list[Page], query: Query = STRUCTURES) -> list[dict[str, Any]]:
    reader = connector()
    records = records_of(pages, PartitionSpec(0), query=query, recording=RecordingContext())
    stream = next(stream for stream in reader.streams() if stream.name == query.stream)
    return list(reader.standardize(records, stream).to_pylist())
