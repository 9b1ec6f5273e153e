"""Certificates: installed, described, enabled for services, and served by name.

A certificate is `THUMBPRINT.pem` in `DIR/certificates/` (itself and the intermediates that are sent along), its key
`THUMBPRINT.key`, 0600; a root that came with it is `THUMBPRINT.root`. `letterlock.db` holds the services it is enabled
for, its friendly name, whether its key may leave. A pending request is `THUMBPRINT.csr` with its key.
Files are written whole before the row that names them, and removed after it: a row without files cannot happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from letterlock import tls
from letterlock.base.errors import Malformed, Refused
from letterlock.base.settings import AdminSettings, ClientAccessSettings, ImapSettings, PopSettings
from letterlock.directory import certificate_files as files
from letterlock.directory import selection
from letterlock.directory.certificate_names import Wish, alternative_names, check_service, common_name, identity
from letterlock.directory.config import Config, now
from letterlock.directory.selection import Candidate
from letterlock.policy.certificates import Validity, validity

SERVICES: Final = ("IMAP", "POP", "IIS", "SMTP")  # in Exchange's order; IIS is the administration
USERS: Final[tuple[tuple[str, type[ClientAccessSettings] | type[AdminSettings]], ...]] = (
    ("IMAP", ImapSettings),
    ("POP", PopSettings),
    ("IIS", AdminSettings),
)


IssuerCertificate = x509.Certificate  # the field `x509` hides the module of that name


@dataclass(frozen=True, slots=True)
class Certificate:
    """One installed certificate."""

    thumbprint: str
    file: Path
    friendly_name: str
    services: tuple[str, ...]
    exportable: bool
    revoked: str  # when; "": not by us
    x509: x509.Certificate
    chain: tuple[IssuerCertificate, ...]  # its issuers, as far as they are known
    fault: str  # why it cannot be served; "" when it can
    names: tuple[str, ...]  # it is for: the subject alternative names; the common name where there are none

    @property
    def key(self) -> Path:
        """Its private key, 0600."""
        return self.file.with_suffix(".key")

    @property
    def domains(self) -> tuple[str, ...]:
        """Common name and alternative names, each once, as far as they are host names or addresses."""
        names = dict.fromkeys([common_name(self.x509.subject), *alternative_names(self.x509)])
        return tuple(n for n in names if n)

    @property
    def wildcard(self) -> bool:
        """Its subject is no host name but a wildcard: POP and IMAP take it by X509CertificateName alone."""
        return (common_name(self.x509.subject) or next(iter(self.names), "")).startswith("*.")

    @property
    def self_signed(self) -> bool:
        """Issuer and subject are the same."""
        return self.x509.issuer == self.x509.subject

    def validity(self, at: float | None = None) -> Validity:
        """What the dates say, now or at another time (seconds since 1970)."""
        start, end = self.x509.not_valid_before_utc.timestamp(), self.x509.not_valid_after_utc.timestamp()
        return validity(start, end, time.time() if at is None else at)

    def matches(self, name: str) -> bool:
        """Whether one of its names is `name`, or a wildcard for it (RFC 9525 §6.3)."""
        return selection.matches(self.names, name)


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request whose answer from the authority has not been imported yet."""

    thumbprint: str
    file: Path
    friendly_name: str
    services: tuple[str, ...]
    exportable: bool
    created: str
    csr: x509.CertificateSigningRequest

    @property
    def key(self) -> Path:
        """Its private key, 0600."""
        return self.file.with_suffix(".key")

    @property
    def domains(self) -> tuple[str, ...]:
        """The names asked for."""
        names = dict.fromkeys([common_name(self.csr.subject), *alternative_names(self.csr)])
        return tuple(n for n in names if n)


