import time
from collections.abc import Callable

import pytest
import redis

from ingestion.ports.errors import Cancelled, RateLimited, SourceUnavailable
from ingestion.ratelimit.limiter import RedisLimiter
from ingestion.ratelimit.rule import Rate
from tests.servers import Valkey, free_port


class Naps:
    """A sleep that really sleeps, and remembers."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def __call__(self, seconds: float) -> None:
        self.total_s += seconds
        time.sleep(seconds)


def limiter_of(server: Valkey, rate: Rate | None, **changes: object) -> RedisLimiter:
    return RedisLimiter(server.url(), lambda _: rate, **changes)  # type: ignore[arg-type]


def test_a_burst_is_granted_at_once_and_the_next_one_after_an_interval(valkey: Valkey, key: str) -> None:
    limiter = limiter_of(valkey, Rate(10, burst=3))

    waits = [limiter.acquire(key) for _ in range(4)]

    assert waits[:3] == [0, 0, 0]
    assert 0.05 < waits[3] <= 0.1


def test_waiting_really_takes_the_time_that_is_returned(valkey: Valkey, key: str) -> None:
    naps = Naps()
    limiter = limiter_of(valkey, Rate(5, burst=1), sleep=naps)
    limiter.acquire(key)

    waited_s = limiter.acquire(key)

    assert naps.total_s == pytest.approx(waited_s)
    assert waited_s > 0.1


def test_a_long_wait_is_an_error_that_says_how_long_and_uses_nothing_up(valkey: Valkey, key: str) -> None:
    limiter = limiter_of(valkey, Rate(0.1, burst=1))
    limiter.acquire(key)

    found = []
    for _ in range(3):
        with pytest.raises(RateLimited) as caught:
            limiter.acquire(key)
        found.append(caught.value)

    assert {error.code for error in found} == {"limiter.waiting"}
    assert all(9 < (error.retry_after_s or 0) <= 10 for error in found)
    assert key in str(found[0])


def test_several_tokens_cost_as_much_as_several_calls(valkey: Valkey, key: str) -> None:
    limiter = limiter_of(valkey, Rate(10, burst=5), sleep=lambda _: None)

    limiter.acquire(key, tokens=5)

    assert 0.15 < limiter.acquire(key, tokens=2) <= 0.2


def test_keys_do_not_share_their_limits(valkey: Valkey, key: str) -> None:
    limiter = limiter_of(valkey, Rate(0.1, burst=1))
    limiter.acquire(f"source:{key}")

    waited_s = limiter.acquire(f"queue:{key}")

    assert waited_s == 0


def test_each_key_has_the_rate_that_is_named_for_it(valkey: Valkey, key: str) -> None:
    rates = {f"{key}:slow": Rate(1, burst=1), f"{key}:fast": Rate(1, burst=50)}
    limiter = RedisLimiter(valkey.url(), rates.get, sleep=lambda _: None)

    fast = [limiter.acquire(f"{key}:fast") for _ in range(50)]
    slow = [limiter.acquire(f"{key}:slow") for _ in range(2)]

    assert sum(fast) == 0
    assert slow[1] > 0.9


def test_a_key_without_a_rate_has_no_limit(valkey: Valkey, key: str) -> None:
    limiter = limiter_of(valkey, None)

    assert sum(limiter.acquire(key) for _ in range(100)) == 0


@pytest.mark.parametrize("rate", [None, Rate(1000, burst=100)])
def test_a_silence_holds_for_every_process(valkey: Valkey, key: str, rate: Rate | None) -> None:
    one, other = limiter_of(valkey, rate), limiter_of(valkey, rate)
    one.slow_down(key, seconds=60)

    with pytest.raises(RateLimited) as caught:
        other.acquire(key)

    assert 59 < (caught.value.retry_after_s or 0) <= 60


def test_a_shorter_silence_does_not_shorten_a_longer_one(valkey: Valkey, key: str) -> None:
    limiter = limiter_of(valkey, None)
    limiter.slow_down(key, seconds=60)
    limiter.slow_down(key, seconds=1)

    with pytest.raises(RateLimited) as caught:
        limiter.acquire(key)

    assert (caught.value.retry_after_s or 0) > 58


def test_after_a_silence_the_grants_come_at_the_rate_and_not_as_a_burst(valkey: Valkey, key: str) -> None:
    limiter = limiter_of(valkey, Rate(10, burst=5), sleep=lambda _: None)
    limiter.slow_down(key, seconds=0.5)

    waits = [limiter.acquire(key) for _ in range(3)]

    assert 0.45 < waits[0] <= 0.5
    assert waits[1] - waits[0] == pytest.approx(0.1, abs=0.03)
    assert waits[2] - waits[1] == pytest.approx(0.1, abs=0.03)


def _stop() -> None:
    raise Cancelled


def test_a_reservation_that_is_not_used_is_given_back(valkey: Valkey, key: str) -> None:
    rate = Rate(1, burst=1)
    limiter_of(valkey, rate).acquire(key)
    stopping = limiter_of(valkey, rate, beat=_stop)

    with pytest.raises(Cancelled):
        stopping.acquire(key)
    waited_s = limiter_of(valkey, rate, sleep=lambda _: None).acquire(key)

    assert waited_s <= 1


def test_a_reservation_behind_which_others_stand_is_not_given_back(valkey: Valkey, key: str) -> None:
    rate = Rate(10, burst=1)
    other = limiter_of(valkey, rate, sleep=lambda _: None)
    other.acquire(key)
    others_waits = []

    def beat() -> None:
        others_waits.append(other.acquire(key))
        raise Cancelled

    with pytest.raises(Cancelled):
        limiter_of(valkey, rate, beat=beat).acquire(key)
    next_wait_s = other.acquire(key)

    assert next_wait_s - others_waits[0] > 0.05


def test_a_changed_rate_applies_at_once(valkey: Valkey, key: str) -> None:
    rate = Rate(0.01, burst=1)
    limiter = RedisLimiter(valkey.url(), lambda _: rate, sleep=lambda _: None)
    limiter.acquire(key)
    with pytest.raises(RateLimited):
        limiter.acquire(key)

    rate = Rate(1000, burst=200)

    assert limiter.acquire(key) == 0


def test_an_idle_limit_leaves_no_key_behind(valkey: Valkey, key: str) -> None:
    limiter_of(valkey, Rate(100, burst=1)).acquire(key)

    lives_ms = redis.Redis.from_url(valkey.url()).pttl(f"hg:limit:{key}")

    assert 0 < lives_ms <= 61_000


def test_a_server_that_forgot_the_script_is_told_again(own_valkey: Valkey, key: str) -> None:
    limiter = limiter_of(own_valkey, Rate(1000, burst=10))
    limiter.acquire(key)
    redis.Redis.from_url(own_valkey.url()).script_flush()

    assert limiter.acquire(key) == 0


def test_a_restarted_server_is_used_again_without_a_new_limiter(own_valkey: Valkey, key: str) -> None:
    limiter = limiter_of(own_valkey, Rate(1000, burst=10))
    limiter.acquire(key)
    own_valkey.stop()
    with pytest.raises(SourceUnavailable):
        limiter.acquire(key)
    own_valkey.start()

    assert limiter.acquire(key) == 0


@pytest.mark.parametrize(
    "call", [lambda limiter: limiter.acquire("k"), lambda limiter: limiter.slow_down("k", seconds=1)]
)
def test_without_redis_nothing_is_granted(call: Callable[[RedisLimiter], object]) -> None:
    secret = "planted-password"
    limiter = RedisLimiter(f"redis://:{secret}@127.0.0.1:{free_port()}/0", lambda _: None)

    with pytest.raises(SourceUnavailable) as caught:
        call(limiter)

    assert caught.value.code == "limiter.unavailable"
    assert secret not in f"{caught.value} {caught.value.values}"
