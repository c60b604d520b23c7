"""What was written is there after a restart, all or nothing."""

from __future__ import annotations

import pytest

from p2pdist.store.state_port import Key, Record, StateRows
from tests.conformance.state.conftest import States, everything, numbered

HOSTS = numbered(("a", "1"), ("a", "2"), ("b", "1"))


async def test_of_a_new_one_nothing_is_there(states: States) -> None:
    assert await states.found() == {"jobs": [], "hosts": []}


async def test_what_was_written_is_there_after_a_restart(states: States) -> None:
    state = await states.opened()
    await state.write({"jobs": [(("a",), b"\0\xff")], "hosts": HOSTS}, {})

    assert await states.found() == {"jobs": [b"\0\xff"], "hosts": [b"a/1", b"a/2", b"b/1"]}
    assert await states.found() == {"jobs": [b"\0\xff"], "hosts": [b"a/1", b"a/2", b"b/1"]}


async def test_records_are_found_by_the_beginning_of_their_key(states: States) -> None:
    await (await states.opened()).write({"hosts": HOSTS}, {})

    def of_some(rows: StateRows) -> list[list[Record]]:
        begins: list[Key] = [("a",), ("a", "2"), ("c",), ("a", "3")]
        return [sorted(rows.of("hosts", begin)) for begin in begins]

    assert await (await states.unopened()).open(of_some) == [[b"a/1", b"a/2"], [b"a/2"], [], []]


async def test_a_record_takes_the_place_of_the_one_with_its_key(states: States) -> None:
    state = await states.opened()
    await state.write({"hosts": HOSTS}, {})
    await state.write({"hosts": [(("a", "2"), b"another")]}, {})

    assert (await states.found())["hosts"] == [b"a/1", b"another", b"b/1"]


async def test_what_is_deleted_is_gone_with_all_that_begins_so(states: States) -> None:
    state = await states.opened()
    await state.write({"jobs": [(("a",), b"a"), (("b",), b"b")], "hosts": HOSTS}, {})
    await state.write({}, {"hosts": [("a",), ("c",)], "jobs": [("b",)]})

    assert await states.found() == {"jobs": [b"a"], "hosts": [b"b/1"]}


async def test_deletes_of_a_write_follow_its_puts(states: States) -> None:
    state = await states.opened()
    await state.write({"hosts": HOSTS}, {"hosts": [("a",)]})

    assert (await states.found())["hosts"] == [b"b/1"]


async def test_a_key_that_looks_like_a_statement_is_a_key(states: States) -> None:
    state = await states.opened()
    strange = "' OR 1=1 -- %_*"
    await state.write({"hosts": numbered((strange, "1"), ("a", "1"))}, {})
    await state.write({}, {"hosts": [(strange,)]})

    assert (await states.found())["hosts"] == [b"a/1"]


async def test_a_write_that_fails_leaves_nothing(states: States) -> None:
    state = await states.opened()

    with pytest.raises(KeyError):  # a mistake of ours, met half way
        await state.write({"jobs": [(("a",), b"a")], "none": [(("a",), b"a")]}, {})

    assert await states.found() == {"jobs": [], "hosts": []}


async def test_where_records_make_no_sense_nothing_was_stored(states: States) -> None:
    await (await states.opened()).write({"hosts": HOSTS}, {})
    seen = []

    def hard_to_please(rows: StateRows) -> int:
        seen.append(everything(rows)["hosts"])
        if seen[-1]:
            raise ValueError("no sense")
        return 7

    state = await states.unopened()
    assert await state.open(hard_to_please) == 7
    await state.write({"jobs": [(("new",), b"new")]}, {})

    assert seen == [[b"a/1", b"a/2", b"b/1"], []]
    assert await states.found() == {"jobs": [b"new"], "hosts": []}
