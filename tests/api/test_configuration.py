"""Sources, destinations, kinds, contracts, pipelines and schedules."""

from typing import Any

import pytest

from ingestion.models import Contract, Destination, Pipeline, Run, Schedule, Source
from tests.api.conftest import CONTRACT, Api, problem

CANARY = "CANARY-8f2a1c"
VAULT = {"name": "vault", "kind": "vault", "config": {"url": "u"}, "secrets": {"password": CANARY}}


@pytest.mark.parametrize("place", ["sources", "destinations"])
def test_secrets_go_in_and_never_out(staff: Api, place: str) -> None:
    made = staff.post(f"/v1/{place}", VAULT)
    row = made.json()
    address = f"/v1/{place}/{row['id']}"
    answers = [
        made,
        staff.get(address),
        staff.get(f"/v1/{place}"),
        staff.send("patch", address, {"secrets": {"token": CANARY + "2"}}),
        staff.send("put", address, {**VAULT, "secrets": {"password": "***set***"}}),
        staff.post(f"{address}/check"),
    ]

    assert made.status_code == 201, made.content
    assert [answer.status_code for answer in answers[1:]] == [200] * 5, [answer.content for answer in answers]
    assert not any(CANARY.encode() in answer.content for answer in answers)
    assert answers[3].json()["secrets"] == {"password": "***set***", "token": "***set***"}
    assert staff.get(address).json()["secrets"] == {"password": "***set***", "token": "***set***"}


def test_a_change_merges_secrets_and_null_removes_one(staff: Api) -> None:
    address = f"/v1/sources/{staff.post('/v1/sources', VAULT).json()['id']}"

    staff.send("patch", address, {"secrets": {"token": "t", "password": "***set***"}})
    assert Source.objects.get().secrets == {"password": CANARY, "token": "t"}

    staff.send("patch", address, {"secrets": {"password": None}})
    assert Source.objects.get().secrets == {"token": "t"}

    staff.send("patch", address, {"rate_per_s": 2.5, "burst": 3})
    assert Source.objects.get().secrets == {"token": "t"}
    assert Source.objects.get().rate_per_s == 2.5


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"kind": "oracle"}, "config.unknown_kind", "vault"),
        ({"config": {}}, "config.invalid", "url"),
        ({"config": {"url": "u", "colour": "red"}}, "config.invalid", "colour"),
        ({"config": {"url": "u", "password": CANARY}, "secrets": {}}, "config.invalid", "password"),
        ({"secrets": {"url": "u"}}, "request.invalid", "url"),
        ({"secrets": [1]}, "request.invalid", "secrets"),
        ({"config": "text"}, "request.invalid", "config"),
        ({"name": "No Spaces"}, "request.invalid", "name"),
        ({"name": None}, "request.invalid", "name"),
        ({"rate_per_s": 0}, "request.invalid", "rate_per_s"),
        ({"burst": 0}, "request.invalid", "burst"),
    ],
)
def test_settings_that_do_not_validate_are_named(staff: Api, changes: dict[str, Any], code: str, named: str) -> None:
    body = problem(staff.post("/v1/sources", {**VAULT, **changes}), 400, code)

    assert named in body["detail"]
    assert CANARY not in str(body)
    assert not Source.objects.exists()


@pytest.mark.both
def test_name_and_kind_of_a_source(staff: Api) -> None:
    address = f"/v1/sources/{staff.post('/v1/sources', VAULT).json()['id']}"

    problem(staff.post("/v1/sources", VAULT), 400, "request.invalid")
    problem(staff.send("patch", address, {"kind": "files"}), 400, "request.invalid")
    assert staff.send("patch", address, {"name": "renamed"}).json()["name"] == "renamed"


@pytest.mark.both
def test_two_destinations_do_not_share_the_datasources_of_one_druid(staff: Api) -> None:
    config = {"url": "http://router:8888"}
    made = staff.post("/v1/destinations", {"name": "first", "kind": "druid", "config": config})
    shared = staff.post("/v1/destinations", {"name": "second", "kind": "druid", "config": config})
    own = {**config, "datasource": "second_{pipeline}"}
    apart = staff.post("/v1/destinations", {"name": "second", "kind": "druid", "config": own})
    kept = staff.send("patch", f"/v1/destinations/{made.json()['id']}", {"config": config})

    assert (made.status_code, apart.status_code, kept.status_code) == (201, 201, 200)
    assert (shared.json()["code"], "first" in shared.json()["detail"]) == ("destination.claimed", True)


