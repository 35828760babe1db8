"""Who answers: shares, sides that stay, and what replicas hold."""

from __future__ import annotations

import random

import pytest

from tasks.serve.routing import Route, Version, place, served_name, side_of

ONE, TWO = Version(version="1", served="m@aaa"), Version(version="2", served="m@bbb")


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_over_a_day_the_challenger_gets_its_share(share: float) -> None:
    route = Route(champion=ONE, challenger=TWO, share=share)
    users = [f"user-{number}" for number in range(200_000)]
    got = sum(side_of(route, user) == "challenger" for user in users) / len(users)
    # Five standard errors of a fair draw; what is drawn by a hash is the same every time.
    assert abs(got - share) < 5 * (share * (1 - share) / len(users)) ** 0.5


def test_none_and_all() -> None:
    users = [f"user-{number}" for number in range(1000)]
    for share, side in ((0.0, "champion"), (1.0, "challenger")):
        route = Route(champion=ONE, challenger=TWO, share=share)
        assert {side_of(route, user) for user in users} == {side}


def test_a_larger_share_keeps_those_who_had_the_challenger() -> None:
    users = [f"user-{number}" for number in range(2000)]
    small = {u for u in users if place("m@bbb", u) < 0.05}
    large = {u for u in users if place("m@bbb", u) < 0.2}
    assert small < large


def test_another_challenger_has_other_users() -> None:
    users = [f"user-{number}" for number in range(20_000)]
    both = sum(place("m@bbb", u) < 0.1 and place("m@ccc", u) < 0.1 for u in users)
    assert 120 < both < 280  # 200 if they are drawn apart, 2,000 if not


def test_what_is_half_a_character_has_its_place_too() -> None:
    assert 0 <= place("m@bbb", "\ud800") < 1


def test_only_what_replicas_hold_answers() -> None:
    route = Route(champion=TWO, challenger=Version(version="3", served="m@ccc"), previous=ONE)
    assert route.among({"m@ccc"}) is None
    held = route.among({"m@aaa", "m@bbb", "m@ccc"})
    assert held == route
    without = route.among({"m@bbb"})
    assert without is not None
    assert without.challenger is None
    before = route.among({"m@aaa", "m@ccc"})
    assert before is not None
    assert (before.champion, before.challenger) == (ONE, route.challenger)


def test_a_challenger_that_is_the_champion_is_none() -> None:
    route = Route(champion=ONE, challenger=ONE, share=0.5).among({"m@aaa"})
    assert route is not None
    assert route.challenger is None


def test_a_name_says_which_bytes_are_served() -> None:
    digests = [random.Random(seed).randbytes(32).hex() for seed in range(100)]
    names = {served_name("tickets", digest) for digest in digests}
    assert len(names) == 100
    assert served_name("tickets", "0123456789abcdef") == "tickets@0123456789ab"
