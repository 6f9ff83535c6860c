import pytest

from ingestion.ratelimit.rule import Rate


def test_a_rate_says_how_far_apart_its_grants_are() -> None:
    assert Rate(50, burst=10).interval_us == 20_000


@pytest.mark.parametrize(("rate_per_s", "burst"), [(0, 1), (-1, 1), (float("inf"), 1), (float("nan"), 1), (1, 0)])
def test_a_rate_that_is_no_limit_is_refused(rate_per_s: float, burst: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rate(rate_per_s, burst)
