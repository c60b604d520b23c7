from __future__ import annotations

from p2pdist.model.recent_pulls import KEPT, TOGETHER_S, RecentPulls


def note(
    pulls: RecentPulls, image: str, at_s: float, *, tag: str = "", took_s: float = 0.0, **by: int
) -> None:
    pulls.note(image, tag, by, started_s=at_s - took_s, ended_s=at_s)


def test_the_requests_of_one_image_are_one_pull() -> None:
    pulls = RecentPulls()
    note(pulls, "r/app", 1, tag="1")
    note(pulls, "r/app", 2, peer=5, proxy=1)
    note(pulls, "r/app", 3, peer=5)

    (pull,) = pulls.status(10)

    assert (pull["image"], pull["tag"], pull["requests"], pull["ago_s"]) == ("r/app", "1", 3, 7)
    assert pull["bytes_by_source"] == {"peer": 10, "proxy": 1}


def test_a_long_body_belongs_to_the_pull_in_which_it_began() -> None:
    pulls = RecentPulls()
    note(pulls, "r/app", 0, tag="1")
    note(pulls, "r/app", 10 * TOGETHER_S, took_s=10 * TOGETHER_S, peer=1)

    assert len(pulls.status(0)) == 1


def test_another_tag_and_a_later_time_are_other_pulls_and_the_last_is_first() -> None:
    pulls = RecentPulls()
    note(pulls, "r/app", 0, tag="1")
    note(pulls, "r/app", 1, tag="2")
    note(pulls, "r/app", 2 * TOGETHER_S, tag="2")

    assert [pull["tag"] for pull in pulls.status(0)] == ["2", "2", "1"]
    assert [pull["requests"] for pull in pulls.status(0)] == [1, 1, 1]


def test_a_few_are_kept() -> None:
    pulls = RecentPulls()
    for number in range(10 * KEPT):
        note(pulls, f"r/app{number}", number)

    assert [pull["image"] for pull in pulls.status(0)] == [
        f"r/app{number}" for number in range(10 * KEPT - 1, 9 * KEPT - 1, -1)
    ]


def test_what_was_cut_is_counted() -> None:
    pulls = RecentPulls()
    pulls.note("r/app", "", {"peer": 1}, started_s=0, ended_s=1, cut=True)

    assert pulls.status(1)[0]["cut"] == 1


def test_an_engine_that_looks_a_tag_up_and_pulls_by_digest_has_pulled_that_tag() -> None:
    pulls = RecentPulls()
    note(pulls, "r/app", 0, tag="1")
    pulls.asked("r/app", "2", 1)
    note(pulls, "r/app", 2, peer=5)
    note(pulls, "r/app", 3, peer=5)

    assert [(pull["tag"], pull["requests"]) for pull in pulls.status(3)] == [("2", 2), ("1", 1)]


def test_a_tag_that_is_only_looked_up_is_no_pull_and_is_forgotten() -> None:
    pulls = RecentPulls()
    for number in range(10 * KEPT):
        pulls.asked(f"r/app{number}", "1", 0)
    assert pulls.status(0) == []

    note(pulls, f"r/app{10 * KEPT - 1}", TOGETHER_S + 1)
    note(pulls, "r/app0", 0)

    assert [pull["tag"] for pull in pulls.status(0)] == ["", ""]
