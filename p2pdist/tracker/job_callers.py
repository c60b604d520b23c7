"""Who may order jobs at a tracker, by what was shown with the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.errors import P2pdistError, PeerFault
from p2pdist.model.cluster_secrets import SecretSource
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.jobs import IDENTITY_REQUIRED, RULE_KEY, JobSpec
from p2pdist.process import audit
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.operator_token import token_matches

_ISSUE: Final = "`p2pdist ca issue --role operator` makes one, and --identity DIR shows it"


class NotLetIn(P2pdistError):
    """The text says what to do; `who` is what was shown."""

    def __init__(self, message: str, who: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.who, self.status, self.code = who, status, code


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may order jobs."""

    identity: Identity | None
    """None: who knows the cluster's secret."""

    def __str__(self) -> str:
        return audit.SECRET if self.identity is None else str(self.identity)

    def check(self, spec: JobSpec) -> None:
        """Raise NotLetIn where a job is none of its business: those of proxies are of rules."""
        if self.identity is None or self.identity.role is IdentityRole.OPERATOR:
            return
        if not spec.key.startswith(RULE_KEY) or spec.into_runtime:
            text = f"a proxy sees to the jobs of [[replicate]] rules alone; {_ISSUE}"
            raise NotLetIn(text, str(self), status=403, code="wrong_role")

    def check_all(self) -> None:
        """Raise NotLetIn where not all jobs are its business."""
        if self.identity is not None and self.identity.role is not IdentityRole.OPERATOR:
            text = f"jobs are listed for operators; {_ISSUE}"
            raise NotLetIn(text, str(self), status=403, code="wrong_role")


class JobCallers:
    def __init__(self, secret: SecretSource, own: IdentityHolder | None) -> None:
        """A token of any secret that is believed will do."""
        self._secret = secret
        self._own = own

    def judged(self, certificate: bytes | None, authorization: str) -> Caller:
        """Return who asks; raise NotLetIn.

        `certificate`: what the other end of the connection showed, in DER; chain and dates are
        TLS's to look at. Whoever shows one is who it says, whatever else comes with the request.
        """
        if certificate is not None and self._own is not None:
            return self._certified(self._own.current, certificate)
        knows = any(token_matches(secret, authorization) for secret in self._secret().each)
        if self._own is not None and self._own.required:
            text = f"orders take a certificate here (cluster.require_identity); {_ISSUE}"
            who = audit.SECRET if knows else audit.NOBODY
            raise NotLetIn(text, who, status=403, code=IDENTITY_REQUIRED)
        if not knows:
            text = "no token, or not that of this cluster"
            raise NotLetIn(text, audit.NOBODY, status=401, code="unauthorized")
        return Caller(None)

    def _certified(self, own: HostIdentity, certificate: bytes) -> Caller:
        try:
            shown = own.shown(certificate)
        except PeerFault as error:
            code = "certificate_refused"
            raise NotLetIn(str(error), audit.NOBODY, status=403, code=code) from None
        if shown.role not in (IdentityRole.OPERATOR, IdentityRole.PROXY):
            text = f"the certificate is for a {shown.role}, not for an operator; {_ISSUE}"
            raise NotLetIn(text, str(shown), status=403, code="wrong_role")
        return Caller(shown)
