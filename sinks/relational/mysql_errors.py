"""What MySQL's and MariaDB's errors mean, by their number."""

import re

import pymysql
from pymysql.constants import ER

from sinks.relational.troubles import Meaning, Trouble, first_line

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


def explain(error: Exception) -> Trouble:
    """Return what an error of PyMySQL means."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    text = str(error.args[1]) if number is not None and len(error.args) > 1 else str(error)
    message = first_line(text) or type(error).__name__
    # The driver says of a certificate that it refused what it says of a server that is not there.
    meaning = Meaning.CONFIG if "CERTIFICATE_VERIFY_FAILED" in text else _meaning_of(error, number)
    if meaning is not Meaning.ROW:
        return Trouble(meaning, message)
    constraint, column = _CONSTRAINT.search(text), _COLUMN.search(text)
    name = _NAMES.get(number or 0, f"error_{number}").lower() if number else "not_a_number"
    return Trouble(
        meaning,
        message,
        rule=next(filter(None, constraint.groups()), name) if constraint else name,
        column=next(filter(None, column.groups()), "") if column else "",
    )


def _meaning_of(error: Exception, number: int | None) -> Meaning:
    for numbers, meaning in (
        (_ROW, Meaning.ROW),
        (_UNAVAILABLE, Meaning.UNAVAILABLE),
        (_STOPPED, Meaning.STOPPED),
        (_AUTH, Meaning.AUTH),
        (_CONFIG, Meaning.CONFIG),
        (_BUSY, Meaning.BUSY),
    ):
        if number in numbers:
            return meaning
    if not isinstance(error, pymysql.MySQLError) or isinstance(error, pymysql.err.InterfaceError):
        # The socket broke, or the driver has noticed before that it did.
        return Meaning.UNAVAILABLE
    if number is None and isinstance(error, pymysql.err.ProgrammingError):
        # Said by the driver itself of a value that the server knows no word for.
        return Meaning.ROW
    return Meaning.REJECTED
