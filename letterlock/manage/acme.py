"""Certificates from an ACME authority (RFC 8555): ordered, renewed, revoked. Their settings: Get- and Set-AcmeSettings.

An order is known by its first name. The server renews by itself when a third of a certificate's life remains.
"""

from __future__ import annotations

import datetime
import time
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.base.settings_acme import AcmeSettings
from letterlock.directory.acme import REASONS, Issuer, check
from letterlock.directory.acme_answers import External, listen
from letterlock.directory.acme_orders import AcmeOrder
from letterlock.directory.certificate_names import Wish, identity
from letterlock.directory.certificates import Certificate
from letterlock.manage.certificate_new import (
    EXPORTABLE,
    FRIENDLY,
    SERVER,
    SERVICE_WORDS,
    THUMBPRINT,
    changed,
    key_kind,
    key_parameters,
    one_of,
    possible,
    read_services,
)
from letterlock.manage.certificate_rows import certificate_row, served_for
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row, secret, words


def _issuer(c: Context) -> Issuer:
    return Issuer(c.config, c.certificates, c.server.bound if c.server is not None else listen)


def _moment(at: float) -> str | None:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds") if at else None


def _row(order: AcmeOrder, installed: Certificate | None) -> Row:
    due = order.due(installed)
    properties: dict[str, Any] = {
        "Identity": order.identity,
        "DomainName": list(order.domains),
        "Services": ", ".join(order.services) or "None",
        "State": _state(order, installed),
        "NotAfter": installed.x509.not_valid_after_utc.isoformat(timespec="seconds") if installed else None,
        "RenewalTime": _moment(due) or "now",
        "Thumbprint": order.thumbprint,
        "DirectoryUrl": order.directory_url,
        "LastAttempt": _moment(order.last_attempt),
        "LastSuccess": _moment(order.last_success),
        "Failures": order.failures,
        "LastError": order.error,
        "FriendlyName": order.friendly_name,
    }
    return Row(properties, ("Identity", "State", "NotAfter", "RenewalTime"))


def _state(order: AcmeOrder, installed: Certificate | None) -> str:
    """Valid, RenewalDue, RenewalFailed, Revoked, Expired or Missing."""
    if installed is None:
        return "Missing"
    if installed.revoked:
        return "Revoked"
    if not installed.validity().in_force:
        return "Expired"
    if order.failures:
        return "RenewalFailed"
    return "RenewalDue" if order.due(installed) <= time.time() else "Valid"


async def get(c: Context, p: dict[str, Any]) -> list[Row]:
    """Orders, and how their renewal stands."""
    c.check_server(p.get("Server", ""))
    issuer = _issuer(c)
    orders = [issuer.orders.one(p["Identity"])] if "Identity" in p else issuer.orders.all()
    return [_row(o, issuer.installed(o)) for o in orders]


async def new(c: Context, p: dict[str, Any]) -> list[Row]:
    """Order a certificate, prove the names, install it; from then on it is renewed."""
    c.check_server(p.get("Server", ""))
    settings = c.config.settings(AcmeSettings)
    algorithm, size = key_kind(p, None)
    friendly = p.get("FriendlyName", "ACME")
    names, _ = identity(Wish(p["DomainName"], "", friendly))
    order = AcmeOrder(
        identity=names[0],
        domains=tuple(names),
        services=possible(c, names[0], p.get("Services", ("IMAP", "POP", "SMTP"))),
        friendly_name=friendly,
        algorithm=algorithm,
        size=size,
        exportable=bool(p.get("PrivateKeyExportable", False)),
        directory_url=settings.DirectoryUrl,
    )
    check(settings, order)
    issuer = _issuer(c)
    if issuer.orders.find(order.identity) is not None:
        raise Refused(
            f"there is an order for {order.identity} already; renew it with Update-AcmeCertificate, or end it with "
            "Remove-AcmeCertificate first"
        )
    if not c.should(f"order a certificate for {', '.join(names)} at {settings.DirectoryUrl}"):
        return []
    return await _issued(c, issuer, order, _external(p))


