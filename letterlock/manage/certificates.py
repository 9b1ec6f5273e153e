"""The certificate cmdlets, each also as …-Certificate.

Whatever changes which certificate is served takes effect at the next connection: the running server chooses again, and
DIR/certificate.pem follows. Files are read and written where the command line runs (`manage.certificate_input`).
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final

from cryptography.hazmat.primitives import serialization

from letterlock.base.errors import Malformed, Refused
from letterlock.directory import certificate_files as files
from letterlock.directory.certificates import SERVICES, Certificate, PendingRequest
from letterlock.directory.selection import by_server_name
from letterlock.manage import certificate_input
from letterlock.manage.certificate_new import (
    EXPORTABLE,
    FRIENDLY,
    NEW,
    PASSWORD,
    SERVER,
    SERVICE_WORDS,
    THUMBPRINT,
    changed,
    one_of,
    possible,
    read_services,
    switch,
)
from letterlock.manage.certificate_rows import Pem, certificate_row, request_row, served_for
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row

_SETTINGS: Final = {"IMAP": "Set-ImapSettings", "POP": "Set-PopSettings", "IIS": "Set-AdminSettings"}


# --- Get


async def get(c: Context, p: dict[str, Any]) -> list[Row]:
    """Installed certificates and pending requests; with -DomainName those that fit, the served one first."""
    c.check_server(p.get("Server", ""))
    served = served_for(c.certificates)
    if "DomainName" in p:
        return _by_name(c, p["DomainName"], p.get("Service", "IMAP"), served)
    if "Thumbprint" in p:
        one = c.certificates.find(p["Thumbprint"])
        return [request_row(c, one) if isinstance(one, PendingRequest) else certificate_row(c, one, served)]
    rows = [certificate_row(c, x, served) for x in c.certificates.all()]
    for fault in c.certificates.faults:
        c.warn(fault)
    return [*rows, *(request_row(c, r) for r in c.certificates.pending())]


def _by_name(c: Context, name: str, service: str, served: dict[str, list[str]]) -> list[Row]:
    everything = c.certificates.all()
    found = c.certificates.candidates(name, service)
    listed = {x.certificate.thumbprint for x in found}
    rows = [certificate_row(c, x.certificate, served, f"{service}, {name}: {x.why}") for x in found]
    for x in everything:
        if x.matches(name) and x.thumbprint not in listed:
            rows.append(certificate_row(c, x, served, f"{service}, {name}: not served: {x.fault}"))
    if found and by_server_name(everything, name, service) is None:
        c.tell(f"a client that asks for {name} by SNI gets it only when X509CertificateName chooses it")
    return rows


# --- Import and Export


async def take_in(c: Context, p: dict[str, Any]) -> list[Row]:
    """A certificate with its key, or the answer to a pending request."""
    c.check_server(p.get("Server", ""))
    password = p["Password"].reveal() if "Password" in p else None
    friendly = certificate_input.friendly_name(p.get("FriendlyName", ""))
    bundle = await asyncio.to_thread(files.read, files.decode(p["FileData"]), password)
    certificate = files.leaf(bundle, {files.public_bytes(r.csr) for r in c.certificates.pending()})
    subject = certificate.subject.rfc4514_string()
    if not c.should(f"import the certificate of {subject} and {len(bundle.certificates) - 1} more of its chain"):
        return []
    exportable = bool(p.get("PrivateKeyExportable", False))
    one, request = c.certificates.take_in(bundle, friendly, exportable, c.who)
    if request is not None:
        c.tell(f"this completes the pending request {request.thumbprint}")
    changed(c)
    row = certificate_row(c, one, served_for(c.certificates))
    if row.properties["StatusDetail"]:
        c.warn(f"{one.thumbprint}: {row.properties['StatusDetail']}")
    return [row]


async def give_out(c: Context, p: dict[str, Any]) -> list[Row]:
    """PKCS #12 or PEM with the key under a password; without a password the certificate alone; or a request's text."""
    c.check_server(p.get("Server", ""))
    one = c.certificates.find(p["Thumbprint"])
    form = p.get("Format", "Pkcs12" if "Password" in p else "Pem")
    properties: dict[str, Any] = {"Thumbprint": one.thumbprint, "Format": form}
    if isinstance(one, PendingRequest):
        data = one.file.read_bytes()
        properties["Format"] = "Pem"
    elif "Password" in p:
        data = await _with_key(c, one, form, p["Password"].reveal())
    elif form == "Pkcs12":
        raise Malformed("Password: a PKCS #12 file holds the private key and needs a password")
    else:
        data = files.pem([one.x509, *one.chain])
    if not c.should(f"export {one.thumbprint} as {properties['Format']}{' with its key' if 'Password' in p else ''}"):
        return []
    with c.config.transaction(c.who, f"Export-ExchangeCertificate {one.thumbprint}", None, properties["Format"]):
        pass  # who took a key out is in the audit trail
    binary = properties["Format"] == "Pkcs12"
    properties["FileData"] = base64.b64encode(data).decode() if binary else Pem(data.decode())
    return [Row(properties)]


async def _with_key(c: Context, one: Certificate, form: str, password: str) -> bytes:
    if len(password) < certificate_input.MIN_PASSWORD:
        raise Malformed(f"Password: at least {certificate_input.MIN_PASSWORD} characters are needed to protect a key")
    key = c.certificates.private_key(one)
    seal = serialization.BestAvailableEncryption(password.encode())
    if form == "Pkcs12":
        name = (one.friendly_name or one.thumbprint).encode()
        make = serialization.pkcs12.serialize_key_and_certificates
        return await asyncio.to_thread(make, name, key, one.x509, list(one.chain) or None, seal)
    text = await asyncio.to_thread(
        key.private_bytes, serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, seal
    )
    return text + files.pem([one.x509, *one.chain])


