"""When a tag is looked up early; time is a number here."""

from __future__ import annotations

from p2pdist.model.ids import tag_key
from p2pdist.oci.doubts import PAUSE_S, Doubts
from p2pdist.oci.names import ImageName

APP, OTHER = ImageName("docker.io", "library/app"), ImageName("docker.io", "library/other")
KEY = tag_key(APP.upstream, APP.repository, "1")


def test_a_tag_is_doubtful_after_something_was_missing() -> None:
    doubts = Doubts()
    assert not doubts.doubtful(APP, KEY, 0.0, 100.0)
    doubts.missing(APP, 10.0)
    assert doubts.doubtful(APP, KEY, 5.0, 10.0)
    assert not doubts.doubtful(OTHER, KEY, 5.0, 10.0)


def test_what_was_checked_since_is_not_doubtful() -> None:
    doubts = Doubts()
    doubts.missing(APP, 10.0)
    assert not doubts.doubtful(APP, KEY, 10.5, 20.0)


def test_one_look_up_per_tag_and_second() -> None:
    doubts = Doubts()
    doubts.missing(APP, 10.25)
    assert not doubts.doubtful(APP, KEY, 10.0, 10.5)
    assert doubts.doubtful(APP, KEY, 10.0, 10.0 + PAUSE_S)


def test_an_answer_that_is_as_old_ends_no_doubt() -> None:
    doubts = Doubts()
    doubts.missing(APP, 10.0)
    doubts.looked(KEY, 11.0)
    assert not doubts.doubtful(APP, KEY, 5.0, 11.5)
    assert doubts.doubtful(APP, KEY, 5.0, 11.0 + PAUSE_S)
    assert not doubts.doubtful(APP, KEY, 11.5, 20.0)


def test_who_is_doubted_last_stays() -> None:
    doubts = Doubts(names_max=1)
    doubts.missing(APP, 1.0)
    doubts.missing(OTHER, 1.0)
    assert not doubts.doubtful(APP, KEY, 0.0, 5.0)
    assert doubts.doubtful(OTHER, KEY, 0.0, 5.0)
