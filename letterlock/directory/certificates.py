"""Certificates: made, described, enabled for services, and chosen by name.

A certificate and its key are files in `DIR/certificates/` named by thumbprint, the key 0600; `letterlock.db` holds the
services it is enabled for and its friendly name. Names match as in RFC 9525 §6.3: a wildcard stands for exactly one
whole left-most label.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import host_name
from letterlock.directory.config import Config

SERVICES: Final = ("IMAP", "POP", "SMTP", "IIS")
LIFETIME: Final = datetime.timedelta(days=825)  # the most that Apple's clients accept for a server certificate


@dataclass(frozen=True, slots=True)
class Certificate:
    """One installed certificate."""

    thumbprint: str  # SHA-1 of the DER form in capitals: an identifier, as in Exchange, nothing is secured by it
    file: Path
    key: Path
    friendly_name: str
    services: tuple[str, ...]
    x509: x509.Certificate

    @property
    def domains(self) -> tuple[str, ...]:
        """Subject alternative names; the subject's common name where there are none."""
        try:
            names = self.x509.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            common = self.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return tuple(str(c.value).lower() for c in common)
        return tuple(n.lower() for n in names.get_values_for_type(x509.DNSName))

    @property
    def self_signed(self) -> bool:
        """Issuer and subject are the same."""
        return self.x509.issuer == self.x509.subject

    @property
    def expired(self) -> bool:
        """Not valid today."""
        today = datetime.datetime.now(datetime.UTC)
        return not self.x509.not_valid_before_utc <= today <= self.x509.not_valid_after_utc

    def matches(self, name: str) -> bool:
        """Whether one of its names is `name`, or a wildcard for it (RFC 9525 §6.3)."""
        wanted = name.lower().rstrip(".")
        parent = wanted.partition(".")[2]
        return any(d == wanted or (d.startswith("*.") and parent and d[2:] == parent) for d in self.domains)

    def serves(self) -> bool:
        """Has its key, and its extended key usage, where given, contains serverAuth."""
        if not self.key.is_file():
            return False
        try:
            usage = self.x509.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return True
        return ExtendedKeyUsageOID.SERVER_AUTH in usage


