"""Waits for the end of a run: asks its trackers twice a second, lives through their restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.prewarming.picture import ENDED, Picture
from p2pdist.cli.prewarming.progress import Display
from p2pdist.cli.prewarming.trackers import Filed, failure, is_away
from p2pdist.control.jobs_client import JobsError
from p2pdist.model.jobs import JobStatus
from p2pdist.process.clock import unix_s

POLL_S: Final = 0.5
AWAY_MAX_S: Final = 60.0
# A tracker's own word that the deadline was missed comes this much later at most.
DEADLINE_GRACE_S: Final = 1.0


@dataclass(slots=True)
class _Watched:
    """One job, as last heard of."""

    filed: Filed
    status: JobStatus | None = None
    away_since_s: float | None = None
    error: str = ""

    @property
    def over(self) -> bool:
        return self.status is not None and self.status.state in ENDED


@dataclass(slots=True)
class Watch:
    filed: Sequence[Filed]
    display: Display
    poll_s: float = POLL_S
    away_max_s: float = AWAY_MAX_S
    _jobs: list[_Watched] = field(init=False)

    def __post_init__(self) -> None:
        self._jobs = [_Watched(filed) for filed in self.filed]

    async def wait(self) -> Picture:
        """Return how it ended: over, held, or at its deadline.

        Raises CommandError: a tracker that is away for long or at the deadline (UPSTREAM), or
        refuses. Cancelling is safe: the run goes on.
        """
        try:
            while True:
                began_s = asyncio.get_running_loop().time()
                await asyncio.gather(*(self._poll(job) for job in self._jobs if not job.over))
                if (picture := self._look()) is not None:
                    return picture
                spent_s = asyncio.get_running_loop().time() - began_s
                await asyncio.sleep(max(0.0, self.poll_s - spent_s))
        finally:
            self.display.close()

    def _look(self) -> Picture | None:
        """Show where it stands; return it once there is nothing to wait for."""
        now_s, now_unix_s = asyncio.get_running_loop().time(), unix_s()
        away = {
            job.filed.tracker.base_url: now_s - job.away_since_s
            for job in self._jobs
            if job.away_since_s is not None
        }
        known = [job.status for job in self._jobs if job.status is not None]
        if known:
            self.display.show(Picture(known), away, now_unix_s, now_s)
        late = self._is_late(now_unix_s)
        if away and (late or max(away.values()) >= self.away_max_s):
            raise self._gone(late=late)
        picture = Picture(known)
        if len(known) < len(self._jobs) or away:
            return None
        return picture if picture.settled or late else None

    def _is_late(self, now_unix_s: float) -> bool:
        """Whether the deadline of a job that is not over has passed."""
        running = [job.status for job in self._jobs if job.status and not job.over]
        return any(
            status.deadline_missed or 0 < status.deadline_unix_s < now_unix_s - DEADLINE_GRACE_S
            for status in running
        )

    async def _poll(self, job: _Watched) -> None:
        try:
            async with asyncio.timeout(self.away_max_s):
                status = await job.filed.tracker.show(job.filed.job)
        except (JobsError, TimeoutError) as error:
            if isinstance(error, JobsError) and not is_away(error):
                raise failure(error) from None
            job.error = str(error)
            if job.away_since_s is None:
                job.away_since_s = asyncio.get_running_loop().time()
        else:
            job.status, job.away_since_s = status, None

    def _gone(self, *, late: bool) -> CommandError:
        error = next(job.error for job in self._jobs if job.away_since_s is not None)
        when = "at the deadline" if late else f"for {self.away_max_s:.0f} s"
        return CommandError(
            f"a tracker was away {when}: {error}",
            Exit.UPSTREAM,
            "the hosts go on with what they were told; `p2pdist prewarm show` once it is back",
        )
