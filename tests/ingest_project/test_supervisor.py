"""The supervisor with small programs: order, readiness, restarts."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from ingest_project.stack.processes import READY_LINE, Program
from ingest_project.stack.supervisor import ServiceFailedError, StopRequested, Supervisor
from tests.servers import wait_until
from tests.stacks import is_alive

pytestmark = pytest.mark.waits

SLEEP = "import time; time.sleep(60)"


class Room:
    """A supervisor and what it said."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.pids: dict[str, int] = {}
        self.supervisor = Supervisor(show=lambda *line: self.lines.append(line), on_change=self.pids.update)

    def has(self, name: str, text: str) -> bool:
        """Return whether a service's line holds a text."""
        return any(name == who and text in what for who, what in self.lines)


@pytest.fixture
def room() -> "Room":
    """An empty supervisor."""
    return Room()


def python(name: str, code: str, **values: object) -> Program:
    """Return a program of a few words."""
    argv = (sys.executable, "-S", "-u", "-c", code)
    return Program(name=name, argv=argv, environment=dict(os.environ), **values)  # type: ignore[arg-type]


def test_a_service_is_ready_when_its_output_says_so(room: Room) -> None:
    program = python("worker", f"print('hello'); print('{READY_LINE}'); {SLEEP}", says="all", ready_line=READY_LINE)

    room.supervisor.start([program], patience_s=20)
    room.supervisor.stop([["worker"]])

    assert room.lines[:2] == [("worker", "hello"), ("worker", "ready: all")]


