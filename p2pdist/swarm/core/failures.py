"""Why nobody had what a client asked for: one answer out of those that all who were asked gave."""

from __future__ import annotations

from typing import Final

from p2pdist.errors import ErrorReason, P2pdistError, RegistryError, UpstreamError
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import DEFINITE, refusal

# What says something of those who were asked, not of the registry: any other word is worth more.
_BESIDE_THE_POINT: Final = frozenset({ErrorReason.NO_PROXY, ErrorReason.NOT_LISTED})


class Failures:
    """Of one question for something of `name`."""

    def __init__(self, name: ImageName, what: str, *, unknown: str = "MANIFEST_UNKNOWN") -> None:
        """`what` is asked for; `unknown`: the code where nobody has it."""
        self._registry = name.upstream
        self._what = what
        self._unknown = unknown
        self._heard: list[tuple[ErrorReason, str]] = []

    def told(self, error: UpstreamError, code: str) -> None:
        """A registry, or a proxy about one, gave a reason. Raises RegistryError for one that no
        other source may overrule."""
        self._heard.append((error.reason, str(error)))
        if error.reason in DEFINITE:
            unknown = "NAME_UNKNOWN" if code == "NAME_UNKNOWN" else self._unknown
            raise refusal(error.reason, self._registry, str(error), unknown=unknown)

    def heard(self, error: UpstreamError) -> None:
        """Of a proxy: its word about a registry, or its silence. Raises as `told`."""
        if error.status:
            self.told(error, "")
        else:
            self.proxy_failed(error)

    def proxy_failed(self, error: P2pdistError) -> None:
        """A proxy was silent, or what it answered is not to be believed."""
        reason = ErrorReason.PROXY_ERROR
        if isinstance(error, UpstreamError) and error.status == 0:
            here = error.reason is ErrorReason.EXHAUSTED
            reason = error.reason if here else ErrorReason.NO_PROXY
        self._heard.append((reason, str(error)))

    @property
    def unlisted(self) -> bool:
        """All who were asked say that the registry is none of theirs."""
        return bool(self._heard) and all(r is ErrorReason.NOT_LISTED for r, _ in self._heard)

    def refusal(self) -> RegistryError:
        """The answer to the client: the last word about the registry, else the first other one."""
        worth = [heard for heard in self._heard if heard[0] not in _BESIDE_THE_POINT]
        silence = (ErrorReason.NO_PROXY, f"no source for {self._what}: no proxy answers")
        reason, text = worth[-1] if worth else next(iter(self._heard), silence)
        return refusal(reason, self._registry, text, unknown=self._unknown)
