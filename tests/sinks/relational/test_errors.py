"""Every error of every driver means something."""

import inspect
import sqlite3
from typing import Any

import psycopg
import pymysql
import pytest
from pymysql.constants import CR, ER

from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkRejected, SinkUnavailable
from sinks.relational.diagnosis import LONGEST_MESSAGE, Diagnosis, ErrorClass, as_error, first_line
from sinks.relational.mysql import connection as mysql
from sinks.relational.postgres import connection as postgres
from sinks.relational.sqlite import connection as sqlite

ROW, UNAVAILABLE, BUSY = ErrorClass.ROW, ErrorClass.UNAVAILABLE, ErrorClass.BUSY
AUTH, CONFIG, REJECTED, STOPPED = ErrorClass.AUTH, ErrorClass.CONFIG, ErrorClass.REJECTED, ErrorClass.STOPPED


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("ConnectionFailure", UNAVAILABLE),
        ("AdminShutdown", UNAVAILABLE),
        ("CrashShutdown", UNAVAILABLE),
        ("CannotConnectNow", UNAVAILABLE),
        ("TooManyConnections", UNAVAILABLE),
        ("DiskFull", UNAVAILABLE),
        ("DeadlockDetected", UNAVAILABLE),
        ("SerializationFailure", UNAVAILABLE),
        ("ReadOnlySqlTransaction", UNAVAILABLE),
        ("IdleInTransactionSessionTimeout", UNAVAILABLE),
        ("LockNotAvailable", BUSY),
        ("QueryCanceled", STOPPED),
        ("InvalidPassword", AUTH),
        ("InsufficientPrivilege", AUTH),
        ("InvalidCatalogName", CONFIG),
        ("InvalidSchemaName", CONFIG),
        ("UndefinedTable", REJECTED),
        ("UndefinedColumn", REJECTED),
        ("DependentObjectsStillExist", REJECTED),
        ("FeatureNotSupported", REJECTED),
        ("NotNullViolation", ROW),
        ("CheckViolation", ROW),
        ("UniqueViolation", ROW),
        ("ForeignKeyViolation", ROW),
        ("ExclusionViolation", ROW),
        ("NumericValueOutOfRange", ROW),
        ("CharacterNotInRepertoire", ROW),
        ("InvalidTextRepresentation", ROW),
        ("StringDataRightTruncation", ROW),
        ("ProgramLimitExceeded", ROW),
        ("RaiseException", ROW),
    ],
)
def test_conditions_of_postgresql(name: str, meaning: ErrorClass) -> None:
    assert postgres.diagnose(getattr(psycopg.errors, name)("told")).error_class is meaning


def test_every_condition_of_postgresql_has_a_meaning() -> None:
    classes = [
        kind
        for _, kind in inspect.getmembers(psycopg.errors, inspect.isclass)
        if issubclass(kind, psycopg.Error) and kind.sqlstate
    ]

    assert len(classes) > 200
    for kind in classes:
        diagnosis = postgres.diagnose(kind("told"))
        assert isinstance(diagnosis.error_class, ErrorClass)
        assert isinstance(as_error(diagnosis, destination="lab"), IngestError)
        assert (diagnosis.error_class is ROW) == bool(diagnosis.rule), kind


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (
            'connection failed: connection to server at "127.0.0.1", port 5432 failed: Connection refused\n\tIs it running?',
            UNAVAILABLE,
        ),
        ("failed to resolve host 'x': [Errno -2] Name or service not known", UNAVAILABLE),
        ("connection timeout expired", UNAVAILABLE),
        ("server closed the connection unexpectedly", UNAVAILABLE),
        ("FATAL:  the database system is starting up", UNAVAILABLE),
        ("FATAL:  sorry, too many clients already", UNAVAILABLE),
        ('FATAL:  password authentication failed for user "u"', AUTH),
        ("fe_sendauth: no password supplied", AUTH),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", no encryption', AUTH),
        ('FATAL:  role "u" does not exist', AUTH),
        ('FATAL:  database "d" does not exist', CONFIG),
        ("server does not support SSL, but SSL was required", CONFIG),
        ("SSL error: certificate verify failed", CONFIG),
        ('root certificate file "/x" does not exist', CONFIG),
    ],
)
def test_connections_to_postgresql_that_fail(text: str, meaning: ErrorClass) -> None:
    diagnosis = postgres.diagnose(psycopg.OperationalError(text))

    assert diagnosis.error_class is meaning
    assert "\n" not in diagnosis.message


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (CR.CR_CONN_HOST_ERROR, UNAVAILABLE),
        (CR.CR_SERVER_LOST, UNAVAILABLE),
        (CR.CR_SERVER_GONE_ERROR, UNAVAILABLE),
        (ER.CON_COUNT_ERROR, UNAVAILABLE),
        (ER.TOO_MANY_USER_CONNECTIONS, UNAVAILABLE),
        (ER.LOCK_DEADLOCK, UNAVAILABLE),
        (ER.SERVER_SHUTDOWN, UNAVAILABLE),
        (ER.RECORD_FILE_FULL, UNAVAILABLE),
        (ER.OPTION_PREVENTS_STATEMENT, UNAVAILABLE),
        (ER.LOCK_WAIT_TIMEOUT, BUSY),
        (ER.QUERY_INTERRUPTED, STOPPED),
        (ER.ACCESS_DENIED_ERROR, AUTH),
        (ER.TABLEACCESS_DENIED_ERROR, AUTH),
        (ER.BAD_DB_ERROR, CONFIG),
        (ER.NO_SUCH_TABLE, REJECTED),
        (ER.BAD_FIELD_ERROR, REJECTED),
        (ER.DUP_ENTRY, ROW),
        (ER.BAD_NULL_ERROR, ROW),
        (ER.DATA_TOO_LONG, ROW),
        (ER.WARN_DATA_OUT_OF_RANGE, ROW),
        (ER.NO_REFERENCED_ROW_2, ROW),
        (4025, ROW),
        (3819, ROW),
    ],
)
def test_errors_of_mysql(number: int, meaning: ErrorClass) -> None:
    assert mysql.diagnose(pymysql.err.OperationalError(number, "told")).error_class is meaning


