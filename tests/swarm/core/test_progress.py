from __future__ import annotations

from p2pdist.swarm.core.progress import PASSED_ON_MAX_S, WORD_MAX_S, Progress


def test_what_came_is_progress() -> None:
    progress = Progress(0.0)
    progress.came(7.0)

    assert progress.idle_s(9.0) == 2.0


def test_the_word_of_a_proxy_counts_for_a_while() -> None:
    progress = Progress(0.0)

    progress.said(WORD_MAX_S)
    assert progress.idle_s(WORD_MAX_S + 1) == 1.0


def test_a_word_that_nothing_follows_counts_no_more() -> None:
    """Said each second for ever, it would keep a reader from every other source."""
    progress = Progress(0.0)
    passed_on = [progress.said(float(second)) for second in range(1, 100)]

    assert passed_on == [True] * int(PASSED_ON_MAX_S) + [False] * (99 - int(PASSED_ON_MAX_S))
    assert progress.idle_s(99.0) == 99.0 - WORD_MAX_S


def test_each_chunk_gives_the_word_its_weight_back() -> None:
    progress = Progress(0.0)
    progress.came(100.0)

    assert progress.said(100.0 + PASSED_ON_MAX_S)
    progress.said(100.0 + WORD_MAX_S)
    assert progress.idle_s(100.0 + WORD_MAX_S) == 0.0


def test_a_no_holds_until_something_comes_or_is_said() -> None:
    progress = Progress(0.0)
    assert not progress.denied

    for event in (progress.came, progress.said):
        progress.denied = True
        event(1.0)
        assert not progress.denied


def test_a_word_that_counts_no_more_does_not_outweigh_a_no() -> None:
    progress = Progress(0.0)
    progress.denied = True

    progress.said(WORD_MAX_S + 1)
    assert progress.denied
