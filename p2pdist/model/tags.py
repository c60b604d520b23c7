"""The one rule by which somebody's word on a tag is believed: of a proxy, alive, not outdated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from p2pdist.errors import P2pdistError
from p2pdist.model.clocks import CLOCK_TOLERANCE_S
from p2pdist.model.ids import Digest, TagKey
from p2pdist.model.statements import Keyring, TagStatement, signer_of


class NotBelieved(P2pdistError):
    """A statement that a proxy signed, and that is of no use: what relays it is no liar."""


@dataclass(frozen=True, slots=True)
class TagRecord:
    """A tag statement whose signature holds, with the record that carries it."""

    statement: TagStatement
    record: bytes

    @property
    def signer(self) -> bytes:
        return signer_of(self.record)


def open_tag(keyring: Keyring, key: TagKey, record: bytes) -> TagRecord:
    """Check the signature of a statement about the tag `key`, and nothing about time.

    Raise PeerFault for a record that no proxy of ours signed, and NotBelieved for one about
    anything else.
    """
    statement = keyring.open(record)
    if not isinstance(statement, TagStatement) or statement.key != key:
        raise NotBelieved("a statement about something else")
    return TagRecord(statement, record)


def believe_tag(
    told: TagRecord,
    *,
    now_unix_s: float,
    held: TagRecord | None = None,
    digest: Digest | None = None,
) -> TagRecord:
    """Return `told` if it may be believed at `now_unix_s`; raise NotBelieved if not.

    `digest`: of the manifest that came with it. `held`: what is known of the tag so far, alive or
    not; who is between us and a proxy may replay what it said earlier, so that nothing older
    counts. Two signers have two clocks, which may differ by the tolerance. What is held and comes
    from the future says nothing about order: else a clock that was wrong once would freeze a tag.
    """
    statement = told.statement
    if digest is not None and statement.digest != digest:
        raise NotBelieved("a statement about another manifest")
    if statement.expires_at_s + CLOCK_TOLERANCE_S <= now_unix_s:
        raise NotBelieved(f"a statement that ended {now_unix_s - statement.expires_at_s:.0f} s ago")
    if held is not None and held.statement.issued_at_s <= now_unix_s + CLOCK_TOLERANCE_S:
        tolerance_s = 0 if held.signer == told.signer else CLOCK_TOLERANCE_S
        behind_s = held.statement.issued_at_s - statement.issued_at_s
        if behind_s > tolerance_s:
            raise NotBelieved(f"a statement {behind_s} s older than the one that is known")
    return told


def newest(told: Iterable[TagRecord]) -> TagRecord | None:
    """The one that was issued last."""
    return max(told, key=lambda tag: tag.statement.issued_at_s, default=None)


def age_at_hearing_s(told: TagRecord, now_unix_s: float) -> float:
    """How long ago its proxy looked, as far as our clock can tell; never less than nothing."""
    return max(0.0, now_unix_s - told.statement.issued_at_s)