class Certificates:
    """The certificates of one data directory."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.directory = config.data / "certificates"
        self.faults: list[str] = []  # what `all` could not read
        self.issuing = asyncio.Lock()  # one order at an ACME authority at a time

    # --- what there is

    def all(self) -> list[Certificate]:
        """Every installed certificate that can be read, the newest first; `faults` says which could not."""
        rows = self._config.db.execute(
            "SELECT thumbprint, file, services, friendly_name, exportable, revoked FROM certificate"
        ).fetchall()
        found, self.faults = [], []
        for thumbprint, file, services, friendly_name, exportable, revoked in rows:
            path = self.directory / str(file)
            try:
                one, *chain = x509.load_pem_x509_certificates(path.read_bytes())
                with contextlib.suppress(OSError):
                    chain += x509.load_pem_x509_certificates(path.with_suffix(".root").read_bytes())
                fault = _fault(one, path.with_suffix(".key"))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is damaged"
                self.faults.append(f"the certificate file {path} cannot be read: {reason}")
                continue
            names = alternative_names(one) or tuple(n for n in [common_name(one.subject)] if n)
            enabled = tuple(json.loads(str(services)))
            known = (str(thumbprint), path, str(friendly_name), enabled, bool(exportable), str(revoked))
            found.append(Certificate(*known, one, tuple(chain), fault, names))
        return sorted(found, key=lambda c: (c.x509.not_valid_before_utc, c.thumbprint), reverse=True)

    def pending(self) -> list[PendingRequest]:
        """Requests that wait for their answer, the oldest first."""
        rows = self._config.db.execute(
            "SELECT thumbprint, friendly_name, services, exportable, created FROM certificate_request ORDER BY created"
        ).fetchall()
        found = []
        for thumbprint, friendly_name, services, exportable, created in rows:
            path = self.directory / f"{thumbprint}.csr"
            with contextlib.suppress(OSError, ValueError):
                csr = x509.load_pem_x509_csr(path.read_bytes())
                names = tuple(json.loads(str(services)))
                known = (str(thumbprint), path, str(friendly_name), names, bool(exportable), str(created))
                found.append(PendingRequest(*known, csr))
        return found

    def one(self, thumbprint: str) -> Certificate:
        """By thumbprint, spaces and colons ignored."""
        found = self.find(thumbprint)
        if isinstance(found, PendingRequest):
            raise Refused(f"{found.thumbprint} is a pending request; import the authority's answer first")
        return found

    def find(self, thumbprint: str) -> Certificate | PendingRequest:
        """A certificate or a pending request; `SERVER\\THUMBPRINT` is taken, too, as in Exchange."""
        wanted = thumbprint.rpartition("\\")[2].replace(" ", "").replace(":", "").upper()
        if len(wanted) != 40 or any(ch not in "0123456789ABCDEF" for ch in wanted):
            raise Malformed(f"Thumbprint: '{thumbprint}' is not a thumbprint; expected 40 hexadecimal digits")
        everything: list[Certificate | PendingRequest] = [*self.all(), *self.pending()]
        for found in everything:
            if found.thumbprint == wanted:
                return found
        raise Refused(f"there is no certificate with thumbprint {wanted}", b"NONEXISTENT")

    # --- which one is served

    def candidates(self, name: str, service: str) -> list[Candidate]:
        """Those that fit a name, the one that is served first (see `selection`)."""
        return selection.candidates(self.all(), name, service)

    def choose(self, name: str, service: str) -> tuple[Certificate, str]:
        """The certificate that is served for `name`, and why; `Refused` when there is none."""
        everything = self.all()
        found = selection.candidates(everything, name, service)
        if found:
            return found[0].certificate, found[0].why
        faults = [f"{c.thumbprint}: {c.fault}" for c in everything if c.matches(name)] + self.faults
        raise Refused(
            f"no installed certificate with a key has the name '{name}' (X509CertificateName of {service}); "
            "install one, or set X509CertificateName to a name that one has (Get-ExchangeCertificate)"
            + "".join(f"; {f}" for f in faults)
        )

    def served(self) -> dict[str, tuple[str, Certificate]]:
        """By service, as the settings are now: the name asked for and the certificate; without those that have none."""
        found = {}
        everything = self.all()
        for service, kind in USERS:
            name = self._config.settings(kind).X509CertificateName
            fitting = selection.candidates(everything, name, service)
            if fitting:
                found[service] = (name, fitting[0].certificate)
        return found

    def publish(self) -> None:
        """Write `DIR/certificate.pem`, what clients should trust, world-readable.

        Of a self-signed certificate that is itself, of another one its root where that is known, else the certificate.
        """
        found: dict[bytes, None] = {}
        for _, certificate in self.served().values():
            roots = [c for c in certificate.chain if c.issuer == c.subject]
            found[files.pem([roots[-1] if roots else certificate.x509])] = None
        path, text = self._config.data / "certificate.pem", b"".join(found)
        if found and (not path.is_file() or path.read_bytes() != text):
            files.write(path, text, 0o644)

    # --- what is made, taken in, changed and removed

    def create(self, wish: Wish, services: tuple[str, ...], who: str, key: files.Key | None = None) -> Certificate:
        """A self-signed one; a key is made unless it is given."""
        names, subject = _checked(wish, services)
        key = key or files.new_key(wish.algorithm, wish.size)
        made = files.self_signed(key, subject, names)
        return self.install(made, [], key, (wish.friendly_name, services, wish.exportable), who, "New")

    def request(self, wish: Wish, services: tuple[str, ...], who: str, key: files.Key | None = None) -> PendingRequest:
        """A request for an authority; its key waits here for the answer."""
        names, subject = _checked(wish, services)
        key = key or files.new_key(wish.algorithm, wish.size)
        csr = files.request(key, subject, names)
        thumbprint = files.thumbprint(csr.public_bytes(serialization.Encoding.DER))
        self.directory.mkdir(mode=0o700, exist_ok=True)
        files.write(self.directory / f"{thumbprint}.key", files.private_pem(key), 0o600)
        files.write(self.directory / f"{thumbprint}.csr", csr.public_bytes(serialization.Encoding.PEM), 0o600)
        with self._config.transaction(who, f"New-ExchangeCertificate -GenerateRequest {thumbprint}", None, names):
            self._config.db.execute(
                "INSERT INTO certificate_request VALUES (?, ?, ?, ?, ?)",
                (thumbprint, wish.friendly_name, json.dumps(services), int(wish.exportable), now()),
            )
        return next(r for r in self.pending() if r.thumbprint == thumbprint)

    def take_in(
        self, bundle: files.Bundle, friendly_name: str, exportable: bool, who: str
    ) -> tuple[Certificate, PendingRequest | None]:
        """Install what a file held; with it the pending request that it answers, which is then done."""
        pending = {files.public_bytes(r.csr): r for r in self.pending()}
        certificate = files.leaf(bundle, set(pending))
        key, request = bundle.key, pending.get(files.public_bytes(certificate))
        known = next((c for c in self.all() if c.x509 == certificate), None)
        if key is None and request is not None:
            key = _load_key(request.key)
            exportable = exportable or request.exportable
        if key is None and known is None:
            raise Refused(
                "the file has no private key, and no pending request here is for this certificate; import it with its "
                "key (PKCS #12, or PEM with the key)"
            )
        friendly = friendly_name or (request.friendly_name if request else "") or (known.friendly_name if known else "")
        services = known.services if known else (request.services if request else ())
        described = (friendly, services, known.exportable if known and key is None else exportable)
        installed = self.install(certificate, bundle.certificates, key, described, who, "Import")
        if request is not None:
            self._forget_request(request, who)
        return installed, request

    def install(
        self,
        certificate: x509.Certificate,
        others: list[x509.Certificate],
        key: files.Key | None,
        described: tuple[str, tuple[str, ...], bool],
        who: str,
        verb: str,
    ) -> Certificate:
        """Write files and row; `described`: friendly name, services, exportable. Without `key` it is there already."""
        thumbprint = files.thumbprint(certificate.public_bytes(serialization.Encoding.DER))
        chain = files.chain_of(certificate, others)
        roots = [c for c in chain if c.issuer == c.subject]
        path = self.directory / f"{thumbprint}.pem"
        fresh = not path.is_file()
        self.directory.mkdir(mode=0o700, exist_ok=True)
        try:
            if key is not None:
                files.write(path.with_suffix(".key"), files.private_pem(key), 0o600)
            if roots:
                files.write(path.with_suffix(".root"), files.pem(roots), 0o600)
            files.write(path, files.pem([certificate, *(c for c in chain if c not in roots)]), 0o600)
            tls.server_context(path, path.with_suffix(".key"), [])  # what cannot be served is not installed
            with self._config.transaction(who, f"{verb}-ExchangeCertificate {thumbprint}", None, described[1]):
                self._config.db.execute(
                    "INSERT OR REPLACE INTO certificate (thumbprint, file, services, friendly_name, exportable) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (thumbprint, path.name, json.dumps(described[1]), described[0], int(described[2])),
                )
        except BaseException:
            if fresh:
                self._remove_files(path)
            raise
        return self.one(thumbprint)

    def enable(self, certificate: Certificate, services: list[str], who: str) -> Certificate:
        """Add services; none is ever taken away (as in Exchange)."""
        for service in services:
            check_service(certificate.domains[0] if certificate.domains else "", service)
        new = tuple(s for s in SERVICES if s in certificate.services or s in services)
        with self._config.transaction(
            who, f"Enable-ExchangeCertificate {certificate.thumbprint}", list(certificate.services), list(new)
        ):
            self._config.db.execute(
                "UPDATE certificate SET services = ? WHERE thumbprint = ?", (json.dumps(new), certificate.thumbprint)
            )
        return self.one(certificate.thumbprint)

    def mark_revoked(self, certificate: Certificate, who: str) -> None:
        """The authority has revoked it on our request."""
        with self._config.transaction(who, f"Revoke-AcmeCertificate {certificate.thumbprint}"):
            self._config.db.execute(
                "UPDATE certificate SET revoked = ? WHERE thumbprint = ?", (now(), certificate.thumbprint)
            )

    def remove(self, certificate: Certificate | PendingRequest, who: str) -> None:
        """With its files; whether it is in use is the caller's question (`served`)."""
        if isinstance(certificate, PendingRequest):
            self._forget_request(certificate, who)
            return
        with self._config.transaction(who, f"Remove-ExchangeCertificate {certificate.thumbprint}"):
            self._config.db.execute("DELETE FROM certificate WHERE thumbprint = ?", (certificate.thumbprint,))
        self._remove_files(certificate.file)

    def _forget_request(self, request: PendingRequest, who: str) -> None:
        with self._config.transaction(who, f"request {request.thumbprint} done"):
            self._config.db.execute("DELETE FROM certificate_request WHERE thumbprint = ?", (request.thumbprint,))
        self._remove_files(request.file)

    def _remove_files(self, path: Path) -> None:
        for each in (path, path.with_suffix(".root"), path.with_suffix(".key")):
            each.unlink(missing_ok=True)

    def private_key(self, certificate: Certificate) -> files.Key:
        """For an export; `Refused` when the key may not leave."""
        if not certificate.exportable:
            raise Refused(
                f"the private key of {certificate.thumbprint} is not exportable; only a certificate made or imported "
                "with -PrivateKeyExportable $true gives its key away"
            )
        return _load_key(certificate.key)


def _checked(wish: Wish, services: tuple[str, ...]) -> tuple[list[str], x509.Name]:
    names, subject = identity(wish)
    for service in services:
        check_service(names[0], service)
    return names, subject


def _fault(certificate: x509.Certificate, key: Path) -> str:
    """Why it cannot be served; empty when it can."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        return "its extended key usage has no serverAuth"
    try:
        if files.public_bytes(_load_key(key)) != files.public_bytes(certificate):
            return "its private key belongs to another certificate"
    except Refused as error:
        return error.text
    return ""


def _load_key(path: Path) -> files.Key:
    try:
        return files.usable_key(serialization.load_pem_private_key(path.read_bytes(), None))
    except OSError as error:
        raise Refused(f"the key file {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm, Malformed):
        raise Refused(f"the key file {path} is damaged") from None
