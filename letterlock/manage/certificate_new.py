"""New-ExchangeCertificate, and what all certificate cmdlets share."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from letterlock.base.errors import Malformed, Refused
from letterlock.directory import certificate_files as files
from letterlock.directory.certificate_names import Wish, check_service, identity
from letterlock.directory.certificates import SERVICES, Certificate, PendingRequest
from letterlock.manage import certificate_input
from letterlock.manage.certificate_rows import certificate_row, request_row, served_for
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, secret, words


def changed(c: Context) -> None:
    """What is served from the next handshake on."""
    if c.server is not None:
        c.server.reload()
    c.certificates.publish()


def read_services(value: Any) -> tuple[str, ...]:
    """`IMAP,POP,SMTP`; `None` is none."""
    found = [s.upper() for s in words(value) if s.lower() != "none"]
    for service in found:
        if service not in SERVICES:
            raise Malformed(f"'{service}' is not one of the services here: None, {', '.join(SERVICES)}")
    return tuple(s for s in SERVICES if s in found)


# --- the cmdlet


async def new(c: Context, p: dict[str, Any]) -> list[Row]:
    """A self-signed certificate, or a request for an authority."""
    c.check_server(p.get("Server", ""))
    template = c.certificates.find(p["Instance"]) if "Instance" in p else None
    wish = _wish(c, p, template)
    names, _ = identity(wish)
    asked = bool(p.get("GenerateRequest"))
    services = _new_services(c, p, template, names[0], asked)
    what = "certificate request" if asked else "self-signed certificate"
    if not c.should(f"make a {what} for {', '.join(names)}, services {', '.join(services) or 'None'}"):
        return []
    key = await asyncio.to_thread(files.new_key, wish.algorithm, wish.size)
    if asked:
        return [request_row(c, c.certificates.request(wish, services, c.who, key), with_text=True)]
    made = c.certificates.create(wish, services, c.who, key)
    changed(c)
    return [certificate_row(c, made, served_for(c.certificates))]


def _wish(c: Context, p: dict[str, Any], template: Certificate | PendingRequest | None) -> Wish:
    domains = list(p.get("DomainName", ()))
    if p.get("IncludeServerFQDN"):
        domains.append(c.config.fqdn)
    if p.get("IncludeServerNetBIOSName"):
        domains.append(c.config.server_name.lower())
    accepted = sorted({a.address.rpartition("@")[2].lower() for a in c.accounts.all()})
    if p.get("IncludeAcceptedDomains"):
        domains += accepted
    if p.get("IncludeAutoDiscover"):
        domains += [f"autodiscover.{d}" for d in accepted]
    if template is not None and not domains:
        domains = list(template.domains)
    if not domains and "SubjectName" not in p:
        domains = [c.config.fqdn]
    algorithm, size = key_kind(p, template)
    return Wish(
        domains,
        p.get("SubjectName", ""),
        p.get("FriendlyName", template.friendly_name if template is not None else "Letterlock"),
        algorithm,
        size,
        bool(p.get("PrivateKeyExportable", template is not None and template.exportable)),
    )


def key_kind(p: dict[str, Any], template: Certificate | PendingRequest | None) -> tuple[str, int]:
    """Algorithm and bits; ECDSA P-256 where nothing is said, RSA where the size is one of RSA's."""
    algorithm, size = p.get("KeyAlgorithm", ""), p.get("KeySize", 0)
    if not algorithm and not size and isinstance(template, Certificate):
        key = template.x509.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            return "RSA", max(2048, min(4096, key.key_size))
    algorithm = algorithm or ("RSA" if size >= 1024 else "ECDSA")
    size = size or (2048 if algorithm == "RSA" else 256)
    allowed = (2048, 3072, 4096) if algorithm == "RSA" else (256, 384)
    if size not in allowed:
        raise Malformed(
            f"KeySize: {size} is not allowed for {algorithm}; allowed are {', '.join(map(str, allowed))} "
            "(RSA 2048, 3072, 4096; ECDSA 256, 384)"
        )
    return algorithm, size


