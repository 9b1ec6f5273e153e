"""Certificates and keys as files and texts: PEM, PKCS #7, PKCS #12; requests and self-signed certificates made.

What is read comes from anywhere: sizes and numbers are bounded, an error is one line that says what is wrong and never
holds a part of what was read. A password-protected file names the rounds of its key derivation itself; one that asks
for an absurd number is refused before it costs anything.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from letterlock.base.errors import Malformed, Refused

LIFETIME: Final = datetime.timedelta(days=825)  # the most that Apple's clients accept for a server certificate
MAX_FILE: Final = 256 * 1024
MAX_CERTIFICATES: Final = 20
MAX_ROUNDS: Final = 5_000_000  # of a password's derivation: some seconds; common files ask for 2,048 to 1,000,000
MIN_RSA: Final = 2048  # OpenSSL's security level 2, below which Debian's does not load a key
CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----[^-]{1,262144}-----END \1-----")


class Bundle(NamedTuple):
    """What a file held: certificates in its order, and a key where there was one."""

    certificates: list[x509.Certificate]
    key: Key | None


def thumbprint(der: bytes) -> str:
    """SHA-1 in capitals: an identifier, as in Exchange; nothing is secured by it."""
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303
    digest.update(der)
    return digest.finalize().hex().upper()


# --- files


def write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, synced, with `mode` from the first moment."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Refused(f"{path.name} cannot be written: {error.strerror}; nothing was changed") from None
    finally:
        os.close(descriptor)
    temporary.replace(path)


# --- reading


def decode(value: object) -> bytes:
    """The octets of -FileData: PEM text, base64, or a list of numbers as [byte[]] travels."""
    if isinstance(value, list | tuple):
        try:
            data = bytes(int(v) for v in value)
        except (TypeError, ValueError):
            raise Malformed("FileData: a list must hold numbers from 0 to 255") from None
    else:
        text = str(value).strip()
        if "-----BEGIN " in text:
            data = text.encode("utf-8", "replace")
        else:
            try:
                data = base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError):
                raise Malformed("FileData: neither PEM text nor base64, nor a file that exists") from None
    if not data:
        raise Malformed("FileData: is empty")
    if len(data) > MAX_FILE:
        raise Malformed(f"FileData: {len(data)} octets are too many for a certificate; allowed are {MAX_FILE}")
    return data


def read(data: bytes, password: str | None) -> Bundle:
    """Certificates and key of a PEM, PKCS #7, PKCS #12 or DER file; `Malformed` says what is wrong."""
    bundle = _read_pem(data, password) if b"-----BEGIN " in data else _read_der(data, password)
    if len(bundle.certificates) > MAX_CERTIFICATES:
        raise Malformed(f"FileData: more than {MAX_CERTIFICATES} certificates")
    if not bundle.certificates:
        raise Malformed("FileData: there is no certificate in it")
    return bundle


