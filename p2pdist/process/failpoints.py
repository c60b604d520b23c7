"""Named points at which a test lets this process die, fail or wait.

    P2PDIST_FAILPOINTS=1 P2PDIST_FAIL="store.before_rename=kill@3,store.before_bits=error"

`name=action`: each time; `@n`: the n-th time only; `@n+`: from the n-th time on. Actions: `kill`
(SIGKILL to ourselves), `error` (OSError EIO), `full` (OSError ENOSPC), `sleep:0.5` (seconds; blocks
the thread that comes by). Read once, at import; without them `point` is an empty function.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.process import logs

log = logging.getLogger(__name__)

ENABLE: Final = "P2PDIST_FAILPOINTS"
PLAN: Final = "P2PDIST_FAIL"
_RULE: Final = re.compile(
    r"(?P<name>[a-z_.]+)=(?:(?P<action>kill|error|full)|sleep:(?P<delay_s>\d+(?:\.\d+)?))"
    r"(?:@(?P<first>[1-9]\d*)(?P<on>\+)?)?"
)
_ERRNO: Final = {"error": errno.EIO, "full": errno.ENOSPC}


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at one point, from the `first` to the `last` time that it is passed."""

    name: str
    action: str
    delay_s: float
    first: int = 1
    last: int | None = None
    """None: no end."""

    def due(self, passed: int) -> bool:
        return self.first <= passed and (self.last is None or passed <= self.last)


class Failpoints:
    """The rules in force, and how often each point was passed."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules
        self._passed = dict.fromkeys(rules, 0)
        self._lock = threading.Lock()  # the store's threads come by, too

    def point(self, name: str) -> None:
        """Do what the plan says for `name`. Raises OSError where it says so."""
        rule = self._rules.get(name)
        if rule is None:
            return
        with self._lock:
            self._passed[name] += 1
            due = rule.due(self._passed[name])
        if due:
            _act(rule)


def parse_plan(text: str) -> dict[str, Rule]:
    """Return the rules by point; raise ConfigError for a plan that cannot be read."""
    rules = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = _RULE.fullmatch(part)
        if match is None:
            raise ConfigError(f"{PLAN}: {part!r} is no rule, such as store.before_rename=kill@3")
        rules[match["name"]] = _rule(match)
    return rules


def _rule(match: re.Match[str]) -> Rule:
    first = int(match["first"] or 1)
    last = first if match["first"] and not match["on"] else None
    return Rule(
        match["name"], match["action"] or "sleep", float(match["delay_s"] or 0), first, last
    )


def armed(environ: Mapping[str, str]) -> Callable[[str], None]:
    """Return the `point` that `environ` asks for: an empty one unless it has both variables."""
    if environ.get(ENABLE) != "1" or not environ.get(PLAN):
        return _nothing
    return Failpoints(parse_plan(environ[PLAN])).point


def announce(environ: Mapping[str, str] = os.environ) -> None:
    """Say in the log that a plan is in force, or was refused: neither belongs in production."""
    plan = environ.get(PLAN)
    if not plan:
        return
    if environ.get(ENABLE) == "1":
        hint = "this process fails on purpose"
        logs.event(log, logging.WARNING, "failpoints.armed", plan=plan, hint=hint)
    else:
        hint = f"ignored without {ENABLE}=1"
        logs.event(log, logging.WARNING, "failpoints.refused", plan=plan, hint=hint)


def _act(rule: Rule) -> None:
    if rule.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif rule.action == "sleep":
        time.sleep(rule.delay_s)
    else:
        number = _ERRNO[rule.action]
        raise OSError(number, f"failpoint {rule.name}: {os.strerror(number)}")


def _nothing(name: str) -> None:
    """Nothing fails here."""


point: Final = armed(os.environ)