@pytest.mark.both
def test_what_is_in_use_is_not_removed(staff: Api, pipeline: Pipeline) -> None:
    runs = [Run.objects.create(pipeline=pipeline, trigger="api", mode=pipeline.mode).pk for _ in range(5)]

    in_use = problem(staff.send("delete", f"/v1/sources/{pipeline.source_id}"), 409, "request.in_use")
    by_runs = problem(staff.send("delete", f"/v1/pipelines/{pipeline.pk}"), 409, "request.in_use")
    unused = staff.post("/v1/sources", VAULT).json()["id"]

    assert "used by pipeline items. " in in_use["detail"]
    assert f"used by run {runs[0]}, {runs[1]}, {runs[2]} and 2 more. " in by_runs["detail"]
    assert staff.send("delete", f"/v1/sources/{unused}").status_code == 204
    problem(staff.get(f"/v1/sources/{unused}"), 404, "request.not_found")


def test_a_check_names_the_layer_that_fails(staff: Api, user: Api) -> None:
    row = staff.post("/v1/sources", {**VAULT, "secrets": {}}).json()

    report = user.post(f"/v1/sources/{row['id']}/check").json()

    assert report["ok"] is False
    assert report["findings"][0]["code"] == "source.auth"


def test_kinds_tell_their_schema_and_their_secrets(user: Api) -> None:
    connectors = {kind["kind"]: kind for kind in user.get("/v1/connectors").json()["results"]}
    sinks = {kind["kind"]: kind for kind in user.get("/v1/sinks").json()["results"]}

    assert {"files", "optimade", "vault"} <= set(connectors)
    assert connectors["vault"]["secrets"] == ["password", "token"]
    assert connectors["optimade"]["schema"]["properties"]["base_url"]["type"] == "string"
    assert {"objects", "catalog"} <= set(sinks)
    assert sinks["vault"]["write_modes"] == ["append"]


# --- contracts

YAML = """
name: sample
key: [id]
columns:
  - {name: id, type: integer, nullable: false}
"""


@pytest.mark.parametrize("content_type", ["application/yaml", "text/yaml", "application/x-yaml", "text/plain"])
def test_a_contract_may_be_yaml(staff: Api, content_type: str) -> None:
    made = staff.raw("/v1/contracts", YAML, content_type=content_type)

    assert made.status_code == 201, made.content
    assert made.json()["body"]["key"] == ["id"]


@pytest.mark.both
def test_every_change_of_a_contract_is_a_version(staff: Api) -> None:
    first = staff.post("/v1/contracts", CONTRACT)
    same = staff.post("/v1/contracts", CONTRACT)
    second = staff.raw("/v1/contracts", YAML, content_type="application/yaml")

    assert [first.status_code, same.status_code, second.status_code] == [201, 200, 201]
    assert [first.json()["version"], same.json()["version"], second.json()["version"]] == [1, 1, 2]
    listed = staff.get("/v1/contracts?name=sample").json()["results"]
    assert [row["version"] for row in listed] == [1, 2]
    assert [row["version"] for row in staff.get("/v1/contracts?latest=true").json()["results"]] == [2]
    assert staff.get(f"/v1/contracts/{first.json()['id']}").json()["body"]["columns"][1]["name"] == "formula"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({**CONTRACT, "key": ["nope"]}, "nope"),
        ({**CONTRACT, "owner": "me"}, "owner"),
        ({"columns": []}, "name"),
        ({**CONTRACT, "columns": [{"name": "id", "type": "colour"}]}, "columns.0.type"),
    ],
)
def test_a_contract_that_does_not_validate_names_the_place(staff: Api, body: dict[str, Any], named: str) -> None:
    answer = problem(staff.post("/v1/contracts", body), 400, "contract.invalid")

    assert named in answer["detail"]
    assert answer["errors"]
    assert not Contract.objects.exists()


@pytest.mark.parametrize("body", [b"- 1\n- 2\n", b"", b"a: *b", b"\xff\xfe", b"x: \0"])
def test_a_text_that_is_no_contract_is_refused(staff: Api, body: bytes) -> None:
    response = staff.raw("/v1/contracts", body, content_type="application/yaml")

    assert response.status_code == 400
    assert response.json()["code"] in ("contract.invalid", "request.invalid")


# --- pipelines


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "name": "things",
        "source": "vault",
        "stream": "things",
        "mode": "incremental",
        "contract": "sample",
        "destinations": ["catalog"],
        "query": {"filter": "x > 1", "limit": 10, "options": {"a": 1}},
        **changes,
    }


