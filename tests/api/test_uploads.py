"""Uploads: streamed, once each, with a run."""

import hashlib
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from ingestion.models import Contract, Pipeline, Run, Upload
from ingestion.runs.start.uploads import UploadReceiver
from tests.api.conftest import CONTRACT, CSV, Api, problem
from tests.runs.driver import Driver


def form(data: bytes = CSV, name: str = "items.csv", **fields: Any) -> dict[str, Any]:
    return {**fields, "file": SimpleUploadedFile(name, data)}


def stored(lake: Path) -> list[bytes]:
    return [path.read_bytes() for path in (lake / "uploads").rglob("*") if path.is_file()]


def test_a_datasource_name_alone_is_enough(staff: Api, lake: Path, driver: Driver) -> None:
    response = staff.raw("/v1/uploads", form(datasource_name="My Items"))

    assert response.status_code == 202, response.content
    body = response.json()
    run = Run.objects.get(pk=body["run"])
    assert body["pipeline"] == run.pipeline.name == "my_items"
    assert run.trigger == "upload"
    assert list(run.uploads.values_list("pk", flat=True)) == [body["id"]]
    assert body["upload"]["sha256"] == hashlib.sha256(CSV).hexdigest()
    assert body["upload"]["created_by"] == "staff"
    assert stored(lake) == [CSV]
    assert staff.client.get(body["links"]["run"], headers=staff.headers).json()["id"] == run.pk


@pytest.mark.both
def test_the_same_file_twice_is_one_upload_and_one_run(staff: Api, lake: Path) -> None:
    first = staff.raw("/v1/uploads", form(datasource_name="items"))
    second = staff.raw("/v1/uploads", form(name="other.csv", datasource_name="items"))

    assert (first.status_code, second.status_code) == (202, 200)
    assert (first.json()["id"], first.json()["run"]) == (second.json()["id"], second.json()["run"])
    assert Upload.objects.count() == Run.objects.count() == 1
    assert stored(lake) == [CSV]


def test_a_mended_contract_runs_the_same_file_again(staff: Api) -> None:
    mended = {**CONTRACT, "columns": [{"name": "id", "type": "integer"}]}
    first = staff.raw("/v1/uploads", form(contract=json.dumps(CONTRACT)))
    second = staff.raw("/v1/uploads", form(contract=SimpleUploadedFile("c.json", json.dumps(mended).encode())))

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert first.json()["run"] != second.json()["run"]
    assert first.json()["pipeline"] == "sample"
    assert Contract.objects.count() == 2


