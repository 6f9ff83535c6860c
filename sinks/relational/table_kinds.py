"""Contents of columns, and the kind of column that takes the contents of two."""

from collections.abc import Iterable
from dataclasses import dataclass

from ingestion.toolkit.clean.kinds import Kind


@dataclass(frozen=True, slots=True)
class Content:
    """The kind of a column's values, as far as a part tells; `kind` is None where all of them are null.

    `is_exact_as_number`: whole numbers that a float holds without loss.
    """

    kind: Kind | None
    is_exact_as_number: bool = False


def unify(first: Content, second: Content) -> Content:
    """Return what a column must hold to take the values of both without loss.

    Whole numbers and floats share a float where it holds all of them exactly; else kinds that differ share text.
    """
    if first.kind is None or second.kind is None:
        return second if first.kind is None else first
    kinds = {first.kind, second.kind}
    is_exact = first.is_exact_as_number and second.is_exact_as_number
    if len(kinds) == 1:
        return Content(first.kind, is_exact_as_number=is_exact)
    if kinds == {Kind.INTEGER, Kind.UNSIGNED}:
        return Content(Kind.UNSIGNED, is_exact_as_number=is_exact)
    whole = first if second.kind is Kind.NUMBER else second
    if kinds == {Kind.INTEGER, Kind.NUMBER} and whole.is_exact_as_number:
        return Content(Kind.NUMBER)
    return Content(Kind.TEXT)


def unify_all(contents: Iterable[Content]) -> Content:
    """Return what a column must hold to take the values of all."""
    whole = Content(None)
    for content in contents:
        whole = unify(whole, content)
    return whole
