"""Client of Druid: where requests may go, who they say they are, and what is made of odd answers."""

import base64
import json
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from ingestion.ports.context import HttpResponse
from ingestion.ports.errors import AuthError, ConfigError, SinkRejected, SinkUnavailable
from sinks.druid.client import CALL_S, MOST_REDIRECTS, QUERY_S, DruidClient, UnknownObjectError
from sinks.druid.config import DruidConfig
from sinks.druid.responses import date_of, detail_of, first_line, is_unknown_object, is_unknown_task, status_of
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import http_client

PASSWORD = "canary-password-1"


class Wire:
    """An HTTP client that answers by a function of method and URL, and keeps what was asked."""

    def __init__(self, respond: Callable[[str, str], HttpResponse]) -> None:
        self.respond = respond
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.deadlines: list[float | None] = []

    def get(self, url: str, *, params: Any = None, headers: Any = None, accept_status: Any = ()) -> HttpResponse:
        self.asked.append(("GET", url, dict(headers or {})))
        return self.respond("GET", url)

    def post(
        self, url: str, *, json: Any = None, headers: Any = None, accept_status: Any = (), is_repeatable: bool = False
    ) -> HttpResponse:
        self.asked.append(("POST", url, dict(headers or {})))
        return self.respond("POST", url)

    def probe(self, url: str, *, headers: Any = None) -> Any:
        raise NotImplementedError

    def variant(self, *, ca_file: str | None = None, deadline_s: float | None = None) -> "Wire":
        self.deadlines.append(deadline_s)
        return self


def answered(status: int = 200, body: Any = b"", **headers: str) -> HttpResponse:
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return HttpResponse(
        status, "http://druid", {name.replace("_", "-"): text for name, text in headers.items()}, content, 1
    )


def client_of(wire: Any, **settings: Any) -> DruidClient:
    values = {"url": "https://druid:8888", **settings}
    return DruidClient(DruidConfig(**values), wire, destination="druid")


def always(status: int = 200, body: Any = b"", **headers: str) -> Wire:
    return Wire(lambda method, url: answered(status, body, **headers))


# where requests go


def test_each_service_has_its_address_and_the_router_stands_for_those_without() -> None:
    apart = client_of(always(), overlord_url="https://o", coordinator_url="https://c", broker_url="https://b/")
    together = client_of(always())

    assert (apart.overlord, apart.coordinator, apart.broker) == ("https://o", "https://c", "https://b")
    assert {together.overlord, together.coordinator, together.broker} == {"https://druid:8888"}


REDIRECTS = [
    ("https://druid:8888", "https://druid:8888/other", True),
    ("https://druid:8888", "/other", True),
    ("https://druid", "https://DRUID:443/other", True),
    ("https://druid:8888", "https://leader:8090/other", True),
    ("https://druid:8888", "http://druid:8888/other", False),
    ("https://druid:8888", "http://leader:8090/other", False),
    ("https://druid:8888", "https://druid:8889/other", False),
    ("https://druid:8888", "https://user@druid:8888/other", False),
    ("https://druid:8888", "https://druid:8888@evil/other", False),
    ("https://druid:8888", "https://evil/?https://druid:8888", False),
    ("https://druid:8888", "//evil/druid", False),
    ("https://druid:8888", "file:///etc/passwd", False),
    ("https://druid:8888", "https://[broken/other", False),
    ("https://druid:8888", "https://druid:port/other", False),
]


@pytest.mark.parametrize(("url", "location", "is_followed"), REDIRECTS)
def test_a_redirect_is_followed_only_to_an_address_of_the_settings(
    url: str, location: str, is_followed: bool, status: int = 307
) -> None:
    wire = Wire(
        lambda method, asked: (
            answered(200, {"version": "33"}) if asked.endswith("/other") else answered(status, location=location)
        )
    )
    client = client_of(wire, url=url, allowed_redirects=["leader:8090"], username="ingest", password=PASSWORD)

    if is_followed:
        assert client.status() == {"version": "33"}
        assert "authorization" in wire.asked[1][2]
    else:
        with pytest.raises(SinkRejected) as raised:
            client.status()
        assert raised.value.code == "sink.foreign_redirect"
        assert len(wire.asked) == 1
        assert PASSWORD not in str(raised.value)