def _new_services(
    c: Context, p: dict[str, Any], template: Certificate | PendingRequest | None, name: str, asked: bool
) -> tuple[str, ...]:
    """IMAP, POP and SMTP where nothing is said, as in Exchange, less those that a wildcard cannot be enabled for."""
    default = template.services if template is not None else () if asked else ("IMAP", "POP", "SMTP")
    wanted: tuple[str, ...] = p.get("Services", default)
    return possible(c, name, wanted)


def possible(c: Context, name: str, services: tuple[str, ...]) -> tuple[str, ...]:
    """Without those for which the wildcard rule speaks, each with its warning."""
    found = []
    for service in services:
        try:
            check_service(name, service)
        except Refused as error:
            c.warn(error.text)
        else:
            found.append(service)
    return tuple(found)


# --- parameters


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise Malformed(f"'{value}' is not a number; use 2048, 3072 or 4096 for RSA, 256 or 384 for ECDSA") from None


def one_of(*allowed: str) -> Any:
    """A reader of one of some words, without case."""

    def read(value: Any) -> str:
        for word in allowed:
            if str(value).strip().lower() == word.lower():
                return word
        raise Malformed(f"'{value}' is not one of the allowed values: {', '.join(allowed)}")

    return read


def _algorithm(value: Any) -> str:
    """RSA, ECDSA; the names of the curves are taken as well."""
    text = str(value).strip().upper()
    if text in ("ECDSA", "EC", "ECDSA_P256", "ECDSA_NISTP256", "ECDSA_P384", "ECDSA_NISTP384"):
        return "ECDSA"
    if text == "RSA":
        return "RSA"
    raise Malformed(f"'{value}' is not one of the allowed values: ECDSA, RSA")


def switch(name: str, help: str) -> Parameter:
    """One that needs no value."""
    return Parameter(name, help, boolean, switch=True, type_name="Switch")


def string_list(name: str, help: str) -> Parameter:
    return Parameter(name, help, words, type_name="String[]")


def key_parameters() -> tuple[Parameter, ...]:
    """Which kind of key."""
    return (
        Parameter("KeyAlgorithm", "ECDSA or RSA.", _algorithm, type_name="ECDSA | RSA", default="ECDSA"),
        Parameter("KeySize", "ECDSA 256 or 384; RSA 2048, 3072 or 4096.", _number, type_name="Int32"),
    )


SERVER: Final = Parameter("Server", "This server's name.")
SERVICE_WORDS: Final = "IMAP, POP, IIS (the administration), SMTP."
THUMBPRINT: Final = Parameter("Thumbprint", "Which certificate; SERVER\\THUMBPRINT is taken, too.", str, 0, True, True)
FRIENDLY: Final = Parameter("FriendlyName", "Name for people, at most 64 characters.")
PASSWORD: Final = Parameter("Password", "Of the file.", secret, type_name="SecureString")
EXPORTABLE: Final = Parameter(
    "PrivateKeyExportable", "Whether the key may leave again.", boolean, type_name="Boolean", default="False"
)

NEW: Final = Cmdlet(
    "New-ExchangeCertificate",
    "Makes a self-signed certificate, or a request for an authority.",
    new,
    (
        string_list("DomainName", "Names it is for, wildcards included; the server's own name without it."),
        Parameter("SubjectName", "Distinguished name, such as C=US, O=Contoso, CN=mail.contoso.com."),
        FRIENDLY,
        Parameter("Services", SERVICE_WORDS, read_services, type_name="String[]", default="IMAP,POP,SMTP"),
        *key_parameters(),
        EXPORTABLE,
        switch("GenerateRequest", "Make a request (PKCS #10) for an authority; its answer is imported later."),
        Parameter("RequestFile", "Write the request's text to this new file."),
        switch("IncludeServerFQDN", "Also for the server's full name."),
        switch("IncludeServerNetBIOSName", "Also for the server's short name."),
        switch("IncludeAcceptedDomains", "Also for the domains of all mailboxes."),
        switch("IncludeAutoDiscover", "Also for autodiscover. in each of these domains."),
        Parameter("Instance", "A certificate whose names, services and key kind are taken over.", str, pipeline=True),
        SERVER,
        switch("Force", "Accepted; nothing is asked."),
    ),
    True,
    ("New-Certificate",),
    here=certificate_input.new_here,
)