def test_a_service_is_ready_when_it_can_be_reached(room: Room, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = python("web", f"open({str(mark)!r}, 'w'); {SLEEP}", is_ready=mark.exists)

    room.supervisor.start([program], patience_s=20)
    room.supervisor.stop([["web"]])

    assert room.has("web", "ready")


def test_a_service_that_ends_while_starting_stops_the_start(room: Room) -> None:
    program = python("web", "print('no such module'); raise SystemExit(3)", is_ready=lambda: False)

    with pytest.raises(ServiceFailedError, match="web ended with code 3"):
        room.supervisor.start([program], patience_s=20)
    room.supervisor.stop([])

    assert room.has("web", "no such module")


def test_a_service_that_is_never_ready_stops_the_start(room: Room) -> None:
    with pytest.raises(ServiceFailedError, match="web was not ready after 0 s"):
        room.supervisor.start([python("web", SLEEP, is_ready=lambda: False)], patience_s=0.3)
    room.supervisor.stop([["web"]])


def test_a_service_that_ends_later_is_started_again(room: Room, tmp_path: Path) -> None:
    code = f"""if True:
        import pathlib, time
        path = pathlib.Path({str(tmp_path / "starts")!r})
        path.write_text(path.read_text() + "x" if path.exists() else "x")
        print("{READY_LINE}")
        time.sleep(60 if len(path.read_text()) == 3 else 0.5)"""
    deadline = time.monotonic() + 30

    def has_started_three_times() -> bool:
        starts = tmp_path / "starts"
        return (starts.exists() and len(starts.read_text()) == 3) or time.monotonic() > deadline

    room.supervisor.start([python("worker", code, ready_line=READY_LINE)], patience_s=20)
    room.supervisor.watch(until=has_started_three_times)
    room.supervisor.stop([["worker"]])

    waits = [text for _, text in room.lines if "started again" in text]
    assert waits == [
        "ended with code 0; it is started again in 1 s",
        "ended with code 0; it is started again in 2 s",
    ]


def test_services_are_stopped_group_by_group(room: Room) -> None:
    code = f"""if True:
        import signal, sys, time
        def stop(*_):
            print("bye"); sys.exit()
        signal.signal(signal.SIGTERM, stop); print("{READY_LINE}"); time.sleep(60)"""

    programs = [python(name, code, ready_line=READY_LINE) for name in ("broker", "web", "beat")]
    room.supervisor.start(programs, patience_s=20)
    room.supervisor.stop([["beat"], ["web"], ["broker"]])

    assert [name for name, text in room.lines if text == "bye"] == ["beat", "web", "broker"]


def test_a_service_that_will_not_stop_is_killed_with_its_children(room: Room, tmp_path: Path) -> None:
    code = f"""if True:
        import os, pathlib, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            pathlib.Path({str(tmp_path / "child")!r}).write_text(str(os.getpid()))
        else:
            print("{READY_LINE}")
        time.sleep(60)"""

    room.supervisor.start([python("worker", code, ready_line=READY_LINE, grace_s=0.3)], patience_s=20)
    room.supervisor.watch(until=(tmp_path / "child").exists)
    child = int((tmp_path / "child").read_text())

    room.supervisor.stop([["worker"]])

    assert room.has("worker", "did not stop within 0 s and is killed")
    wait_until(lambda: not is_alive(child), what="the end of the child", patience_s=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_watch(room: Room, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with room.supervisor.signals():
        os.kill(os.getpid(), number)
        room.supervisor.watch()
    room.supervisor.stop([])

    assert signal.getsignal(number) == before


def test_a_signal_ends_a_start_that_is_not_ready(room: Room) -> None:
    program = python(
        "web", f"import os, signal; os.kill(os.getppid(), signal.SIGTERM); {SLEEP}", is_ready=lambda: False
    )

    with room.supervisor.signals(), pytest.raises(StopRequested):
        room.supervisor.start([program], patience_s=20)
    room.supervisor.stop([["web"]])


def test_lines_named_as_noise_are_not_shown(room: Room) -> None:
    program = python("broker", f"print('overcommit hint'); print('{READY_LINE}'); {SLEEP}", ready_line=READY_LINE)
    hushed = python(
        "beat", f"print('noise here'); print('{READY_LINE}'); {SLEEP}", ready_line=READY_LINE, hides=("noise",)
    )

    room.supervisor.start([program, hushed], patience_s=20)
    room.supervisor.stop([["broker", "beat"]])

    assert room.has("broker", "overcommit hint")
    assert not room.has("beat", "noise")


def test_lines_of_a_service_with_a_log_go_there(room: Room, tmp_path: Path) -> None:
    log = tmp_path / "quiet.log"
    code = f"import os; print('line', os.getcwd()); open('up', 'w'); {SLEEP}"
    program = python("quiet", code, is_ready=(tmp_path / "up").exists, log=log, folder=tmp_path)

    room.supervisor.start([program], patience_s=20)
    room.supervisor.stop([["quiet"]])

    assert log.read_text() == f"line {tmp_path}\n"
    assert room.lines == [("quiet", "ready")]


def test_a_quiet_service_that_ends_while_starting_shows_its_last_lines(room: Room, tmp_path: Path) -> None:
    code = "[print(f'line {number}') for number in range(100)]; raise SystemExit(3)"
    program = python("quiet", code, is_ready=lambda: False, log=tmp_path / "quiet.log")

    with pytest.raises(ServiceFailedError, match=r"quiet ended with code 3 .* all of them in .*quiet.log"):
        room.supervisor.start([program], patience_s=20)
    room.supervisor.stop([])

    assert room.lines[0] == ("quiet", "line 85")
    assert room.lines[-1] == ("quiet", "line 99")


def test_a_service_that_will_not_stop_is_gone_before_the_next_group_is_asked(room: Room, tmp_path: Path) -> None:
    stubborn = (
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{READY_LINE}', flush=True); {SLEEP}"
    )
    keeper = f"""if True:
        import os, pathlib, signal, sys, time
        def stop(*_):
            pathlib.Path({str(tmp_path / "seen")!r}).write_text(str(os.path.exists(f"/proc/{{other}}")))
            sys.exit()
        other = int(pathlib.Path({str(tmp_path / "pid")!r}).read_text())
        signal.signal(signal.SIGTERM, stop); print("{READY_LINE}"); time.sleep(60)"""
    room.supervisor.start([python("services", stubborn, ready_line=READY_LINE, grace_s=0.3)], patience_s=20)
    (tmp_path / "pid").write_text(str(room.pids["services"]))
    room.supervisor.start([python("keeper", keeper, ready_line=READY_LINE)], patience_s=20)

    room.supervisor.stop([["services"], ["keeper"]])

    assert (tmp_path / "seen").read_text() == "False"


def test_services_that_were_begun_are_waited_for_later(room: Room, tmp_path: Path) -> None:
    slow = python("slow", SLEEP, is_ready=(tmp_path / "up").exists)
    quick = python("quick", f"open({str(tmp_path / 'up')!r}, 'w'); {SLEEP}")

    room.supervisor.begin([slow])
    room.supervisor.start([quick], patience_s=20)
    room.supervisor.wait_ready([slow], patience_s=20)
    room.supervisor.stop([["slow", "quick"]])

    assert room.has("slow", "ready")


def test_a_one_time_program_that_fails_is_an_error(room: Room) -> None:
    room.supervisor.run_once(python("migrate", "print('done')", says="the tables are up to date"))

    with pytest.raises(ServiceFailedError, match="migrate ended with code 1"):
        room.supervisor.run_once(python("migrate", "raise SystemExit(1)"))
    room.supervisor.stop([])

    assert room.lines == [("migrate", "done"), ("migrate", "the tables are up to date")]