@pytest.mark.parametrize("content_type", ["text/csv", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_a_bare_body_needs_a_name_only(user: Api, pipeline: Pipeline, lake: Path, content_type: str) -> None:
    unnamed = user.raw("/v1/uploads", CSV, content_type=content_type)
    named = user.raw(f"/v1/uploads?name=a.csv&pipeline={pipeline.name}&priority=8", CSV, content_type=content_type)
    in_header = user.raw(
        "/v1/uploads?run=false", CSV, content_type=content_type,
        headers={"Content-Disposition": 'attachment; filename="b.csv"'},
    )  # fmt: skip

    assert problem(unnamed, 400, "request.invalid")["errors"][0]["field"] == "name"
    assert named.status_code == 202, named.content
    assert Run.objects.get().priority == 8
    assert in_header.status_code == 200
    assert stored(lake) == [CSV]


def test_without_a_run_the_file_is_only_stored(user: Api) -> None:
    response = user.raw("/v1/uploads", form(run="false"))

    assert response.status_code == 201
    assert response.json()["run"] is None
    assert not Run.objects.exists()


@pytest.mark.both
def test_bytes_go_to_the_lake_while_they_arrive(user: Api, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 5 << 20
    written: list[tuple[int, int]] = []
    body = Watched(multipart(b"x" * size, pipeline=pipeline.name))
    write = UploadReceiver.write

    def watch(self: UploadReceiver, data: bytes) -> None:
        written.append((len(data), body.tell()))
        write(self, data)

    monkeypatch.setattr(UploadReceiver, "write", watch)
    response = send_form(user, body)

    assert response.status_code == 202, response.content
    assert sum(length for length, _ in written) == size
    assert max(length for length, _ in written) <= 2 << 20
    assert written[0][1] < size / 2, "the first bytes were written before half of them had come"


def test_a_file_over_the_limit_is_refused_before_it_is_read(user: Api, settings: Any, lake: Path) -> None:
    settings.HEADGATE_UPLOAD_MAX_BYTES = 1000
    body = Watched(b"x" * (10 << 20))

    response = user.client.generic(
        "POST", "/api/v1/uploads?name=big.csv", body.getvalue(), "text/csv", headers=user.headers,
        **{"wsgi.input": body},
    )  # fmt: skip

    assert "1000" in problem(response, 413, "file.too_large")["detail"]
    assert body.tell() == 0
    assert not Upload.objects.exists()
    assert stored(lake) == []


@pytest.mark.parametrize("said", [None, 2000])
def test_a_form_over_the_limit_is_refused_however_long_it_says_to_be(
    user: Api, settings: Any, lake: Path, said: int | None
) -> None:
    settings.HEADGATE_UPLOAD_MAX_BYTES = 1000
    body = Watched(multipart(b"x" * (20 << 20)))

    response = send_form(user, body, length=said)

    problem(response, 413, "file.too_large")
    assert body.tell() <= 4 << 20
    assert not Upload.objects.exists()
    assert stored(lake) == []


def test_a_body_of_unknown_length_is_taken(user: Api, pipeline: Pipeline, lake: Path) -> None:
    bare = user.client.generic(
        "POST", f"/api/v1/uploads?name=a.csv&pipeline={pipeline.pk}", b"", "text/csv", headers=user.headers,
        **{"wsgi.input": BytesIO(CSV), "wsgi.input_terminated": True, "CONTENT_LENGTH": ""},
    )  # fmt: skip
    in_form = send_form(user, Watched(multipart(CSV + b"5,Fe,1\n", pipeline=pipeline.name)), length=None)

    assert (bare.status_code, in_form.status_code) == (202, 202)
    assert sorted(map(len, stored(lake))) == [len(CSV), len(CSV) + 7]


@pytest.mark.parametrize("length", [True, None])
def test_a_form_that_ends_early_leaves_nothing(user: Api, lake: Path, length: bool | None) -> None:
    whole = multipart(b"x" * 100_000)
    cut = Watched(whole[: len(whole) // 2])

    response = send_form(user, cut, length=len(whole) if length else None)

    problem(response, 400, "upload.incomplete")
    assert not Upload.objects.exists()
    assert stored(lake) == []


@pytest.mark.both
def test_a_bare_body_that_ends_early_leaves_nothing(user: Api, lake: Path) -> None:
    response = user.client.generic(
        "POST", "/api/v1/uploads?name=a.csv", CSV, "text/csv", headers=user.headers, CONTENT_LENGTH="100000",
        **{"wsgi.input": BytesIO(CSV)},
    )  # fmt: skip

    problem(response, 400, "upload.incomplete")
    assert not Upload.objects.exists()
    assert stored(lake) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"pipeline": "nowhere"}, "request.invalid"),
        ({"contract": "columns: ["}, "contract.invalid"),
        ({"options": "[1]"}, "request.invalid"),
        ({"owner": "me"}, "request.invalid"),
        ({"datasource_name": "???"}, "upload.unnamed"),
        ({"datasource_name": "raw"}, "pipeline.name_reserved"),
        ({"options": '{"colour": "red"}', "datasource_name": "a\0b"}, "request.invalid"),
    ],
)
def test_a_wrong_field_is_named_and_the_file_is_kept(staff: Api, fields: dict[str, str], code: str) -> None:
    body = problem(staff.raw("/v1/uploads", form(**fields)), 400, code)

    assert body["upload"] == Upload.objects.get().pk
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({}, "request.invalid"),
        ({"file": "just text"}, "request.invalid"),
        ({"document": SimpleUploadedFile("a.csv", CSV)}, "request.invalid"),
        ({"file": [SimpleUploadedFile("a.csv", CSV), SimpleUploadedFile("b.csv", CSV)]}, "request.invalid"),
        ({"file": SimpleUploadedFile("a.csv", b"")}, "file.empty"),
    ],
)
def test_a_form_without_one_file_is_refused(user: Api, lake: Path, data: dict[str, Any], code: str) -> None:
    problem(user.raw("/v1/uploads", data), 400, code)

    assert not Upload.objects.exists()
    assert stored(lake) == []


