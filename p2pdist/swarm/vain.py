"""What was heard in vain of a blob that somebody else may have all the same."""

from __future__ import annotations

from p2pdist.errors import ErrorReason, RegistryError, UpstreamError
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import blob_refusal
from p2pdist.swarm.core.failures import Failures
from p2pdist.swarm.counters import UPSTREAM


class InVain:
    """Of one question for a blob. Even a refusal is told at the end only: its registry may refuse
    today what a peer was given yesterday."""

    def __init__(self, name: ImageName, digest: Digest) -> None:
        self._name = name
        self._digest = digest
        self._heard: list[tuple[str, UpstreamError]] = []

    def heard(self, label: str, error: UpstreamError) -> None:
        """`label` of the source that failed; one that is no registry is a proxy."""
        self._heard.append((label, error))

    def refusal(self) -> RegistryError:
        """The answer to the client: 404, with what is worth most of all that was heard."""
        if not self._heard:
            text = f"no source for {self._digest}"
            return blob_refusal(ErrorReason.NO_SOURCE, self._name.upstream, text)
        told = self._worth_most()
        assert told.reason is not None
        return blob_refusal(told.reason, self._name.upstream, str(told))

    def _worth_most(self) -> RegistryError:
        failures = Failures(self._name, self._digest, unknown="BLOB_UNKNOWN")
        try:
            for label, error in self._heard:
                if label == UPSTREAM:
                    failures.told(error, "")
                else:
                    failures.heard(error)
        except RegistryError as decided:
            return decided
        return failures.refusal()
