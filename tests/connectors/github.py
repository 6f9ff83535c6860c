"""Repositories of GitHub's search, as a source: a whole connector on `ingestion.toolkit.rest`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.check import CheckReport
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context, HttpResponse
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.toolkit.rest.api import Api, BaseUrl, bearer, check_query, later_cursor, plan_listing
from ingestion.toolkit.rest.records import standardize
from ingestion.toolkit.rest.walking import LinkHeader, Listing, read_listing

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (
    Column(name="id", type=ColumnType.INTEGER, nullable=False),
    Column(name="full_name"),
    Column(name="pushed_at", type=ColumnType.DATETIME),
    Column(name="owner", type=ColumnType.OBJECT),
)
SCHEMA = ContractBody(name="repositories", key=("id",), columns=COLUMNS)
REPOSITORIES = Stream("repositories", key=("id",), cursor_field="pushed_at", schema=SCHEMA)


class GitHubConfig(BaseModel):
    """The way to GitHub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: BaseUrl = "https://api.github.com"
    token: SecretStr | None = Field(default=None, description="Access token; it allows 30 searches a minute, not 10.")
    per_page: int = Field(default=100, ge=1, le=100, description="Records a page.")


class GitHubConnector:
    """Reads what a search finds, the least recently pushed first."""

    kind: ClassVar[str] = "github"
    Config: ClassVar[type[BaseModel]] = GitHubConfig

    def __init__(self, config: GitHubConfig) -> None:
        self._config = config
        secret = {} if config.token is None else {"Authorization": bearer(config.token)}
        self._api = Api(config.base_url, headers={"Accept": "application/vnd.github+json"}, secret_headers=secret)

    def streams(self) -> Sequence[Stream]:
        return (REPOSITORIES,)

    def check(self, ctx: Context) -> CheckReport:
        url = self._api.url("search/repositories", {"q": "stars:>0", "per_page": 1})
        return self._api.check(url, ctx, describe=lambda: f"{read(self._api.get(url, ctx)).total} repositories")

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        check_query(query, streams=(REPOSITORIES.name,), kind=self.kind)
        words = [query.filter or "stars:>0", *([f"pushed:>={since['pushed_at']}"] if since else [])]
        order = {"sort": "updated", "order": "asc", "per_page": self._config.per_page}
        return plan_listing(query, self._api.url("search/repositories", {"q": " ".join(words), **order}))

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        return self._api.pages(spec, cursor, ctx, paginator=LinkHeader(), read=read)

    def standardize(self, records: Records, stream: Stream) -> "pa.Table":
        return standardize(records, stream, path=("items",))

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        return later_cursor("pushed_at", since, high_water)


def read(response: HttpResponse) -> Listing:
    return read_listing(response, records=("items",), total=("total_count",))
