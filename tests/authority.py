"""A certificate authority for tests, with an intermediate, made on the spot."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY = datetime.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def key_pem(key: Key, password: str = "") -> bytes:
    seal = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, seal)


class Authority:
    """Root, intermediate, and what they sign."""

    def __init__(self) -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._sign(
            _name("Test Root"), self._root_key.public_key(), _name("Test Root"), self._root_key, True
        )
        self.intermediate = self._sign(
            _name("Test CA"), self._key.public_key(), self.root.subject, self._root_key, True
        )

    def _sign(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        issuer: x509.Name,
        by: Key,
        ca: bool,
        names: list[x509.GeneralName] | None = None,
        days: tuple[float, float] = (-1, 365),
        usage: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        today = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today + days[0] * DAY)
            .not_valid_after(today + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        )
        if ca:
            use = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(use, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(by, hashes.SHA256())

    def issue(
        self,
        *names: str,
        days: tuple[float, float] = (-1, 90),
        key: Key | None = None,
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
        subject: str | None = None,
    ) -> tuple[x509.Certificate, Key]:
        """A server certificate from the intermediate, and its key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        general: list[x509.GeneralName] = [x509.DNSName(n) for n in names]
        cn = names[0] if subject is None else subject
        made = self._sign(
            _name(cn), key.public_key(), self.intermediate.subject, self._key, False, general, days, usage
        )
        return made, key

    def answer(self, csr_pem: bytes) -> x509.Certificate:
        """What it answers to a request."""
        csr = x509.load_pem_x509_csr(csr_pem)
        assert csr.is_signature_valid
        names = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        public = csr.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        return self._sign(csr.subject, public, self.intermediate.subject, self._key, False, names, (-1, 90), usage)

    def whole(self, *names: str, **more: object) -> bytes:
        """Certificate, intermediate, root and key as one PEM text."""
        certificate, key = self.issue(*names, **more)  # type: ignore[arg-type]
        return pem(certificate, self.intermediate, self.root) + key_pem(key)

    def pkcs7(self, certificate: x509.Certificate, form: serialization.Encoding) -> bytes:
        """Certificate and chain, without a key."""
        return pkcs7.serialize_certificates([self.root, certificate, self.intermediate], form)

    def pkcs12(self, certificate: x509.Certificate, key: Key, password: str, rounds: int = 2048) -> bytes:
        """Certificate, chain and key under a password."""
        seal = (
            serialization.PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(rounds)
            .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
            .hmac_hash(hashes.SHA256())
            .build(password.encode())
        )
        return pkcs12.serialize_key_and_certificates(b"x", key, certificate, [self.intermediate], seal)
