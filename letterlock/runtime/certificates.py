"""Looks after certificates while the server runs: warns of those that end, and takes up what has changed by time alone.

Every hour: what is served is chosen again (one may have ended, another begun), and certificates from an ACME authority
are renewed when they are due. Every day: warnings, and a new secret for session tickets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from letterlock.base.errors import LetterlockError
from letterlock.directory.certificates import Certificate, Certificates

if TYPE_CHECKING:
    from letterlock.runtime.supervisor import Server

HOUR_S: Final = 3600.0
DAY_S: Final = 86400.0


def warnings(certificates: Certificates) -> Iterator[str]:
    """A line for each certificate that is served and ends soon or has ended, or is enabled and cannot be used."""
    served = certificates.served()
    for certificate in certificates.all():
        users = [s for s, (_, c) in served.items() if c.thumbprint == certificate.thumbprint]
        # the administration takes whatever has its name; that alone is no reason to warn
        users = [s for s in users if s != "IIS" or s in certificate.services]
        names = ", ".join(certificate.domains[:3]) or "no name"
        if certificate.fault and certificate.services:
            yield f"certificate {certificate.thumbprint} ({names}) cannot be used: {certificate.fault}"
        for trouble in (certificate.validity().warning, _revoked(certificate)):
            if users and trouble:
                yield f"certificate {certificate.thumbprint} ({names}), served for {', '.join(users)}, {trouble}"
    yield from certificates.faults


def _revoked(certificate: Certificate) -> str:
    return f"was revoked on {certificate.revoked[:10]}" if certificate.revoked else ""


class CertificateWatch:
    """One a server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._served: dict[str, str] = {}
        self._warned = 0.0

    def start(self) -> None:
        """Look at once, and then every hour."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """No more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except LetterlockError as error:
                self._server.warn(error.text)
            except Exception as error:
                self._server.incident(error)
            await asyncio.sleep(HOUR_S)

    async def _look(self) -> None:
        certificates = self._server.certificates
        served = {service: c.thumbprint for service, (_, c) in certificates.served().items()}
        if self._served and served != self._served:
            self._server.reload()
        self._served = served
        if time.monotonic() - self._warned >= DAY_S or not self._warned:
            if self._warned:
                self._server.new_tickets()
            self._warned = time.monotonic()
            for line in warnings(certificates):
                self._server.warn(line)
        certificates.publish()