class Certificates:
    """The certificates of one data directory."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.directory = config.data / "certificates"

    def all(self) -> list[Certificate]:
        """Every installed certificate, the newest first; `Refused` when a file cannot be read."""
        rows = self._config.db.execute("SELECT thumbprint, file, services, friendly_name FROM certificate").fetchall()
        found = []
        for thumbprint, file, services, friendly_name in rows:
            path = self.directory / str(file)
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
            except (OSError, ValueError) as error:
                raise Refused(f"the certificate file {path} cannot be read: {error}") from None
            found.append(
                Certificate(
                    str(thumbprint),
                    path,
                    path.with_suffix(".key"),
                    str(friendly_name),
                    tuple(json.loads(str(services))),
                    certificate,
                )
            )
        return sorted(found, key=lambda c: c.x509.not_valid_before_utc, reverse=True)

    def one(self, thumbprint: str) -> Certificate:
        """By thumbprint, spaces and colons ignored."""
        wanted = thumbprint.replace(" ", "").replace(":", "").upper()
        for certificate in self.all():
            if certificate.thumbprint == wanted:
                return certificate
        raise Refused(f"there is no certificate with thumbprint {thumbprint}", b"NONEXISTENT")

    def create(
        self,
        domains: list[str],
        friendly_name: str,
        services: tuple[str, ...],
        who: str,
        key_size: int = 0,
    ) -> Certificate:
        """A self-signed one: ECDSA P-256, or RSA with `key_size` bits (2048 or 4096)."""
        names = [_domain(d) for d in domains]
        if not names:
            raise Malformed("DomainName: at least one name is needed")
        if len(friendly_name) > 64 or any(ord(c) < 32 for c in friendly_name):
            raise Malformed("FriendlyName: at most 64 characters")
        if key_size not in (0, 2048, 4096):
            raise Malformed(f"KeySize: {key_size} is not allowed; use 2048 or 4096, or leave it out for ECDSA P-256")
        for service in services:
            self._check_service(names, service)
        key = rsa.generate_private_key(65537, key_size) if key_size else ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, names)
        thumbprint = certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - an identifier
        self.directory.mkdir(mode=0o700, exist_ok=True)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(self.directory / f"{thumbprint}.key", private, 0o600)
        _write(self.directory / f"{thumbprint}.pem", pem, 0o644)
        with self._config.transaction(who, f"New-ExchangeCertificate {thumbprint}"):
            self._config.db.execute(
                "INSERT INTO certificate (thumbprint, file, services, friendly_name) VALUES (?, ?, ?, ?)",
                (thumbprint, f"{thumbprint}.pem", json.dumps(services), friendly_name),
            )
        return self.one(thumbprint)

    def enable(self, certificate: Certificate, services: list[str], who: str) -> Certificate:
        """Add services; none is ever taken away (as in Exchange). A wildcard is refused for POP and IMAP."""
        wanted = [_service(s) for s in services]
        for service in wanted:
            self._check_service(list(certificate.domains), service)
        new = tuple(s for s in SERVICES if s in certificate.services or s in wanted)
        with self._config.transaction(
            who, f"Enable-ExchangeCertificate {certificate.thumbprint}", list(certificate.services), list(new)
        ):
            self._config.db.execute(
                "UPDATE certificate SET services = ? WHERE thumbprint = ?", (json.dumps(new), certificate.thumbprint)
            )
        return self.one(certificate.thumbprint)

    @staticmethod
    def _check_service(domains: list[str], service: str) -> None:
        if service in ("IMAP", "POP") and all(d.startswith("*.") for d in domains):
            cmdlet = "Set-ImapSettings" if service == "IMAP" else "Set-PopSettings"
            raise Refused(
                f"a certificate that only has the wildcard name {domains[0]} cannot be enabled for {service}; "
                f"set a host name it covers with {cmdlet} -X509CertificateName instead, then it is chosen by that name"
            )

    def choose(self, name: str, service: str) -> tuple[Certificate, str]:
        """The certificate that is served for `name`, and why; `Refused` when there is none.

        Enabled for the service before others, valid before expired, issued by an authority before self-signed, then the
        newest (reference: how POP and IMAP choose).
        """
        fitting = [c for c in self.all() if c.matches(name) and c.serves()]
        if not fitting:
            raise Refused(
                f"no installed certificate with a key has the name '{name}' (X509CertificateName of {service}); "
                "install one, or set X509CertificateName to a name that one has (Get-ExchangeCertificate)"
            )
        ranked = sorted(
            fitting,
            key=lambda c: (
                c.expired,
                service not in c.services,
                c.self_signed,
                -c.x509.not_valid_before_utc.timestamp(),
            ),
        )
        best = ranked[0]
        return best, f"{best.thumbprint} matches {name}; {len(fitting)} of the installed certificates do"

    def publish(self, certificate: Certificate) -> None:
        """Write `DIR/certificate.pem`, the certificate that clients should trust, world-readable."""
        _write(self._config.data / "certificate.pem", certificate.file.read_bytes(), 0o644)


def _service(text: str) -> str:
    for service in SERVICES:
        if service == text.strip().upper():
            return service
    raise Malformed(f"Services: '{text}' is not one of {', '.join(SERVICES)}")


def _domain(text: str) -> str:
    """A host name, or `*.` and a host name."""
    name = text.strip().lower()
    wildcard = name.startswith("*.")
    try:
        bare = host_name(name[2:] if wildcard else name)
    except Malformed as error:
        raise Malformed(f"DomainName: {error.text}") from None
    return f"*.{bare}" if wildcard else bare


def _self_signed(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, names: list[str]) -> x509.Certificate:
    """A server certificate that strict verifiers accept (RFC 5280 §4.2: key identifiers, usages, not a CA)."""
    # X.520 ub-common-name: a longer host name only stands in the subject alternative names
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    today = datetime.datetime.now(datetime.UTC)
    alternative: list[x509.GeneralName] = [x509.DNSName(n) for n in names]
    for name in names:
        try:
            alternative.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            continue
    rsa_key = isinstance(key, rsa.RSAPrivateKey)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=rsa_key,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(hours=1))  # clients' clocks are late now and then
        .not_valid_after(today + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, synced, with `mode` from the first moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.fchmod(descriptor, mode)
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
