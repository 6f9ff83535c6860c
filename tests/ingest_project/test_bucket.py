"""The lake's bucket of a new installation."""

import pytest

from ingest_project.stack.bucket import make_bucket
from ingestion.ports.errors import IngestError
from tests.servers import VersityGateway, free_port


def lake_url(endpoint: str, *, secret_key: str = "testtest") -> str:
    """Return the address of a lake that has no bucket yet."""
    keys = f"access_key=test&secret_key={secret_key}"
    return f"s3://new-lake/prefix?endpoint={endpoint}&region=us-east-1&path_style=1&{keys}"


def test_the_bucket_is_made_once(versitygw: VersityGateway) -> None:
    url = lake_url(versitygw.endpoint)

    assert [make_bucket(url), make_bucket(url)] == [True, False]


def test_wrong_keys_are_one_of_our_errors(versitygw: VersityGateway) -> None:
    with pytest.raises(IngestError) as caught:
        make_bucket(lake_url(versitygw.endpoint, secret_key="wrong-secret"))

    assert caught.value.code == "store.auth"


def test_a_store_that_does_not_answer_is_one_of_our_errors() -> None:
    with pytest.raises(IngestError) as caught:
        make_bucket(lake_url(f"http://127.0.0.1:{free_port()}"))

    assert caught.value.code == "store.unavailable"