def test_a_submission_stays_one_on_its_way_to_the_leader() -> None:
    wire = Wire(
        lambda method, url: (
            answered(200, {"task": "t"})
            if "leader" in url
            else answered(307, location="https://leader:8090/druid/indexer/v1/task")
        )
    )

    submission = client_of(wire, allowed_redirects=["leader:8090"]).submit({"id": "t"})

    assert submission.is_accepted
    assert [method for method, _, _ in wire.asked] == ["POST", "POST"]


def test_a_circle_of_redirects_is_an_overlord_without_a_leader() -> None:
    # What a restarted Overlord does for about eleven seconds: it sends everybody to itself.
    wire = Wire(lambda method, url: answered(307, location=url))

    with pytest.raises(SinkUnavailable) as raised:
        client_of(wire).task_status("t")

    assert raised.value.code == "sink.unavailable"
    assert len(wire.asked) == MOST_REDIRECTS + 1


@pytest.mark.parametrize("status", [300, 303, 304, 307])
def test_a_redirect_to_nowhere_accepts_nothing(status: int) -> None:
    with pytest.raises(SinkUnavailable):
        client_of(always(status)).submit({"id": "t"})


# who they say they are


def test_user_and_password_go_with_every_request() -> None:
    wire = always(200, {"version": "33"})

    client_of(wire, username="ingest", password=PASSWORD).status()

    expected = base64.b64encode(f"ingest:{PASSWORD}".encode()).decode()
    assert wire.asked[0][2]["authorization"] == f"Basic {expected}"


def test_without_a_password_nobody_is_named() -> None:
    wire = always(200, {})

    client_of(wire).status()

    assert wire.asked[0][2] == {}


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_not_let_in_is_a_matter_for_a_person(status: int) -> None:
    client = client_of(always(status, "User authentication failed username[ingest]."))

    for call in (client.workers, lambda: client.submit({"id": "t"}), lambda: client.sql("SELECT 1")):
        with pytest.raises(AuthError) as raised:
            call()
        assert raised.value.code == "sink.auth"


def test_a_real_fake_lets_in_who_it_knows() -> None:
    with FakeDruid(users={"ingest": PASSWORD}) as druid:
        settings = {"url": druid.url, "username": "ingest"}

        assert client_of(http_client(), **settings, password=PASSWORD).workers()
        with pytest.raises(AuthError):
            client_of(http_client(), **settings, password="wrong").workers()
        with pytest.raises(AuthError):
            client_of(http_client(), url=druid.url).workers()


def test_no_call_waits_long_for_a_service_that_hangs() -> None:
    wire = always()

    client_of(wire)

    assert wire.deadlines == [CALL_S, QUERY_S]
    assert CALL_S <= 20


def test_a_file_that_holds_no_certificates_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError):
        client_of(http_client(), ca_file="/nowhere/ca.pem")


# odd answers

EMPTY, PAGE, TEXT, CUT = b"", b"<html><head><title>502 Bad Gateway</title></head></html>", b"starting", b'{"task":"t'
SHAPES: list[Any] = [EMPTY, PAGE, TEXT, CUT, [], {}, "text", 7, None, [7], {"status": [1]}, [[]], {"t": None}]
CALLS: dict[str, Callable[[DruidClient], Any]] = {
    "status": lambda client: client.status(),
    "leader": lambda client: client.has_leader(),
    "workers": lambda client: client.workers(),
    "rules": lambda client: client.default_rules(),
    "submit": lambda client: client.submit({"id": "t"}),
    "task": lambda client: client.task("t"),
    "task_status": lambda client: client.task_status("t"),
    "task_statuses": lambda client: client.task_statuses(["t"]),
    "report": lambda client: client.report("t"),
    "log": lambda client: client.log_tail("t", tail_bytes=100),
    "shutdown": lambda client: client.shutdown("t"),
    "tasks": lambda client: client.tasks(completed=1),
    "sample": lambda client: client.sample({}),
    "unloaded": lambda client: client.unloaded_count("d"),
    "chunks": lambda client: client.chunks("d"),
    "mark_unused": lambda client: client.mark_all_unused("d"),
    "sql": lambda client: client.sql("SELECT 1"),
}


def test_no_answer_of_whatever_shape_is_a_defect_of_ours() -> None:
    for call, status, body in product(CALLS, [200, 404, 500, 503], SHAPES):
        client = client_of(always(status, body))

        try:
            CALLS[call](client)
        except (SinkUnavailable, SinkRejected) as error:
            assert str(error)


