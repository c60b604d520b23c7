from __future__ import annotations

from p2pdist.model.ids import tag_key
from p2pdist.peer.core.tag_ages import TagAges

ONE, TWO, THREE = (tag_key("docker.io", "library/app", tag) for tag in "123")


def test_an_age_grows_from_what_it_was_when_it_was_heard() -> None:
    ages = TagAges()
    ages.heard(ONE, 2.0, 100.0)

    assert ages.age_s(ONE, 100.0) == 2.0
    assert ages.age_s(ONE, 130.0) == 32.0


def test_a_newer_word_starts_anew() -> None:
    ages = TagAges()
    ages.heard(ONE, 0.0, 100.0)
    ages.heard(ONE, 0.0, 150.0)

    assert ages.age_s(ONE, 151.0) == 1.0


def test_nothing_is_known_of_a_tag_that_was_not_heard_of() -> None:
    assert TagAges().age_s(ONE, 1.0) is None


def test_the_tag_that_nobody_asks_for_is_forgotten() -> None:
    ages = TagAges(tags_max=2)
    ages.heard(ONE, 0.0, 0.0)
    ages.heard(TWO, 0.0, 0.0)
    ages.age_s(ONE, 1.0)
    ages.heard(THREE, 0.0, 1.0)

    assert [ages.age_s(key, 2.0) for key in (ONE, TWO, THREE)] == [2.0, None, 1.0]
