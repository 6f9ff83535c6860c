"""A source and a destination with a secret, and nothing behind them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SecretStr

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context
from ingestion.ports.errors import AuthError
from ingestion.ports.publication import WriteMode
from ingestion.ports.sink import Capabilities


class VaultConfig(BaseModel):
    """An address, and two secrets."""

    model_config = ConfigDict(extra="forbid")

    url: str
    password: SecretStr | None = None
    token: SecretStr | None = None


class VaultConnector:
    """Holds secrets and offers two streams, one with a cursor."""

    kind: ClassVar[str] = "vault"
    Config: ClassVar[type[BaseModel]] = VaultConfig

    def __init__(self, config: VaultConfig) -> None:
        self.config = config

    def streams(self) -> Sequence[Stream]:
        """Return both streams."""
        return (Stream("things", key=("id",), cursor_field="at"), Stream("snapshots"))

    def check(self, ctx: Context) -> CheckReport:
        """Answer that the password is missing, where it is."""
        if self.config.password is None:
            raise AuthError("source.auth", host="vault", status=401)
        return CheckReport((Finding("auth", ok=True, elapsed_ms=1.0),))

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        """Plan nothing."""
        return ()

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Fetch nothing."""
        return iter(())

    def standardize(self, records: Records, stream: Stream) -> Any:
        """Never called: there are no pages."""
        raise AssertionError

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        """Stay where it was."""
        return since


class VaultSink:
    """Holds secrets; what it is handed goes nowhere."""

    kind: ClassVar[str] = "vault"
    Config: ClassVar[type[BaseModel]] = VaultConfig
    capabilities: ClassVar[Capabilities] = Capabilities(write_modes=frozenset({WriteMode.APPEND}))

    def __init__(self, config: VaultConfig) -> None:
        self.config = config

    def check(self, ctx: Context) -> CheckReport:
        """Answer that all is well."""
        return CheckReport((Finding("auth", ok=True, elapsed_ms=1.0),))
