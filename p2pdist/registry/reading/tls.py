"""Whom an upstream's connections believe, and to whom they show a certificate of ours."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Sequence
from pathlib import Path

from p2pdist.model.members import Address


class UpstreamTls:
    """The contexts of one upstream, made once: reading the system's certificates takes a while."""

    def __init__(
        self,
        own: tuple[str, int],
        *,
        ca_file: Path | None,
        cert_file: Path | None,
        cert_key_file: Path | None,
        insecure: Sequence[Address],
    ) -> None:
        """`own`: host and port of the upstream itself. Raises ValueError for files that do not fit.

        Certificates of `ca_file` count for all hosts that the upstream leads to, too: a registry of
        a company has its token service and its storage under the same authority.
        """
        self._own = own
        self._insecure = frozenset((address.host.lower(), address.port) for address in insecure)
        self._checked = _believing(ca_file)
        self._unchecked = _believing_all()
        self._for_own = _believing_all() if own in self._insecure else _believing(ca_file)
        self.shows_certificate = cert_file is not None
        if cert_file is not None:
            try:
                # A password is asked for on the terminal else; a daemon has none.
                self._for_own.load_cert_chain(cert_file, cert_key_file, password=_refuse_password)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                raise ValueError(f"cert_file {cert_file}: {_reason(error)}") from None

    def context(self, host: str, port: int) -> ssl.SSLContext:
        """Return what to connect to `host` with."""
        place = host.lower(), port
        if place == self._own:
            return self._for_own
        return self._unchecked if place in self._insecure else self._checked


@functools.cache
def system_context() -> ssl.SSLContext:
    """Whom the system believes: for all upstreams that say nothing of it."""
    return _believing(None)


def _believing(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Python 3.13 wants extensions that many companies' authorities leave out, and that no runtime
    # asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ValueError) as error:
            raise ValueError(f"ca_file {ca_file}: {_reason(error)}") from None
    return context


def _believing_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _refuse_password() -> str:
    raise ValueError("its key wants a password; take one that has none")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "is no certificate in PEM, or not that of its key"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
