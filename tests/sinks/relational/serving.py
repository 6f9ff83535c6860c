"""A server and what can be wrong with it: checks, locks, cancels, outages."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from ingestion.ports.errors import AuthError, Cancelled, ConfigError, Signal, SinkUnavailable
from ingestion.ports.publication import WriteMode
from sinks.relational import watchdog
from sinks.relational.diagnosis import ErrorClass
from tests.conformance.parts import delivery_of
from tests.sinks.relational.place import PRICED, RelationalPlace, priced

ROWS = "SELECT id, price FROM samples ORDER BY id"


class Serving(RelationalPlace):
    """Tests of destinations behind a network."""

    server: Any

    def stranger(self, rights: str) -> dict[str, Any]:
        """Return the settings of a user who may do no more than `rights` say: connect, or nothing."""
        raise NotImplementedError

    @contextmanager
    def table_held(self) -> Iterator[None]:
        """Lock the table against everybody for as long as the block lasts."""
        raise NotImplementedError

    def new_server(self) -> Any:
        """Return a server of the same kind that may be stopped."""
        raise NotImplementedError

    def use(self, server: Any) -> None:
        """Let the test work on another server."""
        self.server = server

    def test_a_good_server_is_named_layer_by_layer(self) -> None:
        self.begin()

        report = self.make_relational().check(self.ctx)

        assert [finding.layer for finding in report.findings] == ["dns", "tcp", "tls", "auth", "database", "write"]
        assert report.ok
        assert self.own_tables() == []

    @pytest.mark.parametrize(
        ("changes", "layer", "error"),
        [
            ({"host": "no-such-host.invalid"}, "dns", SinkUnavailable),
            ({"port": 9}, "tcp", SinkUnavailable),
            ({"password": SecretStr("wrong")}, "auth", AuthError),
            ({"password": None}, "auth", AuthError),
            ({"user": "nobody_known"}, "auth", AuthError),
        ],
    )
    def test_a_check_names_the_layer_that_fails_and_what_to_do(
        self, changes: dict[str, Any], layer: str, error: type[Exception]
    ) -> None:
        self.begin()
        sink = self.make_relational(**changes)
        manifest = self.manifest(1, priced((1, 1.0)))

        report = sink.check(self.ctx)
        with pytest.raises(error) as caught:
            sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        assert (report.findings[-1].layer, report.findings[-1].ok) == (layer, False)
        assert report.findings[-1].fix
        assert report.findings[-1].code
        assert "under-test" in str(caught.value)

    def test_a_user_who_may_not_write_is_told_so(self) -> None:
        self.begin()
        sink = self.make_relational(**self.stranger("connect"))
        manifest = self.manifest(1, priced((1, 1.0)))

        report = sink.check(self.ctx)
        with pytest.raises(AuthError):
            sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        assert (report.findings[-1].layer, report.findings[-1].ok) == ("rights", False)
        assert report.findings[-1].fix

    def test_a_table_that_somebody_holds_makes_the_delivery_wait_its_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.begin()
        self.shorten_waits(monkeypatch)
        self.deliver(1, priced((1, 1.0)))
        manifest = self.manifest(2, priced((1, 2.0)))
        sink = self.make_relational()
        sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        with self.table_held(), pytest.raises(SinkUnavailable) as caught:
            sink.commit(manifest, delivery_of(manifest), self.ctx)
        told = self.publish(manifest)

        assert caught.value.code == "sink.busy"
        assert caught.value.retry_after_s
        assert told.counts == (0, 1, 0, 0)

    def shorten_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let nobody wait for a lock for longer than a second."""
        raise NotImplementedError

    def test_a_cancel_breaks_off_a_statement_that_does_not_end(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0)))
        manifest = self.manifest(2, priced((1, 2.0)))
        sink = self.make_relational()
        sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        # No beat between two statements hears of the cancel before the watchdog has broken one off.
        def beat() -> None:
            if sys.exception() is not None:
                raise Cancelled

        @contextmanager
        def on_stop(callback: Callable[[Signal], None]) -> Iterator[None]:
            callback(Cancelled())
            yield

        with self.table_held(), pytest.raises(Cancelled) as caught:
            sink.commit(manifest, delivery_of(manifest), replace(self.ctx, beat=beat, on_stop=on_stop))

        broken_off = caught.value.__context__
        assert isinstance(broken_off, sink.connection_class.driver_errors)
        assert sink.connection_class.diagnose(broken_off).error_class is ErrorClass.STOPPED
        assert self.read(ROWS) == [(1, 1.0)]

    def test_a_server_that_crashes_in_the_middle_loses_and_doubles_nothing(self) -> None:
        with self.new_server() as server:
            self.use(server)
            for mode, counts, rows in (
                (WriteMode.APPEND, (2, 0, 0, 0), [(1, 1.0), (2, 2.0), (2, 2.5), (3, 3.0)]),
                (WriteMode.MERGE, (1, 1, 0, 0), [(1, 1.0), (2, 2.5), (3, 3.0)]),
                (WriteMode.REPLACE, (1, 1, 0, 0), [(2, 2.5), (3, 3.0)]),
            ):
                self.begin()
                contract = PRICED.model_copy(update={"key": () if mode is WriteMode.APPEND else ("id",)})
                self.deliver(1, priced((1, 1.0), (2, 2.0)), mode=mode, contract=contract)
                manifest = self.manifest(2, priced((2, 2.5)), priced((3, 3.0)), mode=mode, contract=contract)
                sink, delivery = self.make_relational(), delivery_of(manifest)
                for part in manifest.parts:
                    sink.stage(part, delivery, self.ctx)
                beats = [0]

                def crash(beats: list[int] = beats) -> None:
                    beats[0] += 1
                    if beats[0] == 2:
                        self.crash(server)

                for call in (
                    lambda s=sink, m=manifest, d=delivery, c=crash: s.commit(m, d, replace(self.ctx, beat=c)),
                    lambda s=sink, m=manifest, d=delivery: s.count(m, d, self.ctx),
                ):
                    with pytest.raises(SinkUnavailable):
                        call()
                server.start()
                told = self.publish(manifest)

                assert told.counts == counts, mode
                assert sorted(self.read(ROWS)) == rows, mode

    def crash(self, server: Any) -> None:
        """End the server without a farewell."""
        raise NotImplementedError

    def test_a_statement_that_the_server_works_on_shows_progress(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watchdog, "POLL_S", 0.01)
        monkeypatch.setattr(watchdog, "SERVER_POLL_S", 0.05)
        self.begin()
        beats: list[str] = []
        ctx = replace(self.ctx, beat=lambda: beats.append(threading.current_thread().name))
        session = self.make_relational().connect()

        with session.watched(ctx):
            session.rows(self.slow_query())
        session.close()

        assert "statement-watchdog" in beats

    def slow_query(self) -> Any:
        """Return a query that takes a second."""
        raise NotImplementedError

    def test_a_ca_file_that_is_not_there_is_a_setting_to_correct(self) -> None:
        self.begin()
        sink = self.make_relational(tls="verify-full", ca_file="/nowhere/ca.pem")
        manifest = self.manifest(1, priced((1, 1.0)))

        report = sink.check(self.ctx)
        with pytest.raises(ConfigError):
            sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        assert (report.findings[-1].layer, report.findings[-1].ok) == ("tls", False)
        assert report.findings[-1].fix
