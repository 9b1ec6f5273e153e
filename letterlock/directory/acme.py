"""A certificate from an ACME authority, from the order to what is served: for cmdlets and for the server's own renewal.

Nothing is installed unless all went well; a renewal that fails leaves the certificate that is there, and is tried again
later and later (`acme_orders.back_off`). One order runs at a time.
"""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from letterlock.base.errors import LetterlockError, Malformed, Refused
from letterlock.base.settings_acme import AcmeChallenge, AcmeSettings
from letterlock.directory import certificate_files as files
from letterlock.directory.acme_answers import Bound, External, Proof, by_file, by_hook, by_listener
from letterlock.directory.acme_orders import AcmeOrder, AcmeOrders
from letterlock.directory.certificate_names import alternative_names, check_service, identity
from letterlock.directory.certificates import SERVICES, Certificate, Certificates
from letterlock.directory.config import Config

if TYPE_CHECKING:
    from letterlock.directory.acme_client import AcmeClient


# RFC 5280 §5.3.1
REASONS: Final = {
    "Unspecified": 0, "KeyCompromise": 1, "AffiliationChanged": 3, "Superseded": 4, "CessationOfOperation": 5,
}  # fmt: skip


class Issuer:
    """What one data directory needs to have certificates issued."""

    def __init__(self, config: Config, certificates: Certificates, bound: Bound) -> None:
        self._config, self._certificates, self._bound = config, certificates, bound
        self.orders = AcmeOrders(config)

    async def issue(self, order: AcmeOrder, who: str, external: External | None = None) -> Certificate:
        """Have a certificate issued and install it in the place of the one before; the order is saved either way.

        `Refused` says what failed. An order that is new is only saved when its certificate was had.
        """
        async with self._certificates.issuing:
            try:
                certificate = await self._obtain(order, who, external)
            except LetterlockError as error:
                if order.thumbprint or order.last_attempt:
                    self.orders.save(order.failed(error.text), who, "ACME failure")
                raise
        self.orders.save(order.succeeded(certificate.thumbprint), who, "ACME success")
        return certificate

    async def _obtain(self, order: AcmeOrder, who: str, external: External | None) -> Certificate:
        settings = dataclasses.replace(self._config.settings(AcmeSettings), DirectoryUrl=order.directory_url)
        check(settings, order)
        names, subject = identity(order.wish)
        key = await asyncio.to_thread(files.new_key, order.algorithm, order.size)
        csr = files.request(key, subject, names)
        client = _client(settings, self._config, external)
        placed = await asyncio.to_thread(client.order, files.csr_pem(csr), names)
        async with self._shown(settings, placed.proofs):
            found = await asyncio.to_thread(client.finish, placed)
        certificate = files.leaf(files.Bundle(found, key), set())
        _check_answer(set(alternative_names(certificate)), names)
        before = self._replaced(order)
        services = self._services(order, before)
        described = (order.friendly_name, services, order.exportable)
        installed = self._certificates.install(certificate, found, key, described, who, "New-Acme")
        served = {c.thumbprint for _, c in self._certificates.served().values()}
        if before is not None and before.thumbprint not in served | {installed.thumbprint}:
            self._certificates.remove(before, who)
        return installed

    def _shown(self, settings: AcmeSettings, proofs: list[Proof]) -> AbstractAsyncContextManager[None]:
        if settings.ChallengeType is AcmeChallenge.Dns01:
            return by_hook(settings, proofs, self._config.data / "hooks")
        if settings.WebRoot:
            return by_file(settings, proofs)
        return by_listener(settings, proofs, self._bound)

    def installed(self, order: AcmeOrder) -> Certificate | None:
        """The certificate that an order has brought."""
        return next((c for c in self._certificates.all() if c.thumbprint == order.thumbprint), None)

    def _replaced(self, order: AcmeOrder) -> Certificate | None:
        return self.installed(order) if order.thumbprint else None

    def _services(self, order: AcmeOrder, before: Certificate | None) -> tuple[str, ...]:
        """Those of the order, and those that its last certificate was enabled for since."""
        wanted = {*order.services, *(before.services if before is not None else ())}
        return tuple(s for s in SERVICES if s in wanted)

    async def revoke(self, certificate: Certificate, order: AcmeOrder | None, reason: int, who: str) -> None:
        """Have a certificate revoked; it is served only where nothing else can be."""
        settings = self._config.settings(AcmeSettings)
        if order is not None:
            settings = dataclasses.replace(settings, DirectoryUrl=order.directory_url)
        client = _client(settings, self._config, None)
        async with self._certificates.issuing:
            await asyncio.to_thread(client.revoke, certificate.x509, reason)
        self._certificates.mark_revoked(certificate, who)


def _client(settings: AcmeSettings, config: Config, external: External | None) -> AcmeClient:
    from letterlock.directory.acme_client import AcmeClient  # its libraries take longer to load than most commands

    return AcmeClient(settings, config.data / "acme", external)


def check(settings: AcmeSettings, order: AcmeOrder) -> None:
    """What can be told before anybody is asked; raises `Refused` or `Malformed`."""
    wildcards = [d for d in order.domains if d.startswith("*.")]
    if wildcards and settings.ChallengeType is AcmeChallenge.Http01:
        raise Refused(
            f"a wildcard such as {wildcards[0]} can only be proved by DNS (RFC 8555 §8.4): "
            "Set-AcmeSettings -ChallengeType Dns01 -DnsHook PROGRAM"
        )
    for name in order.domains:
        if name.replace(".", "").isdigit() or ":" in name or "." not in name:
            raise Malformed(f"DomainName: {name} is no name in public DNS; an authority does not certify it")
    for service in order.services:
        check_service(order.domains[0], service)


def _check_answer(found: set[str], wanted: list[str]) -> None:
    missing = [n for n in wanted if n not in found]
    if missing:
        raise Refused(f"the authority's certificate is not for {', '.join(missing)}; it was not installed")
