"""Publishes a run into a table of a SQLite file."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field, field_validator

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError
from sinks.relational.checks import DatabaseCheck, Step
from sinks.relational.config import TableConfig
from sinks.relational.database import Session
from sinks.relational.sink import RelationalSink


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


class SqliteSink(RelationalSink):
    """Rows into one file, with the delivery's own record in the same transaction."""

    kind: ClassVar[str] = "sqlite"
    Config: ClassVar[type[BaseModel]] = SqliteConfig

    def __init__(self, config: SqliteConfig) -> None:
        super().__init__(config)
        self.config = config

    @property
    def session_class(self) -> type[Session]:
        from sinks.relational.sqlite import SqliteSession  # noqa: PLC0415 - as the others

        return SqliteSession

    @property
    def address(self) -> str:
        return self.config.path

    def connect(self, *, timeout_s: int = 10) -> Session:
        from sinks.relational.sqlite import SqliteSession  # noqa: PLC0415 - as the others

        return SqliteSession(Path(self.config.path), timeout_s=timeout_s)

    def check(self, ctx: Context) -> CheckReport:
        """Return whether the file can be written, each finding with its fix."""
        check = DatabaseCheck(
            lambda timeout_s: self.connect(timeout_s=timeout_s), self.session_class, self.address, "this service"
        )
        folder = Path(self.config.path).parent
        step = Step("folder", lambda: self._folder(folder), f"Make the folder {folder}, or correct the path.")
        return CheckReport(tuple(check.findings((step,))))

    def _folder(self, folder: Path) -> str:
        if not folder.is_dir():
            raise ConfigError("config.invalid", where=f"destination {self.address}", detail=f"{folder} is no folder")
        return f"{folder} is there"
