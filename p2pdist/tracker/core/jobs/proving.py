"""Proofs: hosts that say they hold an image have to show it, again and again.

A host is asked for a hash over fresh random places of all that it needs to hold, keyed with a fresh
key, so that no answer can be kept from before. What is right a proxy says: it is asked first. Where
no proxy holds the image, the answer that most hosts give counts.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from p2pdist.model.control import Prove
from p2pdist.tracker.core.jobs.alarms import Alarms
from p2pdist.tracker.core.jobs.job import Group, Job
from p2pdist.tracker.core.jobs.target import Target
from p2pdist.tracker.core.orders import Send, SendMany

# A lie shows after `PROVE_EVERY_S` + `ANSWER_S` at the latest, within the 5 s that are promised.
PROVE_EVERY_S: Final = 2.6
ANSWER_S: Final = 1.2
WITNESS_S: Final = 0.4
# Once the job is over: pins hold what lies there, and 10,000 hosts cost 170 proofs a second.
PROVE_ENDED_EVERY_S: Final = 60.0
# Hosts that become whole one after the other are asked together.
FRESH_WAIT_S: Final = 0.2
# Hosts are asked in turn over the interval: answers come in the same moment, and take 60 µs each.
ROUND_HOSTS_MAX: Final = 200
ROUND_PAUSE_S: Final = 0.02

KEY_BYTES: Final = 32
CHOSEN: Final = -1
"""In place of a proof's number: the host will be asked once a witness has answered."""


class Verdicts(Protocol):
    """What the book of jobs makes of proofs."""

    def proof_right(self, job: Job, target: Target, now_s: float) -> None: ...
    def proof_wrong(self, job: Job, target: Target, now_s: float) -> None: ...
    def proof_missing(self, job: Job, target: Target, now_s: float) -> None: ...


@dataclass(slots=True, eq=False)
class _Round:
    message: Prove
    job: Job
    hosts: list[Target]
    """To be asked once it is known what is right."""
    witnesses: list[Target]
    witness: str = ""
    expected: bytes | None = None
    begun: bool = False
    """The hosts were asked."""
    asked: dict[str, Target] = field(default_factory=dict)
    """Host -> those that have not answered."""
    answers: dict[bytes, list[Target]] = field(default_factory=dict)
    """While it is not known what is right."""

    def judges(self, target: Target) -> bool:
        """Whether what a host held when it was asked is what it holds now, and the job still asks:
        one that is over lets go of its hosts at any time."""
        return target.asked == self.message.seq and target.whole and bool(self.job.targets)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        if not self.begun:
            assert self.witness, "somebody is asked, or the round never goes on"
            assert not self.asked
            assert not self.answers
            assert self.expected is None
        assert self.expected is None or not self.answers
        chosen = {host.host_id: host for host in self.hosts}
        answered = [host for given in self.answers.values() for host in given]
        waited_for = [*self.asked.values(), *answered]
        assert all(chosen[host.host_id] is host for host in waited_for)
        assert len({host.host_id for host in waited_for}) == len(waited_for)