# --- Enable and Remove


async def enable(c: Context, p: dict[str, Any]) -> list[Row]:
    """Add services; none is ever taken away. A wildcard goes by name for POP and IMAP."""
    c.check_server(p.get("Server", ""))
    one = c.certificates.one(p["Thumbprint"])
    if one.fault:
        raise Refused(f"{one.thumbprint} cannot be enabled: {one.fault}")
    name = one.domains[0] if one.domains else ""
    services = possible(c, name, p["Services"])
    if not services or not c.should(f"enable certificate {one.thumbprint} for {', '.join(services)}"):
        return []
    one = c.certificates.enable(one, list(services), c.who)
    changed(c)
    if one.validity().warning:
        c.warn(f"certificate {one.thumbprint} {one.validity().warning}")
    _explain(c, one, services)
    return []


def _explain(c: Context, one: Certificate, services: tuple[str, ...]) -> None:
    """Where what was enabled is not what is served: why, and what to do."""
    served = c.certificates.served()
    for service in services:
        if service not in _SETTINGS:
            continue
        name, best = served.get(service, ("", None))
        if best is not None and best.thumbprint == one.thumbprint:
            c.tell(f"{service} serves it for {name} from the next connection on")
        elif best is None or not one.matches(name):
            mine = next((d for d in one.domains if not d.startswith("*.")), "NAME")
            c.warn(
                f"{service} chooses its certificate by the name {name or 'in X509CertificateName'}, which this one "
                f"does not have; to serve it use: {_SETTINGS[service]} -X509CertificateName {mine}, "
                "and restart the service"
            )
        else:
            why = next(x.why for x in c.certificates.candidates(name, service) if x.certificate == one)
            c.warn(f"{service} goes on serving {best.thumbprint} for {name}; this one is {why}")


async def remove(c: Context, p: dict[str, Any]) -> list[Row]:
    """Refused while it is served and nothing would take its place."""
    c.check_server(p.get("Server", ""))
    one = c.certificates.find(p["Thumbprint"])
    if isinstance(one, Certificate):
        _check_free(c, one, bool(p.get("Force")))
    what = "pending request" if isinstance(one, PendingRequest) else "certificate"
    if c.should(f"remove {what} {one.thumbprint} ({', '.join(one.domains)}) and its private key"):
        c.certificates.remove(one, c.who)
        changed(c)
    return []


def _check_free(c: Context, one: Certificate, force: bool) -> None:
    for service, (name, best) in c.certificates.served().items():
        if best.thumbprint != one.thumbprint:
            continue
        others = [
            x for x in c.certificates.candidates(name, service) if x.certificate != one and not x.rank.out_of_dates
        ]
        if not others:
            raise Refused(
                f"{one.thumbprint} is in use: {service} serves it for {name}, and no other certificate could take its "
                "place; enable another one first"
            )
        heir = others[0].certificate.thumbprint
        if not force:
            raise Refused(
                f"{one.thumbprint} is in use: {service} serves it for {name}; with -Force it is removed, and {heir} "
                "takes its place"
            )
        c.warn(f"{service} serves {heir} for {name} from the next connection on")


CMDLETS: Final = (
    NEW,
    Cmdlet(
        "Get-ExchangeCertificate",
        "Shows installed certificates, pending requests, and which one is served for a name and why.",
        get,
        (
            Parameter("Thumbprint", "Which one.", str, 0),
            Parameter("DomainName", "Those that fit this name; the first one is the one that is served for it."),
            Parameter(
                "Service",
                "For which service, with -DomainName.",
                one_of(*SERVICES),
                type_name=" | ".join(SERVICES),
                default="IMAP",
            ),
            SERVER,
        ),
        aliases=("Get-Certificate",),
    ),
    Cmdlet(
        "Import-ExchangeCertificate",
        "Installs a certificate with its key and chain, or an authority's answer to a pending request.",
        take_in,
        (
            Parameter(
                "FileData",
                "A file, or its content: PEM text, base64, bytes. PEM, PKCS #7, PKCS #12 and DER are read.",
                lambda v: v,
                0,
                True,
                type_name="Byte[]",
            ),
            PASSWORD,
            FRIENDLY,
            EXPORTABLE,
            SERVER,
            switch("Force", "Accepted; nothing is asked."),
        ),
        True,
        ("Import-Certificate",),
        here=certificate_input.import_here,
    ),
    Cmdlet(
        "Export-ExchangeCertificate",
        "Gives a certificate out: with -Password with its key, where that is exportable; a pending request's text.",
        give_out,
        (
            THUMBPRINT,
            PASSWORD,
            Parameter("Format", "Form of the file.", one_of("Pkcs12", "Pem"), type_name="Pkcs12 | Pem"),
            Parameter("FileName", "Write it to this new file, 0600."),
            switch("BinaryEncoded", "Accepted: PKCS #12 files are always binary, FileData always base64."),
            SERVER,
        ),
        True,
        ("Export-Certificate",),
        here=certificate_input.export_here,
    ),
    Cmdlet(
        "Enable-ExchangeCertificate",
        "Enables a certificate for services; services are added, never taken away.",
        enable,
        (
            THUMBPRINT,
            Parameter("Services", SERVICE_WORDS, read_services, mandatory=True, type_name="String[]"),
            SERVER,
            switch("Force", "Accepted; nothing is asked."),
        ),
        True,
        ("Enable-Certificate",),
    ),
    Cmdlet(
        "Remove-ExchangeCertificate",
        "Removes a certificate or a pending request, with its key.",
        remove,
        (THUMBPRINT, switch("Force", "Also while it is served, where another one can take its place."), SERVER),
        True,
        ("Remove-Certificate",),
    ),
)
