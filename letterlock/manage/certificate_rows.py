"""How certificates and pending requests are shown: Exchange's properties and its letters for services.

Beyond Exchange: `StatusDetail` says in words what is wrong or soon will be, `ServedFor` which services give a client
this certificate now, `Selection` (with -DomainName) why it is served or not.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from letterlock.directory.acme_orders import AcmeOrders
from letterlock.directory.certificate_names import distinguished_name
from letterlock.directory.certificates import Certificate, Certificates, PendingRequest
from letterlock.directory.trust import trust
from letterlock.manage.context import Context
from letterlock.manage.registry import Row

# the places of Exchange's list view; U, F and C (unified messaging, federation) are never set here
_LETTERS: Final = (
    ("IMAP", "I"),
    ("POP", "P"),
    ("UM", "U"),
    ("IIS", "W"),
    ("SMTP", "S"),
    ("Federation", "F"),
    ("", "C"),
)


class Letters(str):
    """Services as the list view shows them, `IP.WS..`; everywhere else they are words."""

    __slots__ = ()


class Pem(str):
    """PEM text: whole for programs, its first line for tables and lists."""

    __slots__ = ()

    def to_json(self) -> str:
        """The text."""
        return str.__str__(self)

    def __str__(self) -> str:
        return f"{self.partition(chr(10))[0]} ({len(self)} octets)"


def letters(services: tuple[str, ...]) -> Letters:
    """`IP.WS..`."""
    return Letters("".join(letter if name in services else "." for name, letter in _LETTERS))


def _size(value: Certificate | PendingRequest) -> int:
    key = value.x509.public_key() if isinstance(value, Certificate) else value.csr.public_key()
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return key.key_size
    return 256  # Ed25519


def status(c: Certificate) -> tuple[str, str]:
    """Exchange's Status, and in words what is the matter."""
    dates = c.validity()
    if c.fault:
        return "Invalid", c.fault
    if c.revoked:
        return "Revoked", f"revoked on {c.revoked[:10]}"
    if not dates.in_force:
        return "DateInvalid", dates.warning
    trouble = trust(c).trouble
    return ("Untrusted", trouble) if trouble else ("Valid", dates.warning)


def served_for(certificates: Certificates) -> dict[str, list[str]]:
    """By thumbprint: the services that serve it now, each with the name it is chosen by."""
    found: dict[str, list[str]] = {}
    for service, (name, certificate) in certificates.served().items():
        found.setdefault(certificate.thumbprint, []).append(f"{service} ({name})")
    return found


def certificate_row(c: Context, one: Certificate, served: dict[str, list[str]], selection: str = "") -> Row:
    """An installed certificate."""
    state, detail = status(one)
    order = AcmeOrders(c.config).of(one.thumbprint)
    properties: dict[str, Any] = {
        "Thumbprint": one.thumbprint,
        "Services": ", ".join(one.services) or "None",
        "Subject": distinguished_name(one.x509.subject),
        "CertificateDomains": list(one.domains),
        "HasPrivateKey": one.key.is_file(),
        "PrivateKeyExportable": one.exportable,
        "IsSelfSigned": one.self_signed,
        "Issuer": distinguished_name(one.x509.issuer),
        "NotBefore": one.x509.not_valid_before_utc.isoformat(timespec="seconds"),
        "NotAfter": one.x509.not_valid_after_utc.isoformat(timespec="seconds"),
        "DaysLeft": one.validity().days_left,
        "PublicKeySize": _size(one),
        "RootCAType": trust(one).root,
        "SerialNumber": f"{one.x509.serial_number:X}",
        "Status": state,
        "StatusDetail": detail,
        "ServedFor": served.get(one.thumbprint, []),
        "AcmeOrder": order.identity if order is not None else None,
    }
    if selection:
        properties["Selection"] = selection
    return _row(c, one, properties)


def request_row(c: Context, one: PendingRequest, with_text: bool = False) -> Row:
    """A pending request; `with_text`: with the PEM text for the authority."""
    properties: dict[str, Any] = {
        "Thumbprint": one.thumbprint,
        "Services": ", ".join(one.services) or "None",
        "Subject": distinguished_name(one.csr.subject),
        "CertificateDomains": list(one.domains),
        "HasPrivateKey": one.key.is_file(),
        "PrivateKeyExportable": one.exportable,
        "IsSelfSigned": False,
        "PublicKeySize": _size(one),
        "RootCAType": "None",
        "Status": "PendingRequest",
        "StatusDetail": "waits for the authority's answer: Import-ExchangeCertificate",
        "WhenCreated": one.created,
    }
    if with_text:
        properties["FileData"] = Pem(one.file.read_text())
    return _row(c, one, properties)


def _row(c: Context, one: Certificate | PendingRequest, properties: dict[str, Any]) -> Row:
    properties |= {
        "FriendlyName": one.friendly_name,
        "Server": c.config.server_name,
        "Identity": f"{c.config.fqdn}\\{one.thumbprint}",
    }
    return Row(properties, ("Thumbprint", "Services", "Subject"), {"Services": letters(one.services)})
