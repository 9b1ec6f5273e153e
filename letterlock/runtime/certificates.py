"""Looks after certificates while the server runs: warns of those that end, and takes up what has changed by time alone.

Every hour, and after each change: what is served is chosen again (one may have ended, another begun), and certificates
from an ACME authority are renewed when they are due. Every day: warnings, and a new secret for session tickets.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from letterlock.base.errors import LetterlockError
from letterlock.base.settings_acme import AcmeSettings
from letterlock.directory.acme import Issuer
from letterlock.directory.acme_orders import AcmeOrder, back_off
from letterlock.directory.certificates import Certificate, Certificates

if TYPE_CHECKING:
    from letterlock.runtime.supervisor import Server

HOUR_S: Final = 3600.0
LEAST_S: Final = 5.0  # between two looks, whatever an authority issues
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
        self._poked = asyncio.Event()
        self._issuer = Issuer(server.config, server.certificates, server.bound)

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
            wait = HOUR_S
            try:
                await self._look()
                wait = await self._renew()
            except LetterlockError as error:
                self._server.warn(error.text)
            except Exception as error:
                self._server.incident(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), wait)
            self._poked.clear()

    def poke(self) -> None:
        """Something has changed: look before the hour is over."""
        self._poked.set()

    async def _renew(self) -> float:
        """Renew what is due; seconds until the next one is, at most an hour."""
        issuer, wait = self._issuer, HOUR_S
        if not self._server.config.settings(AcmeSettings).RenewalEnabled:
            return wait
        for order in issuer.orders.all():
            if order.due(issuer.installed(order)) <= time.time():
                order = await self._renewed(order)
            wait = min(wait, order.due(issuer.installed(order)) - time.time())
        return max(wait, LEAST_S)

    async def _renewed(self, order: AcmeOrder) -> AcmeOrder:
        try:
            certificate = await self._issuer.issue(order, "renewal")
        except LetterlockError as error:
            order = self._issuer.orders.find(order.identity) or order
            again = f"next try in {back_off(order.failures) / 3600:.0f} hours"
            self._server.warn(f"the certificate for {order.identity} could not be renewed, {again}: {error.text}")
            return order
        self._server.reload()
        self._server.warn(
            f"the certificate for {order.identity} was renewed: {certificate.thumbprint}, "
            f"valid until {certificate.x509.not_valid_after_utc:%Y-%m-%d}"
        )
        return self._issuer.orders.find(order.identity) or order

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