def test_a_form_without_boundary_is_refused(user: Api) -> None:
    problem(user.raw("/v1/uploads", b"x", content_type="multipart/form-data"), 400, "request.invalid")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..", "x" * 300 + ".csv", "a\u202eb.csv", "=cmd().csv", "C:\\a\\b.csv", "\0", "CON"]
)
def test_a_name_is_only_a_name(user: Api, lake: Path, name: str) -> None:
    in_form = send_form(user, Watched(multipart(CSV, file_name=name, run="false")))
    bare = user.client.post(
        "/api/v1/uploads?run=false", CSV[:-1], content_type="text/csv",
        headers={**user.headers, "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"},
    )  # fmt: skip

    assert {in_form.status_code, bare.status_code} <= {201, 400}, (in_form.content, bare.content)
    for path in lake.rglob("*"):
        assert path.resolve().is_relative_to(lake.resolve())
    for upload in Upload.objects.all():
        assert len(upload.name) <= 255
        assert "/" not in upload.name
        assert re.fullmatch(r"uploads/\d+/[A-Za-z0-9._-]{1,100}", upload.key)


def test_a_pipeline_that_takes_no_uploads_is_named(user: Api, make_pipeline: Any) -> None:
    from ingestion.models import Source

    vault = Source.objects.create(name="vault", kind="vault", config={"url": "u"})
    pipeline = make_pipeline("elsewhere")
    Pipeline.objects.filter(pk=pipeline.pk).update(source=vault, stream="things")

    problem(user.raw("/v1/uploads", form(pipeline="elsewhere")), 400, "upload.wrong_source")


def test_a_user_may_bring_a_contract_but_not_change_one(user: Api, staff: Api, pipeline: Pipeline) -> None:
    changed = {**CONTRACT, "columns": [{"name": "id", "type": "string"}]}
    own = {**changed, "name": "own"}

    problem(user.raw("/v1/uploads", form(contract=json.dumps(changed))), 403, "request.forbidden")
    problem(user.raw("/v1/uploads", form(contract=json.dumps(own), pipeline="items")), 403, "request.forbidden")
    assert user.raw("/v1/uploads", form(contract=json.dumps(CONTRACT), pipeline="items")).status_code == 202
    assert user.raw("/v1/uploads", form(contract=json.dumps(own))).status_code == 202
    assert staff.raw("/v1/uploads", form(contract=json.dumps(changed), pipeline="items")).status_code == 202
    assert Contract.objects.filter(name="sample").count() == 2


def test_uploads_are_listed_newest_first(user: Api) -> None:
    ids = [user.raw("/v1/uploads", form(bytes([65 + n]) + CSV, run="false")).json()["id"] for n in range(3)]
    UploadReceiver("unfinished.csv")

    page = user.get("/v1/uploads?limit=2").json()
    rest = user.client.get(page["next"], headers=user.headers).json()

    assert [upload["id"] for upload in page["results"] + rest["results"]] == ids[::-1]
    assert rest["next"] is None
    assert user.get(f"/v1/uploads/{ids[0]}").json()["name"] == "items.csv"
    sha256 = page["results"][0]["sha256"]
    assert [found["id"] for found in user.get(f"/v1/uploads?sha256={sha256}").json()["results"]] == [ids[2]]


# --- forms by hand, with a body that knows how far it was read

BOUNDARY = "frontier"


class Watched(BytesIO):
    """A body as a server hands it over."""


def multipart(data: bytes, *, file_name: str = "a.csv", **fields: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n\r\n'.encode()
    return b"".join(parts) + head + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def send_form(api: Api, body: Watched, *, length: int | None | bool = True) -> Any:
    if length is True:
        length = len(body.getvalue())
    return api.client.generic(
        "POST", "/api/v1/uploads", b"", f"multipart/form-data; boundary={BOUNDARY}", headers=api.headers,
        CONTENT_LENGTH="" if length is None else str(length),
        **{"wsgi.input": body, "wsgi.input_terminated": length is None, "CONTENT_TYPE": f"multipart/form-data; boundary={BOUNDARY}"},
    )  # fmt: skip
