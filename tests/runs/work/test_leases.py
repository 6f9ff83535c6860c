"""Claims, fenced writes and the watcher."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ingestion.models import Partition, PartitionState, Pipeline, Run, RunState
from ingestion.ports.errors import Cancelled, DeadlineReached, LeaseLost
from ingestion.runs.work.leases import Lease, claim, renew_or_stop
from ingestion.runs.work.states import ForbiddenMove

pytestmark = pytest.mark.both

EXPECTED = (PartitionState.PENDING, PartitionState.LEASED)


@pytest.fixture
def partition(make_pipeline: Callable[..., Pipeline]) -> Partition:
    pipeline = make_pipeline()
    run = Run.objects.create(pipeline=pipeline, state=RunState.RUNNING, trigger="api", mode=pipeline.mode)
    return Partition.objects.create(run=run, lane=0)


def take(partition: Partition) -> Lease | None:
    return claim(Partition, partition.pk, expected=EXPECTED, to=PartitionState.LEASED)


def test_only_one_of_two_claims_gets_the_row(partition: Partition) -> None:
    first, second = take(partition), take(partition)

    assert first is not None
    assert second is None


def test_a_claim_counts_the_attempt_and_raises_the_fence_before_the_work(partition: Partition) -> None:
    lease = take(partition)

    partition.refresh_from_db()
    assert lease is not None
    assert (partition.fence, partition.attempt, partition.state) == (1, 1, "leased")
    assert (lease.fence, lease.attempt) == (1, 1)


def test_an_expired_lease_can_be_taken_over_and_its_owner_writes_nothing(partition: Partition) -> None:
    first = take(partition)
    Partition.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    second = take(partition)

    assert first is not None
    assert second is not None
    with pytest.raises(LeaseLost):
        first.change(label="late")
    second.change(label="mine")
    partition.refresh_from_db()
    assert partition.label == "mine"


def test_a_row_that_waits_for_a_time_is_not_claimed(partition: Partition) -> None:
    Partition.objects.update(not_before=timezone.now() + timedelta(seconds=60))

    assert take(partition) is None


def test_a_lease_that_was_given_back_is_not_renewed(partition: Partition) -> None:
    lease = take(partition)
    assert lease is not None
    lease.release(to=PartitionState.PENDING)

    renew_or_stop(lease)

    partition.refresh_from_db()
    assert partition.lease_until is None
    assert take(partition) is not None


def test_work_that_goes_on_is_renewed_and_work_that_hangs_is_not(partition: Partition, settings: Any) -> None:
    lease = take(partition)
    assert lease is not None
    soon = timezone.now() + timedelta(seconds=1)
    Partition.objects.update(lease_until=soon)
    settings.HEADGATE_STALL_S = -1
    renew_or_stop(lease)
    hanging = Partition.objects.get().lease_until
    settings.HEADGATE_STALL_S = 300
    renew_or_stop(lease)

    assert hanging == soon
    assert Partition.objects.get().lease_until > soon
    lease.beat()


def test_a_cancelled_run_stops_the_work_and_breaks_its_calls_off(partition: Partition) -> None:
    lease = take(partition)
    assert lease is not None
    stopped: list[object] = []
    late: list[object] = []
    with lease.on_stop(late.append):
        pass
    Run.objects.update(state=RunState.CANCELLED)
    Partition.objects.update(fence=9)

    with lease.on_stop(stopped.append):
        renew_or_stop(lease)
        renew_or_stop(lease)

    assert len(stopped) == 1
    assert not late
    with pytest.raises(Cancelled):
        lease.beat()


def test_what_begins_after_the_stop_is_broken_off_at_once(partition: Partition) -> None:
    lease = take(partition)
    assert lease is not None
    lease.stop(Cancelled())
    stopped: list[object] = []

    with lease.on_stop(stopped.append):
        assert len(stopped) == 1


def test_a_beat_says_that_work_goes_on(partition: Partition) -> None:
    lease = take(partition)
    assert lease is not None
    lease._progress_at -= 60

    lease.beat()

    assert lease.stalled_s < 1


def test_a_beat_of_work_that_was_taken_over_says_so_and_shows_no_progress(partition: Partition) -> None:
    lease = take(partition)
    assert lease is not None
    Partition.objects.update(fence=9)
    renew_or_stop(lease)
    lease._progress_at -= 60

    for is_resumed in (True, False):
        with pytest.raises(LeaseLost):
            lease.beat(is_resumed=is_resumed)
    assert lease.stalled_s > 59


def test_a_used_up_worker_slot_is_handed_back(partition: Partition, settings: Any) -> None:
    settings.HEADGATE_SLOT_S = 0

    lease = take(partition)

    assert lease is not None
    with pytest.raises(DeadlineReached):
        lease.beat()
    lease.beat(is_resumed=False)


def test_a_move_that_the_table_does_not_have_is_a_defect(partition: Partition) -> None:
    lease = take(partition)
    assert lease is not None
    lease.release(to=PartitionState.DONE)

    with pytest.raises(ForbiddenMove):
        lease.change(to=PartitionState.PENDING)
