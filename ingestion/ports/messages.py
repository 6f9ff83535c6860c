"""The one table of messages: what happened, where, and what to do next, by stable code.

A code is `<subject>.<condition>`; it never changes once released. `{names}` are the error's values.
"""

from collections.abc import Mapping
from typing import Any


class _Known(dict[str, Any]):
    """Values for a sentence; one that was not given shows as "?" instead of breaking the message."""

    def __missing__(self, name: str) -> str:
        return "?"


def sentence(code: str, values: Mapping[str, Any]) -> str:
    """Return the sentence of a code with its values filled in; an unknown code is its own sentence."""
    template = MESSAGES.get(code)
    if template is None:
        return f"{code}: {', '.join(f'{name}={value}' for name, value in values.items())}".rstrip(": ")
    return template.format_map(_Known(values))


MESSAGES: dict[str, str] = {
    # settings of a person
    "config.invalid": "The settings of {where} do not validate: {detail}. Correct the named fields and save again.",
    "config.unknown_kind": "There is no {port} of kind {kind!r}. Choose one of: {known}.",
    "config.unknown_stream": "{source} has no stream {stream!r}. Choose one of: {known}.",
    "config.unknown_name": "There is no {what} named {name!r}. Choose one of: {known}.",
    "config.unknown_variable": "{name} is not a setting of Headgate. Did you mean {nearest}?",
    "contract.invalid": "The contract does not validate: {detail}. Correct it and send it again.",
    "contract.missing_key_column": "The data have no column {column!r}, which the contract names as key. Found: {found}. Correct the file's header or the contract's key.",
    "contract.missing_column": "The data have no column {column!r}, which the contract requires. Found: {found}. Correct the file's header or the contract.",
    "contract.unexpected_column": "The data have columns that the contract does not allow: {columns}. Remove them or set extra_columns to keep or discard.",
    "contract.awaited": "The contract is being drafted from the first partition's data; this one follows by itself.",
    "pipeline.self_dependency": "Pipeline {pipeline} cannot depend on itself. Choose another upstream pipeline.",
    "pipeline.dependency_cycle": "This dependency closes a circle: {path}. Remove one of its links.",
    "pipeline.paused": "Pipeline {pipeline} is paused. Resume it, then start the run again.",
    "pipeline.incremental_needs_cursor": "Stream {stream!r} offers no cursor, so it cannot be read incrementally. Choose full_refresh.",
    "schedule.invalid_cron": "{cron!r} is no cron expression: {detail}. Write five fields, for example '0 6 * * *'.",
    "schedule.invalid_interval": "An interval of {seconds} s is not allowed. Choose at least {minimum} s.",
    "schedule.invalid_zone": "{zone!r} is no known time zone. Write a name such as 'Europe/Berlin' or 'UTC'.",
    "schedule.cron_or_interval": "A schedule needs either a cron expression or an interval. Fill in exactly one.",
    # what a person may not do now
    "run.not_found": "There is no run {run}. List the runs to see their numbers.",
    "run.not_cancellable": "Run {run} is {state} and cannot be cancelled any more.",
    "run.not_retryable": "Run {run} is {state}; only a failed or partial run can be retried.",
    "run.superseded": "Run {run} cannot be retried: run {later} of the same pipeline has been published since. Start a new run instead.",
    "run.published_without_partitions": "Run {run} was published without some of its partitions. Start a new run: it reads them again, for the checkpoint stayed below them.",
    "run.cancelled": "The run was cancelled.",
    "run.not_published": "Run {run} was not published, so there is nothing to roll back to. Choose a succeeded run.",
    "run.idempotency_mismatch": "The key {key!r} was already used for another request. Use a new key.",
    "run.deadline": "The run was not finished after {seconds} s and was stopped. Raise the pipeline's time limit or narrow its query, then retry.",
    "run.partition_failed": "{failed} of {total} partitions failed, the first with {code}: {message} Mend the cause, then retry the run.",
    "run.planning_failed": "The run could not be planned: {message}",
    "dependency.timeout": "The run waited {seconds} s for a publication of {upstream} and none came. Look at that pipeline, then retry.",
    "worker.lost": "The worker died {attempts} times on the same piece of work (partition {where}). It probably runs out of memory there; look at the worker's log, then retry.",
    "worker.errored": "A defect of Headgate stopped this work (incident {incident}: {error}). The log holds the traceback; retry, and report it if it comes again.",
    # sources
    "source.unavailable": "{host} does not answer ({detail}). The work is tried again by itself.",
    "source.server_error": "{host} answered {status} to {url}. The work is tried again by itself.",
    "source.rate_limited": "{host} allows no more requests for {retry_after_s} s. The work goes on by itself then.",
    "source.too_slow": "{host} did not finish its answer within {seconds} s. Lower the page size or raise the source's timeout.",
    "source.auth": "{host} refused the credentials ({status}). Correct the source's secrets, then retry.",
    "source.rejected": "{host} refused the request ({status}): {detail}. Correct the query or the source's settings, then retry.",
    "source.not_found": "{url} does not exist at the source (404). Correct the base URL or the stream, then retry.",
    "source.bad_content": "{url} answered {status} with {found} where {expected} was expected. Open the address in a browser: it may be a login or maintenance page.",
    "source.too_large": "The answer of {url} is larger than {limit_bytes} bytes. Lower the page size.",
    "source.pagination_loop": "The source named {url} as next page a second time, so its paging runs in a circle. What was fetched so far is kept; report it to the provider.",
    "source.incomplete": "The source said that more data follow but named no next page after {records} records. Retry later, or report it to the provider.",
    "source.foreign_next": "{host} named a next page on another host ({found}), which was not followed. If that host belongs to the provider, add it to allowed_hosts of the source.",
    "source.total_shrank": "The source counted {total} matching records at first and {found} now: some were removed while it was read, so others may have been passed over. Start a new run.",
    "source.ended_early": "The source ended after {pages} pages without saying that it had. What was fetched is kept; retry later, or report it to the provider.",
    "source.too_many_redirects": "{url} redirected more than {limit} times. Write the final address into the source's settings.",
    "source.tls": "The TLS certificate of {host} was refused: {detail}. Correct the address, or the certificate.",
    "egress.forbidden": "Connections to {host} ({address}) are not allowed. An administrator can add it to HEADGATE_EGRESS_ALLOW.",
    "egress.scheme": "{url} does not begin with http:// or https://. Write a web address.",
    "egress.port": "Port {port} of {host} is not allowed. An administrator can add it to HEADGATE_EGRESS_PORTS.",
    "egress.unresolved": "The name {host} cannot be resolved. Correct the address, or the machine's name service.",
    "egress.request": "A request to {url} cannot be made: {detail}. Correct the address or the headers.",
    "egress.downgrade": "{url} redirects from https to {target}, where others could read along. Write the final https address into the source's settings.",
    "limiter.waiting": "The rate limit of {key} is used up for {retry_after_s} s. The work goes on by itself then.",
    "limiter.unavailable": "The shared rate limiter does not answer ({detail}); without it nothing is sent. It is tried again by itself.",
    # files
    "file.empty": "{name} is empty. Send a file with at least a header line.",
    "file.no_rows": "{name} holds a header but no rows.",
    "file.wrong_type": "{name} is named {extension} but its content is {found}. Rename it or send the right file.",
    "file.unknown_type": "The type of {name} was not recognised. Send CSV, JSON, JSON Lines, Parquet or XLSX.",
    "file.truncated": "{name} is cut off: {detail}. Send the whole file again.",
    "file.malformed": "{name} cannot be read: {detail}. Correct the file and send it again.",
    "file.encoding": "{name} is not UTF-8 text (byte {offset}). Save it as UTF-8 and send it again.",
    "file.duplicate_column": "{name} has the column {column!r} more than once. Rename one of them.",
    "file.too_many_columns": "{name} has {columns} columns, {limit} are allowed.",
    "file.too_large": "{name} is larger than {limit_bytes} bytes. Split it, or have the limit HEADGATE_UPLOAD_MAX_BYTES raised.",
    "row.malformed": "The line cannot be read: {detail}.",
    "row.too_many_fields": "The line has {found} fields, the header has {expected}.",
    "row.too_few_fields": "The line has {found} fields, the header has {expected}.",
    "row.not_an_object": "The record is no JSON object.",
    "row.missing_id": "The record has no id.",
    "row.no_attributes": "The attributes of the record are no JSON object.",
    "file.unreadable": "{name} cannot be opened: {detail}. Correct the path, or who may read it.",
    "file.unwritable": "{name} cannot be written: {detail}. Choose another place.",
    "file.unknown_output": "The name {name!r} tells no format. Let it end with one of: {known}.",
    # the lake and destinations
    "store.missing": "The object {key} is missing from the lake. Restore it from a backup, or run the pipeline again.",
    "store.corrupt": "The object {key} has other bytes than were recorded ({detail}). Restore it from a backup, or run the pipeline again.",
    "store.conflict": "Another object already lies under {key}. Give this installation a lake or prefix of its own.",
    "store.unavailable": "The object store does not answer ({detail}). The work is tried again by itself.",
    "store.auth": "The object store refused the credentials ({detail}). Correct access key and secret.",
    "store.config": "The object store cannot be used as configured ({detail}). Correct bucket, region or endpoint.",
    "store.bad_key": "No object can have the key {key}: {detail}. Use printable names without '..' between single slashes.",
    "store.no_space": "No space is left where the lake lies. Free some, then retry.",
    "sink.unavailable": "Destination {destination} does not answer ({detail}). The delivery is tried again by itself.",
    "sink.auth": "Destination {destination} refused the credentials ({detail}). Correct its secrets, then retry.",
    "sink.rejected": "Destination {destination} refused the delivery: {detail}.",
    "sink.busy": "Destination {destination} is taking another publication of this pipeline, or somebody holds its table locked; this one follows by itself.",
    "sink.too_many_refused": "Destination {destination} refused more than {limit} rows, the last by {rule}: {detail}. Nothing of the delivery landed. Correct the contract or the table's rules, or raise refused_limit, then retry.",
    "sink.table_taken": "Table {table} belongs to pipeline {pipeline}. Write {{pipeline}} into the destination's table, or choose another name.",
    "sink.table_foreign": "Table {table} has rows and was not made by Headgate. Choose another name, or empty it first.",
    "sink.key_refused": "The rows of table {table} cannot be told apart by {key}: {detail}. Correct the contract's key or the rows.",
    "sink.schema_not_revertible": "Change {change} of table {table} cannot be reverted: {detail}.",
    "sink.count_mismatch": "Destination {destination} shows {found} rows of this run where {expected} were handed over: {short} are missing after the stage {stage}. Retry the delivery.",
    "delivery.failed": "Delivery to {destination} failed with {code}: {message}",
    # the command line
    "stack.not_running": "No stack is running here, so nothing works on it yet. Start one with 'python manage.py up', or give --local; what is stored is worked on then.",
    "stack.lost": "The broker does not answer any more, so run {run} is not waited for; it goes on when a stack runs again. Look at it with 'python manage.py ingest show {run}'.",
    "stack.not_started": "The short-lived stack did not start. Its lines stand in {log}.",
    "database.unavailable": "The database does not answer as it should ({detail}). Start it, or correct DATABASE_URL, then try again.",
    "database.outdated": "The tables of the database are not those of this version. Run 'python manage.py prepare', then try again.",
    # the API
    "request.invalid": "The request does not validate: {detail}.",
    "request.not_found": "There is no such object, or you may not see it.",
    "request.unauthenticated": "This address needs a token. Send the word Token, a space and your token in the header Authorization.",
    "request.forbidden": "Your account may not do this. Ask an operator.",
    "request.credentials": "User name or password is wrong. Correct them and try again.",
    "request.csrf": "The CSRF token of the session is missing or wrong. Send it in the header X-CSRFToken, or use a token.",
    "request.too_large": "The body of the request is too large. Send fewer things at once.",
    "request.in_use": "It is used by {users}. Change or remove these first.",
    "request.method": "The method {method} is not allowed here.",
    "request.media_type": "The content type {media_type!r} is not understood here.",
    "request.throttled": "Too many requests. Try again after {retry_after_s} s.",
    "request.errored": "A defect of Headgate stopped this request (incident {incident}). The log holds the traceback.",
    "request.conflict": "{detail}",
    "request.unavailable": "{part} does not answer. Try again in a moment.",
    "upload.wrong_source": "Pipeline {pipeline} reads from a source of kind {kind}, not from uploads. Choose another pipeline, or leave it out.",
    "upload.awaited": "Pipeline {pipeline} reads files and none was sent yet. Upload one.",
    "upload.no_file": "No file was sent. Choose one, then send the form again.",
    "upload.unnamed": "No pipeline name can be made of {name!r}. Give a datasource_name with letters or digits.",
    "upload.incomplete": "The upload ended after {received} of {expected} bytes. Send the file again.",
}