def test_a_good_status_over_what_is_not_druid_s_is_an_outage() -> None:
    for call, body in product(CALLS.keys() - {"leader", "log", "shutdown", "unloaded"}, [PAGE, TEXT, CUT]):
        with pytest.raises(SinkUnavailable) as raised:
            CALLS[call](client_of(always(200, body)))

        assert "Bad Gateway" in str(raised.value) or body != PAGE, call


def test_a_404_of_somebody_else_is_an_outage_and_no_answer() -> None:
    for call, body in product(CALLS.keys() - {"leader"}, [PAGE, b"404 page not found", b"default backend - 404"]):
        with pytest.raises(SinkUnavailable):
            CALLS[call](client_of(always(404, body)))


@pytest.mark.parametrize("body", [b"Cannot find any task with id: [t]", b'{"error":"No such task t"}'])
def test_a_task_that_the_overlord_does_not_know_is_told_apart(body: bytes) -> None:
    client = client_of(always(404, body))

    assert client.task("t") is client.task_status("t") is client.report("t") is None
    assert client.log_tail("t", tail_bytes=10) == ""
    assert client.shutdown("t") is False


@pytest.mark.parametrize(
    ("status", "body", "is_unknown"),
    [
        (400, {"errorMessage": "Object 'x' not found (line [1], column [2])"}, True),
        (400, {"errorMessage": "Column '_run' not found in any table"}, True),
        (400, {"errorMessage": "org.apache.calcite..: From line 1, column 15: Object 'x' not found"}, True),
        (400, {"errorMessage": "No match found for function signature"}, False),
        (400, {"errorMessage": None}, False),
        (404, {"errorMessage": "Object 'x' not found"}, False),
        (404, b"404 page not found", False),
        (400, b"Object 'x' not found", False),
    ],
)
def test_only_the_broker_s_own_word_says_that_a_datasource_is_not_there(
    status: int, body: Any, is_unknown: bool
) -> None:
    response = answered(status, body)

    assert is_unknown_object(response) is is_unknown
    with pytest.raises((SinkRejected, SinkUnavailable)) as raised:
        client_of(always(status, body)).sql("SELECT 1")
    assert isinstance(raised.value, UnknownObjectError) is is_unknown


def test_what_may_pass_is_tried_again() -> None:
    for status, call in product([408, 429, 500, 502, 503, 504, 507], ["workers", "submit", "sql", "task"]):
        with pytest.raises(SinkUnavailable):
            CALLS[call](client_of(always(status)))


def test_what_is_refused_is_not() -> None:
    for status in (400, 405, 409, 413, 415):
        with pytest.raises(SinkRejected) as raised:
            client_of(always(status, {"error": "No."})).submit({"id": "t"})

        assert raised.value.code == "sink.rejected", status
        assert "No." in str(raised.value), status


def test_an_id_that_is_taken_is_no_refusal() -> None:
    body = {"error": "druidException", "errorCode": "entryAlreadyExists", "errorMessage": "Task[t] already exists"}

    submission = client_of(always(400, body)).submit({"id": "t"})

    assert (submission.is_accepted, submission.exists) == (False, True)


def test_an_answer_about_another_task_accepts_nothing() -> None:
    with pytest.raises(SinkUnavailable):
        client_of(always(200, {"task": "another"})).submit({"id": "t"})


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (204, b"", None),
        (200, b"No used segment found for the given datasource and interval", None),
        (200, b'"No used segment found for the given datasource and interval"', None),
        (200, {"d": 0}, 0),
        (200, {"d": 7}, 7),
    ],
)
def test_the_load_status_is_read_in_all_its_forms(status: int, body: Any, found: int | None) -> None:
    assert client_of(always(status, body)).unloaded_count("d") == found


@pytest.mark.parametrize("body", [{}, {"other": 0}, {"d": "x"}, {"d": None}])
def test_a_load_status_of_something_else_is_not_zero(body: Any) -> None:
    with pytest.raises(SinkUnavailable):
        client_of(always(200, body)).unloaded_count("d")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"error": "druidException", "errorMessage": "Line one.\nLine two."}, "Line one."),
        ({"error": "Unauthorized"}, "Unauthorized"),
        ({}, ""),
        (b"", ""),
        (b"  plain text \n more", "plain text"),
        (PAGE, "502 Bad Gateway"),
        (b"<html>", "a web page"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ({"errorMessage": "x" * 5000}, "x" * 400),
        (
            b"cannot read http://s/x?X-Amz-Signature=canary-signature&a=b",
            "cannot read http://s/x?X-Amz-Signature=***&a=b",
        ),
    ],
)
def test_what_an_answer_says_fits_in_a_line_without_secrets(body: Any, detail: str) -> None:
    assert detail_of(answered(500, body)) == detail


