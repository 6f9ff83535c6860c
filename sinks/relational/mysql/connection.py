"""A connection to MySQL or MariaDB through PyMySQL, rows by INSERT of many, and what its errors mean."""

import re
import ssl
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, ClassVar

import pymysql
from pymysql.constants import ER

from sinks.relational.connection import STATEMENT_LIMIT_S, Connection, InsertWriter, RowWriter
from sinks.relational.diagnosis import Diagnosis, ErrorClass, first_line
from sinks.relational.dialect import IDLE_LIMIT_S, LOCK_WAIT_S, Dialect
from sinks.relational.mysql.dialect import SETTINGS, MySQLDialect
from sinks.relational.naming import digest_of
from sinks.relational.statements import Value, sql

LOCK_WAIT_TIMEOUT = 1205
_ROW = {
    *(1048, 1062, 1118, 1136, 1169, 1216, 1217, 1263, 1264, 1265, 1292, 1300, 1364, 1365, 1366, 1367, 1369, 1406),
    *(1411, 1441, 1451, 1452, 1525, 1557, 1586, 1644, 1690, 1761, 1762, 1859, 3140, 3141, 3156, 3157, 3819, 3903),
    *(4025, 4037, 4038, 4039, 4040, 4041),
}
_UNAVAILABLE = {
    *(1020, 1021, 1037, 1038, 1040, 1041, 1053, 1080, 1105, 1114, 1135, 1152, 1158, 1159, 1160, 1161, 1184, 1203),
    *(1206, 1213, 1290, 1397, 1402, 1614, 1637, 1792, 1836, 1927, 1950, 2002, 2003, 2005, 2006, 2013, 2055, 3101),
    *(3169, 3675, 4031),
}
_STOPPED = {1317, 1969, 3024}
_AUTH = {
    1044,
    1045,
    1095,
    1130,
    1142,
    1143,
    1227,
    1251,
    1370,
    1410,
    1524,
    1698,
    1820,
    1862,
    2049,
    2059,
    2061,
    3118,
    4151,
}
_CONFIG = {1049, 1102, 2026, 2068, 3159}
_BUSY = {LOCK_WAIT_TIMEOUT, 3058, 3572}
_CONSTRAINT = re.compile(r"CONSTRAINT `([^`]+)`|[Cc]heck constraint '([^']+)'|for key '([^']+)'")
_COLUMN = re.compile(r"[Cc]olumn (?:`[^`]*`\.`[^`]*`\.`([^`]+)`|'([^']+)')|Field '([^']+)'")
_NAMES = {
    number: name for name, number in vars(ER).items() if isinstance(number, int) and not name.startswith("ERROR_")
}


