"""A contract compiled once, to check tables of records against it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingestion.ports.schema import ContractBody
from ingestion.quality.contracts import ensure_valid
from ingestion.quality.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

RULES = ("read", "type", "nullable", "pattern", "min", "max", "enum", "key.null", "key.duplicate")
"""The names of the rules that a row can break; they never change once released."""


def compile_contract(body: ContractBody) -> "CompiledContract":
    """Return the contract ready to check tables; ConfigError where a rule of it can never be applied."""
    ensure_valid(body)
    return CompiledContract(body)


@dataclass(frozen=True, slots=True)
class CompiledContract:
    """A valid contract; `check` may be called for any number of tables, also from several threads."""

    body: ContractBody

    def check(
        self, table: "pa.Table", *, run_id: int, part: str, is_file: bool, cursor_field: str | None = None
    ) -> Verdict:
        """Return the verdict over every row of a connector's table. Pure: the same table gives the same verdict.

        The reader columns of `ports.batch` may be absent. Raises ConfigError where the columns as a whole do not fit
        the contract: `contract.missing_key_column`, `contract.missing_column`, `contract.unexpected_column`.
        """
        # Polars and Arrow are loaded here, so that processes that only read contracts start without them.
        from ingestion.quality.checking import check_table  # noqa: PLC0415

        return check_table(self.body, table, run_id=run_id, part=part, is_file=is_file, cursor_field=cursor_field)
