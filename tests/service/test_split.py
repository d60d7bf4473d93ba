"""Users are split by weight, always alike, and few move when weights change."""

from collections import Counter
from math import sqrt

import pytest

from service.split import parse_split

USERS = [f"user-{n}" for n in range(100_000)]
DEVIATIONS = 5

GOLDEN = "ccclclllccccccclcclclllcclclcclclclccccc"


def assigned(text: str) -> list[str]:
    split = parse_split(text)
    return [split.variant(user) for user in USERS]


def moved(before: str, after: str) -> Counter[tuple[str, str]]:
    """How many users went from which variant to which other one."""
    pairs = zip(assigned(before), assigned(after), strict=True)
    return Counter((a, b) for a, b in pairs if a != b)


def assert_near(found: int, share: float) -> None:
    """Within the bounds of a binomial draw over all users."""
    expected = share * len(USERS)
    assert abs(found - expected) <= DEVIATIONS * sqrt(expected * (1 - share))


@pytest.mark.parametrize("text", ["live:9,challenger:1", "a:1,b:1", "a:5,b:3,c:2", "a:99,b:1"])
def test_the_share_of_each_variant_is_its_weight(text: str) -> None:
    found = Counter(assigned(text))

    for name, share in parse_split(text).shares.items():
        assert_near(found[name], share)


def test_a_user_gets_the_same_variant_in_every_process_for_ever() -> None:
    split = parse_split("live:1,challenger:1")

    assert "".join(split.variant(f"u{n}")[0] for n in range(40)) == GOLDEN


def test_only_the_ratio_of_the_weights_counts() -> None:
    assert assigned("a:9,b:1") == assigned("a:90,b:10")


def test_a_weight_that_grows_takes_users_and_moves_no_others() -> None:
    found = moved("a:6,b:3,c:1", "a:6,b:3,c:3")

    assert set(found) == {("a", "c"), ("b", "c")}
    assert_near(found.total(), 3 / 12 - 1 / 10)


def test_a_variant_that_is_added_takes_its_share_and_gives_it_back_when_it_goes() -> None:
    found = moved("live:1", "live:4,challenger:1")

    assert set(found) == {("live", "challenger")}
    assert_near(found.total(), 1 / 5)
    assert moved("live:4,challenger:1", "live:1") == {
        (b, a): count for (a, b), count in found.items()
    }


def test_a_variant_of_weight_zero_gets_nobody() -> None:
    assert set(assigned("live:1,next:0")) == {"live"}


@pytest.mark.parametrize("text", ["live", "live:2,next:0", "a:5,b:3,c:2"])
def test_a_split_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_split(text)) == text


def test_names_without_weights_share_alike() -> None:
    assert parse_split("a, b").shares == {"a": 0.5, "b": 0.5}
