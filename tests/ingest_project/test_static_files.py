"""Static files as a browser gets them."""

from django.test import Client


def test_no_other_origin_may_read_the_static_files() -> None:
    answer = Client().get("/static/admin/css/base.css")

    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
