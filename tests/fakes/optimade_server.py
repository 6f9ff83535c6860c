"""The OPTIMADE reference server with its 17 bundled test structures, on a free loopback port.

    with OptimadeServer() as server:
        connector = OptimadeConnector(OptimadeConfig(base_url=server.url))

Runs `python -m tests.fakes.optimade_server --port N` as a process of its own. Its data are put in by hand: the
server's own way would ask the internet for the list of providers, and so would a `license` in its settings.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from tests.servers import free_port, missing

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 60.0
PAGE_LIMIT_MAX = 30
PROVIDER_FIELDS = ("band_gap", "chemsys", "stability")


class OptimadeServer:
    """The server as a process; start and stop it by `with`."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.NamedTemporaryFile(prefix="optimade-", suffix=".log")  # noqa: SIM115 - closed by stop

    @property
    def url(self) -> str:
        """Return the base address, without a version."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        if importlib.util.find_spec("optimade") is None:
            missing("the package optimade[server] is not installed")
        command = [sys.executable, "-m", "tests.fakes.optimade_server", "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if not name.lower().startswith("optimade_")}
        environment["OPTIMADE_CONFIG_FILE"] = os.devnull
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=self._log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                msg = f"the reference server did not start: {Path(self._log.name).read_text()[-2000:]}"
                raise RuntimeError(msg)
            time.sleep(0.05)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=10)

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/v1/info", timeout=2) as response:  # noqa: S310 - our own loopback address
                return bool(response.status == 200)  # noqa: PLR2004
        except (URLError, OSError):
            return False


def serve(port: int) -> None:
    """Serve until the process is ended."""
    import uvicorn
    from optimade.server import data
    from optimade.server.config import ServerConfig
    from optimade.server.create_app import create_app

    config = ServerConfig(
        insert_test_data=False,
        page_limit_max=PAGE_LIMIT_MAX,
        provider={"prefix": "exmpl", "name": "Example provider", "description": "Provider used for tests"},
        provider_fields={"structures": list(PROVIDER_FIELDS)},
        aliases={
            "structures": {
                "id": "task_id",
                "chemical_formula_descriptive": "pretty_formula",
                "chemical_formula_reduced": "pretty_formula",
                "chemical_formula_anonymous": "formula_anonymous",
            }
        },
        length_aliases={"structures": {"elements": "nelements", "species_at_sites": "nsites"}},
    )
    app = create_app(config)
    for name in ("structures", "references"):
        app.state.entry_collections[name].insert(getattr(data, name))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port)
