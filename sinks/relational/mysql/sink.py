"""Publishes a run into a table of a MySQL or MariaDB database."""

import ssl
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, Field

from ingestion.ports.errors import ConfigError
from sinks.relational.config import ServerConfig, TableConfig
from sinks.relational.connection import Connection
from sinks.relational.sink import CONNECT_TIMEOUT_S, ServerSink

if TYPE_CHECKING:
    from sinks.relational.mysql.connection import MySQLConnection


class MySQLConfig(TableConfig, ServerConfig):
    """A database of a MySQL or MariaDB server, and the table for each pipeline."""

    port: int = Field(default=3306, ge=1, le=65535)
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer",
        description="prefer: encrypted where the server can; verify-full also makes sure that it is the right server.",
    )


class MySQLSink(ServerSink):
    """Rows by INSERT of many, with the delivery's own record in the same transaction."""

    kind: ClassVar[str] = "mysql"
    Config: ClassVar[type[BaseModel]] = MySQLConfig
    config: MySQLConfig

    def __init__(self, config: MySQLConfig) -> None:
        super().__init__(config)
        self.config = config

    @property
    def connection_class(self) -> "type[MySQLConnection]":
        from sinks.relational.mysql.connection import MySQLConnection  # noqa: PLC0415 - the driver

        return MySQLConnection

    def connect(self, timeout_s: int = CONNECT_TIMEOUT_S) -> Connection:
        config = self.config
        return self.connection_class(
            host=config.host,
            port=config.port,
            database=config.database,
            user=config.user,
            password=config.secret,
            timeout_s=timeout_s,
            tls=self._tls(),
        )

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