class Prover:
    def __init__(
        self,
        alarms: Alarms,
        verdicts: Verdicts,
        send: Callable[[Send | SendMany], None],
        rng: Random,
        token: Callable[[int], bytes],
    ) -> None:
        """`token(n)` returns n bytes that nobody can guess."""
        self._alarms = alarms
        self._verdicts = verdicts
        self._send = send
        self._rng = rng
        self._token = token
        self._seq = itertools.count(1)
        self._rounds: dict[int, _Round] = {}

    # --- who is to be asked ---------------------------------------------------------------------

    def watch(self, job: Job, group: Group, now_s: float) -> None:
        """Ask the proven hosts of a group from now on, for as long as the job has hosts."""
        group.watch += 1
        self._watch(job, group, group.watch, now_s)

    def _watch(self, job: Job, group: Group, number: int, now_s: float) -> None:
        if not job.targets or job.state == "cancelled" or group.watch != number:
            return
        every_s = PROVE_ENDED_EVERY_S if job.ended else PROVE_EVERY_S
        turns = max(1, -(-len(group.proven) // ROUND_HOSTS_MAX))
        next_s = now_s + every_s / turns
        self._alarms.at(next_s, lambda at_s: self._watch(job, group, number, at_s))
        self._begin(job, group, _next_in_turn(group, -(-len(group.proven) // turns)), now_s)

    def now_whole(self, job: Job, group: Group, target: Target, now_s: float) -> None:
        """A host says that it has everything: ask it soon."""
        group.proven.pop(target.host_id, None)
        group.fresh[target.host_id] = target
        target.proven, target.asked = False, 0
        if not group.asking_fresh:
            group.asking_fresh = True
            self._alarms.at(now_s + FRESH_WAIT_S, lambda at_s: self._ask_fresh(job, group, at_s))

    def not_whole(self, group: Group, target: Target) -> None:
        """No proof of before counts, and none that is under way."""
        group.fresh.pop(target.host_id, None)
        group.proven.pop(target.host_id, None)
        target.proven, target.asked = False, 0

    def _ask_fresh(self, job: Job, group: Group, now_s: float) -> None:
        waiting = [target for target in group.fresh.values() if not target.asked]
        group.asking_fresh = len(waiting) > ROUND_HOSTS_MAX
        if group.asking_fresh:
            due_s = now_s + ROUND_PAUSE_S
            self._alarms.at(due_s, lambda at_s: self._ask_fresh(job, group, at_s))
        for target in waiting[:ROUND_HOSTS_MAX]:
            target.asked = CHOSEN
        self._begin(job, group, waiting[:ROUND_HOSTS_MAX], now_s)

    def proven(self, group: Group, target: Target) -> None:
        """A host passed its first proof: it is asked again and again from now on."""
        group.fresh.pop(target.host_id, None)
        group.proven[target.host_id] = target
        target.proven = True
        if not target.queued:
            target.queued = True
            group.queue.append(target)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        for seq, round_ in self._rounds.items():
            assert round_.message.seq == seq
            round_.validate()

    # --- one round ------------------------------------------------------------------------------

    def _begin(self, job: Job, group: Group, hosts: list[Target], now_s: float) -> None:
        if not hosts or not job.targets:
            return
        message = Prove(next(self._seq), self._token(KEY_BYTES), group.parts.challenge(self._rng))
        round_ = _Round(message, job, hosts, list(_witnesses(job, group)))
        self._rounds[message.seq] = round_
        self._ask_witness(round_, now_s)

    def _ask_witness(self, round_: _Round, now_s: float) -> None:
        while round_.witnesses:
            witness = round_.witnesses.pop()
            if witness.host is not None and witness.host.link is not None:
                round_.witness = witness.host_id
                self._send(Send(witness.host.link, round_.message))
                self._alarms.at(now_s + WITNESS_S, lambda at_s: self._no_witness(round_, at_s))
                return
        self._ask_hosts(round_, now_s)

    def _no_witness(self, round_: _Round, now_s: float) -> None:
        if not round_.begun:
            self._ask_witness(round_, now_s)

    def _ask_hosts(self, round_: _Round, now_s: float) -> None:
        seq, links = round_.message.seq, []
        round_.begun = True
        for target in round_.hosts:
            # Some may have lost a part, or their connection, since they were chosen.
            if target.whole and target.host is not None and target.host.link is not None:
                target.asked = seq
                round_.asked[target.host_id] = target
                links.append(target.host.link)
        self._send(SendMany(links, round_.message))
        self._alarms.at(now_s + ANSWER_S, lambda at_s: self._end(round_, at_s))

    def answered(self, host_id: str, seq: int, answer: bytes, now_s: float) -> None:
        """Take in a proof; one that nobody waits for (any more) is ignored."""
        round_ = self._rounds.get(seq)
        if round_ is None:
            return
        target = round_.asked.pop(host_id, None)
        if target is not None:
            self._judge(round_, target, answer, now_s)
        elif round_.witness == host_id and not round_.begun:
            if answer:
                round_.expected = answer
                self._ask_hosts(round_, now_s)
            else:
                self._ask_witness(round_, now_s)

    def _judge(self, round_: _Round, target: Target, answer: bytes, now_s: float) -> None:
        if not round_.judges(target):
            return
        if not answer:
            self._verdicts.proof_wrong(round_.job, target, now_s)
        elif round_.expected is None:
            round_.answers.setdefault(answer, []).append(target)
        elif answer == round_.expected:
            self._verdicts.proof_right(round_.job, target, now_s)
        else:
            self._verdicts.proof_wrong(round_.job, target, now_s)

    def _end(self, round_: _Round, now_s: float) -> None:
        del self._rounds[round_.message.seq]
        self._settle(round_, round_.asked.values(), self._verdicts.proof_missing)
        most = Counter({answer: len(given) for answer, given in round_.answers.items()})
        ranking = most.most_common(2)
        tied = len(ranking) == 2 and ranking[0][1] == ranking[1][1]
        for answer, given in round_.answers.items():
            right = not tied and answer == ranking[0][0]
            verdict = self._verdicts.proof_right if right else self._verdicts.proof_wrong
            self._settle(round_, given, verdict)

    def _settle(
        self,
        round_: _Round,
        targets: Iterable[Target],
        verdict: Callable[[Job, Target, float], None],
    ) -> None:
        def work(target: Target, now_s: float) -> None:
            if round_.judges(target):
                verdict(round_.job, target, now_s)

        self._alarms.each(targets, work)


def _next_in_turn(group: Group, count: int) -> list[Target]:
    """Take the proven hosts that were asked longest ago; they queue up again behind all others."""
    chosen: list[Target] = []
    for _ in range(len(group.queue)):
        if len(chosen) == count:
            break
        target = group.queue.popleft()
        if target.proven:
            chosen.append(target)
            group.queue.append(target)
        else:
            target.queued = False
    return chosen


def _witnesses(job: Job, group: Group) -> Iterable[Target]:
    """Connected proxies of the job that hold all that the group needs."""
    for proxy in job.proxies.values():
        entries = proxy.host.entries if proxy.host is not None else {}
        needed = (key for key in group.parts.sizes if not key.startswith("tag:"))
        if all((entry := entries.get(key)) is not None and entry.complete for key in needed):
            yield proxy
