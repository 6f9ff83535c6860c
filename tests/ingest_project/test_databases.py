"""The database under the tests, and how SQLite is opened."""

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection


@pytest.mark.django_db
def test_the_chosen_database_is_under_the_tests(pytestconfig: pytest.Config) -> None:
    chosen = pytestconfig.getoption("--database")

    get_user_model().objects.create(username="somebody")

    assert connection.vendor == {"sqlite": "sqlite", "postgres": "postgresql"}[chosen]
    assert get_user_model().objects.count() == 1


def test_sqlite_is_opened_so_that_simultaneous_tasks_wait_for_each_other() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("the tests run on another database")

    options = settings.DATABASES["default"]["OPTIONS"]

    assert options["transaction_mode"] == "IMMEDIATE"
    assert options["timeout"] == 20
    assert "journal_mode=WAL" in options["init_command"]
