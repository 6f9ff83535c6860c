"""GitHub's repository search on loopback: Link headers, `per_page`, `pushed:>=`, a token, and faults on request."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.fakes.http_server import FakeSite, Reply
from tests.fakes.requests import Request

DATA = Path(__file__).parents[1] / "data" / "github"
PATH = "/search/repositories"
TOKEN = "ghx-loopback-token"


def recorded_items() -> list[dict[str, Any]]:
    """Return the repositories of the recorded pages."""
    pages = [json.loads((DATA / f"search_repositories_page{number}.json").read_text()) for number in (1, 2, 3)]
    return [item for page in pages for item in page["response"]["body"]["items"]]


class GitHubServer(FakeSite):
    """The search; `items` are what there is, `next_link` rewrites the address of the next page."""

    def __init__(self, items: Sequence[dict[str, Any]] | None = None, *, token: str = TOKEN) -> None:
        super().__init__({PATH: self._search})
        self.items = recorded_items() if items is None else list(items)
        self.token = token
        self.total: int | None = None
        self.next_link: Callable[[int, str], str] = lambda _page, link: link

    def _search(self, request: Request) -> Reply:
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return Reply({"message": "Bad credentials"}, status=401)
        words = request.query.get("q", "").split()
        if not words:
            return Reply(json.loads((DATA / "error_422_validation.json").read_text()), status=422)
        since = next((word.partition("=")[2] for word in words if word.startswith("pushed:>=")), "")
        found = [item for item in self.items if not since or str(item.get("pushed_at", "")) >= since]
        size, page = int(request.query.get("per_page", 30)), int(request.query.get("page", 1))
        last = max(1, -(-len(found) // size))
        begin = (page - 1) * size
        links = {name: number for name, number in (("prev", page - 1), ("next", page + 1)) if 1 <= number <= last}
        header = ", ".join(f'<{self._address(request, name, number)}>; rel="{name}"' for name, number in links.items())
        total = len(found) if self.total is None else self.total
        body = {"total_count": total, "incomplete_results": False, "items": found[begin : begin + size]}
        return Reply(body, headers={"Link": header, "X-RateLimit-Remaining": "29"} if header else {})

    def _address(self, request: Request, name: str, number: int) -> str:
        address = f"{self.url}{PATH}?{urlencode({**request.query, 'page': number})}"
        return self.next_link(number, address) if name == "next" else address
