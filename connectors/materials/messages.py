"""The messages of materials databases: sentences by code, in the form of `ingestion.ports.messages`."""

from typing import Final

MESSAGES: Final[dict[str, str]] = {
    "row.missing_id": "The record has no id.",
    "row.no_attributes": "The attributes of the record are no JSON object.",
}
