"""Files are sent by a form, into the lake while they arrive; who may not is kept out."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from rest_framework.authtoken.models import Token, TokenProxy

from ingestion.models import Contract, Pipeline, Run, RunState, Upload
from ingestion.runs.record.lake import open_lake
from tests.admin.pages import SAMPLE, SAMPLE_CONTRACT, notices, page, text_of
from tests.runs.driver import Driver

pytestmark = pytest.mark.usefixtures("driver")
UPLOAD = reverse("admin:ingestion_upload_add")


def send(client: Client, content: bytes = SAMPLE, *, name: str = "sample.csv", **fields: Any) -> Any:
    """Send the form with a file."""
    values = {"file": SimpleUploadedFile(name, content), "end": "1", **fields}
    return client.post(UPLOAD, values, follow=True)


def test_a_file_sent_by_the_form_becomes_a_run(operator: Client, driver: Driver) -> None:
    response = send(operator, contract=json.dumps(SAMPLE_CONTRACT), datasource_name="mine", priority="8")
    driver.drain()

    run = Run.objects.get()
    assert "was received" in notices(response)[0]
    assert response.redirect_chain[-1][0] == page(Run, "change", run.pk)
    assert (run.pipeline.name, run.priority, run.state, run.fetched) == ("mine", 8, RunState.SUCCEEDED, 5)
    upload = Upload.objects.get()
    assert (upload.size_bytes, upload.created_by.username) == (len(SAMPLE), "operator")  # type: ignore[union-attr]
    assert open_lake().read(upload.key) == SAMPLE


def test_the_same_file_again_leads_to_the_run_it_had(operator: Client, published: Run) -> None:
    response = send(operator, pipeline=published.pipeline_id)

    assert "read before" in notices(response)[0]
    assert response.redirect_chain[-1][0] == page(Run, "change", published.pk)
    assert (Upload.objects.count(), Run.objects.count()) == (1, 1)


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (b"", {}, "is empty"),
        (b"x" * 3000, {}, "larger than 2000 bytes"),
        (SAMPLE, {"end": None}, "ended after"),
        (SAMPLE, {"contract": "name: ["}, "does not validate"),
        (SAMPLE, {"datasource_name": "..."}, "No pipeline name"),
        (SAMPLE, {"pipeline": "999"}, "not one of the available choices"),
    ],
)
def test_an_upload_that_cannot_be_used_is_told_in_words(
    operator: Client, settings: Any, content: bytes, fields: dict[str, Any], said: str
) -> None:
    settings.HEADGATE_UPLOAD_MAX_BYTES = 2000
    values = {"file": io.BytesIO(content), "end": "1", **fields}

    response = operator.post(UPLOAD, {name: value for name, value in values.items() if value is not None})

    assert response.status_code == 200
    assert said in text_of(response)
    is_kept = "is stored as upload" in text_of(response)
    assert is_kept is (said in ("does not validate", "No pipeline name"))
    assert Upload.objects.exists() is is_kept
    assert not Run.objects.exists()
    assert is_kept or not [key for key in open_lake().list("uploads/")]


def test_a_form_without_a_file_or_a_token_keeps_nothing(operator: Client) -> None:
    assert "No file was sent" in text_of(operator.post(UPLOAD, {"end": "1"}))

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(get_user_model().objects.get())
    assert strict.post(UPLOAD, {"file": io.BytesIO(SAMPLE), "end": "1"}).status_code == 403
    assert not Upload.objects.exists()


def test_a_file_with_a_token_is_taken_by_a_strict_client(operator: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(get_user_model().objects.get())
    token = strict.get(UPLOAD).context["csrf_token"]

    assert "was received" in notices(send(strict, csrfmiddlewaretoken=str(token)))[0]


def test_who_may_only_look_cannot_act(published: Run, send_file: Callable[..., Run]) -> None:
    reader = get_user_model().objects.create_user("reader", password="correct horse", is_staff=True)
    reader.user_permissions.set(
        Permission.objects.filter(content_type__app_label="ingestion", codename__startswith="view_")
    )
    client = Client()
    client.force_login(reader)

    assert operator_buttons(client, published) == []
    assert client.post(page(Run, "do", published.pk, "roll_back")).status_code == 403
    assert client.post(page(Pipeline, "do", published.pipeline_id, "pause")).status_code == 403
    assert client.get(UPLOAD).status_code == 403
    assert client.post(UPLOAD, {"file": io.BytesIO(b"x"), "end": "1"}).status_code == 403
    assert client.get(page(Contract, "add")).status_code == 403
    assert Run.objects.count() == 1


def operator_buttons(client: Client, run: Run) -> list[Any]:
    found: list[Any] = client.get(page(Run, "change", run.pk)).context["buttons"]
    return found


def test_a_button_is_pressed_and_not_visited(operator: Client, published: Run) -> None:
    assert operator.get(page(Run, "do", published.pk, "roll_back")).status_code == 405
    assert operator.post(page(Run, "do", published.pk, "delete_selected")).status_code == 404
    assert operator.post(page(Run, "do", 999_999, "retry")).status_code == 404


def test_a_token_is_shown_once_when_it_is_made(operator: Client) -> None:
    user = get_user_model().objects.get()

    response = operator.post(page(TokenProxy, "add"), {"user": user.pk}, follow=True)

    key = Token.objects.get(user=user).key
    assert any(key in said for said in notices(response))
    assert key not in text_of(operator.get(page(TokenProxy, "changelist")))
    assert operator.post(page(TokenProxy, "delete", user.pk), {"post": "yes"}).status_code == 302
    assert not Token.objects.exists()
