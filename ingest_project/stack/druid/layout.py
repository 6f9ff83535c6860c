"""The files and ports of a Druid below its folder."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from ingest_project.stack.broker import free_port
from ingest_project.stack.druid.place import KEPT_PORTS, read_ports
from ingest_project.stack.services import is_free

TEMPLATES = Path(__file__).parent / "templates"
SERVICES = ("coordinator", "indexer", "historical", "broker")
PORTS = ("zookeeper", "metadata", *SERVICES)
_FOLDERS = (
    *("var/tmp", "var/zk", "log"),
    *(f"var/druid/{name}" for name in ("segments", "indexing-logs", "task", "processing", "segment-cache")),
)


def choose_ports(home: Path) -> dict[str, int]:
    """Return a free loopback port for each listener, the one it had before where that is still free, and keep them."""
    path = home / KEPT_PORTS
    before = read_ports(home)
    ports: dict[str, int] = {}
    for name in PORTS:
        port = before.get(name)
        while port is None or port in ports.values() or not is_free("127.0.0.1", port=port):
            port = free_port()
        ports[name] = port
    home.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ports, indent=1) + "\n")
    return ports


def write_files(home: Path, *, ports: Mapping[str, int], jars: Sequence[str], more: Sequence[str] = ()) -> None:
    """Write the configuration for one start; `more` are further lines of the properties that all services read."""
    # ZooKeeper knows living processes only. What it kept of killed ones would hold up the next leader for 30 s.
    shutil.rmtree(home / "var" / "zk", ignore_errors=True)
    for name in _FOLDERS:
        (home / name).mkdir(parents=True, exist_ok=True)
    conf = home / "conf"
    (conf / "_common").mkdir(parents=True, exist_ok=True)
    for name in ("jvm.flags", "zoo.cfg"):
        (conf / name).write_text(_fill(name, ports))
    (conf / "_common" / "log4j2.xml").write_text((TEMPLATES / "log4j2.xml").read_text())
    common = _fill("common.runtime.properties", ports)
    (conf / "_common" / "common.runtime.properties").write_text(common + "".join(f"{line}\n" for line in more))
    _write_classpath(conf / "zookeeper.classpath", folders=["conf/_common"], jars=jars)
    for service in SERVICES:
        (conf / service).mkdir(exist_ok=True)
        (conf / service / "runtime.properties").write_text(_fill(f"{service}.properties", ports))
        # The properties are looked for on the class path, and the first of a name counts.
        _write_classpath(conf / f"{service}.classpath", folders=[f"conf/{service}", "conf/_common"], jars=jars)


def _fill(name: str, ports: Mapping[str, int]) -> str:
    return Template((TEMPLATES / name).read_text()).substitute(ports)


def _write_classpath(path: Path, *, folders: Sequence[str], jars: Sequence[str]) -> None:
    """Write a file of arguments for `java @file`: the command line would be longer than a screen."""
    text = ":".join((*folders, *jars)).replace("\\", "\\\\").replace('"', '\\"')
    path.write_text(f'-cp "{text}"\n')
