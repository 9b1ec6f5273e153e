"""TLS contexts of a careful client, and handshake failures in words.

The contexts speak TLS 1.2 and 1.3 only and verify certificate and name against the system's authorities and, where
given, one more certificate (a data directory's own). A failure is told by OpenSSL's verification code or reason; where
the certificate is at fault it is fetched again without verification, only to say what is wrong with it: nothing is
ever sent over that second connection.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from letterlock.base.errors import Refused
from letterlock.base.facts import CertificateFact, Origin
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.wire import recognise

# OpenSSL's X509_V_ERR_ numbers (x509_vfy.h)
_VERIFY: Final = {
    9: Outcome.CERTIFICATE_NOT_YET_VALID,
    10: Outcome.CERTIFICATE_EXPIRED,
    18: Outcome.CERTIFICATE_SELF_SIGNED,
    19: Outcome.CERTIFICATE_UNTRUSTED,
    2: Outcome.CERTIFICATE_UNTRUSTED,
    20: Outcome.CERTIFICATE_UNTRUSTED,
    21: Outcome.CERTIFICATE_UNTRUSTED,
    23: Outcome.CERTIFICATE_REVOKED,
    62: Outcome.CERTIFICATE_NAME,
    64: Outcome.CERTIFICATE_NAME,
    66: Outcome.CERTIFICATE_WEAK,
    67: Outcome.CERTIFICATE_WEAK,
    68: Outcome.CERTIFICATE_WEAK,
}
_REASON: Final = {
    "UNSUPPORTED_PROTOCOL": Outcome.TLS_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": Outcome.TLS_VERSION,
    "WRONG_SSL_VERSION": Outcome.TLS_VERSION,
    "NO_PROTOCOLS_AVAILABLE": Outcome.TLS_VERSION,
    "UNKNOWN_PROTOCOL": Outcome.TLS_GARBAGE,
    "WRONG_VERSION_NUMBER": Outcome.TLS_GARBAGE,
    "HTTP_REQUEST": Outcome.TLS_GARBAGE,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": Outcome.TLS_NO_CIPHER,
    "SSL/TLS_ALERT_HANDSHAKE_FAILURE": Outcome.TLS_NO_CIPHER,
    "NO_SHARED_CIPHER": Outcome.TLS_NO_CIPHER,
    "DH_KEY_TOO_SMALL": Outcome.TLS_NO_CIPHER,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": Outcome.TLS_NO_CIPHER,
    "EE_KEY_TOO_SMALL": Outcome.CERTIFICATE_WEAK,
    "CA_KEY_TOO_SMALL": Outcome.CERTIFICATE_WEAK,
    "CA_MD_TOO_WEAK": Outcome.CERTIFICATE_WEAK,
}
CERTIFICATE: Final = frozenset(
    {
        Outcome.CERTIFICATE_NAME,
        Outcome.CERTIFICATE_EXPIRED,
        Outcome.CERTIFICATE_NOT_YET_VALID,
        Outcome.CERTIFICATE_SELF_SIGNED,
        Outcome.CERTIFICATE_UNTRUSTED,
        Outcome.CERTIFICATE_REVOKED,
        Outcome.CERTIFICATE_WEAK,
        Outcome.CERTIFICATE_INVALID,
    }
)


def verifying(trust: Path | None, name: bool = True) -> ssl.SSLContext:
    """Verifies the chain against the system's authorities and the certificates in `trust`, and the name."""
    context = ssl.create_default_context()
    context.check_hostname = name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # a leaf that is trusted by itself, as DIR/certificate.pem is, needs no issuer
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if trust is not None:
        try:
            context.load_verify_locations(cafile=str(trust))
        except (OSError, ssl.SSLError):
            raise Refused(f"the certificate file {trust} cannot be read") from None
    return context


