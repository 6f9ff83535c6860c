"""The footer of a Parquet file, read as far as tells whether it is encrypted.

pyarrow ends the whole process at a column that it has no key for, so it must not be asked.
Source: Thrift's compact protocol, and parquet.thrift, FileMetaData.
"""

_ENCRYPTION_ALGORITHM = 8
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12
_FIXED = {**dict.fromkeys(_BOOLEANS, 0), _BYTE: 1, _DOUBLE: 8}
_MAX_DEPTH = 64
_LONG_FORM = 15
_LONGEST_VARINT = 70


def is_encrypted(footer: bytes) -> bool:
    """Return whether the metadata name an encryption; ValueError where they are no metadata."""
    try:
        return _ENCRYPTION_ALGORITHM in _Reader(footer).struct()
    except IndexError as error:
        msg = "the footer ends within a value"
        raise ValueError(msg) from error


class _Reader:
    """Passes over values of the compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int = 0) -> list[int]:
        """Pass a struct and return the numbers of its fields."""
        if depth > _MAX_DEPTH:
            msg = "the footer is nested too deeply"
            raise ValueError(msg)
        fields, number = [], 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self._zigzag()
            fields.append(number)
            self._pass(kind, depth)
        return fields

    def _pass(self, kind: int, depth: int) -> None:
        if kind in _FIXED:
            self._at += _FIXED[kind]
        elif kind in _INTEGERS:
            self._varint()
        elif kind == _BINARY:
            length = self._varint()
            self._at += length
        elif kind == _STRUCT:
            self.struct(depth + 1)
        elif kind in _LISTS:
            head = self._byte()
            count, inner = head >> 4, head & 15
            self._pass_many(self._varint() if count == _LONG_FORM else count, (inner,), depth)
        elif kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            self._pass_many(count, (kinds >> 4, kinds & 15), depth)
        else:
            msg = f"the footer holds a value of an unknown kind {kind}"
            raise ValueError(msg)

    def _pass_many(self, count: int, kinds: tuple[int, ...], depth: int) -> None:
        for _ in range(count):
            if self._at >= len(self._data):
                raise IndexError
            for kind in kinds:
                # An element of a list has a byte of its own where a field has its value in the head.
                self._at += kind in _BOOLEANS
                self._pass(kind, depth + 1)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if shift > _LONGEST_VARINT:
                msg = "the footer holds a number of more than 64 bits"
                raise ValueError(msg)
            if byte < 128:  # noqa: PLR2004 - the highest bit says that another byte follows
                return value

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