def _external(p: dict[str, Any]) -> External | None:
    given = [n for n in ("ExternalAccountKeyId", "ExternalAccountHmacKey") if n in p]
    if len(given) == 1:
        raise Malformed("ExternalAccountKeyId and ExternalAccountHmacKey go together")
    return External(p["ExternalAccountKeyId"], p["ExternalAccountHmacKey"].reveal()) if given else None


async def _issued(c: Context, issuer: Issuer, order: AcmeOrder, external: External | None = None) -> list[Row]:
    certificate = await issuer.issue(order, c.who, external)
    changed(c)
    return [certificate_row(c, certificate, served_for(c.certificates))]


async def update(c: Context, p: dict[str, Any]) -> list[Row]:
    """Renew now, whatever the time."""
    c.check_server(p.get("Server", ""))
    issuer = _issuer(c)
    order = issuer.orders.one(p["Identity"])
    if not c.should(f"renew the certificate for {', '.join(order.domains)} at {order.directory_url}"):
        return []
    return await _issued(c, issuer, order)


async def remove(c: Context, p: dict[str, Any]) -> list[Row]:
    """No more renewals; the certificate stays."""
    c.check_server(p.get("Server", ""))
    issuer = _issuer(c)
    order = issuer.orders.one(p["Identity"])
    if c.should(f"end the renewal of the certificate for {', '.join(order.domains)}; the certificate stays"):
        issuer.orders.remove(order, c.who)
    return []


async def revoke(c: Context, p: dict[str, Any]) -> list[Row]:
    """Have the authority revoke a certificate that came from it."""
    c.check_server(p.get("Server", ""))
    issuer = _issuer(c)
    certificate = c.certificates.one(p["Thumbprint"])
    if certificate.self_signed:
        raise Refused(f"{certificate.thumbprint} is self-signed; there is nobody who could revoke it")
    order = issuer.orders.of(certificate.thumbprint)
    reason = p.get("Reason", "Unspecified")
    if not c.should(f"have {certificate.thumbprint} ({', '.join(certificate.domains)}) revoked, reason {reason}"):
        return []
    await issuer.revoke(certificate, order, REASONS[reason], c.who)
    changed(c)
    if order is not None:
        c.warn(f"a running server replaces it now (RenewalEnabled); or use: Update-AcmeCertificate {order.identity}")
    return []


_ORDER: Final = Parameter("Identity", "The order: its first name.", str, 0, True, True)
_MAYBE: Final = Parameter("Identity", "The order: its first name.", str, 0, pipeline=True)

CMDLETS: Final = (
    Cmdlet("Get-AcmeCertificate", "Shows ACME orders and how their renewal stands.", get, (_MAYBE, SERVER)),
    Cmdlet(
        "New-AcmeCertificate",
        "Orders a certificate from an ACME authority, installs it and has it renewed from then on.",
        new,
        (
            Parameter(
                "DomainName",
                "Names; wildcards need ChallengeType Dns01.",
                words,
                0,
                True,
                type_name="String[]",
            ),
            Parameter("Services", SERVICE_WORDS, read_services, type_name="String[]", default="IMAP,POP,SMTP"),
            FRIENDLY,
            *key_parameters(),
            EXPORTABLE,
            Parameter("ExternalAccountKeyId", "For authorities that want an account of their own first."),
            Parameter("ExternalAccountHmacKey", "Its key, base64url; used once.", secret, type_name="SecureString"),
            SERVER,
        ),
        True,
    ),
    Cmdlet("Update-AcmeCertificate", "Renews a certificate now.", update, (_ORDER, SERVER), True),
    Cmdlet("Remove-AcmeCertificate", "Ends the renewal; the certificate stays.", remove, (_ORDER, SERVER), True),
    Cmdlet(
        "Revoke-AcmeCertificate",
        "Has the authority revoke a certificate.",
        revoke,
        (
            THUMBPRINT,
            Parameter("Reason", "Why.", one_of(*REASONS), type_name=" | ".join(REASONS), default="Unspecified"),
            SERVER,
        ),
        True,
    ),
)
