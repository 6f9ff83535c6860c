"""Keys of all things at the destination: a folder a pipeline, and in it no name that could be taken for another.

<pipeline>/<run>/<part>-<sha256[:16]>.parquet                        rows of a run, by the key template
<pipeline>/<run>/<column>=<value>/<part>-<sha256[:16]>.jsonl.gz      the same, by partition
<pipeline>/compacted/<through>-<generation>/<number>-<sha256[:16]>.parquet
<pipeline>/manifests/<run:08d>.json                                  what the run published
<pipeline>/manifests/compacted-<through:08d>-<generation:04d>.json   the same rows as those before, in fewer files
<pipeline>/latest.json                                               the manifests that are the published state
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.keys import check_key

MANIFESTS = "manifests"
COMPACTED = "compacted"
PLACEHOLDERS = ("pipeline", "run", "date", "part")
STAGED_SUFFIX = ".staged.json"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_OURS = re.compile(r"-[0-9a-f]{16}\.((parquet|jsonl|csv)(\.gz)?|staged\.json)$")
_SAMPLE = {"pipeline": "p", "run": "1", "date": "2026-01-02", "part": "0-0-000000"}


@dataclass(frozen=True, slots=True)
class KeyTemplate:
    """A rule for the keys of a run's files: the folder of the run, and in it the names of files without ending."""

    folder: str
    name: str

    def folder_of(self, pipeline: str, *, run_id: int, logical_time: str) -> str:
        """Return the folder that holds this run's files and no other's, with a slash at its end."""
        return f"{_fill(self.folder, {'pipeline': pipeline, 'run': str(run_id), 'date': day_of(logical_time)})}/"

    def name_of(self, part: str, *, pipeline: str, run_id: int, logical_time: str) -> str:
        """Return how the names of a part's files begin."""
        values = {"pipeline": pipeline, "run": str(run_id), "date": day_of(logical_time), "part": part}
        return _fill(self.name, values)


def parse_template(text: str) -> KeyTemplate:
    """Return the rule; ValueError names the placeholder where two files could get one key, or a key its own rules."""
    used = _PLACEHOLDER.findall(text)
    unknown = next((name for name in used if name not in PLACEHOLDERS), None)
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    if unknown is not None:
        raise ValueError(f"there is no placeholder {{{unknown[:40]}}}; there are {known}")
    if {"{", "}"} & set(_PLACEHOLDER.sub("", text)):
        raise ValueError(f"it holds a brace without its partner; the placeholders are {known}")
    folder, _, name = text.rpartition("/")
    if not f"{folder}/".startswith("{pipeline}/"):
        raise ValueError("it must begin with {pipeline}/, so that what belongs to a pipeline lies in one folder")
    if "{run}" not in folder:
        raise ValueError("one of its folders must hold {run}, so that no run writes among the files of another")
    if "{part}" in folder or name.count("{part}") != 1:
        raise ValueError("its last segment, and no folder, must hold {part} once: that tells the files of a run apart")
    if folder.split("/")[1] in (MANIFESTS, COMPACTED):
        raise ValueError(f"the folder {folder.split('/')[1]} of a pipeline is kept for what names the files")
    try:
        check_key(_fill(text, _SAMPLE))
    except ConfigError as error:
        raise ValueError(f"{error.values['detail']} ({error.values['key']})") from error
    return KeyTemplate(folder, name)


def day_of(logical_time: str) -> str:
    """Return the day, in UTC, of an ISO time; one without a zone is UTC."""
    moment = datetime.fromisoformat(logical_time)
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date().isoformat()


def manifest_key(pipeline: str, run_id: int) -> str:
    """Return where the manifest of a run lies; the names sort as the runs do."""
    return f"{pipeline}/{MANIFESTS}/{run_id:08d}.json"


def compacted_key(pipeline: str, *, through: int, generation: int) -> str:
    """Return where a manifest lies that stands for the state up to a run, compacted so many times."""
    return f"{pipeline}/{MANIFESTS}/{COMPACTED}-{through:08d}-{generation:04d}.json"


def pointer_key(pipeline: str) -> str:
    """Return where the published state is named."""
    return f"{pipeline}/latest.json"


def is_ours(key: str) -> bool:
    """Return whether the key of a file is one that this sink makes; others are left alone."""
    return _OURS.search(key) is not None


def _fill(text: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)
