"""The TLS contexts of one service: chosen by X509CertificateName, then by the name a client asks for.

Contexts are kept by certificate and oldest TLS version, never by what a client says, so that no flood of names takes
memory. `reload` starts anew with what is installed now; running connections keep theirs.
"""

from __future__ import annotations

import functools
import ssl
from typing import Any

from letterlock import tls
from letterlock.base.errors import Refused
from letterlock.directory import selection
from letterlock.directory.certificates import Certificate, Certificates
from letterlock.runtime.kinds import KINDS, choose, make_context


class Contexts:
    """For one generation of a front-end service. `secret` is behind its session tickets."""

    def __init__(self, certificates: Certificates, name: str, settings: Any, secret: bytes) -> None:
        self._certificates, self._name, self._settings, self._secret = certificates, name, settings, secret
        self._contexts: dict[tuple[str, str], ssl.SSLContext] = {}
        self._default: Certificate
        self._installed: list[Certificate] = []

    def reload(self, minimum: str) -> None:
        """Certificates and keys as they are now; `Refused`, and nothing changed, when they cannot be used."""
        chosen = choose(self._certificates, self._name, self._settings)
        installed = [c for c in self._certificates.all() if not c.fault]
        made = self._make(chosen, minimum, True)
        self._default, self._installed = chosen, installed
        self._contexts = {(chosen.thumbprint, minimum): made}

    def context(self, minimum: str) -> ssl.SSLContext:
        """For a handshake with that oldest version; a client that asks for another name is moved on from it."""
        return self._context(self._default, minimum)

    def share_tickets(self, secret: bytes) -> None:
        """The secret has changed: new tickets are made with it, older ones are not taken any more."""
        self._secret = secret
        for (thumbprint, minimum), context in self._contexts.items():
            self._share(thumbprint, minimum, context)

    def _context(self, certificate: Certificate, minimum: str) -> ssl.SSLContext:
        context = self._contexts.get((certificate.thumbprint, minimum))
        if context is None:
            context = self._make(certificate, minimum, certificate is self._default)
            self._contexts[certificate.thumbprint, minimum] = context
        return context

    def _make(self, certificate: Certificate, minimum: str, first: bool) -> ssl.SSLContext:
        ask = functools.partial(self._by_name, minimum) if first else None
        context = make_context(certificate, self._name, minimum, ask)
        self._share(certificate.thumbprint, minimum, context)
        return context

    def _by_name(self, minimum: str, name: str) -> ssl.SSLContext | None:
        if self._default.matches(name):
            return None
        other = selection.by_server_name(self._installed, name, KINDS[self._name].certificate)
        try:
            return self._context(other, minimum) if other is not None else None
        except Refused:
            return None

    def _share(self, thumbprint: str, minimum: str, context: ssl.SSLContext) -> None:
        tls.share_tickets(context, self._secret, f"{self._name} {thumbprint} {minimum}")