def unverified(alpn: list[str] | None = None) -> ssl.SSLContext:
    """Takes any certificate and weak keys: to look at them, or because -TrustAnySSLCertificate says so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:@SECLEVEL=0")
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def failure(error: BaseException, first: bytes, where: str) -> Failed:
    """A handshake's exception as an outcome. `first`: how the peer's side of the handshake began."""
    if isinstance(error, Failed):
        return error
    if isinstance(error, TimeoutError):
        return Failed(Outcome.TLS_TIMED_OUT, where)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failed(_VERIFY.get(error.verify_code, Outcome.CERTIFICATE_INVALID), error.verify_message.rstrip("."))
    if isinstance(error, ssl.SSLError):
        reason = str(error.reason or "").upper()
        outcome = _REASON.get(reason)
        if outcome is None:
            outcome = Outcome.TLS_ALERT if "ALERT" in reason else Outcome.TLS_GARBAGE
        if outcome is Outcome.TLS_GARBAGE and recognise(first) in ("IMAP", "POP3", "SMTP"):
            return Failed(Outcome.CLEAR_ON_TLS_PORT, "", first.split(b"\r\n")[0])
        if outcome is Outcome.TLS_GARBAGE and recognise(first) not in ("", "TLS"):
            return Failed(Outcome.FOREIGN_GREETING, recognise(first), first.split(b"\r\n")[0])
        return Failed(outcome, reason.replace("_", " ").lower())
    return Failed(Outcome.TLS_CLOSED, where)


# --- certificates


def load(der: bytes) -> x509.Certificate | None:
    """A certificate; None when it cannot be read at all."""
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        return None


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and addresses of the subject alternative names, else the common names; lower case."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        return tuple(str(c.value).lower() for c in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    found = [n.lower() for n in alternative.get_values_for_type(x509.DNSName)]
    return tuple(found + [str(a) for a in alternative.get_values_for_type(x509.IPAddress)])


def matches(certificate: x509.Certificate, name: str) -> bool:
    """RFC 9525 §6.3: a wildcard stands for one whole left-most label, and never for an address."""
    wanted = name.lower().rstrip(".")
    try:
        wanted = str(ipaddress.ip_address(wanted.strip("[]")))
    except ValueError:
        parent = wanted.partition(".")[2]
        return any(n == wanted or (n.startswith("*.") and parent != "" and n[2:] == parent) for n in names(certificate))
    return wanted in names(certificate)


def self_signed(certificate: x509.Certificate) -> bool:
    """Issuer and subject are the same."""
    return certificate.issuer == certificate.subject


def key(certificate: x509.Certificate) -> str:
    """ "ECDSA 256", "RSA 2048", "Ed25519"."""
    try:
        public = certificate.public_key()
    except ValueError:
        return "unknown"
    if isinstance(public, rsa.RSAPublicKey):
        return f"RSA {public.key_size}"
    if isinstance(public, ec.EllipticCurvePublicKey):
        return f"ECDSA {public.key_size}"
    if isinstance(public, dsa.DSAPublicKey):
        return f"DSA {public.key_size}"
    if isinstance(public, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "Ed448" if isinstance(public, ed448.Ed448PublicKey) else "unknown"


def describe(certificate: x509.Certificate, outcome: Outcome) -> str:
    """What is wrong with it, for the sentence of `outcome`."""
    if outcome is Outcome.CERTIFICATE_NAME:
        return "it is for " + (", ".join(names(certificate)[:5]) or "no name at all")
    if outcome is Outcome.CERTIFICATE_EXPIRED:
        return f"on {date(certificate.not_valid_after_utc)}"
    if outcome is Outcome.CERTIFICATE_NOT_YET_VALID:
        return f"it begins on {date(certificate.not_valid_before_utc)}"
    if outcome is Outcome.CERTIFICATE_WEAK:
        return f"{key(certificate)}, {signature(certificate)}"
    return f"issued by {certificate.issuer.rfc4514_string()[:200]}"


def explain(certificate: x509.Certificate, outcome: Outcome, name: str) -> str:
    """`describe`, and what else is wrong with it: OpenSSL tells only the first fault."""
    also = []
    late, early = out_of_time(certificate)
    if late and outcome is not Outcome.CERTIFICATE_EXPIRED:
        also.append(f"it has expired {describe(certificate, Outcome.CERTIFICATE_EXPIRED)}")
    if early and outcome is not Outcome.CERTIFICATE_NOT_YET_VALID:
        also.append(describe(certificate, Outcome.CERTIFICATE_NOT_YET_VALID))
    if outcome is not Outcome.CERTIFICATE_NAME and not matches(certificate, name):
        also.append(describe(certificate, Outcome.CERTIFICATE_NAME) + f", not for {name}")
    if outcome is Outcome.CERTIFICATE_NAME:
        first = f"{describe(certificate, outcome)}, not for {name}"
    else:
        first = describe(certificate, outcome)
    return first + (f"; also, {' and '.join(also)}" if also else "")


def signature(certificate: x509.Certificate) -> str:
    """The hash of the signature: "sha256"; "none" for EdDSA, which has its own; "unknown"."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except Exception:  # an algorithm that cryptography does not know
        return "unknown"
    return algorithm.name if algorithm is not None else "none"


def out_of_time(certificate: x509.Certificate) -> tuple[bool, bool]:
    """Whether it has expired, and whether it is not valid yet."""
    now = datetime.datetime.now(datetime.UTC)
    return certificate.not_valid_after_utc < now, now < certificate.not_valid_before_utc


def fact(certificate: x509.Certificate, services: tuple[str, ...], origin: Origin) -> CertificateFact:
    """As a fact."""
    return CertificateFact(
        certificate.subject.rfc4514_string(),
        names(certificate),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        services,
        hashlib.sha1(certificate.public_bytes(serialization.Encoding.DER), usedforsecurity=False).hexdigest().upper(),
        self_signed(certificate),
        key(certificate),
        origin,
    )


def date(when: datetime.datetime) -> str:
    """For people."""
    return when.strftime("%Y-%m-%d")
