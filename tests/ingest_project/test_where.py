"""Addresses and lines to paste that `manage.py where` shows."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command, get_commands

from ingest_project.stack.state import StackState, hold_stack, write_state


def test_its_lines_can_be_pasted_and_keep_the_data_folder(
    tmp_path: Path, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.HEADGATE_DATA_DIR = data = tmp_path / "my data"
    (data / "run").mkdir(parents=True)
    with pytest.raises(CommandError) as refused:
        call_command("where")
    with hold_stack(data):
        write_state(data, StackState(pid=1, web_url="http://127.0.0.1:8000/", demo_port=8123))
        call_command("where")

    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    start = str(refused.value).split("Start it with: ")[1]
    for line in (start, shown["stop"], shown["login"].removeprefix("a new password: ")):
        program, manage, command, *_, option, folder = shlex.split(line)
        assert "python" in program
        assert manage.endswith("manage.py")
        assert command in get_commands()
        assert (option, folder) == ("--data", str(data))
    assert shown["demo"].startswith("http://127.0.0.1:8123/optimade ")
