"""The Druid that an installation delivers to: the configured one, else the one that runs in its data directory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ingest_project.env import Environment
from ingest_project.stack.state import StackState, read_state

KEPT_PORTS = "ports.json"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class DruidPlace:
    """The configuration and secrets of the default Druid destination, and what must be reachable for it."""

    config: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_embedded: bool = False

    @property
    def reached(self) -> list[str]:
        """Return host:port of every address."""
        addresses = (urlsplit(self.config[name]) for name in ("url", "broker_url") if name in self.config)
        return [f"{_host(str(url.hostname))}:{url.port or _PORTS[url.scheme]}" for url in addresses]


def druid_home(data: Path) -> Path:
    """Return the folder of a data directory's own Druid."""
    return data / "druid"


def read_druid(data: Path) -> StackState | None:
    """Return what the running Druid of a data directory tells, or None where none runs."""
    state = read_state(druid_home(data))
    return state if state is not None and state.druid_ports else None


def read_ports(home: Path) -> dict[str, int]:
    """Return the ports that a Druid of one's own had when it was last started; empty before that."""
    try:
        kept: dict[str, int] = json.loads((home / KEPT_PORTS).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return kept


def stopped_place(data: Path) -> DruidPlace | None:
    """Return where the Druid of a data directory was when it last ran, or None where none ever did."""
    ports = read_ports(druid_home(data))
    return embedded_place(ports) if {"coordinator", "broker"} <= ports.keys() else None


def embedded_place(ports: Mapping[str, int]) -> DruidPlace:
    """Return where a Druid of one's own is found; it has no Router, and reads the files of this machine."""
    config = {
        "url": f"http://127.0.0.1:{ports['coordinator']}",
        "broker_url": f"http://127.0.0.1:{ports['broker']}",
        "shares_disk": True,
    }
    return DruidPlace(config=config, is_embedded=True)


def find_druid(environment: Environment, *, data: Path) -> DruidPlace | None:
    """Return the Druid to deliver to, or None."""
    if environment.druid_url is None:
        state = read_druid(data)
        return embedded_place(state.druid_ports) if state else None
    config = {"url": environment.druid_url}
    if environment.druid_broker_url:
        config["broker_url"] = environment.druid_broker_url
    if environment.druid_user:
        config["username"] = environment.druid_user
    password = environment.druid_password
    return DruidPlace(config=config, secrets={"password": password.get_secret_value()} if password else {})


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name
