"""The one table of messages: what happened, where, and what to do next, by stable code.

A code is `<subject>.<condition>`; it never changes once released. `{names}` are the error's values. A plugin brings the
sentences of its own codes with it; they are added here when its class is loaded.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

_OF_PLUGINS: dict[str, tuple[str, str]] = {}
"""The sentences that plugins have brought, with the path of the class that did."""


@runtime_checkable
class BringsMessages(Protocol):
    """A connector or sink class with error codes of its own: `messages` holds their sentences, as the table does."""

    messages: ClassVar[Mapping[str, str]]


class _Known(dict[str, Any]):
    """Values for a sentence; one that was not given shows as "?" instead of breaking the message."""

    def __missing__(self, name: str) -> str:
        return "?"


def sentence(code: str, values: Mapping[str, Any]) -> str:
    """Return the sentence of a code with its values filled in; an unknown code is its own sentence."""
    template = find_message(code)
    if template is None:
        return f"{code}: {', '.join(f'{name}={value}' for name, value in values.items())}".rstrip(": ")
    return template.format_map(_Known(values))


def find_message(code: str) -> str | None:
    """Return the sentence of a code as it stands in the table or in that of a loaded plugin, or None."""
    return MESSAGES.get(code) or _OF_PLUGINS.get(code, (None,))[0]


def add_messages(messages: Mapping[str, str], *, owner: str) -> None:
    """Add a plugin's sentences; for a code of the table, that of the table stays.

    ValueError names the other owner where another plugin has given one of the codes another sentence.
    """
    for code, text in messages.items():
        known, other = _OF_PLUGINS.get(code, (text, owner))
        if known != text and other != owner:
            raise ValueError(f"the message {code} is another in {other}")
    _OF_PLUGINS.update({code: (text, owner) for code, text in messages.items()})


MESSAGES: dict[str, str] = {
    # settings of a person
    "config.invalid": "The settings of {where} do not validate: {detail}. Correct the named fields and save again.",
    "config.unknown_kind": "There is no {port} of kind {kind!r}. Choose one of: {known}.",
    "config.message_conflict": "The plugin of kind {kind} cannot be used beside the others: {detail}. Remove one of the two, or have its author rename the code.",
    "config.unknown_stream": "{source} has no stream {stream!r}. Choose one of: {known}.",
    "config.unknown_name": "There is no {what} named {name!r}. Choose one of: {known}.",
    "config.unknown_variable": "{name} is not a setting of Headgate. Did you mean {nearest}?",
    "contract.invalid": "The contract does not validate: {detail}. Correct it and send it again.",
    "contract.missing_key_column": "The data have no column {column!r}, which the contract names as key. Found: {found}. Correct the file's header or the contract's key.",
    "contract.missing_column": "The data have no column {column!r}, which the contract requires. Found: {found}. Correct the file's header or the contract.",
    "contract.unexpected_column": "The data have columns that the contract does not allow: {columns}. Remove them or set extra_columns to keep or discard.",
    "contract.awaited": "The contract is being drafted from the first partition's data; this one follows by itself.",
    "pipeline.name_reserved": "A pipeline cannot be called {name}: the lake keeps that name for a folder of its own. Choose another one.",
    "pipeline.self_dependency": "Pipeline {pipeline} cannot depend on itself. Choose another upstream pipeline.",
    "pipeline.dependency_cycle": "This dependency closes a circle: {path}. Remove one of its links.",
    "pipeline.paused": "Pipeline {pipeline} is paused. Resume it, then start the run again.",
    "pipeline.not_published": "Pipeline {pipeline} has published nothing yet. Run it, then try again.",
    "pipeline.unknown_publication": "Run {run} is no publication of pipeline {pipeline}. Leave publication out, or name a published run of it.",
    "pipeline.destinations_lost": "Pipeline {pipeline} would deliver no more to {lost}. Send every destination that it is to have; add one with POST to {address}, remove one with DELETE of {address}/<its name>.",
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
    "run.nothing_accepted": "None of the {fetched} rows that were fetched was accepted, and nothing is published yet. Look at the rejected rows, correct the data or the contract, then start a new run.",
    "run.empty": "The source had no rows, and nothing is published yet. Look at the query and at the source, then start a new run; where it may be empty, set allow_empty of the pipeline and retry.",
    "held.nothing_accepted": "None of the {fetched} rows that were fetched was accepted; the rejected rows say why.",
    "held.empty": "The source had no rows, and with them everything that is published would be removed.",
    "run.held": "Nothing of the run is published before a person decides: approve it to publish it as it is, or discard it. Later runs start from the same checkpoint.",
    "run.held_superseded": "Run {run} was held and can be approved no more: run {later} of the same pipeline has been published since. Discard it.",
    "run.held_overtaken": "Run {run} cannot be approved now: run {later} of the same pipeline is at work and reads the same rows. Wait for its end, or cancel it, then approve.",
    "run.not_held": "Run {run} is {state}; only a held run can be approved or discarded.",
    "run.discarded": "A person discarded the run while it was held. {reason}",
    "run.not_delivered": "Nothing was delivered: pipeline {pipeline} has no destination, so the rows are in the lake alone. Add one where they are to be elsewhere.",
    "run.key_changed": "The key of pipeline {pipeline} is another under contract {contract}: {new}; what is published has {old}. So the run is a full refresh: it reads everything the source has, from the start and not from the checkpoint, and replaces what is published.",
    "run.key_changed_since": "Run {run} cannot be published again: it adds rows under a key of other names or types than what is published has. Choose a full refresh, or start a new run.",
    "run.published_without_partitions": "Run {run} was published without some of its partitions. Start a new run: it reads them again, for the checkpoint stayed below them.",
    "run.cancelled": "The run was cancelled.",
    "run.not_published": "Run {run} was not published, so it has no rows to read or to publish again. Choose a succeeded run.",
    "run.idempotency_mismatch": "The key {key!r} was already used for another request. Use a new key.",
    "run.deadline": "The run was not finished after {seconds} s and was stopped. Raise the pipeline's time limit, then retry; or narrow its query and start a new run, as a retry asks the old one.",
    "run.partition_failed": "{failed} of {total} partitions failed, the first with {code}: {message} Repair the cause, then retry the run.",
    "dependency.timeout": "The run waited {seconds} s for a publication of {upstream} and none came. Look at that pipeline, then retry.",
    "worker.lost": "The worker died {attempts} times on the same piece of work (partition {where}). It probably runs out of memory there; look at the worker's log, then retry.",
    "worker.errored": "A defect of Headgate stopped this work (incident {incident}: {error}). The log holds the traceback; retry, and report it if it comes again.",
    # sources
    "source.unavailable": "{host} does not answer ({detail}). The work is tried again by itself.",
    "source.server_error": "{host} answered {status} to {url}. The work is tried again by itself.",
    "source.rate_limited": "{host} allows no more requests for {retry_after_s} s. The work goes on by itself then.",
    "source.too_slow": "{host} did not finish its answer within {seconds} s. Lower the page size or raise the source's timeout.",
    "source.auth": "{host} refused the credentials ({status}). Correct the source's secrets, then retry.",
    "source.rejected": "{host} refused the request ({status}): {detail}. Correct the source's settings, then retry; or correct the query and start a new run, as a retry asks the old one.",
    "source.not_found": "{url} does not exist at the source (404). Correct the source's base URL, then retry; or choose another stream and start a new run.",
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
    "file.wrong_type": "{name} is named {extension} but its content is {found}. Rename it or send the right file.",
    "file.unknown_type": "{name} is {found} as far as can be told. Send CSV, JSON, JSON Lines, Parquet or XLSX.",
    "file.truncated": "{name} is cut off: {detail}. Send the whole file again.",
    "file.malformed": "{name} cannot be read: {detail}. Correct the file and send it again.",
    "file.encoding": "{name} is not UTF-8 text (byte {offset}). Save it as UTF-8 and send it again.",
    "file.encrypted": "{name} is encrypted, and nothing here has its key. Send it decrypted.",
    "file.duplicate_column": "{name} has the column {column!r} more than once. Rename one of them.",
    "file.too_many_columns": "{name} has {columns} columns, {limit} are allowed.",
    "file.too_large": "{name} is larger than {limit_bytes} bytes. Split it, or have the limit HEADGATE_UPLOAD_MAX_BYTES raised.",
    "row.malformed": "The line cannot be read: {detail}.",
    "row.too_many_fields": "The line has {found} fields, the header has {expected}.",
    "row.too_few_fields": "The line has {found} fields, the header has {expected}.",
    "row.missing_id": "The record has no id.",
    "row.not_an_object": "The record is no JSON object.",
    "backup.folder_not_empty": "{folder} holds something already. Name a new or empty folder for the backup.",
    "backup.invalid": "{folder} holds no whole backup: {detail}. Take another one.",
    "backup.other_database": "The backup is of a {kind} database, and this installation uses {here}. Set DATABASE_URL to an empty database of that kind.",
    "backup.installation_in_use": "This installation holds sources, pipelines or runs already. Restore into an empty one: another --data, or an empty database.",
    "backup.stack_running": "The stack in {data} is running. Stop it first: manage.py down --data {data}",
    "backup.tool_missing": "{program} is not installed here. Install the programs of PostgreSQL (Debian: postgresql-client).",
    "backup.tool_failed": "{program} ended with an error: {detail}. It must not be older than the server.",
    "file.unreadable": "{name} cannot be opened: {detail}. Correct the path, or who may read it.",
    "file.unwritable": "{name} cannot be written: {detail}. Choose another place.",
    "file.unknown_output": "The name {name!r} tells no format. Let it end with one of: {known}.",
    # what is read of what was published
    "export.unknown_column": "There is no column {column!r}. Choose from: {known}.",
    "export.too_many_rows": "A sheet of Excel takes {limit} rows and these are {rows}. Choose csv, jsonl or parquet, or ask for fewer with limit and after.",
    "export.too_many_columns": "A sheet of Excel takes {limit} columns and these are {columns}. Choose csv, jsonl or parquet, or name the columns you need.",
    "export.cell_too_long": "Row {row} has {found} characters in column {column!r} and a cell of Excel takes {limit}. Choose csv, jsonl or parquet, or leave that column out.",
    "query.not_allowed": "The query cannot be run: {detail}. Write one SELECT over the table rows.",
    "query.invalid": "The query cannot be run: {detail}. Correct it, then send it again.",
    "query.timeout": "The query was not done after {seconds} s and was stopped. Ask for less, or have HEADGATE_QUERY_TIMEOUT_S raised.",
    "query.out_of_memory": "The query needs more than {limit_bytes} bytes of memory and was stopped. Ask for less, or have HEADGATE_QUERY_MEMORY_BYTES raised.",
    "query.too_wide": "A single row of the answer has more than {limit_bytes} bytes. Ask for fewer columns, or for parts of them.",
    "query.too_large": "The published parts have {size_bytes} bytes, and {limit_bytes} may be held here to be queried. Export them, or have HEADGATE_QUERY_CACHE_BYTES raised.",
    "query.busy": "Other queries are being worked on here. Try again in a moment.",
    # the lake and destinations
    "store.missing": "The object {key} is missing from the lake. Restore it from a backup, or run the pipeline again.",
    "store.corrupt": "The object {key} has other bytes than were recorded ({detail}). Restore it from a backup, or run the pipeline again.",
    "store.conflict": "Another object already lies under {key}. Give this installation a lake or prefix of its own.",
    "store.unavailable": "The object store does not answer ({detail}). Start it, or correct its endpoint. The work is tried again for a while by itself.",
    "store.auth": "The object store refused the credentials ({detail}). Correct access key and secret.",
    "store.config": "The object store cannot be used as configured ({detail}). Correct bucket, region or endpoint.",
    "store.bad_key": "No object can have the key {key}: {detail}. Use printable names without '..' between single slashes.",
    "store.no_space": "No space is left where the lake lies. Free some, then retry.",
    "sink.unavailable": "Destination {destination} does not answer ({detail}). Start it, or correct its address. A delivery is tried again for a while by itself; where it has failed, retry the run or redeliver.",
    "sink.auth": "Destination {destination} refused the credentials ({detail}). Correct its secrets, then retry the run or redeliver.",
    "sink.rejected": "Destination {destination} refused the delivery: {detail}.",
    "sink.busy": "Destination {destination} is taking another publication of this pipeline, or somebody holds its table locked; this one follows by itself.",
    "sink.content_mismatch": "Destination {destination} shows other values of this run than were handed over: {detail}. Retry the delivery.",
    "sink.count_mismatch": "Destination {destination} shows {found} rows of this run where {expected} were handed over: {short} are missing after the stage {stage}. Retry the delivery.",
    "destination.claimed": "Destination {name} would share {claim} with destination {other}: what is dropped from one would be missing in the other. Deliver to {other}, or choose another datasource, such as {name}_{{pipeline}}.",
    "sink.not_loaded": "Destination {destination} has taken the rows, but no reader sees them yet. Look at what keeps it from loading them, then retry the run: nothing is sent twice.",
    "sink.refusals_unnamed": "Destination {destination} rejected {refused} rows and named {named} of them. Report this: each rejected row must be found again.",
    "delivery.superseded": "Destination {destination} already shows run {later}, which is newer; these rows would take the place of newer ones. Roll back to this run instead, if that is what you want.",
    "delivery.incomplete": "Destination {destination} has not got run {base}, the full refresh that these rows add to. Repair the destination, then deliver everything again: 'ingest redeliver --everything'.",
    "delivery.under_way": "Run {run} of the pipeline is on its way into {destination}. Wait until it has ended, or cancel it.",
    "destination.place_taken": "Destination {name} would lie where {owner} lies, and what is removed from one would be missing in the other. Choose a folder or prefix that is nobody's, such as one in {folder}.",
    "destination.cannot": "Destination {destination} is of kind {kind}, with which {operation} is not possible.",
    "destination.unconfirmed": "All rows of {pipeline} would be removed from {destination}. Confirm that by the pipeline's name (on the command line: --yes {pipeline}).",
    "delivery.not_found": "There is no delivery {delivery}. List the deliveries to see their numbers.",
    "delivery.exists": "Run {run} is delivered to {destination} already ({state}).",
    "delivery.failed": "Delivery to {destination} failed with {code}: {message}",
    # the command line
    "stack.not_running": "No stack is running here, so nothing works on it yet. Start one with 'python manage.py up', or give --local; what is stored is worked on then.",
    "stack.lost": "The broker does not answer any more, so run {run} is not waited for; it goes on when a stack runs again. Look at it with 'python manage.py ingest show {run}'.",
    "stack.not_started": "The short-lived stack did not start. Its lines stand in {log}.",
    "druid.java_missing": "A Druid of one's own needs Java {wanted}, and this machine has {found}. Install it (Debian: apt install openjdk-17-jre-headless), or name its folder in JAVA_HOME.",
    "druid.maven_missing": "The jars of Druid are found by Maven, and there is no mvn on PATH. Install it (Debian: apt install maven); it is needed once.",
    "druid.unresolvable": "Maven could not get the jars of Druid {version}: {detail}. Its output stands in {log}. Give this machine access to a Maven repository, or choose another version with HEADGATE_DRUID_VERSION.",
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
