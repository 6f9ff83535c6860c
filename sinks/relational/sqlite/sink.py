"""Publishes a run into a table of a SQLite file."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field, field_validator

from ingestion.ports.errors import ConfigError
from sinks.relational.checks import Step
from sinks.relational.config import TableConfig
from sinks.relational.connection import Connection
from sinks.relational.sink import CONNECT_TIMEOUT_S, RelationalSink

if TYPE_CHECKING:
    from sinks.relational.sqlite.connection import SqliteConnection


class SqliteConfig(TableConfig):
    """A SQLite file, and the table for each pipeline in it."""

    path: str = Field(min_length=1, description="The file, as an absolute path; it is made where it is not there.")

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str) -> str:
        if not Path(path).is_absolute() or "\0" in path:
            msg = "write the file as an absolute path: a relative one would depend on where a worker was started"
            raise ValueError(msg)
        return path

    @property
    def occupies(self) -> str:
        """Return the file."""
        return self.path

    @property
    def is_shared(self) -> bool:
        """Return True: a file holds the tables of several."""
        return True


class SqliteSink(RelationalSink):
    """Rows into one file, with the delivery's own record in the same transaction."""

    kind: ClassVar[str] = "sqlite"
    Config: ClassVar[type[BaseModel]] = SqliteConfig

    def __init__(self, config: SqliteConfig) -> None:
        super().__init__(config)
        self.config = config

    @property
    def connection_class(self) -> "type[SqliteConnection]":
        from sinks.relational.sqlite.connection import SqliteConnection  # noqa: PLC0415 - as the others

        return SqliteConnection

    def connect(self, timeout_s: int = CONNECT_TIMEOUT_S) -> Connection:
        return self.connection_class(Path(self.config.path), timeout_s=timeout_s)

    @property
    def address(self) -> str:
        return self.config.path

    @property
    def user(self) -> str:
        return "this service"

    def check_steps(self) -> tuple[Step, ...]:
        folder = Path(self.config.path).parent
        return (Step("folder", lambda: self._folder(folder), f"Make the folder {folder}, or correct the path."),)

    def _folder(self, folder: Path) -> str:
        if not folder.is_dir():
            raise ConfigError("config.invalid", where=f"destination {self.address}", detail=f"{folder} is no folder")
        return f"{folder} is there"
