"""The records of OPTIMADE: their standard columns, and how an entry is read into them."""

from collections.abc import Mapping
from typing import Any

from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.toolkit.rest.records import UnreadableError, read_object

_TEXT, _TIME, _INT, _LIST = ColumnType.STRING, ColumnType.DATETIME, ColumnType.INTEGER, ColumnType.ARRAY

PARTIAL_FIELDS = "partial_data_fields"
"""Names of the fields that are null only because they were too large to be sent inline (JSON text)."""

STRUCTURES: dict[str, ColumnType] = {
    "id": _TEXT,
    "type": _TEXT,
    "immutable_id": _TEXT,
    "last_modified": _TIME,
    "elements": _LIST,
    "nelements": _INT,
    "elements_ratios": _LIST,
    "chemical_formula_descriptive": _TEXT,
    "chemical_formula_reduced": _TEXT,
    "chemical_formula_hill": _TEXT,
    "chemical_formula_anonymous": _TEXT,
    "dimension_types": _LIST,
    "nperiodic_dimensions": _INT,
    "lattice_vectors": _LIST,
    "cartesian_site_positions": _LIST,
    "fractional_site_positions": _LIST,
    "nsites": _INT,
    "species": _LIST,
    "species_at_sites": _LIST,
    "assemblies": _LIST,
    "structure_features": _LIST,
    "space_group_it_number": _INT,
    "space_group_symbol_hall": _TEXT,
    "space_group_symbol_hermann_mauguin": _TEXT,
    "space_group_symbol_hermann_mauguin_extended": _TEXT,
    "space_group_symmetry_operations_xyz": _LIST,
    PARTIAL_FIELDS: _LIST,
}
"""Standard columns of structures; lengths in Å, matrices as rows."""

REFERENCES: dict[str, ColumnType] = {
    "id": _TEXT,
    "type": _TEXT,
    "immutable_id": _TEXT,
    "last_modified": _TIME,
    "authors": _LIST,
    "editors": _LIST,
    "title": _TEXT,
    "journal": _TEXT,
    "publisher": _TEXT,
    "volume": _TEXT,
    "pages": _TEXT,
    "year": _TEXT,
    "doi": _TEXT,
    "url": _TEXT,
    "bib_type": _TEXT,
    PARTIAL_FIELDS: _LIST,
}
"""Standard columns of references."""

LAYOUTS = {"structures": STRUCTURES, "references": REFERENCES}
_UNITS = {"lattice_vectors": "Å", "cartesian_site_positions": "Å"}


def schema_of(name: str) -> ContractBody:
    """Return the contract that the standard columns keep: the key is `id`, everything else may be unknown."""
    columns = tuple(
        Column(name=column, type=column_type, nullable=column != "id", unit=_UNITS.get(column))
        for column, column_type in LAYOUTS[name].items()
    )
    return ContractBody(name=name, key=("id",), columns=columns)


def read_entry(entry: Any) -> Mapping[str, Any]:
    """Return the attributes of an entry with its id, its type and the names of its partial fields."""
    value = read_object(entry)
    attributes = value.get("attributes", {})
    if not isinstance(attributes, dict):
        raise UnreadableError("row.no_attributes")
    meta = value.get("meta")
    partial = meta.get("partial_data_links") if isinstance(meta, dict) else None
    return {
        **attributes,
        "id": value["id"],
        "type": value.get("type"),
        PARTIAL_FIELDS: sorted(partial) if isinstance(partial, dict) and partial else None,
    }