def test_the_message_of_a_failed_task_shows_no_signature() -> None:
    # As 33.0.0 says it of an input that it could not read.
    message = (
        "java.lang.RuntimeException: Error occurred while trying to read uri:"
        " http://store/x.json.gz?X-Amz-Algorithm=AWS4&X-Amz-Credential=canary-key&X-Amz-Signature=canary-signature\n\tat"
    )

    found = status_of({"statusCode": "FAILED", "errorMsg": message, "duration": 266608})

    assert "canary" not in found.message
    assert "Error occurred while trying to read uri: http://store/x.json.gz" in found.message
    assert found.duration_ms == 266608


def test_a_log_shows_no_signature() -> None:
    log = "x" * 50 + "GET http://store/x?X-Amz-Signature=canary-signature\n"

    assert "canary" not in client_of(always(200, log)).log_tail("t", tail_bytes=1000)


@pytest.mark.parametrize(
    ("found", "code", "is_over"),
    [
        ({"statusCode": "SUCCESS", "runnerStatusCode": "WAITING"}, "SUCCESS", True),
        ({"statusCode": "RUNNING", "runnerStatusCode": "PENDING"}, "RUNNING", False),
        ({"status": "FAILED"}, "FAILED", True),
        ({}, "RUNNING", False),
        (None, "RUNNING", False),
        ("x", "RUNNING", False),
    ],
)
def test_a_status_is_what_its_status_code_says(found: Any, code: str, is_over: bool) -> None:
    assert (status_of(found).code, status_of(found).is_over) == (code, is_over)


def test_parameters_are_bound_with_their_types() -> None:
    sent: list[Any] = []

    class Noting(Wire):
        def post(self, url: str, *, json: Any = None, **options: Any) -> HttpResponse:
            sent.append(json)
            return answered(200, [])

    client_of(Noting(lambda method, url: answered())).sql("SELECT ?", 7, "x'; DROP", True)

    assert sent[0]["parameters"] == [
        {"type": "BIGINT", "value": 7},
        {"type": "VARCHAR", "value": "x'; DROP"},
        {"type": "BOOLEAN", "value": True},
    ]
    assert "DROP" not in sent[0]["query"]


def test_names_are_quoted_in_addresses() -> None:
    wire = always(204)

    client_of(wire).unloaded_count("a/../b?x#y")
    client_of(Wire(lambda *_: answered(404, "no task"))).task("a/b")

    assert "/datasources/a%2F..%2Fb%3Fx%23y/loadstatus?" in wire.asked[0][1]


@pytest.mark.parametrize(("header", "year"), [("Wed, 25 Nov 2026 18:31:57 GMT", 2026), ("", None), ("yesterday", None)])
def test_the_time_of_an_answer_is_read_where_it_has_one(header: str, year: int | None) -> None:
    found = date_of(answered(200, b"", date=header))

    assert (found.year if found else None) == year


@pytest.mark.parametrize("text", [None, "", "\n", "  "])
def test_nothing_said_is_an_empty_line(text: Any) -> None:
    assert first_line(text) == ""


def test_a_page_that_names_a_task_is_still_a_page() -> None:
    assert not is_unknown_task(
        answered(404, b"<html><title>Error 404 Not Found</title>/druid/indexer/v1/task/t</html>")
    )


# an id that is used up


def test_an_id_can_be_taken_out_of_use_once() -> None:
    with FakeDruid() as druid:
        client = client_of(http_client(), url=druid.url)

        assert client.use_up("hg.x.1.1.a1") is True
        assert client.use_up("hg.x.1.1.a1") is False
        assert client.submit({**_task(), "id": "hg.x.1.1.a1"}).exists


def test_taking_an_id_out_of_use_waits_for_no_slot() -> None:
    with FakeDruid() as druid:
        client = client_of(http_client(), url=druid.url)
        druid.stop_worker()

        client.use_up("hg.x.1.1.a1")

        found = client.task_status("hg.x.1.1.a1")
        assert found is not None
        assert found.is_over


def _task() -> dict[str, Any]:
    from sinks.druid.spec import native_spec
    from tests.sinks.druid.plans import BASE

    return native_spec(BASE)