@pytest.fixture
def parts(staff: Api, pipeline: Pipeline) -> None:
    """What a pipeline is made of."""
    staff.post("/v1/sources", VAULT)


@pytest.mark.usefixtures("parts")
def test_a_pipeline_names_its_parts(staff: Api, pipeline: Pipeline) -> None:
    made = staff.post("/v1/pipelines", asked(dependencies=[{"upstream": "items", "timeout_s": 60}]))

    assert made.status_code == 201, made.content
    row = made.json()
    assert (row["source"], row["contract"], row["contract_version"]) == ("vault", "sample", 1)
    assert row["destinations"] == ["catalog"]
    assert row["dependencies"] == [{"upstream": "items", "timeout_s": 60}]
    assert (row["priority"], row["is_paused"], row["max_active_runs"]) == (5, False, 1)
    assert Pipeline.objects.get(name="things").query == {"filter": "x > 1", "limit": 10, "options": {"a": 1}}
    assert staff.get(f"/v1/pipelines/{row['id']}").json() == row
    assert [found["name"] for found in staff.get("/v1/pipelines?source=vault").json()["results"]] == ["things"]


@pytest.mark.usefixtures("parts")
def test_what_an_answer_shows_can_be_sent_back(staff: Api) -> None:
    row = staff.post("/v1/pipelines", asked()).json()
    read_only = ("id", "contract_version", "is_paused", "created_at", "updated_at")

    again = staff.send("put", f"/v1/pipelines/{row['id']}", {k: v for k, v in row.items() if k not in read_only})

    assert again.status_code == 200, again.content
    assert {**again.json(), "updated_at": row["updated_at"]} == row


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"source": "nowhere"}, "request.invalid", "source"),
        ({"source": True}, "request.invalid", "source"),
        ({"stream": "nothing"}, "config.unknown_stream", "snapshots"),
        ({"name": "raw"}, "pipeline.name_reserved", "raw"),
        ({"stream": "snapshots"}, "pipeline.incremental_needs_cursor", "snapshots"),
        ({"contract": "nothing"}, "request.invalid", "contract"),
        ({"destinations": ["catalog", "nowhere"]}, "request.invalid", "nowhere"),
        ({"destinations": "catalog"}, "request.invalid", "destinations"),
        ({"query": {"filters": "x"}}, "request.invalid", "query.filters"),
        ({"query": {"limit": 0}}, "request.invalid", "query.limit"),
        ({"dependencies": [{"upstream": "nowhere"}]}, "request.invalid", "upstream"),
        ({"priority": 7}, "request.invalid", "priority"),
        ({"max_active_runs": 0}, "request.invalid", "max_active_runs"),
        ({"mode": "sometimes"}, "request.invalid", "mode"),
        ({"name": "../x"}, "request.invalid", "name"),
        ({"run_timeout_s": 10**30}, "request.invalid", "run_timeout_s"),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused(staff: Api, changes: dict[str, Any], code: str, named: str) -> None:
    body = problem(staff.post("/v1/pipelines", asked(**changes)), 400, code)

    assert named in str(body)
    assert not Pipeline.objects.filter(name="things").exists()


def test_a_pipeline_keeps_its_name(staff: Api, pipeline: Pipeline) -> None:
    address = f"/v1/pipelines/{pipeline.pk}"

    problem(staff.send("patch", address, {"name": "other"}), 400, "request.invalid")
    changed = staff.send("patch", address, {"name": "items", "priority": 10, "destinations": ["catalog"]})

    assert (changed.json()["priority"], changed.json()["destinations"]) == (10, ["catalog"])
    assert changed.json()["contract"] == "sample"


def test_a_destination_is_added_and_none_is_lost_by_the_way(staff: Api, pipeline: Pipeline) -> None:
    address = f"/v1/pipelines/{pipeline.pk}"
    second = Destination.objects.create(name="second", kind="catalog")

    body = problem(staff.send("patch", address, {"destinations": ["second"]}), 409, "pipeline.destinations_lost")
    assert "no more to catalog" in body["detail"]
    assert f"POST to /api{address}/destinations" in body["detail"]
    added = [staff.post(f"{address}/destinations", {"destination": name}) for name in ("second", second.pk)]
    assert [(one.status_code, one.json()["destinations"]) for one in added] == [(200, ["catalog", "second"])] * 2
    assert staff.send("patch", address, {"destinations": ["second", "catalog"]}).status_code == 200
    for _ in range(2):
        removed = staff.send("delete", f"{address}/destinations/catalog")
        assert removed.json()["destinations"] == ["second"]
    problem(staff.post(f"{address}/destinations", {"destination": "nowhere"}), 400, "request.invalid")
    problem(staff.send("delete", f"{address}/destinations/nowhere"), 400, "request.invalid")
    assert staff.send("patch", address, {"allow_empty": True}).json()["allow_empty"] is True


