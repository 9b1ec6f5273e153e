"""New-, Get- and Enable-ExchangeCertificate, each also as …-Certificate."""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from letterlock.base.errors import Malformed
from letterlock.directory.certificates import SERVICES, Certificate
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, words


def _row(c: Certificate) -> Row:
    key = c.x509.public_key()
    size = key.key_size if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) else 0
    properties = {
        "Thumbprint": c.thumbprint,
        "Services": ", ".join(c.services) or "None",
        "Subject": c.x509.subject.rfc4514_string(),
        "CertificateDomains": list(c.domains),
        "HasPrivateKey": c.key.is_file(),
        "IsSelfSigned": c.self_signed,
        "Issuer": c.x509.issuer.rfc4514_string(),
        "NotBefore": c.x509.not_valid_before_utc.isoformat(timespec="seconds"),
        "NotAfter": c.x509.not_valid_after_utc.isoformat(timespec="seconds"),
        "PublicKeySize": size,
        "SerialNumber": f"{c.x509.serial_number:X}",
        "Status": "DateInvalid" if c.expired else "Valid",
        "FriendlyName": c.friendly_name,
        "Identity": c.thumbprint,
    }
    return Row(properties, ("Thumbprint", "Services", "Subject"))


def _services(p: dict[str, Any]) -> tuple[str, ...]:
    found = [s.upper() for s in p.get("Services", []) if s.lower() != "none"]
    for service in found:
        if service not in SERVICES:
            raise Malformed(f"Services: '{service}' is not one of None, {', '.join(SERVICES)}")
    return tuple(s for s in SERVICES if s in found)


async def get(c: Context, p: dict[str, Any]) -> list[Row]:
    """Installed certificates; with -DomainName those that cover it, the one that would be served first."""
    c.check_server(p.get("Server", ""))
    if "Thumbprint" in p:
        return [_row(c.certificates.one(p["Thumbprint"]))]
    if "DomainName" in p:
        best, _ = c.certificates.choose(p["DomainName"], "IMAP")
        rest = [x for x in c.certificates.all() if x.matches(p["DomainName"]) and x.thumbprint != best.thumbprint]
        return [_row(x) for x in (best, *rest)]
    return [_row(x) for x in c.certificates.all()]


async def new(c: Context, p: dict[str, Any]) -> list[Row]:
    """A self-signed certificate."""
    c.check_server(p.get("Server", ""))
    domains = p.get("DomainName") or [c.config.fqdn]
    services = _services(p) if "Services" in p else ()
    if not c.should(f"make a self-signed certificate for {', '.join(domains)}"):
        return []
    friendly = p.get("FriendlyName", "Letterlock")
    made = c.certificates.create(domains, friendly, services, c.who, int(p.get("KeySize", 0)))
    return [_row(made)]


async def enable(c: Context, p: dict[str, Any]) -> list[Row]:
    """Add services."""
    c.check_server(p.get("Server", ""))
    certificate = c.certificates.one(p["Thumbprint"])
    services = _services(p)
    if c.should(f"enable certificate {certificate.thumbprint} for {', '.join(services)}"):
        c.certificates.enable(certificate, list(services), c.who)
        c.warn("the services serve it after a restart, if X509CertificateName chooses it")
    return []


def _size(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise Malformed(f"'{value}' is not a number; use 2048 or 4096") from None


_SERVER: Final = Parameter("Server", "This server's name.")
_FORCE: Final = Parameter("Force", "Accepted; nothing is asked.", boolean, switch=True, type_name="Switch")
_SERVICES: Final = Parameter("Services", "IMAP, POP, SMTP, IIS.", words, mandatory=True, type_name="String[]")
_THUMBPRINT: Final = Parameter("Thumbprint", "Which certificate.", str, 0, True, True)

CMDLETS: Final = (
    Cmdlet(
        "New-ExchangeCertificate",
        "Makes a self-signed certificate.",
        new,
        (
            Parameter("DomainName", "Names it is for.", words, type_name="String[]"),
            Parameter("FriendlyName", "Name for people."),
            Parameter("KeySize", "RSA bits, 2048 or 4096; ECDSA P-256 without it.", _size, type_name="Int32"),
            Parameter("Services", "IMAP, POP, SMTP, IIS.", words, type_name="String[]"),
            _SERVER,
            _FORCE,
        ),
        True,
        ("New-Certificate",),
    ),
    Cmdlet(
        "Get-ExchangeCertificate",
        "Shows installed certificates.",
        get,
        (Parameter("Thumbprint", "Which one.", str, 0), Parameter("DomainName", "A name it covers."), _SERVER),
        aliases=("Get-Certificate",),
    ),
    Cmdlet(
        "Enable-ExchangeCertificate",
        "Enables a certificate for services.",
        enable,
        (_THUMBPRINT, _SERVICES, _SERVER, _FORCE),
        True,
        ("Enable-Certificate",),
    ),
)