class MySQLConnection(Connection):
    """A connection to one database of a MySQL or MariaDB server."""

    dialect_class: ClassVar[type[Dialect]] = MySQLDialect
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (pymysql.MySQLError, OSError)

    def __init__(
        self,
        *,
        host: str,
        port: int,
        database: str,
        user: str,
        password: str | None,
        timeout_s: int,
        tls: ssl.SSLContext | bool,
    ) -> None:
        """Connect; `tls` is how to encrypt, True for "where the server can", False for not at all."""
        self._options: dict[str, Any] = {
            **{"host": host, "port": port, "database": database, "user": user},
            **{"password": password, "timeout_s": timeout_s, "tls": tls},
        }
        self._connection: Any = pymysql.connect(
            host=host,
            port=port,
            user=user,
            password=(password or "").encode(),
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=timeout_s,
            # A statement may take long; the server itself is asked meanwhile whether it works on it.
            read_timeout=STATEMENT_LIMIT_S + timeout_s,
            write_timeout=IDLE_LIMIT_S,
            init_command=SETTINGS,
            ssl=tls if isinstance(tls, ssl.SSLContext) else None,
            ssl_disabled=tls is False,
        )
        self._locks: list[str] = []
        dialect = MySQLDialect(database, is_mariadb="MariaDB" in str(self._connection.get_server_info()))
        self.dialect = dialect
        if exact := self.first(dialect.exact_collations()):
            self.dialect = replace(dialect, collation=str(exact[0]))

    @staticmethod
    def diagnose(error: Exception) -> Diagnosis:
        return diagnose(error)

    def send(self, text: str, values: Sequence[Any]) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(text, values or None)
        return cursor

    def end(self, *, commits: bool) -> None:
        try:
            self.execute(sql("COMMIT" if commits else "ROLLBACK"))
            while self._locks:
                self.rows(sql("SELECT RELEASE_LOCK({})", Value(self._locks.pop())))
        except self.driver_errors:
            if commits:
                raise

    def lock(self, name: str, *, shared: bool) -> None:
        # The server knows no shared locks of this kind: parts of one table are staged one after the other here.
        whole_name = f"headgate.{digest_of(name)}"
        if not self.number(sql("SELECT GET_LOCK({}, {})", Value(whole_name), Value(LOCK_WAIT_S))):
            raise pymysql.err.OperationalError(LOCK_WAIT_TIMEOUT, "another delivery holds the table")
        self._locks.append(whole_name)

    def writer(self, table: str, columns: Sequence[str]) -> RowWriter:
        return InsertWriter(self.dialect.inserting_row(table, columns), self._connection.cursor().executemany)

    def cancel(self) -> None:
        with closing(MySQLConnection(**self._options)) as other:
            other.execute(sql("KILL QUERY {}", str(int(self._connection.thread_id()))))

    def is_working(self) -> bool:
        query = "SELECT command FROM information_schema.processlist WHERE id = {}"
        with closing(MySQLConnection(**self._options)) as other:
            found = other.first(sql(query, Value(self._connection.thread_id())))
        return found is not None and found[0] == "Query"

    def encryption(self) -> str:
        found = self.first(sql("SHOW SESSION STATUS LIKE 'Ssl_version'"))
        return f"encrypted with {found[1]}" if found and found[1] else "the connection is not encrypted"

    def close(self) -> None:
        if self._connection.open:
            self._connection.close()


def diagnose(error: Exception) -> Diagnosis:
    """Return what an error of PyMySQL means."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    text = str(error.args[1]) if number is not None and len(error.args) > 1 else str(error)
    message = first_line(text) or type(error).__name__
    # The driver says of a certificate that it rejected what it says of a server that is not there.
    error_class = ErrorClass.CONFIG if "CERTIFICATE_VERIFY_FAILED" in text else _class_of(error, number)
    if error_class is not ErrorClass.ROW:
        return Diagnosis(error_class, message)
    constraint, column = _CONSTRAINT.search(text), _COLUMN.search(text)
    name = _NAMES.get(number or 0, f"error_{number}").lower() if number else "not_a_number"
    return Diagnosis(
        error_class,
        message,
        rule=next(filter(None, constraint.groups()), name) if constraint else name,
        column=next(filter(None, column.groups()), "") if column else "",
    )


def _class_of(error: Exception, number: int | None) -> ErrorClass:
    for numbers, error_class in (
        (_ROW, ErrorClass.ROW),
        (_UNAVAILABLE, ErrorClass.UNAVAILABLE),
        (_STOPPED, ErrorClass.STOPPED),
        (_AUTH, ErrorClass.AUTH),
        (_CONFIG, ErrorClass.CONFIG),
        (_BUSY, ErrorClass.BUSY),
    ):
        if number in numbers:
            return error_class
    if not isinstance(error, pymysql.MySQLError) or isinstance(error, pymysql.err.InterfaceError):
        # The socket broke, or the driver has noticed before that it did.
        return ErrorClass.UNAVAILABLE
    if number is None and isinstance(error, pymysql.err.ProgrammingError):
        # Said by the driver itself of a value that the server knows no word for.
        return ErrorClass.ROW
    return ErrorClass.REJECTED
