"""Get-AnalyzerFact: what Invoke-Analyzer judges of this server, as facts: one row a property.

Settings, services, mailboxes, certificates, exceptions, exposed credentials and the administration's bindings are read
through the same cmdlets as everybody reads them; added are the volume of the data directory, and whether each binding
of a running service listens and which certificate it presents.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import ssl
from collections.abc import Iterable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound
from cryptography.x509.oid import ExtendedKeyUsageOID

from letterlock import __version__
from letterlock.base.declare import to_json
from letterlock.base.errors import LetterlockError
from letterlock.base.facts import Origin, SettingFact
from letterlock.base.settings import ClientAccessSettings, ImapSettings, PopSettings
from letterlock.base.values import Binding
from letterlock.directory import sightings
from letterlock.directory.logons import Logons
from letterlock.directory.servers import Servers
from letterlock.directory.sightings import Sightings
from letterlock.manage import cas, certificates, exceptions, services, settings
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row
from letterlock.probe import handshake

LISTEN_S: Final = 3.0
COLUMNS: Final = ("Kind", "Identity", "Name", "Value")
_KINDS: Final = {"IMAP": "ImapSettings", "POP": "PopSettings"}
_GET: Final = {c.name: c for c in (*settings.CMDLETS, *services.CMDLETS, *cas.CMDLETS, *exceptions.CMDLETS)}
# (kind, cmdlet, property that names the object, properties; none: all)
_SOURCES: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    ("ImapSettings", "Get-ImapSettings", "", ()),
    ("PopSettings", "Get-PopSettings", "", ()),
    ("AdminSettings", "Get-AdminSettings", "", ()),
    ("Service", "Get-Service", "Name", ("Name", "Status", "StartType")),
    ("CASMailbox", "Get-CASMailbox", "PrimarySmtpAddress", ("PrimarySmtpAddress", "PopEnabled", "ImapEnabled")),
    ("LoginException", "Get-LoginException", "Identity", ()),
    ("ExposedCredential", "Get-ExposedCredential", "Mailbox", ()),
)


def _value(value: object) -> str | bool | int | tuple[str, ...]:
    plain = to_json(value)
    if isinstance(plain, list):
        return tuple(map(str, plain))
    return plain if isinstance(plain, bool | int) else "" if plain is None else str(plain)


class _Facts:
    """Facts of this server as they are collected."""

    def __init__(self, server: str) -> None:
        self.found: list[SettingFact] = []
        self._origin = Origin("live", 0, server)
        self.server = server

    def add(self, kind: str, identity: str, properties: Iterable[tuple[str, object]]) -> None:
        """One object."""
        self.found += [SettingFact(kind, identity, n, _value(v), self._origin) for n, v in properties]


async def collect(c: Context) -> list[SettingFact]:
    """All facts of this server. What cannot be read is a fact of kind Problem."""
    facts = _Facts(c.config.fqdn)
    facts.add("Server", c.config.server_name, (("Product", "Letterlock"), ("Version", __version__)))
    for kind, name, key, wanted in _SOURCES:
        try:
            rows = await _GET[name].run(c, {})
        except LetterlockError as error:
            facts.add("Problem", name, (("Text", error.text),))
            continue
        for row in rows:
            p = row.properties
            identity = f"{p[key]} {p.get('Kind', '')}".strip() if key else facts.server
            facts.add(kind, identity, ((n, p[n]) for n in wanted or p))
    for peer in Servers(c.config).all():
        facts.add("Peer", peer.name, (("Fqdn", peer.fqdn),))
    for seen in Sightings(c.config).all(sightings.STRANGER):
        facts.add("Stranger", f"{seen.address} {seen.protocol}", (("Logins", seen.times), ("LastSeen", seen.last)))
    await _certificates(c, facts)
    logons = Logons(c.config)
    for account in c.accounts.all():
        for logon in logons.of(account.id):
            facts.add(
                "Usage", f"{logon.protocol} {account.address}", (("Protocol", logon.protocol), ("LastSeen", logon.at))
            )
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(c.config.data)
        facts.add("Volume", str(c.config.data), (("Free", usage.free), ("Size", usage.total)))
    await _listeners(c, facts)
    return facts.found


async def _certificates(c: Context, facts: _Facts) -> None:
    """Installed ones and pending requests, with what a listing leaves out; and which one each service serves now."""
    rows = await certificates.get(c, {})
    installed = {one.thumbprint: one.x509 for one in c.certificates.all()}
    for row in rows:
        p = dict(row.properties)
        known = installed.get(str(p["Thumbprint"]))
        if known is not None:
            p["SignatureAlgorithm"] = handshake.signature(known)
            p["KeyAlgorithm"] = "ECC" if not isinstance(known.public_key(), rsa.RSAPublicKey) else "RSA"
            p["HasServerAuthentication"] = _for_servers(known)
        facts.add("ExchangeCertificate", str(p["Thumbprint"]), p.items())
    for fault in c.certificates.faults:
        facts.add("Problem", "Get-ExchangeCertificate", (("Text", fault),))
    for service, (_, certificate) in c.certificates.served().items():
        if service in _KINDS:
            facts.add(_KINDS[service], facts.server, (("ServedCertificate", certificate.thumbprint),))


def _for_servers(certificate: Any) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usage


async def _listeners(c: Context, facts: _Facts) -> None:
    """Whether what is configured listens, tried from this machine; only where the service runs."""
    for kind, service in ((ImapSettings, "LetterlockImap4"), (PopSettings, "LetterlockPop3")):
        if c.server is None or not c.server.running(service):
            continue
        wanted: ClientAccessSettings = c.config.settings(kind)
        tried = [
            (b, tls)
            for bindings, tls in ((wanted.SSLBindings, True), (wanted.UnencryptedOrTLSBindings, False))
            for b in bindings
        ]
        results = await asyncio.gather(*(_try(b, tls, wanted.X509CertificateName) for b, tls in tried))
        for (binding, _), (up, thumbprint) in zip(tried, results, strict=True):
            properties = [("Protocol", wanted.ProtocolName), ("Listening", up), ("Configured", True)]
            facts.add("Listener", str(binding), properties + ([("Thumbprint", thumbprint)] if thumbprint else []))


async def _try(binding: Binding, tls: bool, name: str) -> tuple[bool, str]:
    """Whether somebody listens, and the thumbprint of what is presented."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(binding.address, binding.address)  # noqa: S104 - where to connect
    context = handshake.unverified() if tls else None
    try:
        async with asyncio.timeout(LISTEN_S):
            _, writer = await asyncio.open_connection(
                host, binding.port, ssl=context, server_hostname=(name or host) if tls else None
            )
    except (OSError, ssl.SSLError, TimeoutError) as error:
        return isinstance(error, ssl.SSLError), ""
    session = writer.get_extra_info("ssl_object")
    der = session.getpeercert(binary_form=True) if session is not None else None
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()
    return True, hashlib.sha1(der, usedforsecurity=False).hexdigest().upper() if der else ""


def row(fact: SettingFact) -> Row:
    """A fact as an object."""
    value = list(fact.value) if isinstance(fact.value, tuple) else fact.value
    properties = {
        "Kind": fact.kind,
        "Identity": fact.identity,
        "Name": fact.name,
        "Value": value,
        "Server": fact.origin.server,
    }
    return Row(properties, COLUMNS)


def restored(properties: dict[str, Any]) -> SettingFact:
    """A fact that came as an object's properties."""
    value = properties["Value"]
    value = tuple(map(str, value)) if isinstance(value, list) else value
    origin = Origin("live", 0, str(properties["Server"]))
    return SettingFact(str(properties["Kind"]), str(properties["Identity"]), str(properties["Name"]), value, origin)


async def get_facts(c: Context, p: dict[str, Any]) -> list[Row]:
    """All facts."""
    c.check_server(p.get("Server", ""))
    return [row(f) for f in await collect(c)]


CMDLETS: Final = (
    Cmdlet(
        "Get-AnalyzerFact",
        "Shows what Invoke-Analyzer judges of this server, one row a property.",
        get_facts,
        (Parameter("Server", "This server's name."),),
    ),
)
