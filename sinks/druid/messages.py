"""The messages of Druid: sentences by code, in the form of `ingestion.ports.messages`."""

from typing import Final

MESSAGES: Final[dict[str, str]] = {
    "sink.bad_name": "{name!r} cannot be the name of a {what} at the destination. Use letters, digits, '_' and '-', and keep it short.",
    "sink.no_way": "The rows cannot come to the destination by {wanted}: {detail}. Let the input be auto, or see that it holds.",
    "sink.disk_not_shared": "Druid finds no row in {path}, which was written on this machine for it to read. Let its services see the lake's folder under the same path, or switch shares_disk off and set staging. Nothing was changed.",
    "sink.clock": "The clocks differ by {seconds} s: {where} says {theirs}, this machine {ours}. Set both by a time server: signed addresses and logical times would be wrong.",
    "sink.too_large_inline": "The rows of this run are more than the {limit_bytes} bytes that a task can carry inside it. Set staging to a bucket that Druid can reach, or shares_disk where it sees this machine's disk.",
    "sink.foreign_rows": "{where} at destination {destination} holds rows that this pipeline has not brought, and a load would lose or mix them. Choose another name, or remove what is there: 'ingest drop'.",
    "sink.unknown_task": "Destination {destination} knows no task {task}. 'ingest tasks' lists those it knows.",
    "sink.task_over": "Task {task} has ended already ({state}), so there was nothing to stop.",
    "sink.no_overlord": "{where} is a part of Druid that takes no tasks. Write the address of the Router into url, or that of the Coordinator (which is the Overlord, too), and then the Broker's into broker_url.",
    "sink.foreign_task": "{task!r} is no task of Headgate's, so it is left alone.",
    "sink.foreign_redirect": "Destination {destination} redirects to {host}, which is none of its addresses, so it was not followed. If that is its leader, add it to allowed_redirects.",
    "sink.replaces_unknown": "Datasource {datasource} holds rows that a replacement would lose ({runs}). Report this: nothing was changed.",
    "sink.rows_lost": "Destination {destination} did not take all {handed} rows that it was handed: {short} are short after the stage {stage}: {detail}. Correct the contract or the rows, then retry.",
    "sink.nulls_differ": "Destination {destination} shows other nulls than it was handed: {detail}. A value was lost on the way; look at the column, then retry.",
    "sink.schema_differs": "Destination {destination} finds other types in the rows than the contract declares: {detail}. Correct the contract, or switch discover_schema off.",
    "sink.task_failed": "Task {task} at destination {destination} failed: {detail}. Look at its log, repair the cause, then retry: a new task is made.",
    "sink.not_druid": "{where} answers, but not as Druid does. Write the address of the Router, the Overlord or the Broker.",
}