def test_every_error_of_mysql_has_a_meaning() -> None:
    numbers = {value for table in (ER, CR) for value in vars(table).values() if isinstance(value, int)}

    assert len(numbers) > 400
    for number in numbers:
        diagnosis = mysql.diagnose(pymysql.err.OperationalError(number, "told"))
        assert isinstance(as_error(diagnosis, destination="lab"), IngestError)
        assert (diagnosis.error_class is ROW) == bool(diagnosis.rule)


def test_every_class_of_pymysql_has_a_meaning() -> None:
    classes = [
        kind for _, kind in inspect.getmembers(pymysql.err, inspect.isclass) if issubclass(kind, pymysql.MySQLError)
    ]

    assert len(classes) > 8
    for kind in classes:
        assert isinstance(mysql.diagnose(kind("told")).error_class, ErrorClass)
    assert mysql.diagnose(pymysql.err.InterfaceError(0, "")).error_class is UNAVAILABLE
    assert mysql.diagnose(ConnectionResetError("gone")).error_class is UNAVAILABLE


@pytest.mark.parametrize(
    ("number", "text", "rule", "column"),
    [
        (4025, "CONSTRAINT `price_positive` failed for `lab`.`samples`", "price_positive", ""),
        (3819, "Check constraint 'price_positive' is violated.", "price_positive", ""),
        (1062, "Duplicate entry '1' for key 'samples.one_price'", "samples.one_price", ""),
        (1048, "Column 'price' cannot be null", "bad_null_error", "price"),
        (1406, "Data too long for column 'name' at row 7", "data_too_long", "name"),
        (1292, "Incorrect date value: '2023-02-30' for column `t`.`q`.`day` at row 1", "truncated_wrong_value", "day"),
        (1364, "Field 'price' doesn't have a default value", "no_default_for_field", "price"),
    ],
)
def test_refusals_of_mysql_name_rule_and_column(number: int, text: str, rule: str, column: str) -> None:
    diagnosis = mysql.diagnose(pymysql.err.IntegrityError(number, text))

    assert (diagnosis.error_class, diagnosis.rule, diagnosis.column) == (ROW, rule, column)


def sqlite_error(name: str, text: str = "told") -> sqlite3.Error:
    error: Any = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("SQLITE_BUSY", BUSY),
        ("SQLITE_BUSY_SNAPSHOT", BUSY),
        ("SQLITE_LOCKED", BUSY),
        ("SQLITE_FULL", UNAVAILABLE),
        ("SQLITE_IOERR_FSYNC", UNAVAILABLE),
        ("SQLITE_CANTOPEN", CONFIG),
        ("SQLITE_NOTADB", CONFIG),
        ("SQLITE_READONLY", AUTH),
        ("SQLITE_READONLY_DBMOVED", AUTH),
        ("SQLITE_INTERRUPT", STOPPED),
        ("SQLITE_CONSTRAINT_CHECK", ROW),
        ("SQLITE_CONSTRAINT_UNIQUE", ROW),
        ("SQLITE_TOOBIG", ROW),
        ("SQLITE_ERROR", REJECTED),
        ("", REJECTED),
    ],
)
def test_errors_of_sqlite(name: str, meaning: ErrorClass) -> None:
    assert sqlite.diagnose(sqlite_error(name)).error_class is meaning


def test_every_error_of_sqlite_has_a_meaning() -> None:
    names = [name for name in vars(sqlite3) if name.startswith("SQLITE_") and isinstance(vars(sqlite3)[name], int)]

    assert len(names) > 90
    for name in names:
        assert isinstance(as_error(sqlite.diagnose(sqlite_error(name)), destination="lab"), IngestError)


@pytest.mark.parametrize(
    ("meaning", "kind", "code"),
    [
        (ROW, SinkRejected, "sink.rejected"),
        (REJECTED, SinkRejected, "sink.rejected"),
        (UNAVAILABLE, SinkUnavailable, "sink.unavailable"),
        (STOPPED, SinkUnavailable, "sink.unavailable"),
        (BUSY, SinkUnavailable, "sink.busy"),
        (AUTH, AuthError, "sink.auth"),
        (CONFIG, ConfigError, "config.invalid"),
    ],
)
def test_a_meaning_is_an_error_of_the_engine(meaning: ErrorClass, kind: type[IngestError], code: str) -> None:
    error = as_error(Diagnosis(meaning, "it broke"), destination="lab")

    assert type(error) is kind
    assert error.code == code
    assert "lab" in str(error)


def test_a_message_is_one_line_and_not_too_long() -> None:
    assert first_line("\n  first\nsecond") == "first"
    assert len(first_line("x" * 5000)) == LONGEST_MESSAGE
    assert first_line("") == ""
