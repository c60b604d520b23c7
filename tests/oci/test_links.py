"""`Link` headers of registries, and of those who would have us think about theirs for long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci import links
from p2pdist.oci.links import (
    HEADER_LENGTH_MAX,
    HEADERS_MAX,
    TARGET_LENGTH_MAX,
    next_page,
)

NEXT = "/v2/library/app/tags/list?n=2&last=b"


@pytest.mark.parametrize(
    "header",
    [
        f'<{NEXT}>; rel="next"',
        f"<{NEXT}>;rel=next",
        f'<{NEXT}> ; REL = "Next"',
        f'<{NEXT}>; title="a, b; <c>"; rel="prefetch next"',
        f'<{NEXT}>; title="say \\"rel=prev\\""; rel=next',
        f"<{NEXT}>; rel=next; rel=prev",
        f"<{NEXT}>; crossorigin; rel=next",
        f"<{NEXT}>;; rel=next;",
        f'</first>; rel="first", <{NEXT}>; rel="next"',
        f'</first>; title="rel=next"; rel=first,<{NEXT}>; rel=next, </x>; rel=next',
        f", ,</first>,\t<{NEXT}>; rel=next, ",
    ],
)
def test_the_next_page_is_found(header: str) -> None:
    assert next_page([header]) == NEXT


@pytest.mark.parametrize(
    "header",
    [
        "",
        NEXT,
        f"<{NEXT}>",
        f"<{NEXT}; rel=next",
        f"<{NEXT}>; rel=nextpage",
        f"<{NEXT}>; rel=prev; rel=next",
        f'<{NEXT}>; title="rel=next"',
        f'<{NEXT}>; rel="next',
        f'<{NEXT}>; rel="next"x',
        f"<{NEXT}> rel=next",
        "<>; rel=next",
        f"<{'a' * (TARGET_LENGTH_MAX + 1)}>; rel=next",
        f'"<{NEXT}>; rel=next',
    ],
)
def test_what_leads_to_no_next_page(header: str) -> None:
    assert next_page([header]) is None


def test_every_header_of_an_answer_counts() -> None:
    assert next_page(["</first>; rel=first", f"<{NEXT}>; rel=next"]) == NEXT
    assert next_page(['<a>; rel="', f"<{NEXT}>; rel=next"]) == NEXT
    assert next_page([]) is None


def test_what_is_read_of_an_answer_is_bounded() -> None:
    link = f"<{NEXT}>; rel=next"

    assert next_page([""] * HEADERS_MAX + [link]) is None
    assert next_page([" " * HEADER_LENGTH_MAX + link]) is None


@pytest.mark.parametrize(
    "unit", ["<a>;", "<a>", "<", "<a>;a=", '<a>;a="\\', "; ", "\\", '"', " \t", "<a>; a,", ",<a>;"]
)
@pytest.mark.parametrize("head", ["", "<a>;", '<a>;a="', "<a>; "])
def test_a_hostile_header_is_read_in_one_go(
    monkeypatch: pytest.MonkeyPatch, head: str, unit: str
) -> None:
    """Minutes with a pattern that tries every beginning; the time limit of a test ends those."""
    monkeypatch.setattr(links, "HEADER_LENGTH_MAX", 1 << 30)
    header = head + unit * (256 * 1024 // len(unit))

    assert next_page([header]) is None


@given(st.lists(st.text(alphabet='<>;,="\\ \trelnxt/a')))
def test_no_text_is_too_odd(headers: list[str]) -> None:
    target = next_page(headers)
    assert target is None or any(f"<{target}>" in header for header in headers)


_TARGETS = st.text(st.characters(exclude_characters="<>\r\n", codec="ascii"), min_size=1)
_QUOTED = st.text(st.characters(exclude_characters="\r\n", codec="ascii")).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)


@given(st.lists(st.tuples(_TARGETS, _QUOTED), max_size=5), _TARGETS, _QUOTED)
def test_whatever_stands_beside_it_the_next_page_is_found(
    others: list[tuple[str, str]], target: str, title: str
) -> None:
    before = [f"<{other}>; rel=prev; title={text}" for other, text in others]
    header = ", ".join([*before, f"<{target}>; title={title}; rel=next"])

    assert next_page([header]) == target
