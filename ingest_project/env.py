"""The process environment, read once: every variable with its type, default and meaning.

No other module reads `os.environ`. A secret `NAME` may also be given as `NAME_FILE`, the path of a file that holds it.
A variable that is set to nothing counts as not set.
"""

import difflib
import os
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from ingestion.ports.errors import ConfigError

BASE_DIR = Path(__file__).resolve().parent.parent
PREFIX = "HEADGATE_"
ENV_FILE = "HEADGATE_ENV_FILE"
"""Names another file than `.env` beside manage.py; it cannot stand in that file itself."""

SECRET_NAMES = frozenset(
    {
        "HEADGATE_SECRET_KEY",
        "HEADGATE_SECRET_KEYS",
        "HEADGATE_FLOWER_PASSWORD",
        "DATABASE_URL",
        "BROKER_URL",
        "REDIS_URL",
        "DRUID_PASSWORD",
    }
)


def _check_address(value: str) -> str:
    """Return a web address as it is used; ValueError that does not repeat it, for it may carry a password."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("write an address such as http://router:8888")
    if parts.username or parts.password or parts.query:
        raise ValueError("write the address without user, password and options")
    return value.rstrip("/")


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_split)]
Address = Annotated[str, AfterValidator(_check_address)]


class Environment(BaseModel):
    """Every variable Headgate understands; a field's name in capitals is the variable's."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # where it lives
    headgate_env: Literal["development", "production"] = Field(
        "development", description="production makes `check --deploy` refuse what only suits one machine."
    )
    headgate_data: Path = Field(
        BASE_DIR / "var",
        description="Folder of everything that is kept: back it up. A relative path begins beside manage.py.",
    )
    headgate_host: str = Field("127.0.0.1", description="Address the web server listens on.")
    headgate_port: int = Field(8000, ge=1, le=65535, description="Port of the web server.")
    headgate_debug: bool = Field(False, description="Django's debug pages; never on an address others reach.")
    headgate_allowed_hosts: Names = Field(
        ("localhost", "127.0.0.1", "[::1]"), description="Names under which browsers reach the web server."
    )
    headgate_trusted_origins: Names = Field(
        (), description="Origins that may send forms, for example https://headgate.example.org."
    )
    headgate_tls: bool | None = Field(
        None, description="Whether browsers come by https; by default yes in production, else no."
    )
    headgate_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    headgate_allow_embedded: bool = Field(
        False, description="Lets `check --deploy` accept embedded parts in production."
    )

    # the parts; nothing set means embedded
    database_url: SecretStr | None = Field(None, description="postgres://user:password@host/name; else SQLite.")
    broker_url: SecretStr | None = Field(
        None, description="redis:// or amqp:// address; else REDIS_URL, else a Valkey of its own."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis of results, rate limits and cache; else the broker's. Results lie in the next database "
        "after the one named, limits and cache in the one after that.",
    )
    headgate_lake_url: str = Field(
        "",
        description="Folder, or s3://bucket/prefix?endpoint=..&region=..&checksum=when_required&path_style=1; "
        "else <data>/lake.",
    )

    # Druid; nothing set means the one of `manage.py druid up` where it runs, else none
    druid_url: Address | None = Field(
        None, description="Druid's Router, or its Coordinator and Overlord where there is no Router."
    )
    druid_broker_url: Address | None = Field(None, description="Druid's Broker; else the Router answers queries.")
    druid_user: str = Field("", description="Druid's user, where it asks for one.")
    druid_password: SecretStr | None = Field(None, description="Password of Druid's user.")
    headgate_druid_version: str = Field(
        "",
        pattern=r"^[0-9A-Za-z.-]*$",
        description="Version of the Druid that `manage.py druid up` starts; else the one of its pom.xml.",
    )
    headgate_druid_extensions: bool = Field(
        False, description="Gives that Druid its S3 and Parquet extensions, where Maven can get them."
    )

    # secrets
    headgate_secret_key: SecretStr | None = Field(
        None, description="Signs sessions; else made once in <data>/secrets/secret_key."
    )
    headgate_secret_keys: SecretStr | None = Field(
        None,
        description="Fernet keys of stored secrets, newest first, by commas; else made once in "
        "<data>/secrets/secret_keys.",
    )
    headgate_flower_password: SecretStr | None = Field(
        None, description="Password of Flower's login; else made once in <data>/secrets/flower_password."
    )

    # what may be reached and taken in
    headgate_egress_allow: Names = Field(
        (),
        description="host, host:port or CIDR that sources and Druid destinations may reach although it is a private address.",
    )
    headgate_egress_ports: Numbers = Field((80, 443), description="Ports that sources may reach.")
    headgate_upload_max_bytes: int = Field(500_000_000, ge=1, description="Largest file taken by HTTP.")

    # what queries over published rows may use
    headgate_query_timeout_s: float = Field(30, gt=0, description="A query that is not done after this is stopped.")
    headgate_query_memory_bytes: int = Field(512 * 1024 * 1024, ge=1 << 26, description="Memory of one query.")
    headgate_query_cache_bytes: int = Field(
        2 * 1024**3, ge=0, description="Copies of parts that lie in a bucket, kept to be queried."
    )

    # the engine
    headgate_lease_s: float = Field(60, gt=0, description="How long a worker owns its work without a renewal.")
    headgate_watch_s: float = Field(1, gt=0, description="How often a worker renews leases and looks for a cancel.")
    headgate_stall_s: float = Field(300, gt=0, description="Work without progress for this long loses its lease.")
    headgate_slot_s: float = Field(240, gt=0, description="How long one task may keep a worker before it hands back.")
    headgate_max_active_runs: int = Field(5, ge=1, description="Runs that work at the same time.")
    headgate_partition_bytes: int = Field(64 * 1024 * 1024, ge=1, description="Raw data in one partition.")
    headgate_max_attempts: int = Field(5, ge=1, description="Attempts on the same piece of work without progress.")
    headgate_resend_after_s: float = Field(30, gt=0, description="A message not acted upon is sent again after this.")
    headgate_chord_size: int = Field(1000, ge=1, description="Partitions that wait in the broker at once.")
    headgate_reconcile_s: float = Field(15, gt=0, description="How often what was lost is looked for.")
    headgate_schedule_s: float = Field(5, gt=0, description="How often schedules are looked at.")
    headgate_ageing_s: float = Field(120, gt=0, description="Waiting time that lifts work one priority higher.")
    headgate_queue_rates: str = Field(
        "", description="Tasks per second and burst of queues, for example fetch=10/5,load=2/1."
    )

    # tests
    headgate_failpoints: str = Field("", description="Points where tests stop or kill a process; empty in use.")
    headgate_switch_off: Names = Field((), description="Safety nets that tests switch off; empty in use.")

    @model_validator(mode="after")
    def _check_druid(self) -> Self:
        if self.druid_broker_url and not self.druid_url:
            raise ValueError("DRUID_BROKER_URL is set without DRUID_URL")
        if bool(self.druid_user) != bool(self.druid_password):
            raise ValueError("DRUID_USER and DRUID_PASSWORD belong together, only one is set")
        return self

    @property
    def is_production(self) -> bool:
        """Return whether this installation serves others."""
        return self.headgate_env == "production"

    @property
    def uses_tls(self) -> bool:
        """Return whether browsers come by https."""
        return self.is_production if self.headgate_tls is None else self.headgate_tls


