"""The seeded share of the fault matrix: repeatable, of every kind, and with another seed another one."""

from tests.faults.share import DATABASES, PART, Share

POINTS = [f"{stage}.{place}#{n}" for stage in ("plan", "fetch", "load") for place in ("a", "b") for n in range(1, 51)]


def stage(point: str) -> str:
    return point.partition(".")[0]


def test_without_a_seed_all_is_injected() -> None:
    assert Share().choose("kills", POINTS, kind=stage) == POINTS
    assert Share().times(100, least=5) == 100
    assert all(Share().is_on("F06", database) for database in DATABASES)


def test_a_share_is_a_twentieth_with_one_of_every_kind_and_the_same_for_the_same_seed() -> None:
    for seed in map(str, range(50)):
        chosen = Share(seed).choose("kills", POINTS, kind=stage)

        assert chosen == Share(seed).choose("kills", POINTS, kind=stage) == sorted(chosen, key=POINTS.index)
        assert {stage(point) for point in chosen} == {"plan", "fetch", "load"}
        assert len(chosen) == len(POINTS) // PART
        assert len(Share(seed).choose("few", POINTS[:3], kind=str)) == 3


def test_seeds_come_to_inject_everything_on_both_databases() -> None:
    shares = [Share(str(seed)) for seed in range(300)]

    assert {point for share in shares for point in share.choose("kills", POINTS, kind=stage)} == set(POINTS)
    assert {database for share in shares for database in DATABASES if share.is_on("F06", database)} == set(DATABASES)
    assert all(sum(share.is_on("F06", database) for database in DATABASES) == 1 for share in shares)
