"""Publishes a run into a table of a MySQL or MariaDB database."""

import ssl
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError
from sinks.relational.checks import DatabaseCheck, network_steps
from sinks.relational.config import ServerConfig, TableConfig
from sinks.relational.database import Session
from sinks.relational.sink import CONNECT_TIMEOUT_S, RelationalSink


class MySQLConfig(TableConfig, ServerConfig):
    """A database of a MySQL or MariaDB server, and the table for each pipeline."""

    port: int = Field(default=3306, ge=1, le=65535)
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer",
        description="prefer: encrypted where the server can; verify-full also makes sure that it is the right server.",
    )


class MySQLSink(RelationalSink):
    """Rows by INSERT of many, with the delivery's own record in the same transaction."""

    kind: ClassVar[str] = "mysql"
    Config: ClassVar[type[BaseModel]] = MySQLConfig

    def __init__(self, config: MySQLConfig) -> None:
        super().__init__(config)
        self.config = config

    @property
    def session_class(self) -> type[Session]:
        from sinks.relational.mysql import MySQLSession  # noqa: PLC0415 - the driver

        return MySQLSession

    @property
    def address(self) -> str:
        return f"{self.config.host}:{self.config.port}/{self.config.database}"

    def connect(self, *, timeout_s: int = CONNECT_TIMEOUT_S) -> Session:
        from sinks.relational.mysql import MySQLSession  # noqa: PLC0415 - the driver

        config = self.config
        return MySQLSession(
            host=config.host,
            port=config.port,
            database=config.database,
            user=config.user,
            password=config.secret,
            timeout_s=timeout_s,
            tls=self._tls(),
        )

    def check(self, ctx: Context) -> CheckReport:
        """Return which layer between here and a written row fails, each finding with its fix."""
        config = self.config
        check = DatabaseCheck(
            lambda timeout_s: self.connect(timeout_s=timeout_s), self.session_class, self.address, config.user
        )
        return CheckReport(tuple(check.findings(network_steps(config.host, config.port))))

    def _tls(self) -> ssl.SSLContext | bool:
        if self.config.tls in ("disable", "prefer"):
            return self.config.tls == "prefer"
        try:
            context = ssl.create_default_context(cafile=self.config.ca_file)
        except OSError as error:
            detail = f"the certificates of ca_file cannot be read ({error.strerror or 'they are none'})"
            raise ConfigError("config.invalid", where=f"destination {self.address}", detail=detail) from error
        # Certificates that these servers make for themselves lack what the strict check wants.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = self.config.tls == "verify-full"
        if self.config.tls == "require":
            context.verify_mode = ssl.CERT_NONE
        return context