@pytest.mark.both
def test_dependencies_never_close_a_circle(staff: Api, make_pipeline: Any) -> None:
    first, second = make_pipeline("first"), make_pipeline("second")
    staff.send("patch", f"/v1/pipelines/{second.pk}", {"dependencies": [{"upstream": "first"}]})

    circle = staff.send(
        "patch", f"/v1/pipelines/{first.pk}", {"priority": 1, "dependencies": [{"upstream": second.pk}]}
    )
    itself = staff.send("patch", f"/v1/pipelines/{first.pk}", {"dependencies": [{"upstream": "first"}]})

    problem(circle, 400, "pipeline.dependency_cycle")
    problem(itself, 400, "pipeline.self_dependency")
    assert Pipeline.objects.get(pk=first.pk).priority == 5, "a refused change changes nothing"


def test_a_paused_pipeline_starts_no_runs(staff: Api, user: Api, pipeline: Pipeline) -> None:
    assert staff.post(f"/v1/pipelines/{pipeline.pk}/pause").json()["is_paused"] is True
    problem(user.post("/v1/runs", {"pipeline": "items"}), 409, "pipeline.paused")
    assert [row["name"] for row in user.get("/v1/pipelines?is_paused=true").json()["results"]] == ["items"]

    assert staff.post(f"/v1/pipelines/{pipeline.pk}/resume").json()["is_paused"] is False
    assert user.post("/v1/runs", {"pipeline": "items"}).status_code == 201


# --- schedules


def test_a_schedule_shows_when_it_runs(staff: Api, pipeline: Pipeline) -> None:
    made = staff.post("/v1/schedules", {"pipeline": "items", "cron": "0 6 * * *", "timezone": "Europe/Berlin"})

    row = made.json()
    assert made.status_code == 201, made.content
    assert len(row["next_times"]) == 10
    assert row["pipeline"] == "items"
    off = staff.send("patch", f"/v1/schedules/{row['id']}", {"is_enabled": False}).json()
    assert (off["next_times"], off["cron"]) == ([], "0 6 * * *")
    assert len(staff.get("/v1/schedules?pipeline=items").json()["results"]) == 1
    assert staff.send("delete", f"/v1/schedules/{row['id']}").status_code == 204


def test_a_preview_saves_nothing(staff: Api) -> None:
    shown = staff.post("/v1/schedules/preview", {"interval_s": 3600})

    assert len(shown.json()["next_times"]) == 10
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"cron": "* * * * * *"}, "schedule.invalid_cron"),
        ({"cron": "61 * * * *"}, "schedule.invalid_cron"),
        ({"cron": "whenever"}, "schedule.invalid_cron"),
        ({"interval_s": 1}, "schedule.invalid_interval"),
        ({}, "schedule.cron_or_interval"),
        ({"cron": "0 6 * * *", "interval_s": 60}, "schedule.cron_or_interval"),
        ({"cron": "0 6 * * *", "timezone": "Mars/Olympus"}, "schedule.invalid_zone"),
        ({"cron": "0 6 * * *", "timezone": "../../etc/passwd"}, "schedule.invalid_zone"),
        ({"cron": "0 6 * * *", "missed_policy": "sometimes"}, "request.invalid"),
        ({"interval_s": 10**12}, "request.invalid"),
        ({"interval_s": 60, "starts_at": "soon"}, "request.invalid"),
    ],
)
def test_a_schedule_that_cannot_be_evaluated_is_refused(
    staff: Api, pipeline: Pipeline, rule: dict[str, Any], code: str
) -> None:
    problem(staff.post("/v1/schedules", {"pipeline": "items", **rule}), 400, code)
    problem(staff.post("/v1/schedules/preview", rule), 400, code)

    assert not Schedule.objects.exists()


def test_a_date_that_never_comes_has_no_times(staff: Api) -> None:
    assert staff.post("/v1/schedules/preview", {"cron": "0 0 31 2 *"}).status_code in (200, 400)
