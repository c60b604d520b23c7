"""How long a blob that others bring is waited for."""

from __future__ import annotations

from p2pdist.registry_proxy.core.following import BlobView, Following


def test_a_blob_that_is_whole_or_has_failed_is_waited_for_no_longer() -> None:
    for view in (BlobView(complete=True), BlobView(failed=True)):
        assert Following(2.0, 100.0).look(view, 100.0) is True


def test_silence_counts_from_the_beginning_of_the_wait() -> None:
    """Nothing came for an hour, because nobody was asked."""
    following = Following(2.0, 100.0)

    assert following.look(BlobView(idle_s=3600.0), 101.9) is None
    assert following.due_s == 102.0
    assert following.look(BlobView(idle_s=3602.0), 102.0) is False


def test_whatever_comes_puts_the_end_off() -> None:
    following = Following(2.0, 100.0)

    assert following.look(BlobView(idle_s=0.5), 102.5) is None
    assert following.due_s == 104.0
    assert following.look(BlobView(idle_s=2.0), 104.0) is False


def test_a_source_that_is_gone_is_not_waited_for() -> None:
    following = Following(2.0, 100.0)

    assert following.look(BlobView(), 100.0, source_gone=True) is False
    assert following.look(BlobView(complete=True), 100.0, source_gone=True) is True
