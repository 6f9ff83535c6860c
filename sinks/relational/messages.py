"""The messages of relational databases: sentences by code, in the form of `ingestion.ports.messages`."""

from typing import Final

MESSAGES: Final[dict[str, str]] = {
    "sink.too_many_refused": "Destination {destination} rejected more than {limit} rows, the last by {rule}: {detail}. Nothing of the delivery landed. Correct the contract or the table's rules, or raise refused_limit, then retry.",
    "sink.table_taken": "Table {table} belongs to pipeline {pipeline}. Write {{pipeline}} into the destination's table, or choose another name.",
    "sink.table_foreign": "Table {table} has rows and was not made by Headgate. Choose another name, or empty it first.",
    "sink.value_not_castable": "Destination {destination} cannot show column {column} as {kind}, which the newest published contract says: {value!r}, which run {run} brought, is none. Nothing was changed. Correct the contract, or replace the rows by a full refresh, then retry.",
    "sink.key_refused": "The rows of table {table} cannot be told apart by {key}: {detail}. Correct the contract's key or the rows.",
    "sink.schema_not_revertible": "Change {change} of table {table} cannot be reverted: {detail}.",
}
