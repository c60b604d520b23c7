from __future__ import annotations

from itertools import pairwise

from p2pdist.tracker.core.counters import TrackerCounters
from p2pdist.tracker.core.leases import PAST_S, Lease, Leases
from tests.tracker.hosts import host_id, key, member

FIRST, SECOND = host_id(1), host_id(2)
UNIX_S = 1_800_000_000.0


def leases(*, leases_max: int = 100, unix_s: float = UNIX_S) -> Leases:
    return Leases(
        TrackerCounters(), epoch_s=0.0, epoch_unix_s=unix_s, lease_s=10.0, leases_max=leases_max
    )


def ask(table: Leases, host: str, now_s: float, dc: str = "dc1") -> Lease:
    holder = member(int(host, 16))
    lease = table.ask(dc, key(), holder.host_id, now_s, member=holder)
    assert lease is not None
    return Lease(lease.holder, lease.fence, lease.expires_at_s, lease.member)


def test_one_host_of_a_datacenter_gets_the_lease_and_the_other_is_told_who() -> None:
    table = leases()

    assert ask(table, FIRST, 0.0).holder == FIRST
    assert ask(table, SECOND, 1.0).holder == FIRST


def test_datacenters_do_not_share_a_lease() -> None:
    table = leases()
    ask(table, FIRST, 0.0)

    assert ask(table, SECOND, 0.0, dc="dc2").holder == SECOND


def test_renewing_keeps_the_fence_and_moves_the_end() -> None:
    table = leases()
    granted = ask(table, FIRST, 0.0)

    renewed = ask(table, FIRST, 6.0)

    assert renewed.fence == granted.fence
    assert renewed.expires_at_s == 16.0
    assert ask(table, SECOND, 15.0).holder == FIRST


def test_an_expired_lease_is_taken_over_with_a_higher_fence() -> None:
    table = leases()
    granted = ask(table, FIRST, 0.0)

    taken = ask(table, SECOND, 10.0)

    assert taken.holder == SECOND
    assert taken.fence > granted.fence
    assert table._counters.leases_taken_over_total == 1


def test_a_lease_that_was_given_back_is_no_takeover() -> None:
    table = leases()
    granted = ask(table, FIRST, 0.0)

    table.end("dc1", key(), FIRST, granted.fence, 0.0)

    assert ask(table, SECOND, 0.0).fence > granted.fence
    assert table._counters.leases_taken_over_total == 0


def test_an_old_fence_ends_nothing() -> None:
    table = leases()
    old = ask(table, FIRST, 0.0)
    ask(table, SECOND, 10.0)

    table.end("dc1", key(), FIRST, old.fence, 10.0)
    table.end("dc1", key(), SECOND, old.fence, 10.0)

    assert ask(table, FIRST, 10.0).holder == SECOND


def test_a_lost_host_frees_its_leases_at_once() -> None:
    table = leases()
    ask(table, FIRST, 0.0)

    table.release(FIRST, 1.0)

    assert ask(table, SECOND, 1.0).holder == SECOND
    assert table._counters.leases_taken_over_total == 1


def test_fences_grow_over_a_restart_in_the_second_of_the_last_grant() -> None:
    before = ask(leases(unix_s=UNIX_S - 5.0), FIRST, 5.2)

    after = ask(leases(unix_s=UNIX_S + 0.4), SECOND, 0.0)

    assert before.fence == int(UNIX_S)
    assert after.fence > before.fence


def test_a_fence_fits_into_its_message() -> None:
    assert ask(leases(), FIRST, 0.0).fence <= 1 << 32


def test_fences_of_a_busy_key_grow_by_one_each_and_never_fall_back() -> None:
    table, fences = leases(), []

    for _ in range(200):
        lease = ask(table, FIRST, 0.0)
        fences.append(lease.fence)
        table.end("dc1", key(), FIRST, lease.fence, 0.0)
    table.handle_deadline(100.0)
    fences.append(ask(table, FIRST, 100.0).fence)

    assert all(a < b for a, b in pairwise(fences))


def test_a_full_table_refuses_without_a_holder() -> None:
    table = leases(leases_max=1)
    ask(table, FIRST, 0.0)

    assert table.ask("dc1", key("other"), SECOND, 0.0, member=member(2)) is None


def test_past_leases_are_forgotten() -> None:
    table = leases()
    ask(table, FIRST, 0.0)

    table.handle_deadline(10.0)
    assert table.next_deadline_s() == 10.0 + PAST_S
    table.handle_deadline(10.0 + PAST_S)

    assert table.next_deadline_s() is None
