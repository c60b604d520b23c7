"""Signs the next certificates of hosts that are connected: `core.renewals` says whose."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.errors import ConfigError
from p2pdist.model.control import RENEW_RETRY_S_MAX, Renew, Renewed, encoder
from p2pdist.model.identity import Identity
from p2pdist.process import audit, logs
from p2pdist.process.ca import BACKDATED_S, LIFE_S_MAX, Ca, read_ca
from p2pdist.process.certificates import Certificate, described, span_text
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.metrics import Sample
from p2pdist.process.requests import sign_request
from p2pdist.settings import Settings
from p2pdist.tracker.admission import who_shown
from p2pdist.tracker.connection import Connection
from p2pdist.tracker.core.renewals import HOST_PAUSE_S, Refusal, RenewalDesk, Shown

log = logging.getLogger(__name__)


class Renewer:
    """The key of the CA is read for each signature: another CA in its place is used at once."""

    def __init__(self, directory: Path, own: IdentityHolder) -> None:
        """Raises ConfigError where `directory` has no CA that this tracker believes itself."""
        self._directory = directory
        self._own = own
        self._desk = RenewalDesk(time.monotonic())
        self._refusals = audit.Refusals()
        self._one_at_a_time = asyncio.Lock()
        self.signed_total = 0
        self.refused_total = 0
        self.believed_ca()

    async def answered(self, connection: Connection, message: Renew) -> None:
        """Sign for who is at the other end, or tell it why not."""
        shown, seq = connection.certificate, message.seq
        told = await self.for_shown(shown, message.request, peer=connection.peer, seq=seq)
        connection.send(connection.codec.pack(encoder.encode(told)))

    async def for_shown(
        self, certificate: bytes | None, request: bytes, *, peer: str, seq: int = 0
    ) -> Renewed:
        """Sign for who has shown `certificate`, in DER, in the handshake of TLS; or say why not."""
        told = await self._for_host(certificate, Renew(seq, request))
        who = who_shown(certificate)
        if told.certificate:
            self.signed_total += 1
            logs.event(
                audit.log, logging.INFO, "renewal.signed", audit="done", who=who, peer=peer,
                host=who.rpartition(" ")[2],
            )  # fmt: skip
        else:
            self.say_refused(who, peer, told.reason)
        return told

    def say_refused(self, who: str, peer: str, reason: str) -> None:
        self.refused_total += 1
        self._refusals.event(
            audit.log, logging.INFO, "renewal.refused", who=who, peer=peer, reason=reason
        )

    async def own(self, request: bytes) -> Renewed | None:
        """Sign for this tracker itself."""
        async with self._one_at_a_time:
            own = self._own.current
            if why := own.revoked.why(own.identity.host_id):
                return _refused(0, Refusal(why, HOST_PAUSE_S))
            told = await asyncio.to_thread(self._signed, 0, own.identity, own.says, request)
        if told.certificate:
            logs.event(
                audit.log, logging.INFO, "renewal.signed", audit="done", who=str(own.identity),
                peer="", host=own.identity.host_id,
            )  # fmt: skip
        return told

    async def _for_host(self, certificate: bytes | None, message: Renew) -> Renewed:
        if certificate is None:
            return _refused(message.seq, Refusal("this connection is without TLS", HOST_PAUSE_S))
        says = described(x509.load_der_x509_certificate(certificate))
        assert says.identity is not None, "it was looked at in the handshake"
        if why := self._own.current.revoked.why(says.identity.host_id):
            return _refused(message.seq, Refusal(why, HOST_PAUSE_S))
        shown = Shown(says.identity.host_id, says.begins_s, says.ends_s)
        now_s, unix_s = time.monotonic(), self._own.unix_s()
        if (refusal := self._desk.ask(shown, now_s=now_s, unix_s=unix_s)) is not None:
            return _refused(message.seq, refusal)
        signed = False
        try:
            async with self._one_at_a_time:
                told = await asyncio.to_thread(
                    self._signed, message.seq, says.identity, says, message.request
                )
            signed = bool(told.certificate)
            return told
        finally:
            self._desk.done(shown, signed=signed, now_s=time.monotonic())

    def _signed(self, seq: int, who: Identity, says: Certificate, request: bytes) -> Renewed:
        """Blocking."""
        now_s = self._own.unix_s()
        life_s = min(says.ends_s - says.begins_s - BACKDATED_S, LIFE_S_MAX)
        try:
            ca = self.believed_ca()
            left_s = ca.certificate.not_valid_after_utc.timestamp() - says.ends_s
            if left_s <= 0:
                raise ConfigError(f"the CA itself ends {span_text(-left_s)} before the certificate")
            made = sign_request(ca, who, request, life_s=life_s, now_s=now_s)
        except ConfigError as error:
            logs.event(log, logging.ERROR, "renewal.failed", error=str(error))
            return _refused(seq, Refusal("the tracker has no CA to sign with", HOST_PAUSE_S))
        except ValueError as error:
            return _refused(seq, Refusal(str(error), HOST_PAUSE_S))
        return Renewed(seq, made, list(self._own.current.cas))

    def believed_ca(self) -> Ca:
        """Return the CA to sign with. Blocking; raises ConfigError."""
        ca = read_ca(self._directory)
        if ca.certificate.public_bytes(Encoding.DER) not in self._own.current.cas:
            where = self._own.current.directory
            text = f"its CA is not in ca.pem of {where}: no host would be believed here"
            raise ConfigError(f"tracker.ca_dir: {self._directory}: {text}")
        return ca


def renewer_of(settings: Settings, own: IdentityHolder | None) -> Renewer | None:
    """Return who renews certificates at this tracker, None: nobody. Raises ConfigError."""
    directory = settings.tracker.ca_dir
    if directory is None:
        return None
    if own is None:
        raise ConfigError("tracker.ca_dir is set, but tracker.identity_dir is not")
    return Renewer(directory, own)


def renewal_samples(renewer: Renewer | None) -> Iterable[Sample]:
    if renewer is not None:
        text = "Certificates that this tracker signed for hosts."
        name = "p2pdist_tracker_certificates_signed_total"
        yield Sample(name, "counter", text, {}, renewer.signed_total)
        text = "Requests for a certificate that were refused."
        name = "p2pdist_tracker_certificates_refused_total"
        yield Sample(name, "counter", text, {}, renewer.refused_total)


def refused(seq: int, reason: str) -> Renewed:
    """The answer to who is not let in at all."""
    return _refused(seq, Refusal(reason, HOST_PAUSE_S))


def _refused(seq: int, refusal: Refusal) -> Renewed:
    retry_s = min(refusal.retry_s, RENEW_RETRY_S_MAX)
    return Renewed(seq, reason=refusal.reason[:200], retry_s=retry_s)
