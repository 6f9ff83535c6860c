"""Every page opens for an operator, and none for a stranger."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, reverse
from rest_framework.authtoken.models import Token

from ingestion.models import (
    CatalogPublication,
    Checkpoint,
    Contract,
    Destination,
    Pipeline,
    Run,
    Schedule,
    Source,
)
from tests.admin.pages import models, page, text_of
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

WITHOUT_ADDING = {"admin:ingestion_source_add": "?kind=files", "admin:ingestion_destination_add": "?kind=catalog"}


@pytest.fixture
def everything(published: Run, driver: Driver, operator: Client) -> None:
    """At least one row of every model."""
    pipeline = published.pipeline
    Schedule.objects.create(pipeline=pipeline, cron="0 6 * * *")
    Checkpoint.objects.create(pipeline=pipeline, stream="rows", cursor={"file": 1}, run=published)
    Token.objects.create(user=get_user_model().objects.get())
    Group.objects.create(name="readers")
    assert CatalogPublication.objects.exists()


def test_every_model_of_ours_has_pages() -> None:
    from django.apps import apps

    ours = {model for model in apps.get_app_config("ingestion").get_models() if not model._meta.auto_created}

    assert {model._meta.object_name for model in ours - set(admin.site._registry)} == {"PipelineDependency"}


def addresses(row_of: Callable[[type[Any]], Any]) -> list[str]:
    """Return the address of every page of every model, as the registry and its urls name them."""
    found = [reverse("admin:index"), reverse("admin:app_list", args=("ingestion",)), reverse("admin:password_change")]
    for model in models():
        row = row_of(model)
        for pattern in admin.site._registry[model].get_urls():
            if (
                not isinstance(pattern, URLPattern)
                or not pattern.name
                or pattern.name.endswith(("_do", "_autocomplete"))
            ):
                continue
            try:
                found.append(reverse(f"admin:{pattern.name}"))
            except NoReverseMatch:
                found.append(reverse(f"admin:{pattern.name}", args=(row.pk,)))
    return found + [reverse(name) + query for name, query in WITHOUT_ADDING.items()]


def newest(model: type[Any]) -> Any:
    row = model._default_manager.order_by("-pk").first()
    assert row is not None, f"the test needs a {model._meta.object_name}"
    return row


def is_allowed(address: str) -> bool:
    """Return whether a page is meant to open: rows that only Headgate writes are neither added nor removed."""
    for model in models():
        model_admin = admin.site._registry[model]
        root = page(model, "changelist")
        if address.startswith(root) and not getattr(model_admin, "show_full_result_count", True):
            is_upload_form = address == reverse("admin:ingestion_upload_add")
            return is_upload_form or not address.endswith(("/add/", "/delete/"))
    contract_delete = address.startswith(page(Contract, "changelist")) and address.endswith("/delete/")
    return not contract_delete


def test_every_page_opens_for_an_operator(everything: None, operator: Client) -> None:
    answers = {address: operator.get(address).status_code for address in addresses(newest)}

    assert len(answers) > 90
    assert {a: code for a, code in answers.items() if code != (200 if is_allowed(a) else 403)} == {}


def test_every_page_sends_a_stranger_to_the_login(everything: None) -> None:
    stranger = Client()

    for address in addresses(newest):
        response = stranger.get(address)

        assert response.status_code == 302, address
        assert response["Location"].startswith("/admin/login/"), address


def test_no_page_opens_for_a_user_who_may_see_nothing(everything: None) -> None:
    client = Client()
    client.force_login(get_user_model().objects.create_user("clerk", password="correct horse", is_staff=True))

    for address in addresses(newest):
        if address not in (reverse("admin:index"), reverse("admin:password_change")):
            assert client.get(address).status_code in (403, 404), address


def test_a_row_that_does_not_exist_is_no_error(operator: Client, driver: Driver) -> None:
    for model in models():
        response = operator.get(page(model, "change", 999_999))

        assert response.status_code == 302, model

    assert operator.get(reverse("admin:ingestion_run_rejected", args=(999_999,))).status_code == 404
    assert operator.get(reverse("admin:ingestion_contract_new_version", args=("x",))).status_code == 404


def test_an_empty_installation_has_an_overview(operator: Client, driver: Driver) -> None:
    text = text_of(operator.get(reverse("admin:index")))

    assert "No run yet" in text
    assert "Headgate" in text
    assert "Django administration" not in text


def test_the_overview_tells_health_freshness_failures_and_throughput(
    published: Run, send_file: Callable[..., Run], driver: Driver, operator: Client
) -> None:
    failed = send_file(b"nothing,fits\n1,2\n", name="other.csv")
    driver.drain()

    response = operator.get(reverse("admin:index"))

    text = text_of(response)
    assert {part.part for part in response.context["health"]} == {"database", "broker", "lake"}
    assert [pipeline.name for pipeline in response.context["freshness"]] == ["sample"]
    assert response.context["run_states"] == [("succeeded", 1), ("failed", 1)]
    assert page(Run, "change", failed.pk) in text
    assert "contract.missing" in text
    assert response.context["statistics"]["by_day"][0]["accepted"] == 2


def test_the_overview_asks_a_bounded_number_of_questions(
    published: Run, operator: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        Pipeline.objects.create(name=f"p{number}", source=published.pipeline.source, stream="rows")

    with django_assert_max_num_queries(25):
        operator.get(reverse("admin:index"))


def test_the_list_of_runs_asks_a_bounded_number_of_questions(
    published: Run, operator: Client, django_assert_max_num_queries: Any
) -> None:
    Run.objects.bulk_create(
        Run(pipeline=published.pipeline, contract=published.contract, trigger="api", mode="full_refresh", query={})
        for _ in range(60)
    )

    with django_assert_max_num_queries(14):
        response = operator.get(page(Run, "changelist"))

    assert "5 = 2 + 2 + 1 + 0" in text_of(operator.get(page(Run, "changelist") + "?state__exact=succeeded"))
    assert response.status_code == 200


def test_no_list_of_rows_that_headgate_writes_counts_the_whole_table(
    everything: None, operator: Client, django_assert_max_num_queries: Any
) -> None:
    for model in (model for model in models() if not admin.site._registry[model].show_full_result_count):
        with django_assert_max_num_queries(16) as queries:
            operator.get(page(model, "changelist"))

        table = f'FROM "{model._meta.db_table}"'
        counts = [query["sql"] for query in queries if "COUNT(" in query["sql"] and table in query["sql"]]
        unbounded = [sql for sql in counts if "LIMIT" not in sql and "GROUP BY" not in sql]
        assert unbounded == [], model


def test_secrets_stand_on_no_page(everything: None, operator: Client) -> None:
    Source.objects.create(
        name="vault",
        kind="vault",
        config={"address": "v"},
        secrets={"password": "canary-7", "headers": {"X": "canary-8"}},
    )
    Destination.objects.create(
        name="bucket", kind="objects", config={"url": "s3://b/p"}, secrets={"secret_key": "canary-9"}
    )
    key = Token.objects.get().key

    for address in addresses(newest):
        text = text_of(operator.get(address))

        assert "canary-" not in text, address
        assert key not in text, address
