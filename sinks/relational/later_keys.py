"""Keys that later runs brought, waiting beside the rows of an older run that comes late.

The row of such a key is the later run's, also where that run found the row as it was and left it: then the table does
not tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sinks.relational.connection import STATEMENT_LIMIT_S, Connection
from sinks.relational.delivery_log import DeliveryLog, StagedPart
from sinks.relational.loading import load_part
from sinks.relational.naming import digest_of, later_name
from sinks.relational.refilling import LakeRuns, key_fittings
from sinks.relational.rejecting import Rejections
from sinks.relational.schema_plan import Table


@dataclass(frozen=True)
class LaterKeys:
    """The keys that runs later than the one on its way brought into a table."""

    connection: Connection
    delivery_log: DeliveryLog
    table: str
    runs: LakeRuns

    @property
    def staging(self) -> str:
        """Return the name under which they wait."""
        return later_name(self.table, run_id=self.runs.delivery.run_id)

    @property
    def run_ids(self) -> list[int]:
        """Return the later runs that the table has rows of, in order."""
        return self.delivery_log.runs(self.table, after=self.runs.delivery.run_id)

    @property
    def are_there(self) -> bool:
        """Return whether the keys of all later runs wait."""
        return [part.name for part in self.delivery_log.staged(self.staging).values()] == [self._mark]

    def stage(self, table: Table) -> None:
        """Let the keys wait, anew where some do already; nothing happens where there is no later run."""
        if not table.key or not (run_ids := self.run_ids) or self.are_there:
            return
        connection, key = self.connection, key_fittings(table)
        columns: Mapping[str, str] = {item.column: table.actual[item.column].type for item in key}
        with connection.locked(self.table):
            creating = connection.dialect.creating_staging(
                self.staging, target=self.table, columns=columns, key=list(columns)
            )
            connection.execute(connection.dialect.dropping(self.staging), *creating)
            self.delivery_log.forget_parts(self.staging)
        with connection.locked(self.table, limit_s=STATEMENT_LIMIT_S):
            for manifest in self.runs.manifests(run_ids):
                for part in manifest.parts:
                    with self.runs.ctx.lake.open(part.key) as stream:
                        load_part(
                            connection,
                            part,
                            stream,
                            into=self.staging,
                            fittings=key,
                            contract=manifest.contract,
                            rejections=Rejections(self.runs.delivery.destination, part.rows),
                            ctx=self.runs.ctx,
                        )
            self.delivery_log.note_part(self.staging, StagedPart(self._mark, "", tuple(columns)))

    @property
    def _mark(self) -> str:
        """Return what stands for the later runs in the log of staged parts, whose names are short."""
        return digest_of(",".join(map(str, self.run_ids)))
