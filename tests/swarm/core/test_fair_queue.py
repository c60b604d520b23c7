from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.swarm.core.fair_queue import FairQueue

SENDERS = st.sampled_from(["a", "b", "c", "proxy", None])


def filled(items_max: int, *senders: str | None) -> tuple[FairQueue[str, int], list[str]]:
    """Return a queue into which each of them put one item, and who was turned out for it."""
    queue: FairQueue[str, int] = FairQueue(items_max)
    out = [queue.put(s, n, sheltered=s == "proxy") for n, s in enumerate(senders)]
    return queue, [sender for sender in out if sender is not None]


def drained(queue: FairQueue[str, int]) -> list[str | None]:
    return [queue.pop()[0][0] for _ in range(len(queue))]


def test_what_is_said_is_taken_in_its_order() -> None:
    queue, out = filled(4, "a", "b", "a")

    assert [queue.pop() for _ in range(3)] == [(["a"], 0), (["b"], 1), (["a"], 2)]
    assert out == []


def test_who_filled_it_leaves_and_not_who_comes_last() -> None:
    queue, out = filled(4, "a", "a", "b", "a", "c")

    assert out == ["a"]
    assert drained(queue) == ["b", "c"]


def test_a_configured_proxy_leaves_last() -> None:
    queue, out = filled(3, "proxy", "proxy", "proxy", "a")
    assert out == ["a"]
    assert drained(queue) == ["proxy"] * 3


def test_a_configured_proxy_that_says_too_much_leaves_all_the_same() -> None:
    queue, out = filled(3, "proxy", "proxy", "proxy", "proxy")

    assert out == ["proxy"]
    assert len(queue) == 0


def test_this_node_itself_is_never_turned_out() -> None:
    queue, out = filled(1, None, None, None, "a")

    assert out == []
    assert drained(queue) == [None, None, None, "a"]


def alike(items_max: int, alike_max: int) -> FairQueue[str, str]:
    return FairQueue(items_max, alike_max=alike_max)


def test_what_all_say_alike_waits_once_and_turns_nobody_out() -> None:
    queue = alike(2, 100)
    for number in range(50):
        for sender in ("a", "b", "c"):
            assert queue.put(sender, f"{number}", key=number) is None

    assert len(queue) == 50
    assert queue.pop() == (["a", "b", "c"], "0")
    assert queue.put("a", "0", key=0) is None, "it is not waiting any more"
    assert len(queue) == 50


def test_who_says_more_than_can_be_told_apart_takes_room() -> None:
    queue = alike(2, 3)
    out = [queue.put("a", f"{number}", key=number) for number in range(6)]

    assert out == [None] * 5 + ["a"]
    assert [queue.pop()[1] for _ in range(len(queue))] == ["0", "1", "2"]


def test_what_somebody_said_alike_stays_when_he_is_turned_out() -> None:
    queue = alike(1, 3)
    queue.put("a", "signed", key="signed")
    queue.put("a", "offer")
    assert queue.put("a", "offer") == "a"

    assert queue.pop() == (["a"], "signed")
    assert len(queue) == 0


@given(senders=st.lists(SENDERS, max_size=60), pops=st.integers(0, 3))
def test_it_stays_bounded_and_turns_out_only_the_loudest(
    senders: list[str | None], pops: int
) -> None:
    items_max = 7
    queue: FairQueue[str, int] = FairQueue(items_max)
    waiting: Counter[str | None] = Counter()
    for number, sender in enumerate(senders):
        waiting[sender] += 1
        out = queue.put(sender, number, sheltered=sender == "proxy")
        if out is not None:
            others = [s for s in waiting if s not in (None, "proxy")]
            rivals = others if out != "proxy" else [s for s in waiting if s is not None]
            assert out != "proxy" or not any(waiting[s] for s in others)
            assert waiting[out] == max(waiting[s] for s in rivals)
            del waiting[out]
        for _ in range(min(pops, len(queue))):
            waiting[queue.pop()[0][0]] -= 1
        assert sum(waiting[s] for s in waiting if s is not None) <= items_max
        assert len(queue) == waiting.total()
        queue.validate()


@given(
    said=st.lists(st.tuples(SENDERS, st.sampled_from(["", "x", "y", "z"]), st.integers(0, 2))),
)
def test_its_books_agree_whatever_is_said_alike(said: list[tuple[str | None, str, int]]) -> None:
    queue = alike(4, 2)
    for sender, key, pops in said:
        queue.put(sender, key, key=key or None, sheltered=sender == "proxy")
        queue.validate()
        for _ in range(min(pops, len(queue))):
            queue.pop()
            queue.validate()
