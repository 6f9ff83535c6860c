"""Every action of an operator, carried out by real workers: what the page asks for is what happens."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from ingestion.models import Destination, Pipeline, Run, RunState, Schedule, Source
from ingestion.runs.read.progress import is_balanced
from tests.admin.pages import notices, page, press, text_of
from tests.fakes.paged_provider import PagedProvider
from tests.servers import Valkey
from tests.worker.cluster import Cluster
from tests.worker.material import csv_bytes, upload

pytestmark = pytest.mark.worker


@pytest.fixture(scope="module")
def provider() -> Iterator[PagedProvider]:
    """A slow provider that would take half a minute to read."""
    with PagedProvider(pages=500, per_page=5, delay_s=0.05) as provider:
        yield provider


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, django_db_blocker: Any, provider: PagedProvider) -> Iterator[Cluster]:
    """One cluster with one worker and its beat, for all the tests of this file."""
    is_postgres = request.config.getoption("--database") == "postgres"
    postgres = request.getfixturevalue("postgres") if is_postgres else None
    allowed = {"HEADGATE_EGRESS_ALLOW": urlsplit(provider.url).netloc}
    with Valkey() as valkey, Cluster(valkey=valkey, postgres=postgres, blocker=django_db_blocker, **allowed) as cluster:
        cluster.start_worker(beat=True)
        yield cluster


@pytest.fixture
def browser(cluster: Cluster) -> Client:
    """A browser in which an operator of the cluster is logged in."""
    users = get_user_model().objects
    client = Client()
    client.force_login(users.filter(username="operator").first() or users.create_superuser("operator"))
    return client


@pytest.fixture
def finish(cluster: Cluster) -> Callable[[Run], Run]:
    """Return a function that waits until a run has ended."""

    def wait(run: Run) -> Run:
        def has_ended() -> bool:
            run.refresh_from_db()
            return run.is_terminal

        cluster.wait(has_ended, what=f"the end of run {run.pk}")
        return run

    return wait


def newest_run(pipeline: Pipeline) -> Run:
    return pipeline.runs.order_by("-pk")[0]


def test_a_file_sent_by_the_form_is_published_and_run_again(browser: Client, finish: Callable[[Run], Run]) -> None:
    file = SimpleUploadedFile("uploaded.csv", csv_bytes(200, bad_every=50))
    response = browser.post(reverse("admin:ingestion_upload_add"), {"file": file, "end": "1"}, follow=True)
    assert "was received" in notices(response)[0]

    run = finish(Run.objects.latest("pk"))

    assert (run.state, run.code) == (RunState.SUCCEEDED, ""), run.message
    assert is_balanced(run)
    assert "balanced" in text_of(browser.get(page(Run, "change", run.pk)))

    press(browser, run.pipeline, "run_now")
    again = finish(newest_run(run.pipeline))

    assert again.pk > run.pk
    assert (again.state, again.trigger, again.fetched) == (RunState.SUCCEEDED, "admin", 200)


def test_a_paused_pipeline_starts_nothing_until_it_is_resumed(
    browser: Client, cluster: Cluster, finish: Callable[[Run], Run]
) -> None:
    pipeline = finish(upload(csv_bytes(10), name="paused.csv", datasource_name="paused")).pipeline
    runs = pipeline.runs.count()
    press(browser, pipeline, "pause")
    assert "is paused" in press(browser, pipeline, "run_now")
    assert pipeline.runs.count() == runs

    press(browser, pipeline, "resume")
    press(browser, pipeline, "run_now")

    assert finish(newest_run(pipeline)).state == RunState.SUCCEEDED


def test_a_run_whose_destination_failed_is_retried_once_it_is_mended(
    browser: Client, cluster: Cluster, finish: Callable[[Run], Run]
) -> None:
    run = finish(upload(csv_bytes(20), name="retry.csv", datasource_name="retry"))
    blocked = cluster.folder / "blocked"
    blocked.write_text("a file stands where the folder should be")
    broken = Destination.objects.create(name="blocked", kind="objects", config={"url": str(blocked)})
    run.pipeline.destinations.add(broken)
    press(browser, run.pipeline, "run_now")
    short = finish(newest_run(run.pipeline))
    assert short.state == RunState.PARTIAL, short.message
    assert "Retry" in [button["label"] for button in browser.get(page(Run, "change", short.pk)).context["buttons"]]
    assert "✗" in press(browser, broken, "test_connection")

    blocked.unlink()
    press(browser, short, "retry")

    assert finish(short).state == RunState.SUCCEEDED, short.message
    assert "every layer answers" in press(browser, broken, "test_connection")


def test_a_run_under_way_is_cancelled_and_publishes_nothing(
    browser: Client, cluster: Cluster, provider: PagedProvider, finish: Callable[[Run], Run], settings: Any
) -> None:
    settings.HEADGATE_EGRESS_ALLOW = [urlsplit(provider.url).netloc]
    source = Source.objects.create(name="slow", kind="optimade", config={"base_url": provider.url})
    pipeline = Pipeline.objects.create(name="slow", source=source, stream="structures")
    assert "every layer answers" in press(browser, source, "test_connection")
    press(browser, pipeline, "run_now")
    run = newest_run(pipeline)
    cluster.wait(lambda: sum(provider.requests.values()) > 4, what="the first pages")

    press(browser, run, "cancel")

    assert finish(run).state == RunState.CANCELLED
    assert run.published_at is None
    assert "cancelled" in text_of(browser.get(page(Run, "change", run.pk)))


def test_an_earlier_run_is_rolled_back_to(browser: Client, finish: Callable[[Run], Run]) -> None:
    first = finish(upload(csv_bytes(5), name="one.csv", datasource_name="rolled"))
    second = finish(upload(csv_bytes(9), name="two.csv", datasource_name="rolled"))
    assert first.pipeline == second.pipeline

    press(browser, first, "roll_back")
    third = finish(newest_run(first.pipeline))

    assert (third.state, third.accepted, third.republishes_id) == (RunState.SUCCEEDED, 5, first.pk)


def test_a_schedule_saved_by_the_form_runs_by_itself(
    browser: Client, cluster: Cluster, provider: PagedProvider, finish: Callable[[Run], Run]
) -> None:
    source = Source.objects.create(name="regular", kind="optimade", config={"base_url": provider.url})
    pipeline = Pipeline.objects.create(name="regular", source=source, stream="structures", query={"limit": 5})
    values = {
        "pipeline": pipeline.pk, "interval_s": "10", "timezone": "UTC", "jitter_s": "0", "max_runs": "1",
        "missed_policy": "run_once", "is_enabled": "on", "starts_at_0": "2026-01-01", "starts_at_1": "00:00:00",
    }  # fmt: skip
    response = browser.post(page(Schedule, "add"), values)
    assert response.status_code == 302, response.context["errors"]

    cluster.wait(pipeline.runs.exists, what="the scheduled run")
    run = finish(newest_run(pipeline))

    assert (run.state, run.trigger, run.accepted) == (RunState.SUCCEEDED, "schedule", 5), run.message