NAMES = frozenset(name.upper() for name in Environment.model_fields)
RENAMED = {"HEADGATE_NUDGE_AGAIN_S": "HEADGATE_RESEND_AFTER_S"}
"""Older names of variables, each read for one release where the newer one is not set; a system check says so."""


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Return the typed settings of a set of variables; ConfigError where one is unknown or does not validate."""
    given = {RENAMED[name].lower(): variables[name].strip() for name in renamed_variables(variables)}
    for name, value in variables.items():
        if name in RENAMED:
            continue
        if name in NAMES:
            if value.strip():
                given[name.lower()] = value.strip()
        elif name.endswith("_FILE") and name.removesuffix("_FILE") in SECRET_NAMES:
            if value.strip():
                given[name.removesuffix("_FILE").lower()] = _read_secret(name, path=Path(value.strip()))
        elif name.startswith(PREFIX) and name != ENV_FILE:
            raise ConfigError("config.unknown_variable", name=name, nearest=_nearest(name))
    try:
        return Environment.model_validate(given)
    except ValidationError as error:
        detail = "; ".join(_describe(item["loc"], said=item["msg"]) for item in error.errors())
        raise ConfigError("config.invalid", where="the environment", detail=detail) from error


def renamed_variables(variables: Mapping[str, str] | None = None) -> list[str]:
    """Return those of the variables, else of this process's own, that are set under an older name."""
    given = os.environ if variables is None else variables
    return [name for name in RENAMED if given.get(name, "").strip()]


def load_environment() -> Environment:
    """Return the typed settings of this process; lines of `.env` count where the process has no such variable."""
    _take_env_file(Path(os.environ.get(ENV_FILE, BASE_DIR / ".env")), into=os.environ)
    return read_environment(os.environ)


def take_global_options(argv: Sequence[str]) -> list[str]:
    """Return a command line without `--data DIR` and `--port N`, which every command understands.

    They are kept as HEADGATE_DATA and HEADGATE_PORT, for this process and those it starts.
    """
    options = {"--data": "HEADGATE_DATA", "--port": "HEADGATE_PORT"}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*rest, word, *words]
        option, equals, value = word.partition("=")
        if option not in options:
            rest.append(word)
            continue
        if not equals:
            value = next(words, "")
        if not value:
            raise ConfigError("config.invalid", where="the command line", detail=f"{option} needs a value")
        os.environ[options[option]] = str(Path(value).resolve()) if option == "--data" else value
    return rest


def set_default(name: str, value: str) -> None:
    """Give this process and those it starts a variable, unless it has it."""
    os.environ.setdefault(name, value)


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables with changes, for a process to be started."""
    return {**os.environ, **changes}


def foreign_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables with changes, without those that only Headgate's own processes may know."""
    secret = SECRET_NAMES | {f"{name}_FILE" for name in SECRET_NAMES}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((PREFIX, "AWS_")) and name not in secret
    }
    return {**kept, **changes}


def _describe(location: Sequence[int | str], *, said: str) -> str:
    said = said.removeprefix("Value error, ")
    return f"{'.'.join(map(str, location)).upper()}: {said}" if location else said


def _nearest(name: str) -> str:
    known = sorted(item for item in NAMES | {f"{name}_FILE" for name in SECRET_NAMES} if item.startswith(PREFIX))
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def _read_secret(name: str, *, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        detail = f"the file {path} cannot be read ({error.strerror})"
        raise ConfigError("config.invalid", where=name, detail=detail) from error


def _take_env_file(path: Path, *, into: MutableMapping[str, str]) -> None:
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            into.setdefault(name.strip(), value.strip().strip("'\""))