def _read_pem(data: bytes, password: str | None) -> Bundle:
    certificates: list[x509.Certificate] = []
    key: Key | None = None
    blocks = 0
    for block in _BLOCK.finditer(data):
        blocks += 1
        label = block[1]
        if blocks > 2 * MAX_CERTIFICATES:
            raise Malformed(f"FileData: more than {MAX_CERTIFICATES} certificates")
        if label in (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
            certificates.append(_certificate(block[0]))
        elif label in (b"PKCS7", b"CMS"):
            certificates += _pkcs7(block[0], pem=True)
        elif label.endswith(b"PRIVATE KEY"):
            if key is not None:
                raise Malformed("FileData: there is more than one private key in it")
            key = _private_key(block[0], password)
        elif label in (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"):
            raise Malformed("FileData: this is a certificate request; import what the authority answered to it")
    if not blocks:
        raise Malformed("FileData: the PEM text is damaged or cut off")
    return Bundle(certificates, key)


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificate(pem)
        found.extensions  # noqa: B018 - parsed on first use, and may be malformed
        found.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("FileData: a certificate in it is malformed or of an unknown kind") from None
    return found


def _pkcs7(data: bytes, pem: bool) -> list[x509.Certificate]:
    try:
        load = pkcs7.load_pem_pkcs7_certificates if pem else pkcs7.load_der_pkcs7_certificates
        return list(load(data))
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("FileData: the PKCS #7 data is malformed, or holds no certificates") from None


def _private_key(pem: bytes, password: str | None) -> Key:
    encrypted = b"ENCRYPTED" in pem
    if encrypted and password is None:
        raise Malformed("FileData: the private key is encrypted; give its -Password")
    try:
        _check_rounds(base64.b64decode(b"".join(pem.split(b"\n")[1:-1]), validate=False))
        key = serialization.load_pem_private_key(pem, (password or "").encode() if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if encrypted:
            raise Malformed(
                "FileData: the private key cannot be read; the password is wrong or it is damaged"
            ) from None
        raise Malformed("FileData: the private key is malformed or of an unknown kind") from None
    return usable_key(key)


def _read_der(data: bytes, password: str | None) -> Bundle:
    """PKCS #12, PKCS #7 or a single certificate: told apart by what can be read."""
    try:
        return Bundle([x509.load_der_x509_certificate(data)], None)
    except ValueError:
        pass
    try:
        return Bundle(list(pkcs7.load_der_pkcs7_certificates(data)), None)
    except (ValueError, UnsupportedAlgorithm):
        pass
    if not _looks_like_pkcs12(data):
        raise Malformed("FileData: neither PEM nor PKCS #7, PKCS #12 or a DER certificate")
    _check_rounds(data)
    try:
        found = pkcs12.load_pkcs12(data, (password or "").encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        hint = "the password is wrong, or it is damaged" if password else "it needs a -Password, or it is damaged"
        raise Malformed(f"FileData: the PKCS #12 file cannot be opened: {hint}") from None
    certificates = [c.certificate for c in (found.cert, *found.additional_certs) if c is not None]
    return Bundle(certificates, usable_key(found.key) if found.key is not None else None)


def _looks_like_pkcs12(data: bytes) -> bool:
    """PFX ::= SEQUENCE { version INTEGER 3, … (RFC 7292 §4)."""
    return data[:1] == b"\x30" and b"\x02\x01\x03" in data[:10]


def usable_key(key: object) -> Key:
    """A key that clients of today accept; `Malformed` otherwise."""
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA:
            raise Malformed(f"FileData: an RSA key of {key.key_size} bits is too weak; at least {MIN_RSA} are needed")
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    raise Malformed("FileData: the private key is of a kind that TLS clients do not use; use ECDSA (P-256) or RSA")


def _check_rounds(der: bytes) -> None:
    for rounds in _rounds(der, 0):
        if rounds > MAX_ROUNDS:
            raise Malformed(f"FileData: asks for {rounds} rounds of password derivation; allowed are {MAX_ROUNDS}")


def _rounds(der: bytes, depth: int) -> Iterator[int]:
    """Iteration counts: an INTEGER that follows an OCTET STRING (the salt), as in RFC 8018 and RFC 7292 §4."""
    at, salted = 0, False
    while at + 2 <= len(der) and depth < 16:
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            octets = size & 0x7F
            size = int.from_bytes(der[at : at + octets])
            at += octets
        body = der[at : at + size]
        if tag == 0x02 and salted and len(body) <= 9:
            yield int.from_bytes(body)
        salted = tag == 0x04
        if tag & 0x20 or (tag == 0x04 and body[:1] == b"\x30"):
            yield from _rounds(body, depth + 1)
        at += size


# --- what belongs together


def public_bytes(holder: Key | x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """The public half of a key, or of the key that something is about: for comparing."""
    public = holder.public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def leaf(bundle: Bundle, pending: set[bytes]) -> x509.Certificate:
    """The server's certificate: the key's, else a pending request's, else the one that issued no other."""
    own = {public_bytes(bundle.key)} if bundle.key is not None else pending
    for certificate in bundle.certificates:
        if public_bytes(certificate) in own:
            return certificate
    if bundle.key is not None:
        raise Malformed("FileData: the private key does not belong to any certificate in it")
    issuers = {c.issuer for c in bundle.certificates if c.issuer != c.subject}
    alone = [c for c in bundle.certificates if c.subject not in issuers]
    return (alone or bundle.certificates)[0]


def chain_of(certificate: x509.Certificate, others: list[x509.Certificate]) -> list[x509.Certificate]:
    """Its issuers in order, as far as they are there and their signatures hold; a root comes last."""
    found: list[x509.Certificate] = []
    current, rest = certificate, [c for c in others if c != certificate]
    while current.issuer != current.subject:
        issuer = next((c for c in rest if issued(current, c)), None)
        if issuer is None:
            break
        rest.remove(issuer)
        found.append(issuer)
        current = issuer
    return found


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed it."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # wrong names, wrong signature, unknown algorithm: not this one
        return False
    return True


def pem(certificates: list[x509.Certificate]) -> bytes:
    """As text, one after the other."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


# --- making


def new_key(algorithm: str, size: int) -> Key:
    """A key for a server: ECDSA P-256 or P-384, or RSA."""
    if algorithm == "RSA":
        return rsa.generate_private_key(65537, size)
    return ec.generate_private_key(ec.SECP384R1() if size == 384 else ec.SECP256R1())


def private_pem(key: Key) -> bytes:
    """The key for its file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def alternative_names(names: list[str]) -> x509.SubjectAlternativeName:
    """Host names, and addresses as what they are (RFC 5280 §4.2.1.6)."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(found)


def _digest(key: Key) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def request(key: Key, subject: x509.Name, names: list[str]) -> x509.CertificateSigningRequest:
    """A request for an authority (RFC 2986)."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(alternative_names(names), critical=False)
        .sign(key, _digest(key))
    )


def csr_pem(csr: x509.CertificateSigningRequest) -> bytes:
    """As text."""
    return csr.public_bytes(serialization.Encoding.PEM)


def self_signed(key: Key, subject: x509.Name, names: list[str]) -> x509.Certificate:
    """A server certificate that strict verifiers accept (RFC 5280 §4.2: key identifiers, usages, not a CA)."""
    today = datetime.datetime.now(datetime.UTC)
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
        .add_extension(alternative_names(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, _digest(key))
    )
